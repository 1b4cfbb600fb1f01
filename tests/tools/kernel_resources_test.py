#!/usr/bin/env python3
"""Tests tools/kernel_resources on what nvcc 13 prints. Usage: kernel_resources_test.py"""
import pathlib
import subprocess
import sys
import unittest

PROGRAM = pathlib.Path(__file__).resolve().parents[2] / "tools" / "kernel_resources"

# Lines as ptxas writes them, in what else a build prints.
CLEAN = """\
[1/8] Building CUDA object kernels/CMakeFiles/nf_kernels_cuda.dir/pool2d.cu.o
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN2nf4cuda14average_kernelINS0_3f16ELi8EEEvNS0_7PoolingEiPKT_PS4_' for 'sm_75'
ptxas info    : Function properties for _ZN2nf4cuda14average_kernelINS0_3f16ELi8EEEvNS0_7PoolingEiPKT_PS4_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 34 registers, used 1 barriers, 552 bytes cmem[0]
ptxas info    : Compile time = 19.795 ms
ptxas info    : Compiling entry function '_ZN2nf4cuda14average_kernelINS0_3f16ELi8EEEvNS0_7PoolingEiPKT_PS4_' for 'sm_90'
ptxas info    : Function properties for _ZN2nf4cuda14average_kernelINS0_3f16ELi8EEEvNS0_7PoolingEiPKT_PS4_
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 38 registers, used 1 barriers, 256 bytes smem
ptxas info    : Compile time = 17.131 ms
"""
SPILLING = """\
ptxas info    : Compiling entry function '_Z6greedyIfEvPKT_PS0_i' for 'sm_90'
ptxas info    : Function properties for _Z6greedyIfEvPKT_PS0_i
    1472 bytes stack frame, 1788 bytes spill stores, 2116 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers, 1472 bytes cumulative stack size, 256 bytes smem
"""
# A function that was not inlined is told after the kernel that calls it.
SPILLING_FUNCTION = """\
ptxas info    : Compiling entry function 'caller' for 'sm_80'
ptxas info    : Function properties for caller
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, used 0 barriers, 360 bytes cmem[0]
ptxas info    : Function properties for _Z6helperf
    16 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
"""


def run(text):
    done = subprocess.run([sys.executable, PROGRAM], input=text, capture_output=True, text=True)
    return done.returncode, [line.split() for line in done.stdout.splitlines()], done.stderr


class KernelResources(unittest.TestCase):
    def test_a_line_per_kernel_and_architecture(self):
        status, rows, errors = run(CLEAN)
        self.assertEqual((status, errors), (0, ""))
        self.assertEqual(rows[1:], [
            ["average_kernel<f16,", "8>", "sm_75", "34", "0", "0", "0", "0"],
            ["average_kernel<f16,", "8>", "sm_90", "38", "256", "0", "0", "0"],
            ["1", "kernels,", "sm_75", "sm_90"]])

    def test_a_spill_fails_and_is_named(self):
        status, rows, errors = run(CLEAN + SPILLING)
        self.assertEqual(status, 1)
        self.assertIn(["greedy<float>", "sm_90", "64", "256", "1472", "1788", "2116", "SPILLS"],
                      rows)
        self.assertEqual(errors,
                         "kernel_resources: registers are spilled in greedy<float> (sm_90)\n")

    def test_a_spill_in_a_function_that_was_not_inlined(self):
        status, rows, errors = run(SPILLING_FUNCTION)
        self.assertEqual(status, 1)
        self.assertIn(["helper", "sm_80", "-", "0", "16", "8", "4", "SPILLS"], rows)
        self.assertIn(["caller", "sm_80", "12", "0", "0", "0", "0"], rows)
        self.assertIn("helper (sm_80)", errors)

    def test_a_spill_stays_where_the_kernel_is_there_again_without(self):
        self.assertEqual(run(SPILLING + SPILLING.replace("1788", "0").replace("2116", "0"))[0], 1)

    def test_a_log_without_kernels_fails(self):
        for text in ("", "[1/1] Building CXX object engine/tensor.cpp.o\n"):
            status, rows, errors = run(text)
            self.assertEqual((status, rows), (1, []))
            self.assertIn("names no kernel", errors)


if __name__ == "__main__":
    unittest.main()
