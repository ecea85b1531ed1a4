#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run every test; the last line is "N passed, N failed, N skipped".

    test.py [NAME...]    only the named ones; test.py --list tells the names

The harness's own tests, then those in guests: KUnit, the loop module and the
kselftests. A splat in a guest's log fails the test during which it came, and what
does not finish has failed.

What has passed is not run again while nothing changes: kernels, modules, selftests,
harness, the machine's packages. It says so, and when it passed. AGAIN=1 runs all,
and what is named is always run.
"""
import argparse
import concurrent.futures
import contextlib
import faulthandler
import functools
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import platform
import re
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import check, demo, ktap, programs, twins, userland, wirescan  # noqa: E402
from proof.demo import selftest  # noqa: E402

KUNIT = """
# for the tests that count to the one that fails
for fault in failslab fail_rdma_map; do
	echo 0 >/sys/kernel/debug/$fault/verbose
done
echo N >/sys/kernel/debug/failslab/ignore-gfp-wait
for name in sge rw; do
	modprobe ${name}_kunit
	cat /sys/kernel/debug/kunit/rdma_$name/results
	modprobe -r ${name}_kunit
done
echo Y >/sys/kernel/debug/failslab/ignore-gfp-wait
"""
LOOP = """
loop() {{
	modprobe rdma_loop "$@" || echo "not ok 4 load"
	cat /sys/kernel/debug/kunit/rdma_loop/results
	rdma resource show | sed 's/^/# /'
	modprobe -r rdma_loop || echo "not ok 2 unload"
}}
if [ {device} = rvt ]; then
	# no Ethernet, and no rdma_cm
	modprobe rvt_test && loop dev=rvt0
	modprobe -r rvt_test || echo "not ok 2 unload"
else
	. "$GUEST_TREE/tools/testing/selftests/rdma/wire.sh"
	wire_up {device} && loop src=$A0 dst=$A1 || echo "not ok 3 {device}"
	wire_down
fi
"""


def loop(device):
    return LOOP.format(device=device)


# Slow: the leak detector costs a debug kernel most of its speed. One CPU, because
# UML's second one is not quite online when the detector first calls RCU on it.
LEAK = "kmemleak=on", "ncpus=1"


def leak(name, only, fail_at):
    return selftest(name, "rxe", f"SIZE=64K ONLY='{only}' FAIL_AT='{fail_at}'")


DEMO = {ulp[1]: ulp for ulp in demo.ULPS}


def shown(name, device, settings=""):
    """The row of the demo, then what it leaves out of the selftest."""
    text = (kernel.TOP / f"tools/testing/selftests/rdma/{name}.sh").read_text()
    tests = re.search(r'^TESTS="([^"]*)"', text, re.M)[1].split()
    ulp = DEMO[name]
    rest = " ".join(test for test in tests if test not in ulp[2].split())
    return demo.script(device.split()[0], ulp) + selftest(name, device, f"{settings} ONLY='{rest}'")


# An ordinary software device does no DMA, so that it has no use for bounce buffers
# either: not one is taken while it moves data.
PLAIN = """
twin=/sys/module/ib_core/parameters/twin
buffers=/sys/kernel/debug/swiotlb
read -r adapter <$twin
echo >$twin
echo 0 >$buffers/io_tlb_used_hiwater
{tests}
if [ "$(cat $buffers/io_tlb_used $buffers/io_tlb_used_hiwater)" = "$(printf '0\n0')" ]; then
	echo "ok 1 no bounce buffers"
else
	echo "not ok 1 bounce buffers are taken by what does no DMA"
fi
echo $adapter >$twin
"""
FEW = "connect verify_small verify disconnect"
# script, and where it runs. mad.sh is for user space, which a twin has none of.
TWIN_TESTS = [
    (PLAIN.format(tests="".join(selftest("nvme", device, f"SIZE=1M ONLY='{FEW}'")
                                for device in demo.DEVICES)), ["bounce"]),
    (KUNIT + loop("rxe") + loop("siw"), twins.TWINS),
    (twins.SHOW, twins.TWINS),
    (selftest("nvme", "rxe", "SIZE=1M CYCLES=2 FAIL_AT='1 20 80' ONLY='cycle unload_host "
              "unload_target target_gone device_gone_host device_gone_target global_rkey srq "
              "fail_connect fail_io'"), twins.TWINS),
    (selftest("nvme", "siw", f"SIZE=1M ONLY='{FEW} device_gone_host device_gone_target'"),
     twins.TWINS),
    ("modprobe nvme-rdma register_always=N\n" +
     selftest("nvme", "rxe", f"SIZE=1M ONLY='{FEW}'") + "modprobe -r nvme-rdma\n", twins.TWINS),
    (selftest("iser", "rxe", "SIZE=1M CYCLES=1 FAIL_AT='1 132 263' ONLY='solicited unsolicited "
              "cycle unload_host unload_target target_gone device_gone_host device_gone_target "
              "global_rkey fail_connect fail_io'"), twins.TWINS),
    (selftest("iser", "siw", f"SIZE=1M ONLY='{FEW}'"), twins.TWINS),
    (selftest("srp", "rxe", "SIZE=1M CYCLES=2 ONLY='no_immediate large global_rkey cycle'"),
     ["bounce"]),
    (selftest("srp", "rxe", "SIZE=1M CYCLES=2 FAIL_AT='0 30 51 99' ONLY='no_immediate large "
              "global_rkey cycle unload_target device_gone_host device_gone_target fail_connect "
              "fail_io'"), ["iommu"]),
    (selftest("rnbd", "rxe", "SIZE=1M CYCLES=2 DEPTH=16 FAIL_AT='0 500 700 900' ONLY='cycle "
              "unload_host unload_target device_gone_host device_gone_target fail_connect'"),
     ["bounce"]),
    # a bounce buffer is neither as large as a chunk can be nor aligned like one
    (selftest("rnbd", "rxe", "DEPTH=16 CYCLES=2 ONLY='chunks loss fail_io'"), ["iommu"]),
    # nor is it as large as a message can be
    (selftest("9p", "rxe", "SIZE=1M MSIZES='4096 262144' ONLY=files"), ["bounce"]),
    (selftest("9p", "rxe", "SIZE=1M ONLY='files device_gone_client fail_io'"), ["iommu"]),
    (selftest("rds", "rxe", "FAIL_AT='1 129' ONLY='map_calls mr get_mr bounds atomics pool "
              "cancel device_gone unload fail_connect fail_io'"), twins.TWINS),
]


def twin(how):
    """A guest's test on twins that reach memory in that way."""
    return (f"twin-{how}", 2400, twins.BEGIN +
            "".join(script for script, where in TWIN_TESTS if how in where) +
            twins.end(how), *twins.arguments(how))


# what is no script
USERLAND = "userland", 1300, None

# A time limit ends what hangs, and a machine may be this many times as slow as the one
# that the limits are from.
SLOW = 3

# kind: (name, time limit in seconds, script, more of the kernel's command line)
# What may share a guest does: on x86 the boot takes as long as a short test.
GUEST_TESTS = {
    "uml": [
        ("unit", 600, KUNIT + loop("rxe") + loop("siw")),
        ("nvme-rxe", 1200, shown("nvme", "rxe", "SIZE=8M")),
        ("nvme-siw", 1200, shown("nvme", "siw", "SIZE=8M CYCLES=10")),
        ("mad", 600, selftest("mad", "rxe siw")),
        ("iser-rxe", 600, shown("iser", "rxe", "SIZE=4M CYCLES=5 CUTS=8")),
        ("iser-siw", 600, shown("iser", "siw", "SIZE=4M CYCLES=5 CUTS=4")),
        ("srp-rxe", 900, shown("srp", "rxe", "SIZE=4M")),
        ("srp-siw", 900, shown("srp", "siw", "SIZE=4M")),
        ("rnbd-rxe", 900, shown("rnbd", "rxe", "SIZE=4M CYCLES=5")),
        ("rds", 900, shown("rds", "rxe siw")),
        ("rds-own", 600, '"$GUEST_HARNESS/rds_own.sh"\n'),
        ("9p-rxe", 600, shown("9p", "rxe", "SIZE=4M CYCLES=5")),
        ("9p-siw", 600, shown("9p", "siw", "SIZE=1M CYCLES=3")),
        ("peer-siw", 600, selftest("siw_peer", "")),
        *((name, 900, programs.script("uml", name)) for name in programs.TESTS["uml"]),
        # MRs where SGEs would do
        ("nvme-mr", 300, selftest("nvme", "rxe siw", "SIZE=4M "
                                  'ONLY="connect verify_small verify disconnect"'),
         "ib_core.force_mr=1"),
        ("leak", 1800, loop("rxe") + loop("siw") +
         leak("nvme", "connect verify_small disconnect fail_connect", "1 2 40 90 300") +
         leak("iser", "connect verify_small disconnect fail_connect", "1 132 263") +
         leak("rnbd", "connect verify_small disconnect fail_connect fail_alloc fail_alloc_host",
              "0 639 650 960 982") +
         leak("rds", "messages rdma_write mr pool fail_connect unload", "1 129"), *LEAK),
        USERLAND,
    ],
    "x86": [
        ("unit", 1200, KUNIT + loop("rxe") + loop("siw") + loop("rvt")),
        ("nvme", 2400, selftest("nvme", "rxe", "SIZE=1M CYCLES=20") +
         selftest("nvme", "siw", "SIZE=1M CYCLES=5 "
                  'ONLY="connect verify_small verify disconnect cycle"')),
        ("ulps", 1800, selftest("mad", "rxe", "CYCLES=5 CONNECTS=800") +
         selftest("iser", "rxe", "SIZE=1M CYCLES=2 FAIL_AT='1 132 263' ONLY='"
                  "connect verify_small verify disconnect unsolicited cycle fail_connect'") +
         selftest("rds", "rxe", "ONLY='messages rdma_write rdma_read mr atomics unload'")),
        *map(twin, twins.TWINS),
        *((name, 1200, programs.script("x86", name)) for name in programs.TESTS["x86"]),
        # MRs where SGEs would do, also for what an IOMMU makes one of
        ("twin-mr", 600, selftest("nvme", "rxe siw", f"SIZE=1M ONLY='{FEW}'") + twins.end("iommu"),
         *twins.arguments("iommu"), "ib_core.force_mr=1"),
        USERLAND,
    ],
    # highmem; what i386-init.c is to run
    "i386": [
        ("kunit", 300, "kunit"),
        ("loop-siw", 900, "siw"),
    ],
}

# (guests, what they are there for): no test is skipped there for want of it
NO_REASON = ("i386-", "no highmem"), ("x86-twin-", "no twin")

# what timeout makes of a script that takes too long
ENDED = 124

# one in UML waits half of the time
WORKERS = 3

print_lock = threading.Lock()


class Memory:
    """What has passed, in build/passed, with what it depends on."""
    def __init__(self, recall):
        self.recalls = recall
        self.folder = kernel.TOP / "build/passed"
        self.of_kernel = {}
        self.always = None

    @staticmethod
    def digest_files(files):
        sha = hashlib.sha256()
        for path in sorted(files):
            if path.is_file() and "__pycache__" not in path.parts:
                sha.update(f"{path} {path.stat().st_mode:o} {path.stat().st_size}\n".encode())
                sha.update(path.read_bytes())
        return sha.hexdigest()

    def kernel(self, kern):
        """Once for each, when it has been built."""
        if kern.out not in self.of_kernel:
            selftests = kern.tree / "tools/testing/selftests"
            self.of_kernel[kern.out] = self.digest_files(
                [kern.image, kern.out / ".config", *kern.modules.rglob("*.ko")] +
                [path for name in ("kselftest", "net", "rdma")
                 for path in (selftests / name).rglob("*")])
        return self.of_kernel[kern.out]

    def key(self, kernels, *what):
        if self.always is None:
            self.always = [platform.release(), self.digest_files((kernel.TOP / "harness").rglob("*")),
                           subprocess.run(["dpkg-query", "-W"], capture_output=True).stdout,
                           os.environ.get("ACCEL")]
        return check.digest(*self.always, *map(self.kernel, kernels), *what)

    def recall(self, name, key):
        """What was kept of a run with this key, or None."""
        try:
            kept = json.loads((self.folder / name).read_text())
        except (OSError, ValueError):
            return None
        return kept if self.recalls and kept["key"] == key else None

    def keep(self, name, key, passed, skipped):
        check.save(self.folder / name, json.dumps(
            {"key": key, "passed": passed, "skipped": skipped,
             "when": time.strftime("%Y-%m-%d %H:%M")}))

    def forget(self, name):
        (self.folder / name).unlink(missing_ok=True)


class Totals:
    def __init__(self, memory=None):
        self.passed = self.failed = self.skipped = 0
        self.failures = []
        self.memory = memory

    def key(self, kernels, *what):
        return self.memory and self.memory.key(kernels, *what)

    def remembers(self, name, key):
        """Whether it has passed before, which is then its result."""
        kept = self.memory and self.memory.recall(name, key)
        if kept:
            self.add(name, kept["passed"], [], kept["skipped"], 0,
                     [f"not run again: nothing has changed since it passed ({kept['when']})"])
        return bool(kept)

    def add(self, name, passed, failed, skipped, seconds, notes=(), cpu=None, key=None):
        """Counts; FAILED and SKIPPED are lists of names. What has a KEY is kept."""
        cost = f"{seconds:.0f} s" + (f", CPU {cpu:.0f} s" if cpu else "")
        if key and self.memory:
            if failed:
                self.memory.forget(name)
            else:
                self.memory.keep(name, key, passed, skipped)
        with print_lock:
            self.passed += passed
            self.failed += len(failed)
            self.skipped += len(skipped)
            print(f"{name}: {passed} passed, {len(failed)} failed, {len(skipped)} skipped"
                  f" ({cost})")
            for what in notes:
                print(f"  {what}")
            for what in failed:
                print(f"  FAILED {what}")
                self.failures.append(f"FAILED {name}: {what}")
            for what in by_reason(skipped):
                print(f"  skipped {what}")
            sys.stdout.flush()

    def end(self):
        """The failures once more, where who reads the end of a long log finds them."""
        for what in self.failures:
            print(what)
        print(f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped")


def by_reason(skipped):
    """One line for each; more of one reason are told together."""
    reasons = {}
    for what in skipped:
        name, _, reason = what.partition(" (")
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        if len(names) < 4:
            yield from (f"{name} ({reason}" if reason else name for name in names)
        else:
            yield f"{len(names)}: {', '.join(names[:3])}, ... ({reason or 'no reason)'}"


def harness_suite():
    """(number of tests that passed, failed, skipped)"""
    suite = unittest.TestSuite(
        unittest.TestLoader().discover(str(room), top_level_dir=str(room))
        for room in sorted((kernel.TOP / "harness").iterdir()) if room.is_dir())
    result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
    failed = result.failures + result.errors
    bad = [f"{test.id()}: {text.strip().splitlines()[-1]}" for test, text in failed]
    skipped = [f"{test.id()} ({reason})" for test, reason in result.skipped]
    # of a test several subtests can fail
    tests = {getattr(test, "test_case", test).id() for test, _ in failed}
    return result.testsRun - len(tests) - len(skipped), bad, skipped


def limited(seconds, function):
    """Calls FUNCTION; what takes longer is shown, and ends the process."""
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        return function()
    finally:
        faulthandler.cancel_dump_traceback_later()


def harness_tests(totals, suite=harness_suite, limit=300 * SLOW):
    """In a process of its own, because some of the tests redirect what is printed."""
    start = time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            outcome = pool.submit(limited, limit, suite).result()
        except concurrent.futures.BrokenExecutor:
            outcome = 0, ["did not finish"], []
    totals.add("harness", *outcome, time.monotonic() - start)


def scan(result, name, passed, failed):
    """The main job: physical addresses, and neither these nor virtual ones on the wire."""
    test, _, device = name.partition("-")
    device = device or "rxe"
    full = f"wire of {DEMO[test][0]} over {device}"
    try:
        row = demo.row(result, device, DEMO[test])
    except (wirescan.CaptureError, OSError) as error:
        failed.append(f"{full}: {error}")
        return
    if row["scan"].kernel_total:
        failed.append(f"{full}: {row['kernel virtual']} kernel addresses")
    elif row["scan"].physical_total:
        failed.append(f"{full}: {row['kernel physical']} physical addresses")
    elif row["local SGEs"] != "physical":
        failed.append(f"{full}: local SGEs are virtual")
    else:
        passed.append(full)


def guest_test(totals, kern, name, timeout, script, *append):
    start = time.monotonic()
    full = f"{name} in {kern.kind}"
    key = totals.key([kern], name, timeout, script, *append)
    if totals.remembers(full, key):
        return
    out = guest.scratch() / f"{kern.kind}-{name}"
    result = guest.run(kern, script, timeout=timeout * SLOW, out=out, append=append,
                       env=demo.ENV | ({"GUEST_KMEMLEAK": 1} if "kmemleak=on" in append else {}))
    tests = ktap.parse(result.output)
    passed, failed = list(tests.passed), tests.failures()
    if result.status is None:
        failed.append(result.why)
    elif tests.incomplete or result.status >= ENDED:
        failed.append(f"did not finish (status {result.status}, see {out})")
    if "CAPTURE=" in script and result.status is not None:
        scan(result, name, passed, failed)
    if twins.SHOW in script:
        verified = twins.verified(result.output)
        for ulp, *_ in twins.ULPS:
            (passed if verified.get(ulp) else failed).append(f"bytes of {ulp} on a twin")
    for test, splat in guest.splats_by_test(result.dmesg).items():
        # once for each test: as a failure of its own if the test has already failed
        if test in passed:
            passed.remove(test)
        failed.append(f"{test or name}: splat: {splat} (see {out}/dmesg)")
    for guests, lack in NO_REASON:
        if f"{kern.kind}-{name}".startswith(guests):
            failed += [what for what in tests.skipped if lack in what]
    if result.leaks:
        failed.append(f"kmemleak: {result.leaks[0]} (see {out}/kmemleak)")
    elif "kmemleak=on" in append and not (out / "kmemleak").exists():
        failed.append("kmemleak did not look")
    skipped = [what for what in tests.skipped if what not in failed]
    totals.add(full, len(passed), failed, skipped, time.monotonic() - start, cpu=result.cpu,
               key=key)


def userland_test(stock, kern, totals):
    """User space that is not ours: what passes on stock has to pass here."""
    start = time.monotonic()
    full = f"userland in {kern.kind}"
    key = totals.key([stock.kernel, kern], full)
    if totals.remembers(full, key):
        return
    passed, skipped, lines, worse = userland.compare(stock, kern)
    totals.add(full, passed, worse, skipped, time.monotonic() - start, lines, key=key)


class Jobs:
    """What is to be done, the longest first. A guest under TCG keeps more than one CPU
    busy: there is a second one only if nothing else is left to do."""
    def __init__(self):
        self.waiting = []
        self.under_tcg = 0
        self.closed = False
        self.changed = threading.Condition()

    def put(self, seconds, name, job, tcg=False):
        with self.changed:
            self.waiting.append((seconds, name, job, tcg))
            self.changed.notify_all()

    def close(self):
        """Nothing more will come."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def choose(self):
        """What to do next, or None for now."""
        ready = [job for job in self.waiting if not (job[3] and self.under_tcg)]
        if not ready and self.closed and self.under_tcg < 2:
            ready = self.waiting
        return max(ready, key=lambda job: job[0], default=None)

    @contextlib.contextmanager
    def next(self):
        """(name, job), or None at the end."""
        with self.changed:
            while not (chosen := self.choose()) and (self.waiting or not self.closed):
                self.changed.wait()
            if chosen:
                self.waiting.remove(chosen)
                self.under_tcg += chosen[3]
        try:
            yield chosen and chosen[1:3]
        finally:
            with self.changed:
                self.under_tcg -= bool(chosen and chosen[3])
                self.changed.notify_all()


def build(kinds, totals, jobs):
    """One kernel at a time; what needs it is queued when it is there."""
    stock = userland.Stock()
    for kind in kinds:
        try:
            kern = kernel.Kernel(kind)
            kern.build()
        except (SystemExit, OSError) as error:
            totals.add(f"kernel for {kind}", 0, [str(error)], [], 0)
            continue
        for name, timeout, script, *append in kinds[kind]:
            try:
                # what it needs besides the kernel
                if name == "userland":
                    job = functools.partial(userland_test, stock, kern, totals)
                    stock.build()
                else:
                    job = functools.partial(guest_test, totals, kern, name, timeout, script, *append)
                if programs.needed(kind, name, script):
                    programs.build(kern, name, script)
            except (SystemExit, OSError) as error:
                totals.add(f"{name} in {kind}", 0, [str(error)], [], 0)
                continue
            jobs.put(timeout, f"{kind}-{name}", job, tcg=kind != "uml")


def work(jobs, totals):
    while True:
        with jobs.next() as chosen:
            if not chosen:
                return
            name, job = chosen
            try:
                job()
            # with the worker would go all that it was to do yet
            except BaseException as error:
                totals.add(name, 0, [f"{type(error).__name__}: {error}"], [], 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    known = ["harness"] + [f"{kind}-{test[0]}" for kind, tests in GUEST_TESTS.items()
                            for test in tests]
    if args.list:
        print("\n".join(known))
        return
    names = set(args.names)
    unknown = [name for name in names if name not in known
               and not any(k.endswith(f"-{name}") for k in known)]
    if unknown:
        kernel.die(f"no such test: {unknown[0]} (test.py --list)")

    totals = Totals(Memory(recall=not names and not os.environ.get("AGAIN")))
    kinds = {kind: [test for test in tests
                    if not names or test[0] in names or f"{kind}-{test[0]}" in names]
             for kind, tests in GUEST_TESTS.items()}
    jobs = Jobs()
    if not names or "harness" in names:
        jobs.put(0, "harness", lambda: harness_tests(totals))
    threads = [threading.Thread(target=work, args=(jobs, totals), daemon=True)
               for _ in range(WORKERS)]
    for thread in threads:
        thread.start()
    build({kind: tests for kind, tests in kinds.items() if tests}, totals, jobs)
    jobs.close()
    for thread in threads:
        thread.join()
    totals.end()
    sys.exit(totals.failed > 0)


if __name__ == "__main__":
    kernel.run_main(main)
