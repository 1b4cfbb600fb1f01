#!/usr/bin/env python3
"""Compares training steps, or inference, of this engine with PyTorch's, in one run on one machine.

The two take turns, A B A B: whatever else the machine does, both feel it. For each net and batch
it reports the median over the rounds of (images/s here) / (images/s of PyTorch's better layout),
with the smallest and largest ratio, and the processes' peak memory; --json FILE keeps all figures.
Needs a build with NF_BENCH (Release, NF_NATIVE) and PyTorch with a fast BLAS, which single images
go through (apt install python3-torch libopenblas0-pthread): with the reference BLAS that Debian
installs otherwise, PyTorch infers them at a sixth of its speed, and that is no comparison.
Usage: compare_pytorch.py [--build build/release] [--models vgg16,resnet18,mobilenet_v1]
                          [--batches 4,16,64] [--rounds 5] [--steps 5] [--threads 2] [--inference]
                          [--json FILE]
"""
import argparse
import json
import os
import pathlib
import statistics
import sys

import rounds

HERE = pathlib.Path(__file__).resolve().parent


def compare(options, train_step, model, batch):
    """One row: ratios by round, and what each engine measured."""
    common = ["--model", model, "--batch", str(batch), "--steps", str(options.steps), "--threads",
              str(options.threads), "--device", options.device]
    if options.inference:
        common.append("--inference")
    turns = []
    for _ in range(options.rounds):
        # PyTorch's convolutions round to TF32 on GPUs too.
        tf32 = ["--tf32"] if options.device.startswith("cuda") else []
        ours = rounds.run([train_step, *common, *tf32, "--json"])
        theirs = [rounds.run([sys.executable, HERE / "pytorch_step.py", *common, "--layout", layout])
                  for layout in ("nhwc", "nchw")]
        best = max(theirs, key=lambda t: t["images_per_second"])
        turns.append({"ratio": ours["images_per_second"] / best["images_per_second"],
                       "ours": ours, "theirs": theirs, "better_layout": best["layout"],
                       "memory_ratio": ours["process_peak_bytes"] / best["process_peak_bytes"]})
    ratios = [r["ratio"] for r in turns]
    best = [max(t["images_per_second"] for t in r["theirs"]) for r in turns]
    return {
        "model": model, "batch": batch, "rounds": turns,
        **rounds.spread(ratios),
        "images_per_second": statistics.median(r["ours"]["images_per_second"] for r in turns),
        "pytorch_images_per_second": statistics.median(best),
        "memory_ratio": statistics.median(r["memory_ratio"] for r in turns),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=HERE.parent / "build" / "release", type=pathlib.Path)
    parser.add_argument("--models", default=rounds.MODELS)
    parser.add_argument("--batches", default="4,16,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    train_step = rounds.train_step(options.build)

    rows = []
    print(f"{'model':14} {'batch':>5} {'images/s':>9} {'PyTorch':>9} {'ratio':>6} {'range':>13} {'memory':>7}")
    for model in options.models.split(","):
        for batch in map(int, options.batches.split(",")):
            row = compare(options, train_step, model, batch)
            rows.append(row)
            print(f"{model:14} {batch:5} {row['images_per_second']:9.1f} "
                  f"{row['pytorch_images_per_second']:9.1f} {row['ratio']:6.2f} {rounds.range_text(row):>13} "
                  f"{row['memory_ratio']:7.2f}", flush=True)
    blas = rows[0]["rounds"][0]["theirs"][0]["blas"]
    if blas is not None and not any(name in blas for name in ("openblas", "mkl", "blis")):
        print(f"compare_pytorch: PyTorch runs on {blas}, which is slow for single images; "
              "apt install libopenblas0-pthread", file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(
            {"processor": rounds.processor(), "cores": os.cpu_count(), "threads": options.threads,
             "rounds": options.rounds, "steps": options.steps, "device": options.device,
             "pass": "inference" if options.inference else "training",
             "commit": rows[0]["rounds"][0]["ours"]["commit"],
             "pytorch": rows[0]["rounds"][0]["theirs"][0]["engine"], "blas": blas, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
