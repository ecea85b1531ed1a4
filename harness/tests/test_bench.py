#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import bench  # noqa: E402

KALLSYMS = """0000000060001000 T first
0000000060001040 t second
0000000060001050 D data
00000000700a0000 t siw_tx	[siw]
"""


class Run:
    """What costs() and builder_table() want of a guest's Watch."""
    def __init__(self, seconds=(), blocks=()):
        self.seconds = dict(seconds)
        self.blocks = blocks


class Watch(bench.Watch):
    """The CPU clock goes on by one second with each look at it."""
    now = 0

    def begin(self):
        Watch.now += 1
        self.start = Watch.now

    def end(self):
        Watch.now += 1
        self.seconds[self.load] = Watch.now - self.start


class Numbers(unittest.TestCase):
    def test_ratio(self):
        self.assertEqual(bench.ratio([1, 2, 4], [1, 1, 3]), (0.75, 0.5, 1))

    def test_costs(self):
        runs = [Run({("rxe", "SEND 64 B"): 3}), Run({("rxe", "SEND 64 B"): 4.5})]
        self.assertEqual(bench.costs(runs, "rxe", "SEND 64 B", 1000), [3000, 4500])

    def test_costs_without_the_start_of_fio(self):
        runs = [Run({("nvme-rxe", "fio alone"): 1, ("nvme-rxe", "reads"): 3})]
        self.assertEqual(bench.costs(runs, "nvme-rxe", "reads", 1000), [2000])

    def test_row(self):
        self.assertEqual(bench.row("x", [10, 20, 30], [5, 20, 60]),
                         ("x", "20.0", "20.0", "1.00", "0.50-2.00"))

    def test_builder(self):
        runs = [Run(blocks=[("direct", "single", 10000, 9000), ("direct", "single", 10000, 7000),
                            ("direct", "single", 10000, 8000), ("software", "list", 5000, 5000)])]
        lines = bench.builder_table(runs)
        self.assertEqual([line.split()[-4:] for line in lines[1:3]],
                         [["5.0", "5.0", "1.00", "1.00-1.00"],
                          ["10.0", "8.0", "0.80", "0.80-0.80"]])

    def test_table(self):
        lines = bench.table("what", ("a", "bbb"), [("x", "1.0", "2"), ("y" * 32, "10.0", "3")])
        self.assertEqual(lines, ["what".ljust(32) + "     a  bbb",
                                 "x".ljust(32) + "   1.0    2",
                                 "y" * 32 + "  10.0    3", ""])

    def test_a_structure_that_one_kernel_lacks(self):
        lines = bench.size_rows("bytes", ["a", "b", "c"],
                                {"stock": {"a": 16, "b": 8}, "series": {"a": 24, "c": 8}})
        self.assertEqual([line.split() for line in lines[1:4]],
                         [["a", "16", "24", "+8"], ["b", "8", "-", "-"], ["c", "-", "8", "-"]])


class Guests(unittest.TestCase):
    def test_what_a_guest_says(self):
        watch = Watch()
        for line in ("bench block software list 100 90\n",
                     "bench begin siw READ 4 KiB\n", "bench end siw READ 4 KiB\n",
                     "bench fio 4 KiB random reads\n", "TAP version 13\n", "1..3\n",
                     "ok 1 rxe connect\n", "ok 2 rxe fio\n", "ok 3 rxe disconnect\n"):
            watch(line)
        self.assertEqual(watch.seconds, {("siw", "READ 4 KiB"): 1,
                                         ("nvme-rxe", "4 KiB random reads"): 1})
        self.assertEqual(watch.blocks, [("software", "list", 100, 90)])

    def test_no_end_no_number(self):
        watch = Watch()
        for line in ("bench begin rxe SEND 64 B", "bench failed: rxe SEND 64 B"):
            watch(line)
        self.assertEqual(watch.seconds, {})
        self.assertEqual(watch.last, "bench failed: rxe SEND 64 B")

    def test_each_load_is_in_the_script(self):
        text = bench.script(bench.PARTS, True)
        for load in bench.RDMA_LOADS:
            self.assertIn(f"move 'siw {load[0]}' '{load[1]} {load[2]} ", text)
        self.assertEqual(text.count("\nnvme rxe"), len(bench.NVME_LOADS))
        self.assertIn("\nbuilder 10\n", text)
        self.assertNotIn("\nbuilder 10\n", bench.script(["rxe"], False))

    def test_guest_processes_when_there_are_none(self):
        self.assertEqual(bench.guest_processes(), [])


class Profile(unittest.TestCase):
    def test_shares(self):
        samples = "60001000 x\n6000103f x\n60001041 \n\n700a0010 y\n" \
                  "ffffffff81000000 finish\n7f0000000000 libc\n40000 z\n"
        self.assertEqual(dict(bench.shares(samples, KALLSYMS)),
                         {"first": 2, "second": 1, "siw_tx": 1, "(host kernel)": 1,
                          "(user space)": 2})


if __name__ == "__main__":
    unittest.main()
