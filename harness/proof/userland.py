#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""User space that is not ours, on stock Linux and on the series.

    userland.py [--kind uml|x86] [rxe|siw ...]

rdma-core's own tests, Linux's own of rxe, rping and perftest run in a guest on each
kernel. Stock Linux, in UML, is the reference: what passes there has to pass on the
series, and what runs there has to run; each difference is printed, and makes the exit
status 1. So does a test of user_sge.py that does not pass on the series, whatever stock
does.
"""
import argparse
import collections
import gzip
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import demo, ktap  # noqa: E402

DOC = pathlib.Path("usr/share/doc/rdma-core/tests")
SCRIPT = 'exec "$GUEST_HARNESS/userland.sh" {devices}\n'
# verdicts that say nothing, and why
UNSTABLE = {
    "rxe test_cq.CQTest.test_resize_cq":
        "resizes the CQ while its own sends complete, and fails when it is quicker",
}
# seconds for one step, and for all
PATIENCE, LIMIT = 120, 3600


def suite():
    """rdma-core's tests, unpacked; without the documentation, out of its package."""
    tests = kernel.TOP / "build/pyverbs/tests"
    if (tests / "__init__.py").exists():
        return tests
    tests.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=tests.parent) as scratch:
        doc = "/" / DOC
        if not (doc / "__init__.py").exists():
            for command in (["apt-get", "-q", "download", "rdma-core"],
                            ["sh", "-c", "dpkg-deb -x rdma-core_*.deb ."]):
                done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
                if done.returncode:
                    kernel.die(f"rdma-core's tests: {done.stderr.strip().splitlines()[-1]}")
            doc = scratch / DOC
        new = pathlib.Path(scratch) / "tests"
        new.mkdir()
        for path in doc.iterdir():
            data = path.read_bytes()
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            (new / path.name.removesuffix(".gz")).write_bytes(data)
        new.rename(tests)
    return tests


class Run:
    """Results of one guest: {device and test: passed, failed or skipped}."""
    def __init__(self, results, splats=(), problem=None, skipped=(), reasons=()):
        self.results = results
        self.skipped = list(skipped)    # with the reasons
        self.reasons = dict(reasons)    # {test that failed: what it said last}
        self.splats = dict(splats)      # {test or None: its first splat}
        self.problem = problem          # why it is not complete


def run(kern, devices):
    out = guest.scratch() / f"{kern.kind}-userland-{kern.tree.name}"
    done = guest.run(kern, SCRIPT.format(devices=" ".join(devices)), timeout=LIMIT, out=out,
                     env=demo.ENV | {"TESTS": suite(), "PATIENCE": PATIENCE})
    tests = ktap.parse(done.output)
    results = {}
    for verdict in ("passed", "failed", "skipped"):
        # the reason for a skip stands behind its name
        results |= {name.partition(" (")[0]: verdict for name in getattr(tests, verdict)}
    problem = done.why
    if not problem and (tests.incomplete or
                        not all(any(name.startswith(f"{device} ") for name in results)
                                for device in devices)):
        problem = "did not finish"
    return Run(results, guest.splats_by_test(done.dmesg), problem and f"{problem} (see {out})",
               tests.skipped, tests.reasons)


class Stock:
    """The reference, built and run once for all that are compared with it."""
    def __init__(self, devices=demo.DEVICES):
        self.devices = devices
        self.lock = threading.Lock()
        self.kernel = self.run = None

    def build(self):
        with self.lock:
            if not self.kernel:
                kern = kernel.Kernel("uml", demo.stock_tree())
                kern.build()
                suite()
                self.kernel = kern

    def results(self):
        with self.lock:
            if not self.run:
                self.run = run(self.kernel, self.devices)
        return self.run


def differences(stock, ours):
    """What is worse than on stock, one line each."""
    found = []
    for test in sorted(stock.results | ours.results):
        before = stock.results.get(test, "not run")
        after = ours.results.get(test, "not run")
        ran = "not run" not in (before, after)
        must = " user_sge." in test
        if after != "passed" and (must or after != before) and not (ran and test in UNSTABLE):
            why = ours.reasons.get(test)
            found.append(f"{test}: {before} on stock, {after} on the series" +
                         (f" ({why})" if why else ""))
    found += [f"{test or 'between tests'}: splat on the series: {splat}"
              for test, splat in ours.splats.items() if test not in stock.splats]
    return found + [f"{name}: {run.problem}" for name, run in (("stock", stock), ("series", ours))
                    if run.problem]


def notes(stock, ours):
    """What is no difference, and should be known."""
    def where(verdict, run):
        return {test for test, got in run.results.items() if got == verdict}

    def names(tests):
        return ", ".join(sorted(tests)) or "none"

    skipped = collections.Counter(re.match(r"(?:\w+ )?(?:test_)?([a-z0-9]+)", test)[1]
                                  for test in where("skipped", stock) & where("skipped", ours))
    lines = [f"fails on both: {names(where('failed', stock) & where('failed', ours))}",
             f"passes only on the series: {names(where('passed', ours) - where('passed', stock))}",
             f"skipped on both: {skipped.total()}: " +
             ", ".join(f"{n} {module}" for module, n in sorted(skipped.items()))]
    lines += [f"not compared: {test}: {stock.results.get(test)} on stock, {ours.results.get(test)} "
              f"on the series ({why})" for test, why in UNSTABLE.items()]
    lines += [f"{test or 'between tests'}: splat on stock: {splat}"
              for test, splat in stock.splats.items()]
    return lines


def count(run):
    got = collections.Counter(run.results.values())
    return ", ".join(f"{got[verdict]} {verdict}" for verdict in ("passed", "failed", "skipped"))


def compare(stock, kern):
    """(passed on both, skipped, notes, differences) of stock and of a kernel of the series."""
    before = stock.results()
    ours = run(kern, stock.devices)
    passed = sum(got == "passed" == ours.results.get(test)
                 for test, got in before.results.items())
    lines = [f"stock: {count(before)}; series: {count(ours)}"]
    return passed, ours.skipped, lines + notes(before, ours), differences(before, ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", default=demo.DEVICES)
    parser.add_argument("--kind", choices=["uml", "x86"], default="uml")
    args = parser.parse_args()
    demo.known(parser, args.devices)
    stock, kern = Stock(args.devices), kernel.Kernel(args.kind)
    stock.build()
    kern.build()
    start = time.monotonic()
    _, _, lines, worse = compare(stock, kern)
    print("".join(f"{line}\n" for line in lines) +
          f"differences from stock: {len(worse) or 'none'} ({time.monotonic() - start:.0f} s)")
    for line in worse:
        print(f"  {line}")
    sys.exit(bool(worse))


if __name__ == "__main__":
    kernel.run_main(main)
