#!/usr/bin/env python3
"""How a training step's time grows with the image: 32x32 against a larger size, by turns.

For each net it reports the median over the rounds of (time an image at the larger size) / (time at
the smaller), with the smallest and largest ratio, beside the ratio of the net's FLOPs: where time
grows no faster than FLOPs, their quotient is at most 1. Last stands the ratio of processor times,
all threads together, as compare_builds.py has it. --json FILE keeps all figures.
Needs a build with NF_BENCH (Release, NF_NATIVE).
Usage: image_size.py [--build build/release] [--models vgg16,resnet18,mobilenet_v1] [--batch 16]
                     [--sizes 32,64] [--rounds 5] [--steps 5] [--threads 2] [--inference]
                     [--json FILE]
"""
import argparse
import json
import os
import pathlib
import statistics

import rounds

HERE = pathlib.Path(__file__).resolve().parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", default=HERE.parent / "build" / "release", type=pathlib.Path)
    parser.add_argument("--models", default=rounds.MODELS)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--sizes", default="32,64")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--inference", action="store_true")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    program = rounds.train_step(options.build)
    sizes = [int(size) for size in options.sizes.split(",")]
    if len(sizes) != 2:
        parser.error(f"--sizes: two are compared, got {options.sizes}")

    rows = []
    print(f"{'model':14} {'ms/image':>9} {'ms/image':>9} {'times':>6} {'range':>13} {'FLOPs':>6} "
          f"{'times/FLOPs':>11} {'by processor time':>20}")
    for model in options.models.split(","):
        command = [program, "--model", model, "--batch", str(options.batch), "--steps",
                   str(options.steps), "--threads", str(options.threads), "--json"]
        if options.inference:
            command.append("--inference")
        pairs = [[rounds.run([*command, "--input", f"{size}x{size}x3"]) for size in sizes]
                 for _ in range(options.rounds)]
        times = [[1e3 / pair[i]["images_per_second"] for pair in pairs] for i in (0, 1)]
        cpu = rounds.spread([b["step_cpu_seconds"] / a["step_cpu_seconds"] for a, b in pairs])
        flops = pairs[0][1]["flops_per_image"] / pairs[0][0]["flops_per_image"]
        row = {"model": model, "batch": options.batch, "sizes": sizes, "flops_ratio": flops,
               "cpu": cpu,
               "rounds": pairs, **rounds.spread([b / a for a, b in zip(*times)])}
        rows.append(row)
        medians = " ".join(f"{statistics.median(t):9.3f}" for t in times)
        print(f"{model:14} {medians} {row['ratio']:6.2f} {rounds.range_text(row):>13} {flops:6.2f} "
              f"{row['ratio'] / flops:11.2f} {cpu['ratio']:6.2f} {rounds.range_text(cpu):>13}",
              flush=True)
    if options.json:
        options.json.write_text(json.dumps(
            {"processor": rounds.processor(), "cores": os.cpu_count(), "threads": options.threads,
             "pass": "inference" if options.inference else "training", "rows": rows},
            indent=1) + "\n")


if __name__ == "__main__":
    main()
