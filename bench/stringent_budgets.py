#!/usr/bin/env python3
"""NeuroFlux against backpropagation under the least budget at which BP can run a given batch.

For each net it finds that budget (by `neuroflux plan`, to the KiB), then runs `neuroflux compare`
there for every seed, the nets by turns within a seed: both methods get the same images, order,
initial values, epochs and learning rate. With --local the baseline `local` is run too, under no
budget, since it needs far more. The tables tell, as mean ± sample standard deviation over seeds,
how much sooner NeuroFlux first had a baseline's final validation accuracy (planning, caching and
evaluation included), accuracies, peaks, parameters and inference speed of the exit that is
delivered and of the least one within half a point of BP, and each method's own least budget. With
--exit-within-bp POINTS NeuroFlux delivers the least exit within so many points of BP itself. All
runs are kept in --runs and not run again; --json FILE keeps what the tables are made of.
Usage: stringent_budgets.py --data FOLDER [--program build/release/tools/neuroflux]
                            [--models vgg11,vgg16,resnet18,mobilenet_v1] [--width 0.5]
                            [--bp-batch 4] [--batch 64] [--epochs 6] [--lr 0.1] [--seeds 0,1,2]
                            [--methods bp,neuroflux] [--local] [--local-batch BATCH]
                            [--exit-within-bp POINTS]
                            [--train-limit 15000]
                            [--validation-fraction 0.3333] [--device cpu] [--runs FOLDER]
                            [--json FILE] [further flags of `neuroflux compare`]
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
    # A comparison in which a method diverged fails behind its results, which say so.
    if done.returncode not in accept and not (done.returncode == 1 and done.stdout):
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


def fitting(summaries, name):
    """The method's part of each summary, or None where it did not fit somewhere."""
    found = [next((m for m in summary["methods"] if m["name"] == name), None)
             for summary in summaries]
    return found if all(m and m["status"] == "ok" for m in found) else None


def values(runs, key):
    return [run[key] for run in runs]


def ratios(over, under):
    return [a / b if a is not None and b is not None else None for a, b in zip(over, under)]


def counted(found):
    """Mean and spread of what is there, and how much of it is."""
    return f"{spread(found, 2)} ({sum(f is not None for f in found)} of {len(found)})"


def seconds_to(run, accuracy):
    """When a run first had that validation accuracy; None: never."""
    return next((point["elapsed_seconds"] for point in run["history"]
                 if point["validation_accuracy"] >= accuracy), None)


def least_exit(run, accuracy):
    """The exit of the fewest parameters with that validation accuracy; None: there is none."""
    enough = [e for e in run["exits"] if e["validation_accuracy"] >= accuracy]
    return min(enough, key=lambda e: e["parameters"], default=None)


def mib(runs, key):
    return spread([value / 2**20 for value in values(runs, key)], 1)


def time_row(bp, neuroflux):
    exact = all(m["predicted_peak_bytes"] == m["measured_peak_bytes"] for m in bp + neuroflux)
    return [counted(ratios(values(bp, "seconds_to_bp_accuracy"),
                           values(neuroflux, "seconds_to_bp_accuracy"))),
            spread(ratios(values(bp, "total_seconds"), values(neuroflux, "total_seconds")), 2),
            spread(values(bp, "total_seconds"), 0), spread(values(neuroflux, "total_seconds"), 0),
            *(spread(values(runs, f"{part}_accuracy"), 2, 100)
              for part in ("validation", "test") for runs in (bp, neuroflux)),
            "yes" if exact else "NO"]


def exit_row(bp, neuroflux):
    least = [least_exit(n, b["validation_accuracy"] - 0.005 - 1e-9) for b, n in zip(bp, neuroflux)]
    full = bp[0]["parameters"]
    speeds = values(bp, "inference_images_per_second")
    return [spread([full / m["parameters"] for m in neuroflux], 1),
            spread(ratios(values(neuroflux, "inference_images_per_second"), speeds), 2),
            spread([n["validation_accuracy"] - b["validation_accuracy"]
                    for b, n in zip(bp, neuroflux)], 2, 100),
            counted([e and full / e["parameters"] for e in least]),
            spread(ratios([e and e["inference_images_per_second"] for e in least], speeds), 2),
            spread([e and e["validation_accuracy"] - b["validation_accuracy"]
                    for b, e in zip(bp, least)], 2, 100)]


def local_row(local, neuroflux):
    own = [seconds_to(m, m["validation_accuracy"]) for m in local]
    ours = [seconds_to(n, m["validation_accuracy"]) for m, n in zip(local, neuroflux)]
    return [counted(ratios(own, ours)),
            spread(ratios(values(local, "total_seconds"), values(neuroflux, "total_seconds")), 2),
            spread(values(local, "total_seconds"), 0),
            spread(values(local, "validation_accuracy"), 2, 100),
            spread(values(local, "test_accuracy"), 2, 100),
            mib(local, "measured_peak_bytes"), mib(neuroflux, "measured_peak_bytes"),
            spread(ratios(values(local, "measured_peak_bytes"),
                          values(neuroflux, "measured_peak_bytes")), 2)]


TABLES = {
    "Time and accuracy": (
        "bp", time_row,
        ["sooner at BP's accuracy (seeds that got there)", "sooner finished", "BP s", "NF s",
         "BP val %", "NF val %", "BP test %", "NF test %", "predicted = measured peak"]),
    "Exits": (
        "bp", exit_row,
        ["delivered: times fewer parameters", "times BP's inference speed", "points above BP",
         "least within 0.5 points of BP: times fewer parameters (seeds that have one)",
         "times BP's inference speed", "points above BP"]),
    "Against `local`": (
        "local", local_row,
        ["sooner at local's accuracy (seeds that got there)", "sooner finished", "local s",
         "local val %", "local test %", "local peak MiB", "NF peak MiB", "times less memory"])}


def print_tables(models, budgets, results):
    for title, (baseline, row, header) in TABLES.items():
        lines = []
        for model in models:
            pair = [fitting(results[model], name) for name in (baseline, "neuroflux")]
            if all(pair):
                lines.append([model, f"{budgets[model] / 2**20:.1f} MiB", *row(*pair)])
        if lines:
            print(f"{title}:\n" + "\n".join("| " + " | ".join(line) + " |" for line in [
                ["net", "budget", *header], ["---"] * (len(header) + 2), *lines]) + "\n")
    print("Least budgets, MiB:")
    for model in models:
        print(f"{model}: " + ", ".join(f"{m['name']} {m['minimum_budget_bytes'] / 2**20:.1f}"
                                       for m in results[model][0]["methods"]))


def run_pair(options, model, budget, seed, further):
    """Both methods under the budget; with --local, that baseline under none besides."""
    def compare(folder, methods, budget, batch, chosen=()):
        return program(options, ["compare", *(["--resume", folder] if (folder / "run.json").exists()
            else [*common(options, model), "--methods", methods, "--seed", seed, "--budget", budget,
                  "--batch", batch, "--epochs", options.epochs, "--lr", options.lr,
                  "--run-dir", folder, *chosen, *further])])
    chosen = () if options.exit_within_bp is None else ("--exit-within-bp", options.exit_within_bp)
    summary = compare(options.runs / f"{model}-seed{seed}", options.methods, budget,
                      options.batch, chosen)
    if summary["budget_bytes"] != budget:
        sys.exit(f"stringent_budgets: {options.runs}/{model}-seed{seed} was run under "
                 f"{summary['budget_bytes']} bytes, the budget is {budget} now: remove it")
    if options.local:
        alone = compare(options.runs / f"{model}-seed{seed}-local", "local", "all",
                        options.local_batch or options.batch)
        summary["methods"] += [m | {"budget_bytes": alone["budget_bytes"]} for m in alone["methods"]]
    return summary


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=pathlib.Path,
                        default=HERE.parent / "build" / "release" / "tools" / "neuroflux")
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", default="vgg11,vgg16,resnet18,mobilenet_v1")
    parser.add_argument("--methods", default="bp,neuroflux")
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--local-batch", type=int)
    parser.add_argument("--exit-within-bp", type=float)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--bp-batch", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--train-limit", type=int, default=15000)
    parser.add_argument("--validation-fraction", type=float, default=1 / 3)
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
            results[model].append(run_pair(options, model, budgets[model], seed, further))
            if options.json:
                options.json.write_text(json.dumps(
                    {"settings": settings, "processor": processor(), "budget_bytes": budgets,
                     "runs": results}, indent=1) + "\n")
            told = ", ".join(f"{m['name']} {100 * m['validation_accuracy']:.2f} % after "
                             f"{m['total_seconds']:.0f} s" if m["status"] == "ok" else
                             f"{m['name']}: {m['status']}" for m in results[model][-1]["methods"])
            print(f"stringent_budgets: {model}, seed {seed}: {told}", file=sys.stderr, flush=True)
    print_tables(models, budgets, results)


if __name__ == "__main__":
    main()
