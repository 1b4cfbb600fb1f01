#!/usr/bin/env python3
"""What the rule for auxiliary networks is worth: accuracy, time and memory of NeuroFlux by each.

All units are trained (no early stop), so that the rules do the same work, and the rules take turns
seed by seed. For each rule the table shows the mean and the sample standard deviation over seeds.
Needs the program (any build; Release and NF_NATIVE for times worth reading).
Usage: auxiliary_rules.py [--program build/release/tools/neuroflux] [--rules adaptive,pooled,…]
                          [--seeds 0,1,2] [--model vgg11] [--width 0.5] [--budget 32MiB] [--batch 64]
                          [--epochs 6] [--data FOLDER] [--device cpu] [--json FILE]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

from rounds import processor

HERE = pathlib.Path(__file__).resolve().parent


def train(options, rule, seed, folder):
    """What the program says of one training, and of its plan; None where it does not fit."""
    done = subprocess.run(
        [options.program, "train", "--method", "neuroflux", "--auxiliary", rule, "--seed", str(seed),
         "--model", options.model, "--width", str(options.width), "--budget", options.budget,
         "--batch", str(options.batch), "--epochs", str(options.epochs), "--data", options.data,
         "--device", options.device, "--no-early-stop", "--run-dir", folder, "--json"],
        capture_output=True, text=True)
    if done.returncode == 3:
        return None
    if done.returncode != 0:
        sys.exit(f"auxiliary_rules: {rule}, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
    method = json.loads(done.stdout)["methods"][0]
    plan = json.loads((folder / "plan.json").read_text())["methods"][0]
    exits = method["exits"]
    return {
        "rule": rule, "seed": seed,
        "best_exit_accuracy": max(e["validation_accuracy"] for e in exits),
        "last_exit_accuracy": exits[-1]["validation_accuracy"],
        "test_accuracy": method["test_accuracy"],
        "train_seconds": method["train_seconds"],
        "peak_bytes": method["measured_peak_bytes"],
        "least_budget_bytes": method["minimum_budget_bytes"],
        "cache_bytes": method["cache_bytes"],
        "auxiliary_parameters": sum(u["auxiliary_parameters"] for u in plan["units"]),
        "auxiliary_flops": sum(u["auxiliary_flops"] for u in plan["units"]),
        "unit_flops": sum(u["flops"] for u in plan["units"]),
        "exit_parameters": method["parameters"],
        "exit_accuracies": [e["validation_accuracy"] for e in exits],
    }


def spread(values, digits, factor=1.0):
    text = f"{statistics.mean(values) * factor:.{digits}f}"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values) * factor:.{digits}f}"
    return text


def table(runs, rules):
    lines = ["| rule | seeds | best exit, val % | last exit, val % | test % | training s | peak MiB "
             "| least budget MiB | auxiliary parameters | auxiliary / unit FLOPs |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for rule in rules:
        of = [r for r in runs if r["rule"] == rule]
        if not of:
            lines.append(f"| {rule} | 0 | does not fit | - | - | - | - | - | - | - |")
            continue
        column = lambda key: [r[key] for r in of]
        lines.append("| " + " | ".join([
            rule, str(len(of)), spread(column("best_exit_accuracy"), 2, 100),
            spread(column("last_exit_accuracy"), 2, 100), spread(column("test_accuracy"), 2, 100),
            spread(column("train_seconds"), 1), f"{max(column('peak_bytes')) / 2**20:.1f}",
            f"{max(column('least_budget_bytes')) / 2**20:.1f}",
            f"{of[0]['auxiliary_parameters']:,}",
            f"{of[0]['auxiliary_flops'] / of[0]['unit_flops']:.2f}"]) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path,
                        default=HERE.parent / "build" / "release" / "tools" / "neuroflux")
    parser.add_argument("--rules", default="adaptive,pooled,deep,proportional,classic")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", default="vgg11")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--budget", default="32MiB")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data", default=str(HERE / "data" / "fashion-mnist-6k"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    if not options.program.exists():
        sys.exit(f"auxiliary_rules: there is no {options.program}; build it or name it by --program")
    rules = options.rules.split(",")
    runs = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in map(int, options.seeds.split(",")):
            for rule in rules:
                run = train(options, rule, seed, pathlib.Path(scratch) / f"{rule}-{seed}")
                if run is not None:
                    runs.append(run)
    print(table(runs, rules))
    if options.json:
        settings = {key: value for key, value in vars(options).items()
                    if key not in ("program", "json", "data")}
        settings["data"] = pathlib.Path(options.data).name
        options.json.write_text(json.dumps(
            {"settings": settings, "processor": processor(), "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
