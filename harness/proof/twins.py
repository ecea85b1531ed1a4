#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Show each ULP on DMA addresses, in x86-64 guests without an adapter.

    twins.py

rxe is the twin of an adapter (Documentation/infiniband/twin.rst in build/linux), whose DMA
reaches memory in one of several ways. A mapping that stays and any error that the debugging
of the DMA API finds is a failure.
"""
import argparse
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest, kernel  # noqa: E402
from proof import demo  # noqa: E402

# how the adapter's DMA reaches memory, and the kernel's command line for that
TWINS = {
    # IOVAs, which nothing is behind any more once they are unmapped
    "iommu": ("intel_iommu=on", "iommu.strict=1"),
    # copies: what is not synced is lost
    "bounce": ("intel_iommu=off", "swiotlb=force"),
    "direct": ("intel_iommu=off",),
}
# The debugging of the DMA API switches itself off when an allocation of its own fails.
BEGIN = """
awk '$2 ~ /^[tT]$/ && $3 !~ /[.]cold/ {
	if (inside)
		end = $1
	inside = $3 ~ /^debug_dma_/
	if (inside && !start)
		start = $1
} END {
	print "0x" start >"/sys/kernel/debug/failslab/reject-start"
	print "0x" end >"/sys/kernel/debug/failslab/reject-end"
}' /proc/kallsyms
"""
# rxe takes them. The server of 9P is in user space, which a twin has none of.
ULPS = [ulp for ulp in demo.ULPS if ulp[1] != "9p"]
SHOW = "".join(f'echo "# twin: {name}"\n' + demo.selftest(test, "rxe", f"SIZE=1M ONLY='{tests}'")
               for name, test, tests, _ in ULPS) + 'echo "# twin:"\n'
# what has to be so when the tests are over; the DMA API also counts what the loop module
# unmaps otherwise on purpose
END = """
errors=$(cat /sys/kernel/debug/dma-api/error_count)
wanted=$(dmesg | grep -c " on purpose: .*are unmapped that were not mapped like that$")
[ "$errors $(cat /sys/kernel/debug/dma-api/disabled)" = "$wanted N" ] &&
	echo "ok 1 no errors of the DMA API but $wanted on purpose" ||
	echo "not ok 1 $errors errors of the DMA API and not $wanted, or it has stopped to look"
! grep {adapter} /sys/kernel/debug/dma-api/dump && echo "ok 2 all is unmapped" ||
	echo "not ok 2 is mapped for ever"
dmesg | grep -q "twin: {adapter}, {how}$" && echo "ok 3 {how}" || echo "not ok 3 there was no twin {how}"
"""


def arguments(how):
    """More of the kernel's command line."""
    # srp unmaps immediate data before the device may have read it for the last time
    return f"ib_core.twin={guest.ADAPTER}", "ib_srp.use_imm_data=N", *TWINS[how]


def end(how):
    return END.format(adapter=guest.ADAPTER,
                      how="behind an IOMMU" if how == "iommu" else "no IOMMU")


def verified(output):
    """{ULP: bytes that SHOW has verified}"""
    parts = re.split(r"^# twin: ?(.*)\n", output, flags=re.M)
    return {name: sum(read for _, read in demo.moved(text))
            for name, text in zip(parts[1::2], parts[2::2]) if name}


def main():
    argparse.ArgumentParser(description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    kern = kernel.Kernel("x86")
    kern.build()
    rows = {name: {"MiB verified": name} for name, *_ in ULPS}
    for how in TWINS:
        print(f"rxe as the twin of an adapter, {how}:", flush=True)
        result = guest.run(kern, SHOW + end(how), timeout=1800, env=demo.ENV,
                           out=guest.scratch() / f"twin-{how}", append=arguments(how),
                           echo=demo.progress)
        bad = demo.problem(result, f"twin, {how}")
        if bad:
            kernel.die(f"twin, {how}: {bad} (see {result.out})")
        for name, size in verified(result.output).items():
            rows[name][how] = demo.mib([size])
    print()
    demo.table(list(rows.values()))


if __name__ == "__main__":
    kernel.run_main(main)
