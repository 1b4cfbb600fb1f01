#!/usr/bin/env python3
"""Writes a class-balanced part of Fashion-MNIST as IDX files, the same bytes at every run.

Takes the first images of each class, keeps their order, and lists the files in SHA256SUMS.
"""

import argparse
import collections
import gzip
import hashlib
import pathlib
import struct
import sys

IMAGES_MAGIC = 0x00000803
LABELS_MAGIC = 0x00000801
CLASSES = 10


def read_pair(folder, prefix):
    """Returns (list of images as bytes, height, width, labels)."""
    path = folder / f"{prefix}-images-idx3-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    magic, count, height, width = struct.unpack_from(">4I", data)
    if magic != IMAGES_MAGIC or len(data) != 16 + count * height * width:
        sys.exit(f"{path}: not an IDX file of images")
    size = height * width
    images = [data[16 + i * size : 16 + (i + 1) * size] for i in range(count)]

    path = folder / f"{prefix}-labels-idx1-ubyte.gz"
    data = gzip.decompress(path.read_bytes())
    if struct.unpack_from(">2I", data) != (LABELS_MAGIC, count) or len(data) != 8 + count:
        sys.exit(f"{path}: not an IDX file of {count} labels")
    return images, height, width, data[8:]


def first_of_each_class(labels, per_class, path):
    taken = collections.Counter()
    chosen = []
    for index, label in enumerate(labels):
        if taken[label] < per_class:
            taken[label] += 1
            chosen.append(index)
    if len(chosen) != per_class * CLASSES:
        sys.exit(f"{path}: {per_class} images of each class are needed, found {dict(taken)}")
    return chosen


def write_gzip(path, data):
    # No time and no name in the header: the bytes depend on the data alone.
    with open(path, "wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file:
            file.write(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=pathlib.Path, help="folder with the full gzip IDX files")
    parser.add_argument("target", type=pathlib.Path, help="folder to write")
    parser.add_argument("--train-per-class", type=int, default=600)
    parser.add_argument("--test-per-class", type=int, default=100)
    options = parser.parse_args()

    options.target.mkdir(parents=True, exist_ok=True)
    written = []
    for prefix, per_class in (("train", options.train_per_class), ("t10k", options.test_per_class)):
        images, height, width, labels = read_pair(options.source, prefix)
        chosen = first_of_each_class(labels, per_class, options.source)
        for name, data in (
            (
                f"{prefix}-images-idx3-ubyte.gz",
                struct.pack(">4I", IMAGES_MAGIC, len(chosen), height, width)
                + b"".join(images[i] for i in chosen),
            ),
            (
                f"{prefix}-labels-idx1-ubyte.gz",
                struct.pack(">2I", LABELS_MAGIC, len(chosen)) + bytes(labels[i] for i in chosen),
            ),
        ):
            write_gzip(options.target / name, data)
            written.append(name)

    sums = [
        f"{hashlib.sha256((options.target / name).read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(written)
    ]
    (options.target / "SHA256SUMS").write_text("".join(sums))


if __name__ == "__main__":
    main()
