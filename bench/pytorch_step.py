#!/usr/bin/env python3
"""Times whole training steps, or inference, of the same nets in PyTorch, as bench/train_step does.

Prints one JSON line with train_step's keys. Works with PyTorch 1.13 (Debian's python3-torch) and
later, on the CPU and on CUDA.
Usage: pytorch_step.py --model vgg16 --batch 64 [--layout nhwc|nchw] [--size 32] [--inference]
                       [--device cpu|cuda] [--threads 2] [--steps 10]
"""
import argparse
import json
import pathlib
import resource
import statistics
import sys
import time

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    sys.exit("pytorch_step: PyTorch is missing. On Debian or Ubuntu: apt install python3-torch")

WARM_UP_STEPS = 3
VGG = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
VGG_CHANNELS = (64, 128, 256, 512, 512)
MOBILENET_V1 = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5,
                (1024, 2), (1024, 1))


class ConvNormRelu(nn.Sequential):
    def __init__(self, inputs, outputs, kernel=3, stride=1, groups=1):
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Residual(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.first = ConvNormRelu(inputs, outputs, 3, stride)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                                          nn.BatchNorm2d(outputs))

    def forward(self, x):
        kept = x if self.shortcut is None else self.shortcut(x)
        return F.relu(self.norm(self.second(self.first(x))) + kept, inplace=True)


def make_net(name, classes):
    """The nets of nn/models for 32x32 images of 3 channels."""
    layers, channels = [], 3
    if name in VGG:
        for depth, outputs in zip(VGG[name], VGG_CHANNELS):
            for _ in range(depth):
                layers.append(ConvNormRelu(channels, outputs))
                channels = outputs
            layers.append(nn.MaxPool2d(2))
    elif name == "resnet18":
        layers, channels = [ConvNormRelu(3, 64)], 64
        for stage, outputs in enumerate((64, 128, 256, 512)):
            for block in range(2):
                layers.append(Residual(channels, outputs, 2 if stage > 0 and block == 0 else 1))
                channels = outputs
    else:
        layers, channels = [ConvNormRelu(3, 32)], 32
        for outputs, stride in MOBILENET_V1:
            layers += [ConvNormRelu(channels, channels, 3, stride, groups=channels),
                       ConvNormRelu(channels, outputs, 1)]
            channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(channels, classes))


def blas_library():
    """The BLAS that PyTorch was linked to at run time, for what it does not leave to oneDNN."""
    try:
        maps = pathlib.Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    return next((line.split()[-1] for line in maps if "blas" in line.split()[-1]), None)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=[*VGG, "resnet18", "mobilenet_v1"], default="vgg16")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=32, help="height and width of an image")
    parser.add_argument("--layout", choices=["nchw", "nhwc"], default="nhwc")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--inference", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    on_gpu = options.device.startswith("cuda")
    if on_gpu:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if options.layout == "nhwc" else torch.contiguous_format
    net = make_net(options.model, 10).to(options.device).to(memory_format=layout)
    images = torch.randn(options.batch, 3, options.size, options.size, device=options.device)
    images = images.contiguous(memory_format=layout)
    labels = torch.randint(0, 10, (options.batch,), device=options.device)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def train():
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(net(images), labels).backward()
        optimizer.step()

    def infer():
        with torch.no_grad():
            net(images)

    step = infer if options.inference else train
    if options.inference:
        net.eval()
    seconds = []
    for _ in range(WARM_UP_STEPS + options.steps):
        start = time.perf_counter()
        step()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    seconds = seconds[WARM_UP_STEPS:]
    median = statistics.median(seconds)
    result = {
        "engine": f"pytorch-{torch.__version__}", "model": options.model, "batch": options.batch,
        "layout": options.layout, "device": options.device, "threads": options.threads,
        "images_per_second": options.batch / median, "step_seconds": median,
        "step_seconds_min": min(seconds), "step_seconds_max": max(seconds),
        "blas": blas_library(),
        "process_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    if on_gpu:
        result["peak_bytes"] = torch.cuda.max_memory_reserved()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
