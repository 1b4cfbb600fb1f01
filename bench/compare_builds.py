#!/usr/bin/env python3
"""Compares training steps, or inference, of two builds of this engine, in one run on one machine.

The two take turns, A B A B: whatever else the machine does, both feel it. For each net and batch
it reports the median over the rounds of (images/s of B) / (images/s of A), with the smallest and
largest ratio, and the same of (processor time of A) / (of B), all threads together, which a busy
machine disturbs less: set OMP_WAIT_POLICY=PASSIVE there, or waiting counts as work. More than 1
says that B is faster. --json FILE keeps all figures. Builds need NF_BENCH; a shared library that a build
has its own of, as another oneDNN, is found where it was linked.
Usage: compare_builds.py A B [--models vgg16,resnet18,mobilenet_v1] [--batches 4,16,64]
                         [--rounds 5] [--steps 5] [--threads 2] [--inference] [--json FILE]
"""
import argparse
import json
import os
import pathlib
import statistics

import rounds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("builds", nargs=2, type=pathlib.Path, metavar="BUILD")
    parser.add_argument("--models", default=rounds.MODELS)
    parser.add_argument("--batches", default="4,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    programs = [rounds.train_step(build) for build in options.builds]

    rows = []
    print(f"{'model':14} {'batch':>5} {'A images/s':>10} {'B images/s':>10} {'B / A':>6} "
          f"{'range':>13} {'by processor time':>20}")
    for model in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            command = ["--model", model, "--batch", str(batch), "--steps", str(options.steps),
                       "--threads", str(options.threads), "--json"]
            if options.inference:
                command.append("--inference")
            pairs = [[rounds.run([program, *command]) for program in programs]
                     for _ in range(options.rounds)]
            rates = [[pair[i]["images_per_second"] for pair in pairs] for i in (0, 1)]
            row = {"model": model, "batch": batch, "rounds": pairs,
                   **rounds.spread([b / a for a, b in zip(*rates)]),
                   "cpu": rounds.spread([a["step_cpu_seconds"] / b["step_cpu_seconds"]
                                         for a, b in pairs])}
            rows.append(row)
            medians = " ".join(f"{statistics.median(r):10.1f}" for r in rates)
            print(f"{model:14} {batch:5} {medians} {row['ratio']:6.2f} "
                  f"{rounds.range_text(row):>13} {row['cpu']['ratio']:6.2f} "
                  f"{rounds.range_text(row['cpu']):>13}", flush=True)
    if options.json:
        options.json.write_text(json.dumps(
            {"processor": rounds.processor(), "cores": os.cpu_count(), "threads": options.threads,
             "pass": "inference" if options.inference else "training", "rows": rows},
            indent=1) + "\n")


if __name__ == "__main__":
    main()
