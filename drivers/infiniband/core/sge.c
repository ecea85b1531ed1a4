// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What of include/rdma/sge.h is not inline: lists of memory.
 */
#include <kunit/static_stub.h>
#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/scatterlist.h>
#include <linux/sched/task_stack.h>
#include <linux/vmalloc.h>
#include <rdma/sge.h>

#include "core_priv.h"

#ifdef CONFIG_FAIL_RDMA_MAP
static DECLARE_FAULT_ATTR(fail_rdma_map);
static struct dentry *fail_rdma_map_dir;

bool rdma_map_should_fail(void)
{
	KUNIT_STATIC_STUB_REDIRECT(rdma_map_should_fail);
	return should_fail(&fail_rdma_map, 1);
}
EXPORT_SYMBOL(rdma_map_should_fail);

void rdma_sge_init(void)
{
	fail_rdma_map_dir = fault_create_debugfs_attr("fail_rdma_map", NULL,
						      &fail_rdma_map);
}

void rdma_sge_cleanup(void)
{
	debugfs_remove(fail_rdma_map_dir);
}
#endif

/*
 * virt_to_phys() takes the kernel's image, too, which is in the linear map where
 * there is highmem, and behind it kmap_local_page().
 */
bool rdma_is_linear(const void *buf)
{
	unsigned long start = PAGE_OFFSET;

	if (!IS_ENABLED(CONFIG_VMAP_STACK) && object_is_on_stack(buf))
		return false;
	return (unsigned long)buf - start < (unsigned long)high_memory - start ||
	       (!IS_ENABLED(CONFIG_HIGHMEM) && !is_vmalloc_or_module_addr(buf));
}
EXPORT_SYMBOL(rdma_is_linear);

/*
 * Whether one SGE may have all of @len bytes at @addr, which two would have else. A
 * device that does no DMA takes anything.
 */
static bool sge_can_span(struct ib_device *dev, u64 addr, u64 len,
			 size_t max_len)
{
	u64 boundary_mask = U64_MAX;

	if (ib_has_dma_device(dev)) {
		max_len = min_t(size_t, max_len, ib_dma_max_seg_size(dev));
		boundary_mask = dma_get_seg_boundary(dev->dma_device);
	}
	return len <= max_len &&
	       (addr | boundary_mask) == ((addr + len - 1) | boundary_mask);
}

/**
 * rdma_map_sgl - map a scatterlist, to be filled into SGEs or MRs
 * @dev: device that is to reach it
 * @iter: set to the first byte of the list
 * @sgl: the scatterlist; each entry has a page, which may be peer-to-peer memory
 * @nents: number of its entries
 * @dir: direction of the transfer
 *
 * The first step for those for whom rdma_fill_ib_sge_from_sgl() and
 * rdma_map_mr_sgl() are too much at once. The caller unmaps by rdma_unmap_sgl(),
 * whatever of the list is then in use.
 *
 * Context: Any; does not sleep.
 * Return: 0; %-EINVAL if there is nothing to map; %-EREMOTEIO if the device cannot
 *	reach peer-to-peer memory in the list; %-ENOMEM if the mapping failed and may
 *	work later; %-EIO if it failed, and the DMA API does not say why. On error
 *	nothing is mapped.
 */
int rdma_map_sgl(struct ib_device *dev, struct rdma_sge_iter *iter,
		 struct scatterlist *sgl, int nents,
		 enum dma_data_direction dir)
{
	struct sg_table sgt = {
		.sgl		= sgl,
		.nents		= nents,
		.orig_nents	= nents,
	};
	struct scatterlist *sg;
	int i, ret;

	if (nents <= 0)
		return -EINVAL;
	if (rdma_map_should_fail())
		return -ENOMEM;

	if (ib_has_dma_device(dev)) {
		ret = dma_map_sgtable(dev->dma_device, &sgt, dir, 0);
		if (ret)
			return ret;
	} else if (IS_ENABLED(CONFIG_PCI_P2PDMA)) {
		for_each_sg(sgl, sg, nents, i) {
			if (!sg_page(sg))
				return -EINVAL;
			if (is_pci_p2pdma_page(sg_page(sg)))
				return -EREMOTEIO;
		}
	}
	iter->sg = sgl;
	iter->nents = sgt.nents;
	iter->offset = 0;
	return 0;
}
EXPORT_SYMBOL(rdma_map_sgl);

static u32 iter_len(const struct rdma_sge_iter *iter, bool phys)
{
	return (phys ? iter->sg->length : sg_dma_len(iter->sg)) - iter->offset;
}

static u64 iter_addr(const struct rdma_sge_iter *iter, bool phys)
{
	return (phys ? sg_phys(iter->sg) : sg_dma_address(iter->sg)) +
	       iter->offset;
}

/* sg_next() without its look for the end, which @nents tells */
static void iter_next(struct rdma_sge_iter *iter)
{
	iter->offset = 0;
	if (!--iter->nents)
		return;
	iter->sg++;
	if (unlikely(sg_is_chain(iter->sg)))
		iter->sg = sg_chain_ptr(iter->sg);
}

static __always_inline int iter_fill(struct ib_pd *pd, struct ib_sge *sges,
				     int max_sge, struct rdma_sge_iter *iter,
				     const bool phys)
{
	struct rdma_sge_iter it = *iter;
	u32 len, lkey = pd->local_dma_lkey;
	struct ib_sge *sge = sges;
	u64 addr, end = 0;
	int n = 0;

	if (!it.nents)
		return 0;
	addr = iter_addr(&it, phys);
	len = iter_len(&it, phys);
	for (;;) {
		if (addr == end && n &&
		    sge_can_span(pd->device, sge->addr, (u64)sge->length + len,
				 U32_MAX)) {
			sge->length += len;
			end += len;
		} else if (likely(len)) {
			if (n >= max_sge)
				break;
			sge = &sges[n++];
			sge->addr = addr;
			sge->length = len;
			sge->lkey = lkey;
			end = addr + len;
		}
		iter_next(&it);
		if (!it.nents)
			break;
		addr = iter_addr(&it, phys);
		len = iter_len(&it, phys);
	}
	*iter = it;
	return n;
}

/**
 * rdma_fill_ib_sge - fill SGEs with what comes next of a mapped scatterlist
 * @pd: protection domain of the QP that the SGEs are posted to
 * @sges: SGEs to fill: address, length and @pd's local_dma_lkey each
 * @max_sge: how many there are, at least 1
 * @iter: where to start; moves on by what is in the SGEs then
 *
 * What is contiguous for the device becomes one SGE, of up to 32 bits in length.
 *
 * Context: Any; does not sleep.
 * Return: how many of the SGEs are filled; 0 at the end of the list.
 */
int rdma_fill_ib_sge(struct ib_pd *pd, struct ib_sge *sges, int max_sge,
		     struct rdma_sge_iter *iter)
{
	if (ib_has_dma_device(pd->device))
		return iter_fill(pd, sges, max_sge, iter, false);
	return iter_fill(pd, sges, max_sge, iter, true);
}
EXPORT_SYMBOL(rdma_fill_ib_sge);

/**
 * rdma_count_ib_sge - how many SGEs the rest of a mapped scatterlist takes
 * @pd: protection domain of the QP that they would be posted to
 * @iter: where to start; it is not moved
 *
 * Context: Any; does not sleep.
 * Return: the number of SGEs that rdma_fill_ib_sge() would fill from here on; 0 at
 *	the end of the list.
 */
int rdma_count_ib_sge(struct ib_pd *pd, const struct rdma_sge_iter *iter)
{
	struct rdma_sge_iter copy = *iter;
	struct ib_sge sges[8];
	int n, total = 0;

	while ((n = rdma_fill_ib_sge(pd, sges, ARRAY_SIZE(sges), &copy)))
		total += n;
	return total;
}
EXPORT_SYMBOL(rdma_count_ib_sge);

/**
 * rdma_sge_iter_advance - skip a part of a mapped scatterlist
 * @dev: device that the list is mapped for
 * @iter: where to start; moves on by @len bytes, or to the end of the list
 * @len: how many bytes
 *
 * Context: Any; does not sleep.
 */
void rdma_sge_iter_advance(struct ib_device *dev, struct rdma_sge_iter *iter,
			   size_t len)
{
	bool phys = !ib_has_dma_device(dev);

	while (iter->nents && len >= iter_len(iter, phys)) {
		len -= iter_len(iter, phys);
		iter_next(iter);
	}
	if (iter->nents)
		iter->offset += len;
}
EXPORT_SYMBOL(rdma_sge_iter_advance);

/**
 * rdma_fill_ib_mr - fill an MR with what comes next of a mapped scatterlist
 * @mr: memory region for fast registration
 * @iter: where to start; moves on by what is in @mr then, @mr->length bytes
 * @page_size: page size of the MR in bytes
 *
 * After this @mr is ready for an IB_WR_REG_MR. What is left in @iter is for the
 * next MR, or for SGEs: an MR ends where its pages do, or where a gap is.
 *
 * Context: As the driver's map_mr_sg. Of those in the tree hns may sleep, and rxe if
 *	@page_size is more than PAGE_SIZE.
 * Return: 0; %-EINVAL if there is nothing left, or if @mr cannot take a byte of
 *	it; or what the driver says. On error @iter is not moved.
 */
int rdma_fill_ib_mr(struct ib_mr *mr, struct rdma_sge_iter *iter,
		    unsigned int page_size)
{
	unsigned int offset = iter->offset;
	int n;

	if (!iter->nents)
		return -EINVAL;
	n = ib_map_mr_sg(mr, iter->sg, iter->nents, &offset, page_size);
	if (n < 0)
		return n;
	if (!n && offset == iter->offset)
		return -EINVAL;
	if (n == iter->nents) {
		iter->nents = 0;
		return 0;
	}
	while (n--)
		iter_next(iter);
	iter->offset = offset;
	return 0;
}
EXPORT_SYMBOL(rdma_fill_ib_mr);

/* The most pages that a device can find in the rest of a mapped list */
u64 rdma_sge_iter_pages(struct ib_device *dev, const struct rdma_sge_iter *iter)
{
	bool phys = !ib_has_dma_device(dev);
	struct rdma_sge_iter copy = *iter;
	u64 n = 0;

	for (; copy.nents; iter_next(&copy))
		n += PFN_UP(offset_in_page(iter_addr(&copy, phys)) +
			    (u64)iter_len(&copy, phys));
	return n;
}

/**
 * rdma_fill_ib_sge_from_sgl - map a scatterlist and fill SGEs with it
 * @pd: protection domain of the QP that the SGEs are posted to
 * @sges: SGEs to fill: address, length and @pd's local_dma_lkey each
 * @max_sge: how many there are
 * @sgl: the scatterlist, which may hold peer-to-peer memory
 * @nents: number of its entries
 * @dir: direction of the transfer
 *
 * What is contiguous for the device becomes one SGE: an IOMMU makes one of many
 * pages. The caller unmaps by rdma_unmap_sgl().
 *
 * Context: Any; does not sleep.
 * Return: the number of SGEs, from 1 to @max_sge; %-E2BIG if they do not
 *	suffice; %-EINVAL if there is nothing to map; %-EREMOTEIO if the device
 *	cannot reach peer-to-peer memory in the list; %-ENOMEM or %-EIO if the
 *	mapping failed, as rdma_map_sgl() says. On error nothing is mapped, and no
 *	SGE holds an address of it.
 */
int rdma_fill_ib_sge_from_sgl(struct ib_pd *pd, struct ib_sge *sges,
			      int max_sge, struct scatterlist *sgl, int nents,
			      enum dma_data_direction dir)
{
	struct rdma_sge_iter iter;
	int n;

	n = rdma_map_sgl(pd->device, &iter, sgl, nents, dir);
	if (n)
		return n;

	n = rdma_fill_ib_sge(pd, sges, max_sge, &iter);
	if (likely(n && !iter.nents))
		return n;
	rdma_unmap_sgl(pd->device, sgl, nents, dir);
	memset(sges, 0, n * sizeof(*sges));
	return iter.nents ? -E2BIG : -EINVAL;
}
EXPORT_SYMBOL(rdma_fill_ib_sge_from_sgl);

/*
 * Each SGE is unmapped by itself, so bio_vecs are merged before they are mapped:
 * the SGEs hold physical addresses then. With @sges NULL: counts.
 */
static int bvec_fill(struct ib_pd *pd, struct ib_sge *sges, int max_sge,
		     const struct bio_vec *bvecs, struct bvec_iter first)
{
	struct ib_device *dev = pd->device;
	struct ib_sge counted, *sge = NULL;
	struct bvec_iter iter;
	size_t max_len = 0;
	struct bio_vec bv;
	int n = 0, ret;

	for_each_mp_bvec(bv, bvecs, iter, first) {
		phys_addr_t phys;

		if (unlikely(!bv.bv_len))
			continue;
		ret = -EREMOTEIO;
		if (unlikely(is_pci_p2pdma_page(bv.bv_page)))
			goto out_clear;
		phys = bvec_phys(&bv);
		if (sge && phys == sge->addr + sge->length) {
			/* it has to fit a bounce buffer, as its parts did */
			if (!max_len)
				max_len = ib_has_dma_device(dev) ?
					dma_max_mapping_size(dev->dma_device) :
					U32_MAX;
			if (sge_can_span(dev, sge->addr,
					 (u64)sge->length + bv.bv_len,
					 min(max_len, U32_MAX))) {
				sge->length += bv.bv_len;
				continue;
			}
		}
		ret = -E2BIG;
		if (unlikely(n >= max_sge))
			goto out_clear;
		sge = sges ? &sges[n] : &counted;
		sge->addr = phys;
		sge->length = bv.bv_len;
		sge->lkey = pd->local_dma_lkey;
		n++;
	}
	return n;

out_clear:
	if (sges)
		memset(sges, 0, n * sizeof(*sges));
	return ret;
}

/* For more than one bio_vec or none, or after counting */
int __rdma_fill_ib_sge_from_bvec(struct ib_pd *pd, struct ib_sge *sges,
				 int max_sge, const struct bio_vec *bvecs,
				 struct bvec_iter iter,
				 enum dma_data_direction dir)
{
	struct ib_device *dev = pd->device;
	int i, n;

	if (!iter.bi_size)
		return -EINVAL;
	n = bvec_fill(pd, sges, max_sge, bvecs, iter);
	for (i = 0; i < n; i++) {
		if (rdma_map_should_fail())
			goto out_unmap;
		if (!ib_has_dma_device(dev))
			continue;
		sges[i].addr = dma_map_phys(dev->dma_device, sges[i].addr,
					    sges[i].length, dir, 0);
		if (dma_mapping_error(dev->dma_device, sges[i].addr))
			goto out_unmap;
	}
	return n;

out_unmap:
	rdma_unmap_sges(dev, sges, i, dir);
	memset(sges, 0, n * sizeof(*sges));
	return -ENOMEM;
}
EXPORT_SYMBOL(__rdma_fill_ib_sge_from_bvec);

/* How many SGEs that takes; or %-EREMOTEIO for peer-to-peer memory */
int rdma_count_ib_sge_bvec(struct ib_pd *pd, const struct bio_vec *bvecs,
			   struct bvec_iter iter)
{
	return bvec_fill(pd, NULL, INT_MAX, bvecs, iter);
}

/*
 * Maps bio_vecs one after the other into one range of IOVAs, and fills the one
 * SGE that this takes. @state is for rdma_unmap_sge_iova(). Returns -EOPNOTSUPP
 * if the device is not behind an IOMMU, or its pages cannot close the gaps.
 */
int rdma_map_sge_iova(struct ib_pd *pd, struct ib_sge *sge,
		      struct dma_iova_state *state, const struct bio_vec *bvecs,
		      struct bvec_iter start, enum dma_data_direction dir)
{
	struct device *dma_dev = pd->device->dma_device;
	phys_addr_t first = 0, end = 0, edges = 0;
	unsigned long boundary;
	struct bvec_iter iter;
	size_t mapped = 0;
	struct bio_vec bv;
	int ret;

	boundary = dma_dev ? dma_get_merge_boundary(dma_dev) : 0;
	if (!boundary)
		return -EOPNOTSUPP;
	for_each_mp_bvec(bv, bvecs, iter, start) {
		phys_addr_t phys = bvec_phys(&bv);

		if (unlikely(!bv.bv_len))
			continue;
		if (end)
			edges |= end | phys;
		else
			first = phys;
		end = phys + bv.bv_len;
	}
	if (edges & boundary ||
	    !dma_iova_try_alloc(dma_dev, state, first, start.bi_size))
		return -EOPNOTSUPP;

	for_each_mp_bvec(bv, bvecs, iter, start) {
		if (unlikely(!bv.bv_len))
			continue;
		ret = rdma_map_should_fail() ? -ENOMEM :
		      dma_iova_link(dma_dev, state, bvec_phys(&bv), mapped,
				    bv.bv_len, dir, 0);
		if (ret)
			goto out_destroy;
		mapped += bv.bv_len;
	}
	ret = dma_iova_sync(dma_dev, state, 0, mapped);
	if (ret)
		goto out_destroy;

	sge->addr = state->addr;
	sge->length = mapped;
	sge->lkey = pd->local_dma_lkey;
	return 0;

out_destroy:
	dma_iova_destroy(dma_dev, state, mapped, dir, 0);
	return ret;
}

void rdma_unmap_sge_iova(struct ib_device *dev, const struct ib_sge *sge,
			 struct dma_iova_state *state,
			 enum dma_data_direction dir)
{
	dma_iova_destroy(dev->dma_device, state, sge->length, dir, 0);
}

/**
 * rdma_map_mr_sgl - map a scatterlist into a memory region
 * @mr: memory region for fast registration
 * @sgl: the scatterlist
 * @nents: number of its entries
 * @offset: where to start, in bytes from the start of @sgl's first entry
 * @page_size: page size of the MR in bytes
 * @dir: direction of the transfer
 *
 * After this @mr is ready for an IB_WR_REG_MR. All of @sgl is in it, or the call
 * fails; with rdma_map_sgl() and rdma_fill_ib_mr() several MRs can share it. The
 * caller unmaps by rdma_unmap_sgl().
 *
 * Context: As the driver's map_mr_sg. Of those in the tree hns may sleep, and rxe if
 *	@page_size is more than PAGE_SIZE.
 * Return: 0; %-EINVAL if there is nothing to map, or more or other than @mr can
 *	take; %-EREMOTEIO if the device cannot reach peer-to-peer memory in the
 *	list; %-ENOMEM or %-EIO if the mapping failed; or what the driver says. On
 *	error nothing is mapped.
 */
int rdma_map_mr_sgl(struct ib_mr *mr, struct scatterlist *sgl, int nents,
		    unsigned int offset, unsigned int page_size,
		    enum dma_data_direction dir)
{
	struct rdma_sge_iter iter;
	int ret;

	ret = rdma_map_sgl(mr->device, &iter, sgl, nents, dir);
	if (ret)
		return ret;

	rdma_sge_iter_advance(mr->device, &iter, offset);
	ret = rdma_fill_ib_mr(mr, &iter, page_size);
	if (likely(!ret && !iter.nents))
		return 0;
	rdma_unmap_sgl(mr->device, sgl, nents, dir);
	return ret ?: -EINVAL;
}
EXPORT_SYMBOL(rdma_map_mr_sgl);

/**
 * rdma_map_mr_sgl_pi - map data and its protection information into an MR
 * @mr: memory region of type IB_MR_TYPE_INTEGRITY
 * @sgl: scatterlist of the data
 * @nents: number of its entries
 * @pi_sgl: scatterlist of the protection information, or NULL
 * @pi_nents: number of its entries
 * @page_size: page size of the MR in bytes
 * @dir: direction of the transfer
 *
 * As rdma_map_mr_sgl(), for an IB_WR_REG_MR_INTEGRITY. The caller unmaps each of
 * the lists by rdma_unmap_sgl().
 *
 * Context: As the driver's map_mr_sg_pi.
 * Return: As rdma_map_mr_sgl(). On error neither list is mapped.
 */
int rdma_map_mr_sgl_pi(struct ib_mr *mr, struct scatterlist *sgl, int nents,
		       struct scatterlist *pi_sgl, int pi_nents,
		       unsigned int page_size, enum dma_data_direction dir)
{
	struct rdma_sge_iter data, pi = {};
	int n;

	n = rdma_map_sgl(mr->device, &data, sgl, nents, dir);
	if (n)
		return n;
	if (pi_nents) {
		n = rdma_map_sgl(mr->device, &pi, pi_sgl, pi_nents, dir);
		if (n)
			goto out_unmap;
	}

	/* 0 is success here, and the number of entries anything less */
	n = ib_map_mr_sg_pi(mr, sgl, data.nents, NULL, pi_sgl, pi.nents, NULL,
			    page_size);
	if (likely(!n))
		return 0;
	if (n > 0)
		n = -EINVAL;
	if (pi_nents)
		rdma_unmap_sgl(mr->device, pi_sgl, pi_nents, dir);
out_unmap:
	rdma_unmap_sgl(mr->device, sgl, nents, dir);
	return n;
}
EXPORT_SYMBOL(rdma_map_mr_sgl_pi);
