"""What scripts share that time programs by turns: running one, ratios over rounds, the machine."""
import json
import pathlib
import platform
import statistics
import subprocess
import sys

MODELS = "vgg16,resnet18,mobilenet_v1"


def run(command):
    """The JSON object that `command` prints on its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        name = pathlib.Path(sys.argv[0]).stem
        sys.exit(f"{name}: {' '.join(map(str, command))} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def train_step(build):
    """The program of that build."""
    program = build / "bench" / "train_step"
    if not program.exists():
        name = pathlib.Path(sys.argv[0]).stem
        sys.exit(f"{name}: there is no {program}; configure with -DNF_BENCH=ON -DNF_NATIVE=ON")
    return program


def spread(ratios):
    """The median with the smallest and the largest."""
    return {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}


def range_text(row):
    return f"{row['ratio_min']:.2f} to {row['ratio_max']:.2f}"


def processor():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
