// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
#include <linux/memory_hotplug.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <rdma/sge_phys.h>

/**
 * rdma_phys_is_ram - whether a peer may name this memory
 * @phys: CPU physical address from the peer: anything may be there
 * @len: how many bytes, at least 1
 * @write: whether the peer is to change it
 *
 * Holes between banks of RAM have pages, too, reserved ones, and need not be in the
 * linear map. So has memory from before there was a page allocator. The zero page
 * is the only one of these that a ULP lets peers read, and not one to write to.
 *
 * Context: Any; does not sleep.
 * Return: true if all of it is RAM that the page allocator gave to someone or may
 *	give, or the zero page and not to be changed.
 */
bool rdma_phys_is_ram(u64 phys, size_t len, bool write)
{
	struct page *page;
	u64 last;

	if (check_add_overflow(phys, (u64)len - 1, &last) ||
	    PHYS_PFN(last) != last >> PAGE_SHIFT)
		return false;
	for (phys &= PAGE_MASK; phys <= last; phys += PAGE_SIZE) {
		page = pfn_to_online_page(PHYS_PFN(phys));
		if (!page ||
		    (PageReserved(page) &&
		     (write || !is_zero_pfn(PHYS_PFN(phys)))))
			return false;
	}
	return true;
}
EXPORT_SYMBOL_GPL(rdma_phys_is_ram);
