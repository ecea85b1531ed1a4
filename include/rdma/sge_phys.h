/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * For drivers without a dma_device: the memory that the SGEs of <rdma/sge.h>
 * name by its CPU physical address.
 */
#ifndef _RDMA_SGE_PHYS_H
#define _RDMA_SGE_PHYS_H

#include <linux/highmem.h>
#include <linux/io.h>

bool rdma_phys_is_ram(u64 phys, size_t len, bool write);

/**
 * rdma_phys_is_sane - look for an SGE of our own that is wrong
 * @phys: CPU physical address under the local_dma_lkey
 * @len: how many bytes
 *
 * Such an SGE comes from the builder and is trusted, so this is for a kernel that
 * is there to find bugs. It does not notice all that is not RAM.
 *
 * Context: Any; does not sleep.
 * Return: false if the start or the end of it has no page. Without
 *	CONFIG_DEBUG_VIRTUAL always true.
 */
static inline bool rdma_phys_is_sane(u64 phys, size_t len)
{
	u64 last = phys + len - 1;

	/* PHYS_PFN() may cut off what no physical address has */
	return !IS_ENABLED(CONFIG_DEBUG_VIRTUAL) || !len ||
	       (phys <= last && PHYS_PFN(last) == last >> PAGE_SHIFT &&
		pfn_valid(PHYS_PFN(phys)) && pfn_valid(PHYS_PFN(last)));
}

/**
 * rdma_kmap_phys - kernel address of physical memory
 * @phys: CPU physical address of RAM
 * @len: how many bytes are wanted, at least 1; becomes how many there are at the
 *	address: all of them, or those up to the end of the page if the kernel has
 *	highmem
 *
 * The caller undoes it by rdma_kunmap_phys(), in reverse order as for
 * kmap_local_page().
 *
 * Context: Any; does not sleep.
 * Return: the address.
 */
static inline void *rdma_kmap_phys(u64 phys, size_t *len)
{
	if (!IS_ENABLED(CONFIG_HIGHMEM))
		return phys_to_virt(phys);
	*len = min(*len, PAGE_SIZE - offset_in_page(phys));
	return kmap_local_page(pfn_to_page(PHYS_PFN(phys))) +
	       offset_in_page(phys);
}

/**
 * rdma_kunmap_phys - undo rdma_kmap_phys()
 * @va: what rdma_kmap_phys() returned
 *
 * Context: That of the rdma_kmap_phys().
 */
static inline void rdma_kunmap_phys(const void *va)
{
	if (IS_ENABLED(CONFIG_HIGHMEM))
		kunmap_local(va);
}

#endif /* _RDMA_SGE_PHYS_H */
