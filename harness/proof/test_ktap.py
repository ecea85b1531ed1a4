#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest  # noqa: E402
from proof import ktap  # noqa: E402

KUNIT = """KTAP version 1
1..1
    KTAP version 1
    # Subtest: suite
    1..3
        KTAP version 1
        # Subtest: params
        ok 1 a
        {a}ok 2 b
    {a}ok 1 params
    ok 2 plain
    ok 3 other # SKIP no highmem
{a}ok 1 suite
"""


class Ktap(unittest.TestCase):
    def check(self, text, passed, failed, skipped, incomplete=False):
        got = ktap.parse(text)
        self.assertEqual((got.passed, got.failed, got.skipped, got.incomplete),
                         (passed, failed, skipped, incomplete))

    def test_flat(self):
        self.check("TAP version 13\n1..3\n# said\nok 1 one\nnot ok 2 two\nok 3 three # SKIP why\n",
                   ["one"], ["two"], ["three (why)"])

    def test_nothing_to_run(self):
        self.check("1..1\nok 1 one\nTAP version 13\n1..0 # SKIP no fio\n",
                   ["one"], [], [], True)

    def test_two_devices_one_plan(self):
        self.check("1..2\nok 1 rxe connect\nok 2 siw connect\n",
                   ["rxe connect", "siw connect"], [], [])

    def test_cut_off(self):
        self.check("1..3\nok 1 one\n", ["one"], [], [], True)

    def test_nothing(self):
        self.check("", [], [], [], True)
        self.check("1..0 # SKIP all\n", [], [], [], True)
        self.check("ok 1 without a plan\n", ["without a plan"], [], [], True)

    def test_bail_out(self):
        self.check("1..1\nBail out! no target\n", [], ["Bail out! no target"], [], True)

    def test_reason_of_a_failure(self):
        results = ktap.parse("1..3\n# 3 mappings\nok 1 a\nnot ok 2 b\n# 1 s\n# no peer\nnot ok 3 c\n")
        self.assertEqual(results.failures(), ["b", "c: no peer"])
        self.assertEqual(results.failed, ["b", "c"])

    def test_kunit(self):
        self.check(KUNIT.format(a=""), ["params.a", "params.b", "suite.plain"], [],
                   ["suite.other (no highmem)"])

    def test_kunit_failed_leaf(self):
        self.check(KUNIT.format(a="not "), ["params.a", "suite.plain"], ["params.b"],
                   ["suite.other (no highmem)"])

    def test_kunit_ran_no_case(self):
        # what debugfs shows of a suite when KUnit is disabled
        self.check("KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: suite\n"
                   "    1..17\nok 1 suite\n", [], [], [], True)

    def test_kunit_suite_fails_by_itself(self):
        self.check("1..1\n    # Subtest: suite\n    1..1\n    ok 1 case\nnot ok 1 suite\n",
                   ["suite.case"], ["suite"], [])


class Splats(unittest.TestCase):
    def test_found(self):
        for line in ("WARNING: lib/refcount.c:28 at refcount_warn+0x1/0x2, CPU#1: x/1",
                     "BUG: KASAN: slab-use-after-free in f+0x1/0x2",
                     "WARNING: possible circular locking dependency detected",
                     "BUG: sleeping function called from invalid context at a.c:1",
                     "Kernel panic - not syncing: x", "Oops: general protection fault",
                     "INFO: task fio:12 blocked for more than 120 seconds.",
                     "DMA-API: device driver has pending DMA allocations while released",
                     "list_add corruption. prev->next should be next",
                     "UBSAN: array-index-out-of-bounds in a.c:1:1",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU"):
            self.assertEqual(guest.splats(f"[    1.0] fine\n[    2.0] {line}\n"),
                             [f"[    2.0] {line}"])

    def test_not_found(self):
        for line in ("calibrate_delay_direct() failed to get loops_per_jiffy.",
                     "DMA-API: preallocated 65536 debug entries",
                     "kmemleak: Kernel memory leak detector disabled",
                     "nvme0n1: I/O Cmd(0x0) @ LBA 3952, 73 blocks, I/O Error (sct 0x3 / sc 0x70)"):
            self.assertEqual(guest.splats(f"[    2.0] {line}\n"), [])


if __name__ == "__main__":
    unittest.main()
