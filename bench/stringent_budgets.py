#!/usr/bin/env python3
"""NeuroFlux against backpropagation under the least budget at which BP can run a given batch.

For each net it finds that budget (by `neuroflux plan`, to the KiB), then runs `neuroflux compare`
there for every seed, the nets by turns within a seed: both methods get the same images, order,
initial values, epochs and learning rate. The table tells, as mean ± sample standard deviation over
seeds, how much sooner NeuroFlux first had BP's final validation accuracy (planning, caching and
evaluation included), accuracies, parameters and inference speed of what is delivered, and each
method's own least budget. All runs are kept in --runs; --json FILE keeps what the table is made of.
Usage: stringent_budgets.py --data FOLDER [--program build/release/tools/neuroflux]
                            [--models vgg11,vgg16,resnet18,mobilenet_v1] [--width 0.5]
                            [--bp-batch 4] [--batch 64] [--epochs 6] [--lr 0.1] [--seeds 0,1,2]
                            [--methods bp,neuroflux] [--train-limit 12000] [--device cpu]
                            [--runs FOLDER] [--json FILE] [further flags of `neuroflux compare`]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

from rounds import processor

HERE = pathlib.Path(__file__).resolve().parent
KIB = 1024


def program(options, arguments, accept=(0,)):
    done = subprocess.run([options.program, *map(str, arguments), "--json"], capture_output=True,
                          text=True)
    if done.returncode not in accept:
        sys.exit(f"stringent_budgets: neuroflux {' '.join(map(str, arguments))}:\n"
                 f"{done.stderr.strip()}")
    return json.loads(done.stdout)


def common(options, model):
    return ["--model", model, "--width", options.width, "--device", options.device,
            "--data", options.data, "--pad-to", 32, "--train-limit", options.train_limit,
            "--validation-fraction", options.validation_fraction]


def stringent_budget(options, model):
    """The least number of KiB at which backpropagation gets its batch."""
    def fits(kib):
        bp = program(options, ["plan", *common(options, model), "--methods", "bp", "--batch",
                               options.bp_batch, "--budget", kib * KIB], accept=(0, 3))["methods"][0]
        return bp["status"] == "ok" and bp["batches"][0] >= options.bp_batch
    low, high = 0, 1 << 20
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * KIB


def spread(values, digits, factor=1.0):
    values = [value * factor for value in values if value is not None]
    if not values:
        return "-"
    text = f"{statistics.mean(values):.{digits}f}"
    return text + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def row(options, model, budget, summaries):
    by_name = [{m["name"]: m for m in summary["methods"]} for summary in summaries]
    bp, local = [m["bp"] for m in by_name], [m["neuroflux"] for m in by_name]
    if any(m["status"] != "ok" for m in bp + local):
        least = max(m["minimum_budget_bytes"] for m in local) / 2**20
        return f"| {model} | {budget / 2**20:.1f} MiB | NeuroFlux does not fit: {least:.1f} MiB |"
    ratio = lambda over, under, key: [a[key] / b[key] for a, b in zip(over, under)
                                      if a[key] is not None and b[key] is not None]
    reached = sum(m["seconds_to_bp_accuracy"] is not None for m in local)
    exact = all(m["predicted_peak_bytes"] == m["measured_peak_bytes"] for m in bp + local)
    return "| " + " | ".join([
        model, f"{budget / 2**20:.1f} MiB",
        f"{spread(ratio(bp, local, 'seconds_to_bp_accuracy'), 2)} ({reached} of {len(local)})",
        spread(ratio(bp, local, "total_seconds"), 2),
        spread([m["total_seconds"] for m in bp], 0), spread([m["total_seconds"] for m in local], 0),
        spread([m["validation_accuracy"] for m in bp], 2, 100),
        spread([m["validation_accuracy"] for m in local], 2, 100),
        spread([m["test_accuracy"] for m in bp], 2, 100),
        spread([m["test_accuracy"] for m in local], 2, 100),
        spread([m["full_parameters"] / m["parameters"] for m in local], 1),
        spread(ratio(local, bp, "inference_images_per_second"), 2),
        f"{bp[0]['minimum_budget_bytes'] / local[0]['minimum_budget_bytes']:.2f}",
        "yes" if exact else "NO"]) + " |"


HEADER = ("| net | budget | sooner at BP's accuracy (seeds that got there) | sooner finished "
          "| BP s | NeuroFlux s | BP val % | NF val % | BP test % | NF test % | times fewer parameters "
          "| times the inference speed | BP's least budget / NF's | predicted = measured peak |\n"
          "|" + "---|" * 14)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path,
                        default=HERE.parent / "build" / "release" / "tools" / "neuroflux")
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", default="vgg11,vgg16,resnet18,mobilenet_v1")
    parser.add_argument("--methods", default="bp,neuroflux")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--bp-batch", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--train-limit", type=int, default=12000)
    parser.add_argument("--validation-fraction", type=float, default=1 / 6)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/stringent"))
    parser.add_argument("--json", type=pathlib.Path)
    options, further = parser.parse_known_args()
    if not options.program.exists():
        sys.exit(f"stringent_budgets: there is no {options.program}; build it or name it by --program")
    models = options.models.split(",")
    budgets = {model: stringent_budget(options, model) for model in models}
    results = {model: [] for model in models}
    settings = {key: str(value) for key, value in vars(options).items()
                if key not in ("program", "data", "runs", "json")} | {"further": further}
    for seed in map(int, options.seeds.split(",")):
        for model in models:
            folder = options.runs / f"{model}-seed{seed}"
            resumed = ["--resume", folder] if (folder / "run.json").exists() else [
                *common(options, model), "--methods", options.methods, "--seed", seed, "--budget",
                budgets[model], "--batch", options.batch, "--epochs", options.epochs, "--lr",
                options.lr, "--run-dir", folder, *further]
            results[model].append(program(options, ["compare", *resumed]))
            print(row(options, model, budgets[model], results[model][-1:]), file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(
                    {"settings": settings, "processor": processor(), "budget_bytes": budgets,
                     "runs": results}, indent=1) + "\n")
    print(HEADER)
    for model in models:
        print(row(options, model, budgets[model], results[model]))


if __name__ == "__main__":
    main()
