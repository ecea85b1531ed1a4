// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What of include/rdma/sge.h is not inline: lists of memory.
 */
#include <kunit/static_stub.h>
#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/scatterlist.h>
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

static void sge_fail_init(void)
{
	fail_rdma_map_dir = fault_create_debugfs_attr("fail_rdma_map", NULL,
						      &fail_rdma_map);
}

static void sge_fail_cleanup(void)
{
	debugfs_remove(fail_rdma_map_dir);
}
#else
static void sge_fail_init(void)
{
}

static void sge_fail_cleanup(void)
{
}
#endif

void rdma_sge_init(void)
{
	sge_fail_init();
}

void rdma_sge_cleanup(void)
{
	sge_fail_cleanup();
}

/*
 * Whether an SGE may get @len bytes longer, which follow it in memory. A device
 * that does no DMA takes anything.
 */
static bool sge_can_grow(struct ib_device *dev, const struct ib_sge *sge,
			 u32 len, size_t max_len)
{
	u64 boundary_mask = U64_MAX, total = (u64)sge->length + len;

	if (ib_has_dma_device(dev)) {
		max_len = min_t(size_t, max_len, ib_dma_max_seg_size(dev));
		boundary_mask = dma_get_seg_boundary(dev->dma_device);
	}
	return total <= max_len &&
	       (sge->addr | boundary_mask) ==
	       ((sge->addr + total - 1) | boundary_mask);
}

/*
 * rdma_fill_ib_sge_from_sgl() in parts, for rdma_rw, which decides in between
 * whether it takes SGEs or an MR. Returns the number of DMA segments, or of
 * entries where there is no DMA; or what the DMA API says.
 */
int rdma_sgl_map(struct ib_device *dev, struct scatterlist *sgl, int nents,
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
		return ret ? ret : sgt.nents;
	}

	if (IS_ENABLED(CONFIG_PCI_P2PDMA))
		for_each_sg(sgl, sg, nents, i)
			if (is_pci_p2pdma_page(sg_page(sg)))
				return -EREMOTEIO;
	return nents;
}

/* -EIO is the DMA API's word for a failure that it does not know more about */
static int sgl_map(struct ib_device *dev, struct scatterlist *sgl, int nents,
		   enum dma_data_direction dir)
{
	int ret = rdma_sgl_map(dev, sgl, nents, dir);

	return ret == -EIO ? -ENOMEM : ret;
}

static __always_inline int sgl_fill(struct ib_pd *pd, struct ib_sge *sges,
				    struct scatterlist *sgl, int segs,
				    u32 offset, const bool phys)
{
	struct ib_sge counted, *sge = NULL, *next = sges ?: &counted;
	unsigned int step = sges ? 1 : 0;
	u32 lkey = pd->local_dma_lkey;
	struct scatterlist *sg;
	u64 end = 0;
	int i, n = 0;

	for_each_sg(sgl, sg, segs, i) {
		u64 addr = (phys ? sg_phys(sg) : sg_dma_address(sg)) + offset;
		u32 len = (phys ? sg->length : sg_dma_len(sg)) - offset;

		offset = 0;
		if (unlikely(!len))
			continue;
		if (addr == end && sge &&
		    sge_can_grow(pd->device, sge, len, U32_MAX)) {
			sge->length += len;
		} else {
			sge = next;
			next += step;
			sge->addr = addr;
			sge->length = len;
			sge->lkey = lkey;
			n++;
		}
		end = addr + len;
	}
	return n;
}

/*
 * Goes on to where @offset bytes into a mapped list are. Returns the number of
 * segments from there, which is 0 if the list is not that long.
 */
int rdma_sgl_skip(struct ib_device *dev, struct scatterlist **sgl, int segs,
		  u32 *offset)
{
	bool phys = !ib_has_dma_device(dev);

	for (; segs; segs--, *sgl = sg_next(*sgl)) {
		u32 len = phys ? (*sgl)->length : sg_dma_len(*sgl);

		if (*offset < len)
			break;
		*offset -= len;
	}
	return segs;
}

/*
 * Fills SGEs with a mapped list from @offset in its first segment on. With @sges
 * NULL: counts.
 */
int rdma_sgl_fill(struct ib_pd *pd, struct ib_sge *sges,
		  struct scatterlist *sgl, int segs, u32 offset)
{
	if (ib_has_dma_device(pd->device))
		return sgl_fill(pd, sges, sgl, segs, offset, false);
	return sgl_fill(pd, sges, sgl, segs, offset, true);
}

/**
 * rdma_fill_ib_sge_from_sgl - map a scatterlist and fill SGEs with it
 * @pd: protection domain of the QP that the SGEs are posted to
 * @sges: SGEs to fill: address, length and @pd's local_dma_lkey each
 * @max_sge: how many there are
 * @sgl: the scatterlist
 * @nents: number of its entries
 * @dir: direction of the transfer
 *
 * What is contiguous for the device becomes one SGE, so an IOMMU or physically
 * contiguous memory can make one SGE of a long list. Peer-to-peer memory is
 * mapped if the device can reach it.
 *
 * The caller unmaps by rdma_unmap_sgl().
 *
 * Context: Any; does not sleep.
 * Return: the number of SGEs, from 1 to @max_sge; %-E2BIG if they do not
 *	suffice; %-EINVAL if there is nothing to map; %-EREMOTEIO if the device
 *	cannot reach peer-to-peer memory in the list; %-ENOMEM if the mapping
 *	failed. On error @sges is untouched and nothing is mapped.
 */
int rdma_fill_ib_sge_from_sgl(struct ib_pd *pd, struct ib_sge *sges,
			      int max_sge, struct scatterlist *sgl, int nents,
			      enum dma_data_direction dir)
{
	int segs, n;

	segs = sgl_map(pd->device, sgl, nents, dir);
	if (segs < 0)
		return segs;

	/* what fits without merging need not be counted first */
	if (segs > max_sge) {
		n = rdma_sgl_fill(pd, NULL, sgl, segs, 0);
		if (n > max_sge) {
			n = -E2BIG;
			goto out_unmap;
		}
	}
	n = rdma_sgl_fill(pd, sges, sgl, segs, 0);
	if (n)
		return n;
	n = -EINVAL;
out_unmap:
	rdma_unmap_sgl(pd->device, sgl, nents, dir);
	return n;
}
EXPORT_SYMBOL(rdma_fill_ib_sge_from_sgl);

/**
 * rdma_unmap_sgl - undo rdma_fill_ib_sge_from_sgl() or rdma_map_mr_sgl()
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
void rdma_unmap_sgl(struct ib_device *dev, struct scatterlist *sgl, int nents,
		    enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_unmap_sg(dev->dma_device, sgl, nents, dir);
}
EXPORT_SYMBOL(rdma_unmap_sgl);

/**
 * rdma_sync_sgl_for_cpu - let the CPU look at a mapped scatterlist
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
void rdma_sync_sgl_for_cpu(struct ib_device *dev, struct scatterlist *sgl,
			   int nents, enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_sg_for_cpu(dev->dma_device, sgl, nents, dir);
}
EXPORT_SYMBOL(rdma_sync_sgl_for_cpu);

/**
 * rdma_sync_sgl_for_device - give a mapped scatterlist back to the device
 * @dev: device that the scatterlist was mapped for
 * @sgl: the scatterlist
 * @nents: number of entries given to the map call
 * @dir: direction given to the map call
 *
 * Context: Any; does not sleep.
 */
void rdma_sync_sgl_for_device(struct ib_device *dev, struct scatterlist *sgl,
			      int nents, enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_sync_sg_for_device(dev->dma_device, sgl, nents, dir);
}
EXPORT_SYMBOL(rdma_sync_sgl_for_device);

/*
 * Each SGE is unmapped by itself, so bio_vecs are merged before they are mapped:
 * by their physical addresses. With @sges NULL: counts, up to @max_sge.
 */
static int bvec_fill(struct ib_pd *pd, struct ib_sge *sges, int max_sge,
		     const struct bio_vec *bvecs, struct bvec_iter start,
		     size_t max_len, enum dma_data_direction dir)
{
	struct ib_sge run = {};
	struct bvec_iter iter;
	struct bio_vec bv;
	int n = 0, ret;

	for_each_mp_bvec(bv, bvecs, iter, start) {
		if (!bv.bv_len)
			continue;
		if (is_pci_p2pdma_page(bv.bv_page))
			return -EREMOTEIO;
		if (run.length && bvec_phys(&bv) == run.addr + run.length &&
		    sge_can_grow(pd->device, &run, bv.bv_len, max_len)) {
			run.length += bv.bv_len;
			continue;
		}
		if (n >= max_sge)
			return -E2BIG;
		if (n && sges) {
			ret = __rdma_map_sge(pd, &sges[n - 1], run.addr,
					     run.length, dir);
			if (ret)
				goto out_unmap;
		}
		run.addr = bvec_phys(&bv);
		run.length = bv.bv_len;
		n++;
	}

	if (!sges)
		return n;
	ret = __rdma_map_sge(pd, &sges[n - 1], run.addr, run.length, dir);
	if (!ret)
		return n;
out_unmap:
	rdma_unmap_sges(pd->device, sges, n - 1, dir);
	memset(sges, 0, (n - 1) * sizeof(*sges));
	return ret;
}

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
 *	memory; %-ENOMEM if a mapping failed. On error nothing is mapped; @sges
 *	is untouched, or after %-ENOMEM holds no address.
 */
int rdma_fill_ib_sge_from_bvec(struct ib_pd *pd, struct ib_sge *sges,
			       int max_sge, const struct bio_vec *bvecs,
			       struct bvec_iter iter,
			       enum dma_data_direction dir)
{
	struct ib_device *dev = pd->device;
	size_t max_len = U32_MAX;
	int n;

	if (!iter.bi_size)
		return -EINVAL;

	/* a merged run has to fit a bounce buffer, as its parts did */
	if (ib_has_dma_device(dev))
		max_len = min(max_len, dma_max_mapping_size(dev->dma_device));

	/* the second time neither max_sge nor a page can be in the way */
	n = bvec_fill(pd, NULL, max_sge, bvecs, iter, max_len, dir);
	if (n < 0)
		return n;
	return bvec_fill(pd, sges, n, bvecs, iter, max_len, dir);
}
EXPORT_SYMBOL(rdma_fill_ib_sge_from_bvec);

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
void rdma_unmap_sges(struct ib_device *dev, const struct ib_sge *sges, int n,
		     enum dma_data_direction dir)
{
	int i;

	for (i = 0; i < n; i++)
		rdma_unmap_sge(dev, &sges[i], dir);
}
EXPORT_SYMBOL(rdma_unmap_sges);

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
	phys_addr_t end = 0, edges = 0;
	unsigned long boundary;
	struct bvec_iter iter;
	size_t mapped = 0;
	struct bio_vec bv;
	int ret;

	boundary = dma_dev ? dma_get_merge_boundary(dma_dev) : 0;
	if (!boundary)
		return -EOPNOTSUPP;
	for_each_mp_bvec(bv, bvecs, iter, start) {
		if (is_pci_p2pdma_page(bv.bv_page))
			return -EREMOTEIO;
		if (iter.bi_size != start.bi_size)
			edges |= end | bvec_phys(&bv);
		end = bvec_phys(&bv) + bv.bv_len;
	}
	bv = mp_bvec_iter_bvec(bvecs, start);
	if (edges & boundary ||
	    !dma_iova_try_alloc(dma_dev, state, bvec_phys(&bv), start.bi_size))
		return -EOPNOTSUPP;

	for_each_mp_bvec(bv, bvecs, iter, start) {
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
 * fails; ib_map_mr_sg() tells what fits. The caller unmaps by rdma_unmap_sgl().
 *
 * Context: As the driver's map_mr_sg. Of those in the tree only rxe may sleep, if
 *	@page_size is more than PAGE_SIZE.
 * Return: 0; %-EINVAL if there is nothing to map, or more or other than @mr can
 *	take; %-EREMOTEIO if the device cannot reach peer-to-peer memory in the
 *	list; %-ENOMEM if the mapping failed; or what the driver says. On error
 *	nothing is mapped.
 */
int rdma_map_mr_sgl(struct ib_mr *mr, struct scatterlist *sgl, int nents,
		    unsigned int offset, unsigned int page_size,
		    enum dma_data_direction dir)
{
	int segs, n;

	segs = sgl_map(mr->device, sgl, nents, dir);
	if (segs < 0)
		return segs;

	n = ib_map_mr_sg(mr, sgl, segs, &offset, page_size);
	if (likely(n == segs))
		return 0;
	rdma_unmap_sgl(mr->device, sgl, nents, dir);
	return n < 0 ? n : -EINVAL;
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
	int segs, pi_segs = 0, n;

	segs = sgl_map(mr->device, sgl, nents, dir);
	if (segs < 0)
		return segs;
	if (pi_nents) {
		pi_segs = sgl_map(mr->device, pi_sgl, pi_nents, dir);
		if (pi_segs < 0) {
			n = pi_segs;
			goto out_unmap;
		}
	}

	/* 0 is success here, and the number of entries anything less */
	n = ib_map_mr_sg_pi(mr, sgl, segs, NULL, pi_sgl, pi_segs, NULL,
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
