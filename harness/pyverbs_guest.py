#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""In a guest: run unit tests that use pyverbs, and print KTAP.

    pyverbs_guest.py SECONDS FILE
    pyverbs_guest.py SECONDS FOLDER DEVICE NETDEV

FILE holds test cases, FOLDER those of rdma-core, which run on DEVICE. Each test
has a process of its own and SECONDS of time, because it may crash or hang, but those
for other hardware, which find that out at once. The interpreter is Debian's, which is
the one that pyverbs was built for.
"""
import contextlib
import importlib.util
import os
import pathlib
import random
import select
import signal
import sys
import time
import traceback
import unittest


def flat(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def from_file(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return unittest.defaultTestLoader.loadTestsFromModule(module)


def from_rdma_core(folder, device, netdev):
    """What its run_tests.py does."""
    sys.path[:0] = [folder, str(pathlib.Path(folder).parent)]
    # the first GID is the one they would take, but siw's looks empty to them
    sys.argv = ["run_tests.py", "--dev", device, "--gid", "0"]
    import args_parser
    args_parser.parser.parse_args()
    import tests
    from tests.base import RDMATestCase

    # A software device has no parent from which the tests could learn the
    # interface, and without its address they skip all of rdma_cm.
    address = RDMATestCase.get_ip_mac_address(netdev)

    def get_ip_mac(self, dev, port, idx):
        self.args.append([dev, port, idx, *address])
    RDMATestCase._get_ip_mac = get_ip_mac
    return unittest.defaultTestLoader.loadTestsFromModule(tests)


def verdict(test):
    """Run the test: (verdict, why)."""
    result = unittest.TestResult()
    try:
        test.run(result)
    except BaseException:
        return "failed", traceback.format_exc()
    for _, text in result.errors + result.failures:
        return "failed", text
    for _, reason in result.skipped:
        return "skipped", reason
    return "passed", ""


def is_elsewhere(name):
    """Tests of a provider's own verbs. A fork takes ten times as long as to skip one."""
    return name.startswith(("test_mlx5", "test_efa"))


def look(test):
    """(verdict, why) of a test that should skip, or else runs like any other."""
    with contextlib.redirect_stdout(sys.stderr):
        return verdict(test)


def end(pid):
    """A process that the kernel does not let go must not stop the others."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    for _ in range(100):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        time.sleep(0.1)
    return False


def run(test, seconds):
    """(verdict, why) of a test in a child process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.setsid()
        os.close(reader)
        os.dup2(2, 1)
        # the same sizes and flags in each run
        random.seed(test.id())
        what, why = verdict(test)
        sys.stdout.flush()
        os.write(writer, f"{what}\n{why[-4000:]}\0".encode(errors="replace"))
        os._exit(0)
    os.close(writer)
    # not to the end of file: processes that the test left hold the pipe, too
    text, until = b"", time.monotonic() + seconds
    while not text.endswith(b"\0"):
        left = until - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            text = f"failed\nno end in {seconds} s\0".encode()
            break
        more = os.read(reader, 65536)
        text = text + more if more else b"failed\nthe process died\0"
    os.close(reader)
    gone = end(pid)
    what, _, why = text.decode(errors="replace").rstrip("\0").partition("\n")
    return (what, why) if gone else ("failed", "the process cannot be killed")


def main():
    import pyverbs.device
    seconds = int(sys.argv[1])
    tests = list(flat(from_rdma_core(*sys.argv[2:]) if os.path.isdir(sys.argv[2])
                      else from_file(sys.argv[2])))
    # loads all the providers, once instead of in each child
    pyverbs.device.get_device_list()
    print(f"1..{len(tests)}", flush=True)
    for number, test in enumerate(tests, 1):
        name = test.id().removeprefix("tests.")
        with open("/dev/kmsg", "w") as kmsg:
            kmsg.write(f"selftest: {name}\n")
        what, why = look(test) if is_elsewhere(name) else ("", "")
        if what != "skipped":
            what, why = run(test, seconds)
        last = " ".join((why.strip().splitlines() or [""])[-1].split())
        print(f"{'not ' * (what == 'failed')}ok {number} {name}" +
              f" # SKIP {last}" * (what == "skipped"), flush=True)
        if what == "failed":
            print(f"# {last}", flush=True)
            print(f"{name}:\n{why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
