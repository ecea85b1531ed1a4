#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest
import unittest.mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from measure import bench  # noqa: E402

KALLSYMS = """0000000060001000 T first
0000000060001040 t second
0000000060001050 D data
00000000700a0000 t siw_tx	[siw]
"""


class Run:
    """What the tables want of a Guest."""
    def __init__(self, seconds=(), blocks=()):
        self.seconds = dict(seconds)
        self.blocks = blocks


class Waiting(bench.Guest):
    """A Guest without one."""
    def run(self, kern, text):
        pass


class Numbers(unittest.TestCase):
    def test_row(self):
        # a round that was disturbed does not count, a pair that was does
        stock = [[10, 10, 10], [20, 20, 20], [30, 30, 30]]
        series = [[5, 900, 5], [20, 20, 20], [60, 60, 60]]
        self.assertEqual(bench.row("x", stock, series),
                         ("x", "20.0", "20.0", "1.00", "0.50-2.00"))

    def test_costs(self):
        run = Run({("rxe", "SEND 64 B"): [3, 4.5]})
        self.assertEqual(bench.costs(run, "rxe", "SEND 64 B", 1000), [3000, 4500])

    def test_costs_without_the_start(self):
        run = Run({("nvme-rxe", bench.ALONE): [1, 1, 9], ("nvme-rxe", "reads"): [3, 5],
                   ("rxe", "reads"): [3]})
        self.assertEqual(bench.costs(run, "nvme-rxe", "reads", 1000), [2000, 4000])
        self.assertEqual(bench.costs(run, "rxe", "reads", 1000), [3000])

    def test_builder(self):
        blocks = [("direct", "single", 10000, cost) for cost in (9000, 7000, 8000)]
        blocks += [(device, what, 5000, 5000) for device in bench.BUILDER_DEVICES
                   for what in bench.BUILDER_MAPS if (device, what) != ("direct", "single")]
        lines = bench.builder_table([Run(blocks=blocks)])
        last = len(bench.BUILDER_MAPS)
        self.assertEqual([line.split()[-4:] for line in lines[last:last + 2]],
                         [["5.0", "5.0", "1.00", "1.00-1.00"],
                          ["10.0", "8.0", "0.80", "0.80-0.80"]])

    def test_builder_knows_what_the_module_measures(self):
        text = (bench.SOURCE / "sge_bench.c").read_text()
        self.assertEqual(re.findall(r"^\tBENCH_WHAT\((\w+)", text, re.M),
                         list(bench.BUILDER_MAPS))

    def test_table(self):
        lines = bench.table("what", ("a", "bbb"), [("x", "1.0", "2"), ("y" * 32, "10.0", "3")])
        self.assertEqual(lines, ["what".ljust(32) + "     a  bbb",
                                 "x".ljust(32) + "   1.0    2",
                                 "y" * 32 + "  10.0    3", ""])

    def test_a_structure_that_one_kernel_lacks(self):
        lines = bench.size_rows("bytes", ["a", "b", "c"],
                                {"stock": {"a": 20, "b": 8}, "fixed": {"a": 16, "b": 8},
                                 "series": {"a": 24, "c": 8}})
        self.assertEqual([line.split() for line in lines[1:4]],
                         [["a", "20", "16", "24", "+8"], ["b", "8", "8", "-", "-"],
                          ["c", "-", "-", "8", "-"]])


CRC = """
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
typedef uint8_t u8;
typedef uint32_t u32;
enum { CRC32_LE_OPTIMIZATION };
static u32 crc32_le_base(u32 crc, const u8 *p, size_t len)
{
	while (len--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = (crc >> 1) ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return crc;
}
#include "crc32.h"
int main(void)
{
	static u8 bytes[1100];
	int len, i;

	for (i = 0; i < sizeof(bytes); i++)
		bytes[i] = i * i >> 3;
	for (len = 0; len < 1000; len++)
		for (i = 0; i < 17; i++)
			if (crc32_le_arch(~len, bytes + i, len) !=
			    crc32_le_base(~len, bytes + i, len))
				return 1;
	return crc32_optimizations_arch() != CRC32_LE_OPTIMIZATION;
}
"""


class Crc(unittest.TestCase):
    def test_quick_and_slow_are_the_same(self):
        """Two kernels that both compute another checksum would understand each other."""
        if " pclmulqdq " not in pathlib.Path("/proc/cpuinfo").read_text():
            self.skipTest("the CPU has no carry-less multiplication")
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["gcc", "-O2", "-Wall", "-Werror", f"-I{bench.SOURCE}/crc", "-x", "c",
                            "-", "-o", f"{folder}/crc"], input=CRC, text=True, check=True)
            self.assertEqual(subprocess.run([f"{folder}/crc"]).returncode, 0)


class Guests(unittest.TestCase):
    def test_each_load_is_in_the_script(self):
        text = bench.script(bench.PARTS)
        for load in bench.RDMA_LOADS:
            self.assertEqual(text.count(f" move {load[1]} {load[2]} "), 3 * bench.ROUNDS)
        self.assertEqual(text.count(" t_fio\n"),
                         len(bench.DISKS) * bench.ROUNDS * len(bench.DISK_LOADS))
        self.assertEqual(text.count(" perftest ib_"),
                         bench.ROUNDS * sum(len(load[3]) for load in bench.USER_LOADS))
        self.assertEqual(text.count(" builder\n"), bench.ROUNDS)
        self.assertNotIn(" t_fio", bench.script(["rxe"]))

    def test_each_turn_has_its_name(self):
        names = [name for _, _, name, _ in bench.steps(bench.PARTS)]
        self.assertEqual(len(names), len(set(names)))

    def test_script_is_bash(self):
        done = subprocess.run(["bash", "-n"], input=bench.script(bench.PARTS), text=True,
                              stderr=subprocess.PIPE)
        self.assertEqual(done.stderr, "")

    def guest(self):
        with unittest.mock.patch.object(bench.guest, "scratch",
                                        return_value=pathlib.Path(self.tmp.name)):
            return Waiting("x", None, [])

    def setUp(self):
        self.tmp = tempfile.TemporaryDirectory()
        self.addCleanup(self.tmp.cleanup)

    def test_what_a_guest_says(self):
        one = self.guest()
        for line in ("bench block software list 100 90\n", "bench ready siw.0.0\n",
                     "TAP version 13\n", "bench done siw.0.0\n"):
            one.hear(line)
        one.expect("ready", "siw.0.0")
        one.expect("done", "siw.0.0")
        self.assertEqual(one.blocks, [("software", "list", 100, 90)])

    def test_a_guest_that_fails(self):
        one = self.guest()
        one.hear("bench failed: rxe.0.0\n")
        one.said.put(None)
        with self.assertRaisesRegex(bench.BenchError, "x: bench failed: rxe.0.0 "):
            one.expect("ready", "rxe.1.0")

    def test_cpu_of(self):
        before = bench.cpu_of(os.getpid())
        while time.process_time() < before + 0.02:
            pass
        self.assertGreater(bench.cpu_of(os.getpid()), before + 0.01)


class Profile(unittest.TestCase):
    SAMPLES = "60001000\n6000103f\n60001041\n\n700a0010\nffffffff81000000\n7f0000000000\n40000\n"

    def test_where(self):
        self.assertEqual(dict(bench.where(self.SAMPLES, KALLSYMS)),
                         {"first": 2, "second": 1, "[siw]": 1, "host's kernel": 1,
                          "libc and user space": 2})

    def test_text(self):
        profile = Run()
        profile.samples = {("siw", "READ 1 MiB"): {"memcpy": 120, "[siw]": 78, "x": 2}}
        text = bench.profile_text(profile, profile)
        self.assertEqual([line.split()[-3:] for line in text.splitlines()[1:]],
                         [["memcpy", "60.0", "60.0"], ["[siw]", "39.0", "39.0"],
                          ["rest", "1.0", "1.0"]])


if __name__ == "__main__":
    unittest.main()
