#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Show each ULP on physical addresses, end to end, in a UML guest.

    demo.py [--stock] [rxe|siw ...]

One device on each end of a veth pair that every packet has to cross. NVMe-oF, iSER, SRP
and RNBD: a target with a RAM disk on one, a host on the other, and fio, which reads back
what it wrote. RDS: messages and RDMA between two sockets. 9P: files are written and read,
on a server in user space. RNBD and RDS on rxe only. Then a scan of what went over the
wire for kernel virtual addresses. --stock does the same on the unpatched kernel,
where the scan finds some.
"""
import argparse
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import ktap, programs, wirescan  # noqa: E402

DEVICES = ["rxe", "siw"]
# (name, selftest, its tests, devices that it runs on)
ULPS = [
    ("NVMe-oF", "nvme", "connect verify_small verify disconnect", DEVICES),
    ("iSER", "iser", "connect verify_small verify disconnect", DEVICES),
    ("SRP", "srp", "connect verify_small verify disconnect", DEVICES),
    # siw has no WRITE WITH IMM
    ("RNBD", "rnbd", "connect verify_small verify disconnect", ["rxe"]),
    # it wants an IB device
    ("RDS", "rds", "messages rdma_write rdma_read", ["rxe"]),
    ("9P", "9p", "files", DEVICES),
]
# no header of theirs has an address, so that there is none to be found
SENDS_ONLY = {"9p"}
SIZE = "8M"
MEMORY = 1024

# The loop module sees the SGEs that a ULP gets, and compares their addresses with
# the physical ones; a stock kernel does not have it.
SCRIPT = """
tests="$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma"
(
	. "$tests/wire.sh"
	wire_up {device}
	echo -n rdma_loop.loop_test_send >/sys/module/kunit/parameters/filter_glob
	modprobe -q rdma_loop src=$A0 dst=$A1 &&
		grep -q "^ok 1 rdma_loop" /sys/kernel/debug/kunit/rdma_loop/results &&
		echo "local SGEs: physical"
	modprobe -q -r rdma_loop
	wire_down
)
{server} CAPTURE=/run/out/wire.pcap SIZE={size} ONLY="{only}" "$tests/{test}.sh" {device}
awk '$3 == "__binary_start" {{ print "linear_map", $1 }} $3 == "_end" {{ print "image_end", $1 }}' /proc/kallsyms
"""
SELFTEST = """
# 1 is a test that has failed, and has been told; 4 is for one that cannot run
{server} {settings} "$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma/{name}.sh" {device}
[ $? -le 1 ] || echo "not ok 1 {name} ends early"
"""
ENV = {"GUEST_TREE_OF_TESTS": kernel.TOP / "build/linux"}


def work_tree(name, commit):
    """Another work tree of build/linux."""
    linux, tree = kernel.TOP / "build/linux", kernel.TOP / "build" / name
    wanted = kernel.git(linux, "rev-parse", f"{commit}^{{commit}}")
    # of another build/linux, or not all of it was written
    if not kernel.git(tree, "ls-files", "Makefile", missing=b""):
        shutil.rmtree(tree, ignore_errors=True)
        kernel.git(linux, "worktree", "prune")
        kernel.git(linux, "worktree", "add", "-q", "--detach", tree, commit)
    elif kernel.git(tree, "rev-parse", "HEAD") != wanted:
        kernel.git(tree, "checkout", "-q", "--force", "--detach", commit)
    return tree


def stock_tree():
    return work_tree("stock", "base")


def address(name, output):
    """Of what /proc/kallsyms in the guest has by that name."""
    match = re.search(rf"^{name} (\w+)$", output, re.M)
    if not match:
        raise wirescan.CaptureError("the guest did not say where its memory is")
    return int(match[1], 16)


def linear_map(output):
    """UML's linear map starts low, so only the guest can tell where."""
    start = address("linear_map", output)
    return start, start + MEMORY * 1024 * 1024 - 1


def buffers(output):
    """The physical addresses of what is not the kernel's image, which UML begins with."""
    first, last = linear_map(output)
    return address("image_end", output) - first, last - first


def known(parser, devices):
    for unknown in set(devices) - set(DEVICES):
        parser.error(f"no such device: {unknown} ({', '.join(DEVICES)})")


def runs(devices=DEVICES):
    """What to show: (device, ULP)."""
    return [(device, ulp) for device in devices for ulp in ULPS if device in ulp[3]]


def script(device, ulp):
    _, test, only, _ = ulp
    return SCRIPT.format(size=SIZE, device=device, test=test, only=only, server=programs.server(test))


def selftest(name, device, settings=""):
    return SELFTEST.format(name=name, device=device, settings=settings, server=programs.server(name))


def moved(output):
    """[(bytes written, bytes verified)] of what selftests print."""
    # RDS: what was received has been compared
    return [(int(wrote), int(read)) for wrote, read in
            re.findall(r"wrote=(\d+) verified=(\d+)", output)] + \
        [(int(both), int(both)) for both in re.findall(r"^# bytes=(\d+)$", output, re.M)]


def mib(sizes):
    return f"{sum(sizes) / 2**20:.1f}"


def row(result, device, ulp):
    """What a guest has shown that ran script(), or CaptureError."""
    written = moved(result.output)
    scan = wirescan.scan(str(result.out / "wire.pcap"), [linear_map(result.output)],
                         [buffers(result.output)])
    if scan.unparsed or not (scan.packets if ulp[1] in SENDS_ONLY else scan.fields_total):
        raise wirescan.CaptureError(f"not understood: {dict(scan.unparsed)}")
    return {
        "device": device, "ULP": ulp[0],
        "MiB written": mib(wrote for wrote, _ in written),
        "MiB verified": mib(read for _, read in written),
        "local SGEs": "physical" if "local SGEs: physical" in result.output else "virtual",
        "addresses on the wire": str(scan.fields_total),
        "kernel virtual": str(scan.kernel_total),
        "kernel physical": str(scan.physical_total),
        "scan": scan,
    }


def progress(line):
    if line.startswith(("ok", "not ok", "#", "Bail")):
        print("  " + line, end="", flush=True)


def problem(result, what, splats=False):
    """Why a guest did not do what it was to do, or None. Its splats count, unless SPLATS."""
    if result.status is None:
        # so would the next one
        kernel.die(f"{what}: {result.why}")
    tests = ktap.parse(result.output)
    if splats and result.problem and result.splats:
        print(f"harness: {what}: {result.problem}", file=sys.stderr)
    elif result.problem:
        return result.problem
    if tests.failed or tests.incomplete or tests.skipped:
        return (tests.failures() + tests.skipped + ["the tests did not finish"])[0]
    return None


def demo(kern, device, ulp, stock=False):
    """One row of the table; None if what had to happen did not."""
    start = time.monotonic()
    result = guest.run(kern, script(device, ulp), timeout=1800, memory=MEMORY, env=ENV,
                       out=guest.scratch() / f"demo-{device}-{ulp[1]}", echo=progress)
    what = f"{ulp[0]} over {device}{' on stock Linux' if stock else ''}"
    # stock's splats are in BUGS.md
    bad = problem(result, what, splats=stock)
    if bad:
        print(f"harness: {what}: {bad} (see {result.out})", file=sys.stderr)
        return None
    try:
        return row(result, device, ulp) | {"seconds": f"{time.monotonic() - start:.0f}"}
    except wirescan.CaptureError as error:
        print(f"harness: {what}: {error}", file=sys.stderr)
        return None


def table(rows):
    columns = [name for name in rows[0] if name != "scan"]
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in columns]
    for cells in [columns] + [[row[name] for name in columns] for row in rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(cells, widths)).rstrip())


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("devices", nargs="*", default=DEVICES)
    parser.add_argument("--stock", action="store_true")
    args = parser.parse_args()
    known(parser, args.devices)
    kern = kernel.Kernel("uml", stock_tree() if args.stock else None)
    kern.build()
    # a stock tree has no selftests of ours
    programs.build(kernel.Kernel("uml"), None, "".join(script(*run) for run in runs(args.devices)))
    rows = []
    for device, ulp in runs(args.devices):
        # it has kept its addresses to itself, but does not give pages back
        if args.stock and ulp[0] == "RDS":
            continue
        print(f"{ulp[0]} over {device}{' on stock Linux' if args.stock else ''}:", flush=True)
        rows.append(demo(kern, device, ulp, args.stock))
    if None in rows:
        sys.exit(1)
    print()
    table(rows)
    found = [row for row in rows if row["scan"].kernel_total or row["scan"].physical_total]
    for row in found:
        print(f"\n{row['ULP']} over {row['device']}: " + ", ".join(
            f"{count} in {field}" for field, count in
            sorted((row["scan"].kernel + row["scan"].physical).items())))
    wanted = "virtual" if args.stock else "physical"
    # on stock, a scan that finds nothing is broken
    sys.exit(bool(found) != args.stock or any(row["local SGEs"] != wanted for row in rows))


if __name__ == "__main__":
    kernel.run_main(main)
