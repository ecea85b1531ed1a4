/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * Local scatter/gather elements for kernel ULPs. The story behind it is in
 * Documentation/infiniband/sge.rst.
 */
#ifndef _RDMA_SGE_H
#define _RDMA_SGE_H

#include <linux/bvec.h>
#include <linux/dma-mapping.h>
#include <linux/io.h>
#include <linux/mm.h>
#include <rdma/ib_verbs.h>

#ifdef CONFIG_FAIL_RDMA_MAP
bool rdma_map_should_fail(void);
#else
static inline bool rdma_map_should_fail(void)
{
	return false;
}
#endif

/*
 * What the device wants to see in an SGE. The caller vouches for the memory:
 * @phys is RAM that this device may reach by an ordinary mapping.
 */
static inline int __rdma_map_sge(struct ib_pd *pd, struct ib_sge *sge,
				 phys_addr_t phys, size_t len,
				 enum dma_data_direction dir)
{
	struct ib_device *dev = pd->device;
	u64 addr = phys;

	/* one comparison for 0 and for more than an SGE's 32 bits can hold */
	if (unlikely(len - 1 >= U32_MAX))
		return -EINVAL;
	if (rdma_map_should_fail())
		return -ENOMEM;

	if (ib_has_dma_device(dev)) {
		addr = dma_map_phys(dev->dma_device, phys, len, dir, 0);
		if (dma_mapping_error(dev->dma_device, addr))
			return -ENOMEM;
	}

	sge->addr = addr;
	sge->length = len;
	sge->lkey = pd->local_dma_lkey;
	return 0;
}

bool rdma_is_linear(const void *buf);

/*
 * Nearly always in the linear map, which costs no call to find out, unless stacks
 * are in there, too.
 */
static inline bool sge_is_linear(const void *buf)
{
	unsigned long start = PAGE_OFFSET;

	return (IS_ENABLED(CONFIG_VMAP_STACK) &&
		likely((unsigned long)buf - start <
		       (unsigned long)high_memory - start)) ||
	       rdma_is_linear(buf);
}

/**
 * rdma_map_sge_single - map a kernel buffer and fill an SGE with it
 * @pd: protection domain of the QP that the SGE is posted to
 * @sge: SGE to fill: address, length and @pd's local_dma_lkey
 * @buf: buffer in the linear map, as kmalloc() returns it; not vmalloc(), module
 *	or stack memory
 * @len: length of the buffer in bytes
 * @dir: direction of the transfer
 *
 * The buffer belongs to the device until rdma_unmap_sge(), apart from
 * rdma_sync_sge_for_cpu(). The caller unmaps, after the completion of the last
 * WR that names it.
 *
 * Context: Any; does not sleep.
 * Return: 0; %-EINVAL if @len is 0 or over U32_MAX or @buf is no linear memory;
 *	%-ENOMEM if the mapping failed. On error @sge is untouched and nothing is
 *	mapped.
 */
static inline int rdma_map_sge_single(struct ib_pd *pd, struct ib_sge *sge,
				      void *buf, size_t len,
				      enum dma_data_direction dir)
{
	if (unlikely(!sge_is_linear(buf)))
		return -EINVAL;
	return __rdma_map_sge(pd, sge, virt_to_phys(buf), len, dir);
}

/**
 * rdma_map_sge_page - map a part of a page and fill an SGE with it
 * @pd: protection domain of the QP that the SGE is posted to
 * @sge: SGE to fill: address, length and @pd's local_dma_lkey
 * @page: the page, which may be a highmem page; or the first one of a larger
 *	physically contiguous run, such as a folio
 * @offset: start of the part, in bytes from the start of @page
 * @len: length of the part in bytes
 * @dir: direction of the transfer
 *
 * Like rdma_map_sge_single(), for memory that need not have a kernel address.
 * Peer-to-peer memory is only mapped as part of a scatterlist, by
 * rdma_fill_ib_sge_from_sgl().
 *
 * Context: Any; does not sleep.
 * Return: 0; %-EINVAL if @len is 0 or over U32_MAX; %-EREMOTEIO if @page is
 *	peer-to-peer memory; %-ENOMEM if the mapping failed. On error @sge is
 *	untouched and nothing is mapped.
 */
static inline int rdma_map_sge_page(struct ib_pd *pd, struct ib_sge *sge,
				    struct page *page, size_t offset,
				    size_t len, enum dma_data_direction dir)
{
	if (unlikely(is_pci_p2pdma_page(page)))
		return -EREMOTEIO;
	return __rdma_map_sge(pd, sge, page_to_phys(page) + offset, len, dir);
}

/**
 * rdma_unmap_sge - undo rdma_map_sge_single() or rdma_map_sge_page()
 * @dev: device that the SGE was mapped for
 * @sge: the SGE as the map call filled it, not a slice of it; it is not changed
 * @dir: direction given to the map call
 *
 * It takes the device, not the PD: what is mapped is mapped for the device, and may
 * outlive QP and PD. So it takes an SGE of any PD of @dev, and looks at no key.
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_unmap_sge(struct ib_device *dev,
				  const struct ib_sge *sge,
				  enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_unmap_phys(dev->dma_device, sge->addr, sge->length, dir, 0);
}

/**
 * rdma_unmap_sges - unmap SGEs that were mapped one by one
 * @dev: device that the SGEs were mapped for
 * @sges: the SGEs as they were filled
 * @n: how many there are
 * @dir: direction given to the map call
 *
 * For rdma_fill_ib_sge_from_bvec(), and for arrays of what rdma_unmap_sge()
 * unmaps.
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_unmap_sges(struct ib_device *dev,
				   const struct ib_sge *sges, int n,
				   enum dma_data_direction dir)
{
	int i;

	if (!ib_has_dma_device(dev))
		return;
	for (i = 0; i < n; i++)
		dma_unmap_phys(dev->dma_device, sges[i].addr, sges[i].length,
			       dir, 0);
}

/**
 * rdma_sge_slice - make an SGE for a part of a mapping
 * @slice: SGE to fill, which may be @map itself
 * @map: SGE as a map call filled it, or a slice
 * @offset: start of the part, in bytes from the start of @map
 * @len: length of the part in bytes
 *
 * For buffers that are mapped once and posted in parts. Slices are not unmapped:
 * the SGE that was mapped is.
 *
 * Context: Any; does not sleep.
 * Return: 0; %-EINVAL, after a warning, if the part is not inside @map. Then
 *	@slice is an SGE of no bytes, which is all that a caller who does not look
 *	can post.
 */
static inline int rdma_sge_slice(struct ib_sge *slice, const struct ib_sge *map,
				 u32 offset, u32 len)
{
	if (WARN_ON_ONCE(offset > map->length || len > map->length - offset)) {
		*slice = (struct ib_sge){};
		return -EINVAL;
	}
	slice->addr = map->addr + offset;
	slice->length = len;
	slice->lkey = map->lkey;
	return 0;
}

/**
 * rdma_mr_sge - make an SGE for all of a memory region
 * @sge: SGE to fill: the region's iova, length and lkey
 * @mr: the region, mapped, of less than 4 GiB; with the key that it is registered by
 *
 * For WRs of one's own that start or end in the region. rdma_sge_slice() makes parts
 * of it. Nothing is mapped: the list that is in @mr is, and is unmapped.
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_mr_sge(struct ib_sge *sge, const struct ib_mr *mr)
{
	sge->addr = mr->iova;
	sge->length = mr->length;
	sge->lkey = mr->lkey;
}

/**
 * rdma_sync_sge_for_cpu - let the CPU look at a mapped buffer
 * @dev: device that the SGE was mapped for
 * @sge: the SGE, or a slice of it to sync no more than that
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_sync_sge_for_cpu(struct ib_device *dev,
					 const struct ib_sge *sge,
					 enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_single_for_cpu(dev->dma_device, sge->addr, sge->length,
					dir);
}

/**
 * rdma_sync_sge_for_device - give a mapped buffer back to the device
 * @dev: device that the SGE was mapped for
 * @sge: the SGE, or a slice of it to sync no more than that
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_sync_sge_for_device(struct ib_device *dev,
					    const struct ib_sge *sge,
					    enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_single_for_device(dev->dma_device, sge->addr,
					   sge->length, dir);
}

/**
 * rdma_fill_ib_sge_inline - fill an SGE for a WR with IB_SEND_INLINE
 * @sge: SGE to fill
 * @buf: buffer in kernel memory of any kind; ib_post_send() copies it
 * @len: length of the buffer in bytes
 *
 * Nothing is mapped, so there is nothing to unmap: the CPU copies the payload
 * while the WR is posted and looks at no key. The buffer is free again when
 * ib_post_send() returns.
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_fill_ib_sge_inline(struct ib_sge *sge, const void *buf,
					   u32 len)
{
	sge->addr = (uintptr_t)buf;
	sge->length = len;
	sge->lkey = 0;
}

/* lists of memory in one call: map, and fill SGEs or an MR with all of it */

int rdma_fill_ib_sge_from_sgl(struct ib_pd *pd, struct ib_sge *sges,
			      int max_sge, struct scatterlist *sgl, int nents,
			      enum dma_data_direction dir);
int __rdma_fill_ib_sge_from_bvec(struct ib_pd *pd, struct ib_sge *sges,
				 int max_sge, const struct bio_vec *bvecs,
				 struct bvec_iter iter,
				 enum dma_data_direction dir);
int rdma_map_mr_sgl(struct ib_mr *mr, struct scatterlist *sgl, int nents,
		    unsigned int offset, unsigned int page_size,
		    enum dma_data_direction dir);
int rdma_map_mr_sgl_pi(struct ib_mr *mr, struct scatterlist *sgl, int nents,
		       struct scatterlist *pi_sgl, int pi_nents,
		       unsigned int page_size, enum dma_data_direction dir);

/**
 * rdma_fill_ib_sge_from_bvec - map bio_vecs and fill SGEs with them
 * @pd: protection domain of the QP that the SGEs are posted to
 * @sges: SGEs to fill: address, length and @pd's local_dma_lkey each
 * @max_sge: how many there are
 * @bvecs: the bio_vecs
 * @iter: where in @bvecs to start, and for how many bytes
 * @dir: direction of the transfer
 *
 * What is physically contiguous becomes one SGE. The caller unmaps by
 * rdma_unmap_sges().
 *
 * Context: Any; does not sleep.
 * Return: the number of SGEs, from 1 to @max_sge; %-E2BIG if they do not
 *	suffice; %-EINVAL if there is nothing to map; %-EREMOTEIO for peer-to-peer
 *	memory; %-ENOMEM if a mapping failed. On error nothing is mapped, and no
 *	SGE holds an address of it.
 */
static inline int rdma_fill_ib_sge_from_bvec(struct ib_pd *pd,
					     struct ib_sge *sges, int max_sge,
					     const struct bio_vec *bvecs,
					     struct bvec_iter iter,
					     enum dma_data_direction dir)
{
	if (likely(iter.bi_size && max_sge > 0 &&
		   iter.bi_size == mp_bvec_iter_len(bvecs, iter)))
		return rdma_map_sge_page(pd, sges,
					 mp_bvec_iter_page(bvecs, iter),
					 mp_bvec_iter_offset(bvecs, iter),
					 iter.bi_size, dir) ?: 1;
	return __rdma_fill_ib_sge_from_bvec(pd, sges, max_sge, bvecs, iter,
					    dir);
}

/**
 * struct rdma_sge_iter - what is left of a mapped scatterlist
 * @sg: what comes next: a DMA segment, or an entry where there is no DMA
 * @nents: how many there are from @sg on
 * @offset: how many bytes of @sg are done
 *
 * For those who choose between SGEs and MRs when they know what the mapping has
 * become, or who need several of them. rdma_map_sgl() sets it up; a copy of it is
 * a position to come back to.
 */
struct rdma_sge_iter {
	struct scatterlist	*sg;
	unsigned int		nents;
	unsigned int		offset;
};

int rdma_map_sgl(struct ib_device *dev, struct rdma_sge_iter *iter,
		 struct scatterlist *sgl, int nents,
		 enum dma_data_direction dir);
void rdma_sge_iter_advance(struct ib_device *dev, struct rdma_sge_iter *iter,
			   size_t len);
int rdma_count_ib_sge(struct ib_pd *pd, const struct rdma_sge_iter *iter);
int rdma_fill_ib_sge(struct ib_pd *pd, struct ib_sge *sges, int max_sge,
		     struct rdma_sge_iter *iter);
int rdma_fill_ib_mr(struct ib_mr *mr, struct rdma_sge_iter *iter,
		    unsigned int page_size);

/* lists of memory, afterwards */

/**
 * rdma_unmap_sgl - undo rdma_map_sgl(), or what maps a scatterlist in one call
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_unmap_sgl(struct ib_device *dev,
				  struct scatterlist *sgl, int nents,
				  enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_unmap_sg(dev->dma_device, sgl, nents, dir);
}

/**
 * rdma_sync_sgl_for_cpu - let the CPU look at a mapped scatterlist
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_sync_sgl_for_cpu(struct ib_device *dev,
					 struct scatterlist *sgl, int nents,
					 enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_sg_for_cpu(dev->dma_device, sgl, nents, dir);
}

/**
 * rdma_sync_sgl_for_device - give a mapped scatterlist back to the device
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
static inline void rdma_sync_sgl_for_device(struct ib_device *dev,
					    struct scatterlist *sgl, int nents,
					    enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_sg_for_device(dev->dma_device, sgl, nents, dir);
}

#endif /* _RDMA_SGE_H */
