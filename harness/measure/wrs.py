#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Count the WRs, SGEs and MRs that move 1 MiB by NVMe-oF over a twin of an adapter.

    wrs.py

Before: rdma_rw and ULPs as they are on stock Linux and its fixes, on the drivers and the
twin of the series, which stock's rxe cannot be. After: the series. Each with the
adapter's DMA behind an IOMMU, through bounce buffers, and direct, in the x86 guest.
"""
import argparse
import collections
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from measure import bench  # noqa: E402
from proof import demo, twins  # noqa: E402

# what fio is to do
LOADS = ("write", "read")
SCRIPT = """
tests=$GUEST_TREE_OF_TESTS/tools/testing/selftests/rdma
t_count() {
	local rw

	insmod "$BENCH_MODULES/wr_count.ko" devices=r0,r1 || return 1
	for rw in $LOADS; do
		echo >/sys/kernel/debug/wr_count
		FIO="--rw=$rw --bs=1m --size=16M --io_size=16M" t_fio || return 1
		sed "s/^/# count $rw /" /sys/kernel/debug/wr_count
	done
	rmmod wr_count
}
export -f t_count
ONLY="connect count disconnect" "$tests/nvme.sh" rxe
"""
# enum ib_wr_opcode
WRITE, READ, REG_MR = 0, 4, 32


def before_tree():
    """The series without the parts that change rdma_rw and ULPs, but with the twin."""
    linux = kernel.TOP / "build/linux"
    commit = bench.commit_before("rw")
    wanted = f"{commit} {kernel.git(linux, 'rev-parse', 'HEAD').decode().strip()}\n"
    tree = kernel.TOP / "build/before"
    # in the tree, and gone with it
    stamp = tree / ".before"
    if not (stamp.exists() and stamp.read_text() == wanted):
        stamp.unlink(missing_ok=True)
        tree = demo.work_tree("before", commit)
        kernel.git(tree, "reset", "-q", "--hard")
        kernel.git(tree, "cherry-pick", "--no-commit", "-X", "theirs",
                   f"{bench.commit_before('twin')}..{wanted.split()[1]}")
        # of this a twin only wants to know what NVMe-oF does not do
        kernel.git(tree, "checkout", commit, "--", "drivers/infiniband/core/rw.c")
        stamp.write_text(wanted)
    return tree


def counted(output):
    """{(load, device, opcode): (WRs, SGEs, MiB)}"""
    lines = [line.split()[2:] for line in output.splitlines() if line.startswith("# count ")]
    return {(load, device, int(opcode)): (int(wrs), int(sges), int(size) / 2**20)
            for load, device, opcode, wrs, sges, size in lines}


def measure(name, kern, how):
    out = guest.scratch() / f"wrs-{name}-{how}"
    result = guest.run(kern, SCRIPT + twins.end(how), timeout=900, out=out,
                       append=twins.arguments(how),
                       env=demo.ENV | {"BENCH_MODULES": bench.BUILT / f"wrs-{name}",
                                       "LOADS": " ".join(LOADS)})
    bad = demo.problem(result, f"wrs: {name}, {how}")
    if bad:
        kernel.die(f"wrs: {name}, {how}: {bad} (see {out})")
    return counted(result.output)


def per_mib(counts, load, device, opcode):
    """(WRs, SGEs) for each MiB that they have moved."""
    wrs, sges, mib = counts.get((load, device, opcode), (0, 0, 0))
    return (wrs / mib, sges / mib) if mib else (0, 0)


def figures(counts, load):
    """The target's WRs and SGEs, its MRs, and the host's MRs, for each MiB."""
    target = per_mib(counts, load, "r1", READ if load == "write" else WRITE)
    return *target, per_mib(counts, load, "r1", REG_MR)[0], per_mib(counts, load, "r0", REG_MR)[0]


def main():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    trees = {"before": before_tree(), "series": None}
    counts = collections.defaultdict(dict)
    for name, tree in trees.items():
        kern = kernel.Kernel("x86", tree)
        kern.build()
        bench.build_modules(f"wrs-{name}", kern)
        for how in twins.TWINS:
            counts[how][name] = measure(name, kern, how)
    rows = [(f"{how}, {load} of 1 MiB", *(
                f"{before:.2f} {after:.2f}" for before, after in zip(
                    *(figures(counts[how][name], load) for name in trees))))
            for how in counts for load in LOADS]
    print("\n".join(bench.table("for each MiB, before and after", (
        "target's WRs", "its SGEs", "its MRs", "host's MRs"), rows)))


if __name__ == "__main__":
    kernel.run_main(main)
