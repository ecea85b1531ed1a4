#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
import os
import pathlib
import sys
import time
import unittest
from unittest import mock

HARNESS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(HARNESS), str(HARNESS / "in-guest")]
import run_pyverbs  # noqa: E402
from proof import userland  # noqa: E402
from proof.userland import Run  # noqa: E402

STOCK = {"a": "passed", "b": "failed", "c": "skipped", "rping": "passed"}


class Differences(unittest.TestCase):
    def check(self, expected, splats=((), ()), problems=(None, None), **ours):
        ours = {test: verdict for test, verdict in (STOCK | ours).items() if verdict}
        self.assertEqual(userland.differences(Run(STOCK, splats[0], problems[0]),
                                              Run(ours, splats[1], problems[1])), expected)

    def test_same(self):
        self.check([])

    def test_better(self):
        self.check([], b="passed", c="passed", new="passed")

    def test_passes_no_more(self):
        for verdict in ("failed", "skipped"):
            self.check([f"rping: passed on stock, {verdict} on the series"], rping=verdict)

    def test_why(self):
        self.assertEqual(userland.differences(Run({"a": "passed"}), Run(
            {"a": "failed"}, reasons={"a": "client: status 1"})), [
                "a: passed on stock, failed on the series (client: status 1)"])

    def test_ran_on_stock_only(self):
        self.check(["a: passed on stock, not run on the series",
                    "b: failed on stock, not run on the series",
                    "c: skipped on stock, not run on the series"], a=None, b=None, c=None)

    def test_failed_before(self):
        self.check(["b: failed on stock, skipped on the series"], b="skipped")

    def test_skipped_before(self):
        self.check(["c: skipped on stock, failed on the series"], c="failed")

    def test_ours_has_to_pass(self):
        run = Run({"rxe user_sge.UserSge.test_x": "failed"})
        self.assertEqual(userland.differences(run, run), [
            "rxe user_sge.UserSge.test_x: failed on stock, failed on the series"])

    def test_unstable(self):
        test, = userland.UNSTABLE
        stock = Run({test: "passed"})
        self.assertEqual(userland.differences(stock, Run({test: "failed"})), [])
        self.assertIn(f"not compared: {test}: passed on stock, failed on the series",
                      "".join(userland.notes(stock, Run({test: "failed"}))))
        self.assertEqual(len(userland.differences(stock, Run({}))), 1)

    def test_runs_on_series_only(self):
        self.check(["new: not run on stock, failed on the series"], new="failed")

    def test_splat(self):
        self.check(["a: splat on the series: BUG: x"], splats=({}, {"a": "BUG: x"}))
        self.check(["between tests: splat on the series: BUG: x"],
                   splats=({"a": "BUG: x"}, {None: "BUG: x"}))

    def test_splat_known_on_stock(self):
        splats = {"a": "BUG: x"}
        self.check([], splats=(splats, splats))
        self.assertIn("a: splat on stock: BUG: x",
                      userland.notes(Run(STOCK, splats), Run(STOCK, splats)))

    def test_not_complete(self):
        self.check(["stock: the guest hung"], problems=("the guest hung", None))
        self.check(["series: did not finish"], problems=(None, "did not finish"))


class Complete(unittest.TestCase):
    OUTPUT = "TAP version 13\n1..2\nok 1 rxe rping\nok 2 rxe a # SKIP no b\n"

    def problem(self, output, why=None):
        done = mock.Mock(output=output, why=why, dmesg="")
        with mock.patch.object(userland.guest, "run", return_value=done), \
                mock.patch.object(userland.guest, "scratch", lambda: pathlib.Path("/scratch")), \
                mock.patch.object(userland, "suite", lambda: "tests"):
            kern = mock.Mock(kind="uml")
            return userland.run(kern, ["rxe", "siw"]).problem

    def test_all_there(self):
        self.assertIsNone(self.problem(self.OUTPUT + self.OUTPUT.replace("rxe", "siw")))

    def test_half_a_plan(self):
        self.assertIn("did not finish", self.problem(self.OUTPUT.replace("1..2", "1..3")))

    def test_device_that_is_left_out(self):
        self.assertIn("did not finish", self.problem(self.OUTPUT))

    def test_died(self):
        self.assertIn("the guest died", self.problem(self.OUTPUT, "the guest died"))


class Verdicts(unittest.TestCase):
    """Tests share a process until one fails."""
    class Cases(unittest.TestCase):
        def tells(self):
            self.skipTest(f"by {os.getpid()}")

        def passes(self):
            pass

        def fails(self):
            self.fail("why")

        def crashes(self):
            os.abort()

        def hangs(self):
            time.sleep(60)

    def setUp(self):
        os.environ["DEVICE"] = "rxe"
        kmsg = mock.patch.object(run_pyverbs, "mark")
        kmsg.start()
        self.addCleanup(kmsg.stop)

    def run_all(self, *names):
        return list(run_pyverbs.run([self.Cases(name) for name in names], 2))

    def check(self, name, expected, why):
        """One test, the result of which is not that of the next."""
        first, (verdict, text), last = self.run_all("tells", name, "tells")
        self.assertEqual(verdict, expected)
        self.assertIn(why, text)
        self.assertEqual((first[0], last[0]), ("skipped", "skipped"))
        self.assertEqual(first[1] == last[1], verdict != "failed")
        self.assertNotIn(str(os.getpid()), first[1])

    def test_all(self):
        self.check("passes", "passed", "")
        self.check("tells", "skipped", "by ")
        self.check("fails", "failed", "AssertionError: why")
        self.check("crashes", "failed", "the process died")
        self.check("hangs", "failed", "no end in 2 s")

    def test_last(self):
        for name, expected in (("passes", "passed"), ("crashes", "failed")):
            self.assertEqual([what for what, _ in self.run_all("passes", name)],
                             ["passed", expected])

    def test_long_reason(self):
        with mock.patch.object(run_pyverbs, "verdict", return_value=("failed", "ü" * 10000)):
            self.assertEqual(self.run_all("passes"), [("failed", "ü" * 4000)])


if __name__ == "__main__":
    unittest.main()
