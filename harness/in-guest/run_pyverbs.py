#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""In a guest: run unit tests that use pyverbs, and print KTAP.

    run_pyverbs.py SECONDS FILE
    run_pyverbs.py SECONDS FOLDER DEVICE NETDEV

FILE holds test cases, FOLDER those of rdma-core, which run on DEVICE. The tests run in
a child process, because they may crash or hang: each has SECONDS of time. Those of
rdma-core share it until one fails, as they do in its own run_tests.py; one of FILE has
it for itself. $DEVICE stands before their names. The interpreter is Debian's, which is
the one that pyverbs was built for.
"""
import importlib.util
import os
import pathlib
import random
import signal
import socket
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


def name(test):
    return f"{os.environ['DEVICE']} {test.id().removeprefix('tests.')}"


def mark(test):
    with open("/dev/kmsg", "w") as kmsg:
        kmsg.write(f"selftest: {name(test)}\n")


def child(tests, parent):
    """Run the tests, to the first that fails, and tell the parent of each."""
    os.setsid()
    os.dup2(2, 1)
    for test in tests:
        mark(test)
        # the same sizes and flags in each run
        random.seed(test.id())
        what, why = verdict(test)
        sys.stdout.flush()
        parent.send(f"{what}\n{why[-4000:]}".encode(errors="replace"))
        if what == "failed":
            break
    os._exit(0)


def hear(children, seconds):
    """(verdict, why) of the next test."""
    try:
        text = children.recv(65536).decode(errors="replace")
    except TimeoutError:
        text = f"failed\nno end in {seconds} s"
    what, _, why = (text or "failed\nthe process died").partition("\n")
    return what, why


def run(tests, seconds):
    """(verdict, why) of each test."""
    while tests:
        # not a stream, and not to the end of it: processes that a test left hold it, too
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(seconds)
        pid = os.fork()
        if not pid:
            ours.close()
            child(tests, theirs)
        theirs.close()
        what = None
        while tests and what != "failed":
            what, why = hear(ours, seconds)
            tests = tests[1:]
            if (not tests or what == "failed") and not end(pid):
                what, why = "failed", "the process cannot be killed"
            yield what, why
        ours.close()


def main():
    import pyverbs.device
    seconds = int(sys.argv[1])
    if os.path.isdir(sys.argv[2]):
        tests = list(flat(from_rdma_core(*sys.argv[2:])))
        verdicts = run(tests, seconds)
    else:
        tests = list(flat(from_file(sys.argv[2])))
        verdicts = (found for test in tests for found in run([test], seconds))
    # loads all the providers, once instead of in each child
    pyverbs.device.get_device_list()
    print(f"1..{len(tests)}", flush=True)
    for number, (test, (what, why)) in enumerate(zip(tests, verdicts), 1):
        last = " ".join((why.strip().splitlines() or [""])[-1].split())
        print(f"{'not ' * (what == 'failed')}ok {number} {name(test)}" +
              f" # SKIP {last}" * (what == "skipped"), flush=True)
        if what == "failed":
            print(f"# {last}", flush=True)
            print(f"{name(test)}:\n{why}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
