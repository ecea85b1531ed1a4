# SPDX-License-Identifier: GPL-2.0
"""rxe and siw as twins of an adapter (Documentation/infiniband/twin.rst in build/linux)."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from guests import guest  # noqa: E402

# how the adapter's DMA reaches memory, and the kernel's command line for that
TWINS = {
    # IOVAs, which nothing is behind any more once they are unmapped
    "iommu": ("intel_iommu=on", "iommu.strict=1"),
    # copies: what is not synced is lost
    "bounce": ("intel_iommu=off", "swiotlb=force"),
    "direct": ("intel_iommu=off",),
}
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
    return f"ib_core.twin={guest.ADAPTER}", *TWINS[how]


def end(how):
    return END.format(adapter=guest.ADAPTER,
                      how="behind an IOMMU" if how == "iommu" else "no IOMMU")
