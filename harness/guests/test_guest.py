#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What a guest is, whoever starts it and wherever."""
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import alone, guest, kernel  # noqa: E402

HOSTILE = {
    "LD_PRELOAD": "/nowhere.so", "LD_LIBRARY_PATH": "/nowhere", "MALLOC_PERTURB_": "1",
    "BASH_ENV": "/nowhere", "CDPATH": "/nowhere", "PYTHONHOME": "/nowhere", "LANG": "de_DE.UTF-8",
    "LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de", "ARCH": "arm", "CROSS_COMPILE": "arm-",
    "KBUILD_OUTPUT": "/nowhere", "KCFLAGS": "-O9", "CC": "tcc", "LLVM": "1", "MAKEFLAGS": "k",
    "GIT_DIR": "/nowhere", "KCONFIG_CONFIG": "/nowhere", "TMPDIR": "/nowhere/tmp", "PAD": "x" * 99999,
}


class Environment(unittest.TestCase):
    def test_of_the_user(self):
        mine = {"PATH": "/my/bin", "HOME": "/tmp", "CCACHE_DIR": "/my/ccache"}
        with mock.patch.dict(os.environ, HOSTILE | mine, clear=True):
            env = kernel.environment(X="1")
        self.assertEqual(env, mine | {"PATH": "/my/bin:/usr/sbin:/sbin", "LC_ALL": "C", "X": "1"})

    def test_no_home(self):
        for home in ({}, {"HOME": "/nowhere"}):
            with mock.patch.dict(os.environ, home, clear=True):
                self.assertEqual(kernel.environment()["HOME"], f"{kernel.TOP}/build")

    def test_of_a_build(self):
        with mock.patch.dict(os.environ, HOSTILE):
            env = kernel.Kernel("uml").env
        self.assertEqual(env["ARCH"], "um")
        self.assertEqual(set(env) & set(HOSTILE), {"ARCH", "LC_ALL"})

    def test_of_a_guest(self):
        """Limits, too; and no core of a guest's size lies about."""
        show = (f"import sys; sys.path.insert(0, {str(kernel.TOP / 'harness')!r})\n"
                "import subprocess; from guests import guest\n"
                "subprocess.run(['sh', '-c', 'env; pwd; ulimit -s; ulimit -c; ulimit -Sn; ulimit -Hn'],"
                " **guest.surroundings('/usr', '/dev'))")
        done = subprocess.run(["sh", "-ec", 'ulimit -S -n 64; ulimit -S -s 1024; '
                               'ulimit -S -c "$(ulimit -H -c)"; exec "$0" -c "$1"',
                               sys.executable, show], env=os.environ | {"LD_PRELOAD": "", "PAD": "x"},
                              text=True, capture_output=True, check=True)
        *_, folder, stack, core, files, most = done.stdout.splitlines()
        self.assertNotIn("PAD=", done.stdout)
        self.assertIn("TMPDIR=/dev\n", done.stdout)
        hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
        if hard in (resource.RLIM_INFINITY, 8 << 20):
            self.assertEqual(stack, "8192")
        self.assertEqual((folder, core, files), ("/usr", "0", most))


class Alone(unittest.TestCase):
    def other(self, top, **env):
        """What another run prints that waits for its turn and ends."""
        return subprocess.Popen(
            [sys.executable, "-c", f"import pathlib, sys; sys.path.insert(0, "
             f"{str(kernel.TOP / 'harness')!r}); from guests.alone import alone\n"
             f"with alone(pathlib.Path({top!r})): print('done', flush=True)"],
            env={"PATH": os.environ["PATH"]} | env, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT)

    def test_second_waits(self):
        with tempfile.TemporaryDirectory() as top, \
                mock.patch.dict(os.environ):
            os.environ.pop(alone.MARK, None)
            with alone.alone(pathlib.Path(top)):
                # one that was started by another repository's run
                other = self.other(top, **{alone.MARK: "/"})
                self.assertIn("another run is at work here", other.stdout.readline())
                self.assertIsNone(other.poll())
                # what the first one starts goes on
                mark = {alone.MARK: os.environ[alone.MARK]}
                self.assertEqual(self.other(top, **mark).communicate()[0], "done\n")
            self.assertEqual(other.communicate()[0], "done\n")
            self.assertNotIn(alone.MARK, os.environ)
            self.assertEqual(self.other(top).communicate()[0], "done\n")


class Place(unittest.TestCase):
    def config(self, place):
        with tempfile.TemporaryDirectory() as top, \
                mock.patch.object(kernel, "TOP", pathlib.Path(top) / place):
            kern = kernel.Kernel("uml")
            kern.config()

    def test_refused(self):
        for place in ("a b", "a:b", "a,b", "a'b", "a$b", "x" * 190):
            with self.assertRaisesRegex(SystemExit, "^harness: no kernel can be built or run in .*"):
                self.config(place)

    def test_allowed(self):
        for place in ("a", "Prüfung-1.0_x+y@z~=", "x" * 150):
            self.assertTrue(kernel.PLACE.fullmatch(f"/tmp/{place}"))


class Splats(unittest.TestCase):
    def test_twin(self):
        """What an adapter would have failed, and not that there is a twin."""
        log = ("[ 1.0] twin: 0000:00:05.0, behind an IOMMU\n"
               "[ 2.0] pci 0000:00:05.0 r0: twin: the device reads 1 bytes at DMA address 0x1: not mapped\n"
               "[ 2.1] pci 0000:00:05.0 r0: twin: QP 17: WR 0x2 has failed\n")
        self.assertEqual(guest.splats(log), log.splitlines()[1:])

    def test_on_purpose(self):
        """As many complaints as the test has expected, word for word."""
        what = "pci 0000:00:05.0 r0: twin: the device reads 64 bytes at DMA address 0x1: not mapped"
        mark = "[ 0.1] selftest: x\n"
        complaint, other = f"[ 1.0] {what}", f"[ 1.1] {what.replace('0x1', '0x2')}"
        expected = f"[   12.0]     # loop_test_twin: on purpose: {what}"
        for lines, bad in (((complaint, expected), ()),
                           ((complaint, complaint, expected, expected), ()),
                           ((complaint, expected, complaint), (complaint,)),
                           ((complaint, other, expected), (other,)),
                           ((complaint, f"{expected}."), (complaint,)),
                           ((complaint, "[ 1.2] BUG: x", expected), ("[ 1.2] BUG: x",)),
                           ((complaint, expected.replace("on purpose", "purpose")),
                            (complaint, expected.replace("on purpose", "purpose")))):
            log = mark + "\n".join(lines)
            self.assertEqual(guest.splats(log), list(bad))
            self.assertEqual(guest.splats_by_test(log), {"x": bad[0]} if bad else {})


class Lock(unittest.TestCase):
    def test_one_at_a_time(self):
        """Two guests that start at once want the same kernel built."""
        with tempfile.TemporaryDirectory() as tree:
            waiting, done = kernel.Kernel("uml", tree), []
            waiting.build_locked = lambda: done.append(1)
            second = threading.Thread(target=waiting.build)
            with kernel.Kernel("uml", tree).lock():
                second.start()
                second.join(0.3)
                self.assertFalse(done)
            second.join()
            self.assertTrue(done)


class Memory(unittest.TestCase):
    """Where there is no room, a guest would die when it has touched what there is."""
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.scratch = folder.name
        self.free = {"/dev/shm": 1500, self.scratch: 3000}
        self.flags = dict.fromkeys(self.free, 0)
        for patch in (mock.patch.object(guest, "scratch", lambda: self.scratch),
                      mock.patch.object(os, "access", lambda *_: True),
                      mock.patch.object(os, "statvfs", self.statvfs)):
            patch.start()
            self.addCleanup(patch.stop)

    def statvfs(self, folder):
        if folder not in self.free:
            raise FileNotFoundError(folder)
        return mock.Mock(f_bavail=self.free[folder] << 8, f_frsize=4096, f_flag=self.flags[folder])

    def folder(self, memory=1024, kind="uml"):
        return guest.memory_folder(mock.Mock(kind=kind), memory)

    def test_where(self):
        with self.folder() as folder:
            self.assertEqual(folder, "/dev/shm")
            # which may be in use by then
            with self.folder() as second:
                self.assertEqual(second, self.scratch)
        self.assertEqual(guest.promised, [])
        self.flags["/dev/shm"] = os.ST_NOEXEC
        with self.folder() as folder:
            self.assertEqual(folder, self.scratch)
        del self.free["/dev/shm"]
        with self.folder() as folder:
            self.assertEqual(folder, self.scratch)
        with self.folder(kind="x86") as folder:
            self.assertIsNone(folder)

    def test_nowhere(self):
        self.free = {"/dev/shm": 64, self.scratch: 100}
        with self.assertRaises(SystemExit) as end, self.folder():
            pass
        self.assertEqual(end.exception.code, "harness: no room for 1024 MiB of guests' memory: "
                         f"/dev/shm has 64, {self.scratch} has 100")
        self.assertEqual(guest.promised, [])


class End(unittest.TestCase):
    def setUp(self):
        # whoever else is at work
        patch = mock.patch.dict(os.environ, {alone.MARK: str(kernel.TOP)})
        patch.start()
        self.addCleanup(patch.stop)

    def test_last_words(self):
        for console, words in (
                ("a\n[ 1] BUG: x\n[ 2] Kernel panic - not syncing: y\n[ 3] Kernel panic: z\n",
                 "[ 2] Kernel panic - not syncing: y"),
                ("a\n[ 1] BUG: x\nb\n", "[ 1] BUG: x"),
                ("a\nvm_file: No space left\n\n", "vm_file: No space left"),
                ("", "no word on its console")):
            self.assertEqual(guest.last_words(console), words)

    def test_signal_and_full_disk(self):
        with tempfile.TemporaryDirectory() as folder:
            kern = mock.Mock(kind="uml", initramfs=None, tree=folder)
            out = pathlib.Path(folder, "out")
            kill = ["sh", "-c", f"touch {out}/started; echo Starting; kill -BUS $$"]
            with mock.patch.object(guest, "command", lambda *_: kill):
                result = guest.run(kern, "", out=out)
            self.assertEqual(result.status, None)
            self.assertEqual(result.problem, f"the guest died of SIGBUS: Starting (see {out}/console)")
            with mock.patch.object(guest, "command", lambda *_: kill), \
                    mock.patch.object(guest.shutil, "disk_usage", lambda _: mock.Mock(free=0)):
                self.assertEqual(guest.run(kern, "", out=out).problem, f"no space left in {out}")

    def test_letters(self):
        done = subprocess.run([sys.executable, "-c", f"import sys; sys.path.insert(0, "
                               f"{str(kernel.TOP / 'harness')!r}); from guests import kernel; "
                               "kernel.run_main(lambda: print('\ufffd'))"],
                              env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True)
        self.assertEqual((done.stdout, done.stderr), (b"\\ufffd\n", b""))

    def test_one_line(self):
        def full():
            with open("/dev/full", "w", encoding="ascii") as file:
                file.write("x")

        with self.assertRaisesRegex(SystemExit, "^harness: No space left on device: .*/build$"):
            kernel.run_main(full)


if __name__ == "__main__":
    unittest.main()
