#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What makes a run in a guest a failure."""
import contextlib
import io
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest  # noqa: E402
from proof import test as harness  # noqa: E402

GOOD = "TAP version 13\n1..2\nok 1 rxe connect\nok 2 rxe verify # SKIP no disk\n"


class Guest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.scratch = pathlib.Path(folder.name)
        self.out = self.scratch / "uml-x"
        self.out.mkdir()

    def run_it(self, output=GOOD, status=0, dmesg="", why=None, kind="uml", append=(), leaks=None,
               name="x"):
        """Totals of a guest that leaves this, and what test.py prints."""
        def left(*_, **__):
            (self.out / "dmesg").write_text(dmesg)
            if leaks is not None:
                (self.out / "kmemleak").write_text(leaks)
            return guest.Result(status, output, "", self.out, why, 1)

        totals = harness.Totals()
        printed = io.StringIO()
        with mock.patch.object(guest, "run", left), \
                mock.patch.object(guest, "scratch", lambda: self.scratch), \
                contextlib.redirect_stdout(printed):
            harness.guest_test(totals, mock.Mock(kind=kind), name, 1, "", *append)
        return (totals.passed, totals.failed, totals.skipped), printed.getvalue()

    def test_good(self):
        counts, text = self.run_it()
        self.assertEqual(counts, (1, 0, 1))
        self.assertIn("skipped rxe verify (no disk)", text)

    def test_not_ok(self):
        counts, text = self.run_it(GOOD.replace("ok 1", "not ok 1"))
        self.assertEqual(counts, (0, 1, 1))
        self.assertIn("FAILED rxe connect", text)

    def test_end(self):
        """What failed stands together at the end, and the sum below it."""
        totals, printed = harness.Totals(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            totals.add("x in uml", 1, ["rxe connect: no route"], [], 1)
            totals.add("y in uml", 1, [], ["rxe verify (no disk)"], 1)
            totals.end()
        self.assertEqual(printed.getvalue().splitlines()[-2:],
                         ["FAILED x in uml: rxe connect: no route",
                          "2 passed, 1 failed, 1 skipped"])

    def test_ends_early(self):
        for output in ("", GOOD.replace("1..2", "1..3"), "1..0\n"):
            self.assertIn("did not finish (status 3", self.run_it(output, status=3)[1])

    def test_ended_between_scripts(self):
        self.assertEqual(self.run_it(status=1)[0], (1, 0, 1))
        counts, text = self.run_it(status=124)
        self.assertEqual(counts, (1, 1, 1))
        self.assertIn("did not finish (status 124", text)

    def test_selftest_that_does_not_run(self):
        """One of several in a guest."""
        for status, more in ((0, 0), (1, 0), (2, 1), (127, 1)):
            with tempfile.TemporaryDirectory() as tree:
                path = pathlib.Path(tree, "tools/testing/selftests/rdma/x.sh")
                path.parent.mkdir(parents=True)
                path.write_text(f"#!/bin/sh\necho $SIZE $1\nexit {status}\n")
                path.chmod(0o755)
                done = subprocess.run(["bash", "-c", harness.selftest("x", "rxe", "SIZE='1 M'")],
                                      env=dict(os.environ, GUEST_TREE_OF_TESTS=tree), text=True,
                                      capture_output=True)
            self.assertEqual(done.stdout.splitlines(),
                             ["1 M rxe"] + ["not ok 1 x ends early"] * more)

    def test_hung(self):
        self.assertIn("FAILED the guest hung",
                      self.run_it(status=None, why="the guest hung")[1])

    def test_splat_fails_its_test(self):
        dmesg = ("[    1.0] selftest: rxe connect\n[    1.1] BUG: KASAN: x\n[    1.2] WARNING: y\n"
                 "[    2.0] selftest: rxe verify\n")
        counts, text = self.run_it(dmesg=dmesg)
        self.assertEqual(counts, (0, 1, 1))
        self.assertIn("FAILED rxe connect: splat: [    1.1] BUG: KASAN: x", text)

    def test_splat_between_tests(self):
        counts, text = self.run_it(dmesg="[    0.5] WARNING: y\n")
        self.assertEqual(counts, (1, 1, 1))
        self.assertIn("FAILED x: splat", text)

    def test_leak(self):
        counts, text = self.run_it(append=("kmemleak=on",), leaks="unreferenced object 0x1\n")
        self.assertEqual(counts, (1, 1, 1))
        self.assertIn("FAILED kmemleak: unreferenced object", text)
        self.assertEqual(self.run_it(append=("kmemleak=on",), leaks="no scan\n")[0], (1, 1, 1))
        self.assertEqual(self.run_it(append=("kmemleak=on",), leaks="")[0], (1, 0, 1))

    def test_kmemleak_did_not_look(self):
        counts, text = self.run_it(append=("kmemleak=on",))
        self.assertEqual(counts, (1, 1, 1))
        self.assertIn("FAILED kmemleak did not look", text)

    def test_no_highmem_is_no_reason_on_i386(self):
        output = GOOD.replace("no disk", "no highmem")
        self.assertEqual(self.run_it(output, kind="i386")[0], (1, 1, 0))
        self.assertEqual(self.run_it(output)[0], (1, 0, 1))

    def test_no_twin_is_no_reason_on_twins(self):
        output = GOOD.replace("no disk", "no twin of an adapter")
        self.assertEqual(self.run_it(output, kind="x86", name="twin-iommu")[0], (1, 1, 0))
        self.assertEqual(self.run_it(output)[0], (1, 0, 1))

    def test_ulp_without_bytes(self):
        lines = GOOD + "".join(f"# twin: {name}\n# wrote=1 verified=1\n"
                               for name in ("NVMe-oF", "SRP", "RNBD", "RDS")) + "# twin:\n"
        with mock.patch.object(harness.twins, "SHOW", ""):
            totals, printed = self.run_it(lines)
        self.assertEqual(totals, (5, 1, 1))
        self.assertIn("FAILED bytes of iSER on a twin", printed)

    def test_job_that_raises(self):
        totals, jobs = harness.Totals(), harness.Jobs()
        ran = []
        jobs.put(2, "a", mock.Mock(side_effect=SystemExit("harness: no disk space")))
        jobs.put(1, "b", lambda: ran.append(1))
        jobs.close()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            harness.work(jobs, totals)
        self.assertEqual((totals.failed, ran), (1, [1]))
        self.assertIn("FAILED SystemExit: harness: no disk space", printed.getvalue())


class Wire(unittest.TestCase):
    """The rows of the demo are parts of the selftests."""
    def test_capture_of_an_earlier_run(self):
        with tempfile.TemporaryDirectory() as folder:
            capture = pathlib.Path(folder, "wire.pcap")
            capture.write_text("old")
            guest.prepare(mock.Mock(kind="uml"), capture.parent, "true", 1, {})
            self.assertFalse(capture.exists())

    def run_it(self, row):
        passed, failed = [], []
        with mock.patch.object(harness.demo, "row", mock.Mock(side_effect=[row])):
            harness.scan(None, "iser-siw", passed, failed)
        return passed + failed, not failed

    def test_scan(self):
        good = {"scan": mock.Mock(kernel_total=0, physical_total=0), "local SGEs": "physical"}
        self.assertEqual(self.run_it(good), (["wire of iSER over siw"], True))
        found = good | {"scan": mock.Mock(kernel_total=3), "kernel virtual": "3"}
        self.assertEqual(self.run_it(found), (["wire of iSER over siw: 3 kernel addresses"], False))
        found = good | {"scan": mock.Mock(kernel_total=0, physical_total=2), "kernel physical": "2"}
        self.assertEqual(self.run_it(found), (["wire of iSER over siw: 2 physical addresses"], False))
        self.assertEqual(self.run_it(good | {"local SGEs": "virtual"}),
                         (["wire of iSER over siw: local SGEs are virtual"], False))
        self.assertEqual(self.run_it(harness.wirescan.CaptureError("no file")),
                         (["wire of iSER over siw: no file"], False))

    def test_every_row_and_every_test(self):
        rows = set()
        for name, _, script, *_ in harness.GUEST_TESTS["uml"]:
            if "CAPTURE=" not in (script or ""):
                continue
            test, _, device = name.partition("-")
            rows.add((device or "rxe", test))
            tests = " ".join(re.findall(r"ONLY=['\"]([^'\"]*)", script)).split()
            text = (harness.kernel.TOP / f"tools/testing/selftests/rdma/{test}.sh").read_text()
            known = re.search(r'TESTS="([^"]*)', text)[1].split()
            self.assertEqual(sorted(tests), sorted(known), name)
        self.assertEqual(rows, {(device, ulp[1]) for device, ulp in harness.demo.runs()})


class Memory(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        self.tree = self.top / "linux"
        for name in ("build-uml/linux", "build-uml/.config", "build-uml/modules/x/rxe.ko",
                     "tools/testing/selftests/rdma/wire.sh",
                     "tools/testing/selftests/net/rds/rds_run.sh"):
            (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / name).write_text("1")

    def totals(self, recall=True):
        memory = harness.Memory(recall)
        memory.folder = self.top / "passed"
        return harness.Totals(memory)

    def key(self, totals, *what):
        return totals.key([harness.kernel.Kernel("uml", self.tree)], *what)

    def passes(self, failed=(), totals=None):
        totals = totals or self.totals()
        with contextlib.redirect_stdout(io.StringIO()):
            totals.add("a", 2, list(failed), ["x (y)"], 1, key=self.key(totals, "a"))

    def remembers(self, *what, recall=True):
        totals = self.totals(recall)
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            known = totals.remembers("a", self.key(totals, *what))
        if known:
            self.assertEqual((totals.passed, totals.failed, totals.skipped), (2, 0, 1))
            self.assertIn("not run again: nothing has changed", printed.getvalue())
            self.assertIn("skipped x (y)", printed.getvalue())
        return known

    def test_remembers(self):
        self.assertFalse(self.remembers("a"))
        self.passes()
        self.assertTrue(self.remembers("a"))
        self.assertFalse(self.remembers("b"))
        self.assertFalse(self.remembers("a", recall=False))

    def test_every_change_counts(self):
        for path in self.tree.rglob("*"):
            if path.is_file():
                self.passes()
                self.assertTrue(self.remembers("a"))
                path.write_text("2")
                self.assertFalse(self.remembers("a"), path)
        self.passes()
        with mock.patch.object(harness.kernel, "TOP", self.tree):
            self.assertFalse(self.remembers("a"))
        with mock.patch.object(harness.subprocess, "run",
                               lambda *_, **__: mock.Mock(stdout=b"fio 4")):
            self.assertFalse(self.remembers("a"))
        self.assertTrue(self.remembers("a"))

    def test_failure_is_forgotten(self):
        self.passes()
        self.passes(["b"])
        self.assertFalse(self.remembers("a"))


class Order(unittest.TestCase):
    def take(self, jobs, running):
        """Names in the order in which they are begun, none of them ended."""
        names = []
        while chosen := jobs.choose():
            context = jobs.next()
            names.append(context.__enter__()[0])
            running.append(context)
            self.assertEqual(chosen[1], names[-1])
        return names

    def test_one_under_tcg_while_there_is_more(self):
        jobs, running = harness.Jobs(), []
        for seconds, name, tcg in ((1, "a", True), (3, "b", True), (2, "c", True), (4, "d", False),
                                   (5, "e", False)):
            jobs.put(seconds, name, None, tcg)
        self.assertEqual(self.take(jobs, running), ["e", "d", "b"])
        jobs.close()
        self.assertEqual(self.take(jobs, running), ["c"])
        running.pop().__exit__(None, None, None)
        self.assertEqual(self.take(jobs, running), ["a"])
        with jobs.next() as chosen:
            self.assertIsNone(chosen)


class Build(unittest.TestCase):
    def test_full_disk(self):
        """A failure of what needs the kernel, and not an end without a count."""
        totals = harness.Totals()
        with mock.patch.object(harness.kernel.Kernel, "build", side_effect=OSError(28, "No space")), \
                contextlib.redirect_stdout(io.StringIO()):
            harness.build({"uml": [("a", 1, "")]}, totals, harness.Jobs())
        self.assertEqual((totals.passed, totals.failed), (0, 1))

    def test_program_that_does_not_build(self):
        """It is the failure of one test."""
        def build(kern, name, script):
            if name == "rings-rxe":
                raise SystemExit("no libibverbs")

        totals, jobs = harness.Totals(), harness.Jobs()
        with mock.patch.object(harness.kernel.Kernel, "build"), \
                mock.patch.object(harness.programs, "build", build), \
                contextlib.redirect_stdout(io.StringIO()) as printed:
            harness.build({"uml": [("rings-rxe", 1, ""), ("a", 1, "")]}, totals, jobs)
        self.assertIn("FAILED no libibverbs", printed.getvalue())
        self.assertEqual([job[1] for job in jobs.waiting], ["uml-a"])


class Suite(unittest.TestCase):
    def test_hung(self):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys, time; sys.path.insert(0, "
             f"{str(harness.kernel.TOP / 'harness')!r}); from proof import test\n"
             "import functools; totals = test.Totals()\n"
             "test.harness_tests(totals, functools.partial(time.sleep, 60), limit=0.1)\n"
             "print(totals.failures)"], text=True, capture_output=True)
        self.assertIn("['FAILED harness: did not finish']", done.stdout)
        # where it hung
        self.assertIn("in limited\n", done.stderr)


class Reasons(unittest.TestCase):
    def test_few_and_many(self):
        few = ["a (x)", "b (y)", "c"]
        self.assertEqual(list(harness.by_reason(few)), few)
        self.assertEqual(list(harness.by_reason([f"{n} (x)" for n in "abcd"])),
                         ["4: a, b, c, ... (x)"])


if __name__ == "__main__":
    unittest.main()
