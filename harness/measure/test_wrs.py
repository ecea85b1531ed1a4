#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from measure import wrs  # noqa: E402

# a write is read by the target, through 8 SGEs of 4 KiB for each WR and one MR of 1 MiB
# of the host's
OUTPUT = f"""\
# count write r0 2 4 4 256
# count write r0 32 2 0 {2 << 20}
# count write r1 4 64 512 {2 << 20}
# count read r1 0 4 4 {4 << 20}
# count read r1 32 1 0 {1 << 20}
ok 2 rxe count
"""


class Wrs(unittest.TestCase):
    def test_counted(self):
        self.assertEqual(wrs.counted(OUTPUT)["write", "r1", wrs.READ], (64, 512, 2))

    def test_figures(self):
        counts = wrs.counted(OUTPUT)
        self.assertEqual(wrs.figures(counts, "write"), (32, 256, 0, 1))
        self.assertEqual(wrs.figures(counts, "read"), (1, 1, 1, 0))


if __name__ == "__main__":
    unittest.main()
