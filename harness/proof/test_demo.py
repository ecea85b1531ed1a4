#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the demo does if a guest does not do what it is for."""
import contextlib
import io
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import demo  # noqa: E402

# as of UML, where the signal stack of uml-ipi.c was not aligned
CONSOLE = """Linux version 7.2.12
[    0.000000] Kernel command line: init=init panic=-1
[    1.900000] Run init as init process
[    3.320000]
[    3.330000] Modules linked in: rdma_rxe
[    3.340000] Kernel panic - not syncing: Kernel mode fault at addr 0x7ffff75b7000, ip 0x60033f1d
[    3.350000] Kernel panic - not syncing: Segfault with no mm
"""


class Demo(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        self.boots = 0

    def run_it(self, *args, boot):
        """Exit status and what is printed, if this is what boots a guest."""
        def counted(kern, out, *rest):
            self.boots += 1
            return boot(out)

        out, err = io.StringIO(), io.StringIO()
        with mock.patch.object(kernel, "TOP", self.top), \
                mock.patch.object(kernel.Kernel, "build"), \
                mock.patch.object(demo.programs, "build"), \
                mock.patch.object(guest, "boot", counted), \
                mock.patch.object(sys, "argv", ["demo.py", *args]), \
                contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = None
            try:
                demo.main()
            except SystemExit as end:
                status = end.code
        return status, out.getvalue() + err.getvalue()

    @staticmethod
    def dies(out):
        (out / "started").touch()
        (out / "console").write_text(CONSOLE)
        return "ok 1 rxe connect\n", None, 1

    def test_guest_dies(self):
        status, printed = self.run_it(boot=self.dies)
        self.assertEqual(self.boots, 1)
        self.assertRegex(str(status), r"^harness: NVMe-oF over rxe: the guest died: .*Kernel panic - "
                         r"not syncing: Kernel mode fault at addr 0x7ffff75b7000, ip 0x\w+ "
                         rf"\(see {self.top}/build/run/[^/]+/console\)$")
        self.assertNotIn("iSER", printed)

    def test_guest_hangs(self):
        status, _ = self.run_it(boot=lambda out: (*self.dies(out)[:1], "the guest hung", 1))
        self.assertEqual(self.boots, 1)
        self.assertIn("NVMe-oF over rxe: the guest hung: ", status)

    def test_guest_never_starts(self):
        def boot(out):
            (out / "console").write_text("Checking PROT_EXEC mmap in /dev/shm...\n"
                                         "/dev/shm must be not mounted noexec\n\n")
            return "", None, 0

        status, printed = self.run_it(boot=boot)
        self.assertIn("booting it again", printed)
        # the second time is for what happens by chance
        self.assertEqual(self.boots, 2)
        self.assertIn("the guest died: /dev/shm must be not mounted noexec (see ", status)

    def test_a_test_fails(self):
        """Then the others may well pass."""
        for output, code in (("1..1\nnot ok 1 rxe connect\n", 1), ("1..1\n", 124)):
            def boot(out):
                (out / "started").touch()
                (out / "console").write_text("")
                (out / "status").write_text(str(code))
                return output, None, 1

            self.boots = 0
            status, printed = self.run_it(boot=boot)
            self.assertEqual((status, self.boots), (1, len(demo.runs())))
            self.assertIn("harness: iSER over siw: ", printed)

    def test_virtual(self):
        """A row without an address on the wire is not enough."""
        scan = mock.Mock(kernel_total=0, physical_total=0, kernel={}, physical={})
        for kind, end in (("physical", False), ("virtual", True)):
            row = {"device": "rxe", "local SGEs": kind, "scan": scan}
            with mock.patch.object(demo, "demo", lambda *_, row=row: row):
                self.assertEqual(self.run_it(boot=None)[0], end)

    def test_splat(self):
        """Of stock Linux, too, but there it is what the series mends."""
        result = mock.Mock(status=0, problem="splat: x", splats=["x"], output="1..1\nok 1 a\n")
        with mock.patch.object(guest, "run", return_value=result), \
                mock.patch.object(kernel, "TOP", self.top), \
                mock.patch.object(demo, "row", return_value={}), \
                contextlib.redirect_stderr(io.StringIO()) as err:
            self.assertIsNone(demo.demo(None, "rxe", demo.ULPS[0]))
            self.assertIsNotNone(demo.demo(None, "rxe", demo.ULPS[0], stock=True))
        self.assertIn("on stock Linux: splat: x", err.getvalue())

    def test_unknown_device(self):
        status, printed = self.run_it("roce", boot=None)
        self.assertEqual(status, 2)
        self.assertIn("no such device: roce (rxe, siw)", printed)

    def test_no_memory_map(self):
        with self.assertRaisesRegex(demo.wirescan.CaptureError, "where its memory is"):
            demo.buffers("linear_map 0000000060000000\n")


class Stock(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        self.linux = self.top / "build/linux"

    def git(self, *args):
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C",
                        self.linux, *args], check=True, env=kernel.environment(),
                       stdout=subprocess.DEVNULL)

    def base(self, version):
        """A new build/linux, whose base is that."""
        shutil.rmtree(self.linux, ignore_errors=True)
        self.linux.mkdir(parents=True)
        self.git("init", "-q")
        (self.linux / "Makefile").write_text(version)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", version)
        self.git("tag", "base")

    def stock(self):
        with mock.patch.object(kernel, "TOP", self.top):
            return demo.stock_tree()

    def test_follows_the_base(self):
        for version in ("7.3", "7.4"):
            self.base(version)
            for _ in range(2):
                self.assertEqual((self.stock() / "Makefile").read_text(), version)
        (self.linux / "Makefile").write_text("7.5")
        self.git("commit", "-q", "-a", "-m", "7.5")
        self.git("tag", "-f", "base")
        self.assertEqual((self.stock() / "Makefile").read_text(), "7.5")

    def test_half_written(self):
        self.base("7.3")
        index = next((self.linux / ".git/worktrees").glob("*/index")) if self.stock() else None
        index.unlink()
        (self.top / "build/stock/Makefile").write_text("half")
        self.assertEqual((self.stock() / "Makefile").read_text(), "7.3")

    def test_no_tree(self):
        # the one around it is not asked
        subprocess.run(["git", "init", "-q", self.top], check=True, env=kernel.environment())
        with self.assertRaisesRegex(SystemExit, "^harness: git rev-parse in .*build/linux: "):
            self.stock()
        with self.assertRaisesRegex(SystemExit, "^harness: there is no kernel in .*: make tree$"), \
                mock.patch.object(kernel, "TOP", self.top):
            kernel.Kernel("uml").build()
        self.assertFalse((self.top / "build").exists())


if __name__ == "__main__":
    unittest.main()
