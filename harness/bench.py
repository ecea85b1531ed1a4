#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Compare stock with the series: CPU time of a whole guest for fixed work.

    bench.py [--pairs N]

Both kernels are built from one configuration without debug options, and run in
turn (stock, series, stock, ...) on this machine. Each measures NVMe-oF over rxe
with a fixed number of operations. CPU time is that of the guest's processes as the
host counts it, less that of a guest that connects and does no I/O. Only the ratios
mean something on a shared machine. The table goes to out/bench.txt, too.
"""
import argparse
import os
import platform
import statistics
import sys
import time

import demo
import guest
import kernel

# name: (operations, KiB each, fio's --rw)
LOADS = {
    "none": (0, 0, ""),
    "4 KiB random reads": (20000, 4, "randread"),
    "128 KiB writes": (1500, 128, "write"),
}

SCRIPT = """
export ONLY="{tests}" FIO="--rw={rw} --bs={kib}k --size=64M --io_size={total}k"
exec "$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma/nvme.sh" rxe
"""


def cpu_seconds(kern, load):
    """CPU seconds of one guest, boot included."""
    operations, kib, rw = LOADS[load]
    before = os.times()
    tests = "connect fio disconnect" if operations else "connect disconnect"
    result = guest.run(kern, SCRIPT.format(tests=tests, rw=rw, kib=kib, total=operations * kib),
                       timeout=300, env={"GUEST_TREE_OF_TESTS": kernel.TOP / "build/linux"})
    after = os.times()
    if result.problem or result.status:
        kernel.die(f"bench: {load}: {result.problem or 'the load failed'} (see {result.out})")
    return (after.children_user - before.children_user +
            after.children_system - before.children_system)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    kernels = {"stock": kernel.Kernel("uml", demo.stock_tree(), plain=True),
               "series": kernel.Kernel("uml", plain=True)}
    for kern in kernels.values():
        kern.build()

    runs = {(name, load): [] for name in kernels for load in LOADS}
    for pair in range(args.pairs):
        for load in LOADS:
            for name, kern in kernels.items():
                runs[name, load].append(cpu_seconds(kern, load))
        print(f"pair {pair + 1} of {args.pairs}", file=sys.stderr, flush=True)

    idle = {name: statistics.median(runs[name, "none"]) for name in kernels}
    lines = [f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release()}; "
             f"{time.strftime('%Y-%m-%d')}; make bench (bench.py --pairs {args.pairs})",
             "us of CPU for each operation, median; ratio series/stock, median and range of "
             "the pairs", "",
             f"{'NVMe-oF over rxe':<22}{'stock':>10}{'series':>10}{'ratio':>8}  range"]
    for load, (operations, _, _) in LOADS.items():
        if not operations:
            continue
        cost = {name: [(run - idle[name]) / operations * 1e6 for run in runs[name, load]]
                for name in kernels}
        ratios = [b / a for a, b in zip(cost["stock"], cost["series"])]
        lines.append(f"{load:<22}{statistics.median(cost['stock']):>10.1f}"
                     f"{statistics.median(cost['series']):>10.1f}"
                     f"{statistics.median(ratios):>8.2f}  {min(ratios):.2f}-{max(ratios):.2f}")
    text = "\n".join(lines) + "\n"
    out = kernel.TOP / "out/bench.txt"
    out.parent.mkdir(exist_ok=True)
    out.write_text(text)
    print("\n" + text, end="")


if __name__ == "__main__":
    main()
