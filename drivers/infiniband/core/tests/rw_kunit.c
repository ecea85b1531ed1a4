// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Tests of rdma_rw: what it makes of memory, on ib_devices that are never
 * registered. One has no dma_device, one sees all memory at an offset, and one
 * stands behind the IOMMU of this machine, if there is one and QEMU's
 * pci-testdev behind it.
 */
#include <kunit/device.h>
#include <kunit/test.h>
#include <linux/dma-direct.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/pci.h>
#include <rdma/rw.h>
#include <rdma/sge.h>

#include "dma_log.h"

#define P		PAGE_SIZE
#define RW_LKEY		0x1234
#define RW_RKEY		0x5678
#define RW_REMOTE	0x100000000ULL
#define RW_ORDER	5
#define RW_MAX		16
#define RW_MAX_SGE	3
#define RW_MR_PAGES	4
#define RW_NR_MRS	4
#define RW_DMA_BASE	(1ULL << (IS_ENABLED(CONFIG_ARCH_DMA_ADDR_T_64BIT) ? \
				  44 : 30))

enum rw_kind {
	RW_PHYS,
	RW_DMA,
	RW_IOMMU,
};

static const struct rw_param {
	const char *name;
	enum rw_kind kind;
	bool bvec;
} rw_params[] = {
	{ "physical sgl", RW_PHYS, false },
	{ "physical bvec", RW_PHYS, true },
	{ "DMA sgl", RW_DMA, false },
	{ "DMA bvec", RW_DMA, true },
	{ "IOMMU sgl", RW_IOMMU, false },
	{ "IOMMU bvec", RW_IOMMU, true },
};

KUNIT_ARRAY_PARAM_DESC(rw, rw_params, name);

struct rw_mr {
	struct ib_mr mr;
	struct ib_sig_attrs sig;
	u64 pages[RW_MR_PAGES];
	u32 nr_pages;
};

struct rw_test {
	const struct rw_param *param;
	struct ib_device dev;
	struct ib_port_data ports[2];
	struct ib_pd pd;
	struct ib_qp qp;
	struct ib_cqe cqe;
	struct rw_mr mrs[RW_NR_MRS];
	struct rw_mr sig_mr;
	int map_ret;

	struct device_dma_parameters dma_parms;
	struct bus_dma_region *ranges;
	struct pci_dev *pdev;
	unsigned int max_seg_size;

	struct page *pages;
	struct scatterlist sgl[RW_MAX];
	struct scatterlist pi_sgl[1];
	struct bio_vec bvecs[RW_MAX];
	u32 nents;
	u32 offset;
	u32 size;

	struct rdma_rw_ctx ctx;
	enum dma_data_direction dir;
};

/* the driver */

static int rw_set_page(struct ib_mr *mr, u64 addr)
{
	struct rw_mr *rw_mr = container_of(mr, struct rw_mr, mr);

	if (rw_mr->nr_pages == RW_MR_PAGES)
		return -ENOMEM;
	rw_mr->pages[rw_mr->nr_pages++] = addr;
	return 0;
}

static int rw_map_mr_sg(struct ib_mr *mr, struct scatterlist *sgl, int nents,
			unsigned int *offset)
{
	container_of(mr, struct rw_mr, mr)->nr_pages = 0;
	return ib_sg_to_pages(mr, sgl, nents, offset, rw_set_page);
}

static int rw_map_mr_sg_pi(struct ib_mr *mr, struct scatterlist *sgl, int nents,
			   unsigned int *offset, struct scatterlist *pi_sgl,
			   int pi_nents, unsigned int *pi_offset)
{
	struct rw_test *t = container_of(mr, struct rw_test, sig_mr.mr);

	mr->length = 3 * P;
	mr->sig_attrs->meta_length = 64;
	return t->map_ret;
}

/* The address where the CPU finds what the device finds at @addr. */
static u64 rw_to_phys(struct rw_test *t, u64 addr)
{
	switch (t->param->kind) {
	case RW_DMA:
		return addr - RW_DMA_BASE;
	case RW_IOMMU:
		return iommu_iova_to_phys(iommu_get_domain_for_dev(&t->pdev->dev),
					  addr);
	default:
		return addr;
	}
}

static void rw_init_dma(struct kunit *test, struct rw_test *t)
{
	struct device *dev = kunit_device_register(test, "rw");

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	/* freed with the driver's grip on the device */
	t->ranges = kzalloc_objs(*t->ranges, 2);
	KUNIT_ASSERT_NOT_NULL(test, t->ranges);
	t->ranges[0].dma_start = RW_DMA_BASE;
	t->ranges[0].size = 2 * RW_DMA_BASE;
	dev->dma_range_map = t->ranges;
	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	dev->dma_parms = &t->dma_parms;
	dma_set_max_seg_size(dev, U32_MAX);
#ifdef CONFIG_SWIOTLB
	dev->dma_io_tlb_mem = NULL;
#endif
	t->dev.dma_device = dev;
}

static void rw_init_iommu(struct kunit *test, struct rw_test *t)
{
	struct pci_dev *pdev;

	/* QEMU's pci-testdev: whatever is set on it, nobody's data suffers */
	pdev = pci_get_device(PCI_VENDOR_ID_REDHAT, 0x0005, NULL);
	if (!pdev || !use_dma_iommu(&pdev->dev)) {
		pci_dev_put(pdev);
		kunit_skip(test, "no pci-testdev behind an IOMMU");
	}
	t->pdev = pdev;
	t->max_seg_size = dma_get_max_seg_size(&pdev->dev);
	dma_set_max_seg_size(&pdev->dev, U32_MAX);
	t->dev.dma_device = &pdev->dev;
}

static void rw_init_mr(struct rw_test *t, struct rw_mr *rw_mr, u32 key,
		       struct list_head *pool)
{
	rw_mr->mr.device = &t->dev;
	rw_mr->mr.lkey = key;
	rw_mr->mr.rkey = key;
	rw_mr->mr.sig_attrs = &rw_mr->sig;
	list_add_tail(&rw_mr->mr.qp_entry, pool);
}

static int rw_init(struct kunit *test)
{
	const struct rw_param *param = test->param_value ?: &rw_params[0];
	struct rw_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int i;

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	t->param = param;
	t->dir = DMA_TO_DEVICE;
	t->dev.ops.map_mr_sg = rw_map_mr_sg;
	t->dev.ops.map_mr_sg_pi = rw_map_mr_sg_pi;
	t->dev.attrs.max_fast_reg_page_list_len = RW_MR_PAGES;
	t->dev.attrs.max_pi_fast_reg_page_list_len = RW_MR_PAGES;
	t->dev.port_data = t->ports;
	t->ports[1].immutable.core_cap_flags = RDMA_CORE_PORT_IBA_IB;
	t->pd.device = &t->dev;
	t->pd.local_dma_lkey = RW_LKEY;
	t->qp.device = &t->dev;
	t->qp.pd = &t->pd;
	t->qp.max_read_sge = RW_MAX_SGE;
	t->qp.max_write_sge = RW_MAX_SGE;
	spin_lock_init(&t->qp.mr_lock);
	INIT_LIST_HEAD(&t->qp.rdma_mrs);
	INIT_LIST_HEAD(&t->qp.sig_mrs);
	for (i = 0; i < RW_NR_MRS; i++)
		rw_init_mr(t, &t->mrs[i], (i + 1) << 8, &t->qp.rdma_mrs);
	rw_init_mr(t, &t->sig_mr, 0xff00, &t->qp.sig_mrs);
	t->sig_mr.mr.type = IB_MR_TYPE_INTEGRITY;
	sg_init_table(t->sgl, RW_MAX);

	if (param->kind == RW_DMA)
		rw_init_dma(test, t);
	else if (param->kind == RW_IOMMU)
		rw_init_iommu(test, t);

	t->pages = alloc_pages(GFP_KERNEL | __GFP_COMP, RW_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, t->pages);
	memset(&dma_log, 0, sizeof(dma_log));
	dma_log.dev = t->dev.dma_device;
	return 0;
}

/* Whatever was set up has been undone. */
static void rw_expect_clean(struct kunit *test)
{
	struct rw_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_log.nr_live, 0);
	KUNIT_EXPECT_EQ(test, dma_log.nr_bad, 0);
	KUNIT_EXPECT_EQ(test, t->qp.mrs_used, 0);
}

static void rw_exit(struct kunit *test)
{
	struct rw_test *t = test->priv;

	if (!t)
		return;
	rw_expect_clean(test);
	dma_log.dev = NULL;
	if (t->pdev) {
		dma_set_max_seg_size(&t->pdev->dev, t->max_seg_size);
		pci_dev_put(t->pdev);
	}
	if (t->pages)
		__free_pages(t->pages, RW_ORDER);
}

/* memory */

static void rw_iwarp(struct rw_test *t)
{
	t->ports[1].immutable.core_cap_flags = RDMA_CORE_PORT_IWARP;
}

static void rw_empty(struct rw_test *t)
{
	t->nents = 0;
	t->size = 0;
	t->offset = 0;
	sg_init_table(t->sgl, RW_MAX);
}

static void rw_add(struct rw_test *t, u32 off, u32 len)
{
	sg_set_page(&t->sgl[t->nents], t->pages + off / P, len, off % P);
	bvec_set_page(&t->bvecs[t->nents], t->pages + off / P, len, off % P);
	sg_unmark_end(&t->sgl[RW_MAX - 1]);
	if (t->nents)
		sg_unmark_end(&t->sgl[t->nents - 1]);
	sg_mark_end(&t->sgl[t->nents++]);
	t->size += len;
}

/* @n pages, every other of the test's memory */
static void rw_add_gaps(struct rw_test *t, int n)
{
	int i;

	for (i = 0; i < n; i++)
		rw_add(t, 2 * i * P, P);
}

static int rw_ctx_init(struct rw_test *t)
{
	struct bvec_iter iter = { .bi_size = t->size };

	if (!t->param->bvec)
		return rdma_rw_ctx_init(&t->ctx, &t->qp, 1, t->sgl, t->nents,
					t->offset, RW_REMOTE, RW_RKEY, t->dir);
	bvec_iter_advance(t->bvecs, &iter, t->offset);
	return rdma_rw_ctx_init_bvec(&t->ctx, &t->qp, 1, t->bvecs, t->nents,
				     iter, RW_REMOTE, RW_RKEY, t->dir);
}

static void rw_ctx_destroy(struct rw_test *t)
{
	if (t->param->bvec)
		rdma_rw_ctx_destroy_bvec(&t->ctx, &t->qp, 1, t->bvecs, t->nents,
					 t->dir);
	else
		rdma_rw_ctx_destroy(&t->ctx, &t->qp, 1, t->sgl, t->nents,
				    t->dir);
}

static phys_addr_t rw_phys(struct rw_test *t, u32 pos)
{
	int i;

	for (i = 0; pos >= t->sgl[i].length; i++)
		pos -= t->sgl[i].length;
	return sg_phys(&t->sgl[i]) + pos;
}

/* @len bytes from @addr on are those at @pos of the test's list */
static void rw_expect_memory(struct kunit *test, u64 addr, u32 len, u32 pos)
{
	struct rw_test *t = test->priv;
	u32 i;

	for (i = 0; i < len; i++) {
		if (i && i < len - 1 && (addr + i) % 64)
			continue;
		KUNIT_ASSERT_EQ(test, rw_to_phys(t, addr + i),
				rw_phys(t, pos + i));
	}
}

/* SGEs: @nr_sge of them in as few WRs as the QP allows, all of the memory */
static void rw_expect_sges(struct kunit *test, int ret, int nr_sge)
{
	struct rw_test *t = test->priv;
	struct ib_send_wr *wr;
	u32 pos = t->offset;
	int nr_wr = 0, i;
	u64 addr = 0;

	KUNIT_ASSERT_EQ(test, ret, DIV_ROUND_UP(nr_sge, RW_MAX_SGE));
	wr = rdma_rw_ctx_wrs(&t->ctx, &t->qp, 1, &t->cqe, NULL);
	for (; wr; wr = wr->next, nr_wr++) {
		KUNIT_EXPECT_EQ(test, wr->opcode, t->dir == DMA_TO_DEVICE ?
				IB_WR_RDMA_WRITE : IB_WR_RDMA_READ);
		KUNIT_EXPECT_EQ(test, rdma_wr(wr)->rkey, RW_RKEY);
		KUNIT_EXPECT_EQ(test, rdma_wr(wr)->remote_addr,
				RW_REMOTE + pos - t->offset);
		KUNIT_EXPECT_EQ(test, wr->num_sge, min(nr_sge, RW_MAX_SGE));
		KUNIT_EXPECT_EQ(test, wr->send_flags,
				wr->next ? 0 : IB_SEND_SIGNALED);
		KUNIT_EXPECT_PTR_EQ(test, wr->wr_cqe,
				    wr->next ? NULL : &t->cqe);
		nr_sge -= wr->num_sge;
		for (i = 0; i < wr->num_sge; i++) {
			addr = wr->sg_list[i].addr;
			KUNIT_EXPECT_EQ(test, wr->sg_list[i].lkey, RW_LKEY);
			rw_expect_memory(test, addr, wr->sg_list[i].length,
					 pos);
			pos += wr->sg_list[i].length;
		}
	}
	KUNIT_EXPECT_EQ(test, nr_wr, ret);
	KUNIT_EXPECT_EQ(test, pos, t->size);
	KUNIT_EXPECT_EQ(test, t->qp.mrs_used, 0);

	rw_ctx_destroy(t);
	rw_expect_clean(test);
	if (t->param->kind == RW_IOMMU)
		KUNIT_EXPECT_EQ(test, rw_to_phys(t, addr), 0);
}

/* MRs: @nr_mr of them, and one SGE in one WR for each */
static void rw_expect_mrs(struct kunit *test, int ret, int nr_mr)
{
	struct rw_test *t = test->priv;
	bool iwarp = rdma_protocol_iwarp(&t->dev, 1);
	struct ib_send_wr *wr;
	u32 pos = t->offset;
	struct rw_mr *mr;
	int i, j, nr = 0;

	KUNIT_ASSERT_GT(test, ret, 0);
	KUNIT_EXPECT_EQ(test, t->qp.mrs_used, nr_mr);
	wr = rdma_rw_ctx_wrs(&t->ctx, &t->qp, 1, &t->cqe, NULL);
	for (i = 0; i < nr_mr; i++, wr = wr->next, nr++) {
		KUNIT_ASSERT_NOT_NULL(test, wr);
		if (wr->opcode == IB_WR_LOCAL_INV) {
			wr = wr->next;
			nr++;
		}
		KUNIT_ASSERT_EQ(test, wr->opcode, IB_WR_REG_MR);
		mr = container_of(reg_wr(wr)->mr, struct rw_mr, mr);
		KUNIT_EXPECT_EQ(test, reg_wr(wr)->key, mr->mr.lkey);
		KUNIT_EXPECT_EQ(test, reg_wr(wr)->access, IB_ACCESS_LOCAL_WRITE |
				(iwarp ? IB_ACCESS_REMOTE_WRITE : 0));
		wr = wr->next;
		nr++;
		KUNIT_ASSERT_NOT_NULL(test, wr);
		KUNIT_EXPECT_EQ(test, wr->opcode, iwarp ?
				IB_WR_RDMA_READ_WITH_INV : IB_WR_RDMA_READ);
		KUNIT_EXPECT_EQ(test, rdma_wr(wr)->remote_addr,
				RW_REMOTE + pos - t->offset);
		KUNIT_EXPECT_EQ(test, wr->num_sge, 1);
		KUNIT_EXPECT_EQ(test, wr->sg_list->lkey, mr->mr.lkey);
		KUNIT_EXPECT_EQ(test, wr->sg_list->addr, mr->mr.iova);
		KUNIT_EXPECT_EQ(test, wr->sg_list->length, mr->mr.length);
		/* pages that follow each other, from where the iova starts */
		for (j = 0; j < mr->nr_pages; j++) {
			u32 skip = j ? 0 : mr->mr.iova % P;
			u32 len = min_t(u32, P - skip, t->size - pos);

			rw_expect_memory(test, mr->pages[j] + skip, len, pos);
			pos += len;
		}
	}
	KUNIT_EXPECT_NULL(test, wr);
	KUNIT_EXPECT_EQ(test, nr, ret);
	KUNIT_EXPECT_EQ(test, pos, t->size);

	rw_ctx_destroy(t);
	rw_expect_clean(test);
}

static void rw_expect_refused(struct kunit *test, int want)
{
	KUNIT_EXPECT_EQ(test, rw_ctx_init(test->priv), want);
	rw_expect_clean(test);
}

/* what becomes one SGE */

static void rw_test_single(struct kunit *test)
{
	struct rw_test *t = test->priv;
	static const u32 parts[][2] = {
		{ 0, 1 }, { 0, P }, { 1, 1 }, { 511, 4096 }, { P - 1, 2 },
		{ 0, 32 * P }, { 3, 31 * P },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		rw_empty(t);
		rw_add(t, parts[i][0], parts[i][1]);
		t->dir = i % 2 ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
		rw_expect_sges(test, rw_ctx_init(t), 1);
	}
}

static void rw_test_contiguous(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int i;

	rw_add(t, P - 512, 512);
	for (i = 1; i < RW_MAX - 1; i++)
		rw_add(t, i * P, P);
	rw_add(t, i * P, 100);
	rw_expect_sges(test, rw_ctx_init(t), 1);
}

/* No page but the first starts late, and none but the last ends early. */
static void rw_test_pages(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int n;

	for (n = 1; n <= 2 * RW_MAX_SGE + 1; n++) {
		rw_empty(t);
		rw_add_gaps(t, n);
		rw_expect_sges(test, rw_ctx_init(t),
			       t->param->kind == RW_IOMMU ? 1 : n);
	}
	rw_empty(t);
	rw_add(t, 100, P - 100);
	if (t->param->bvec)
		rw_add(t, 2 * P + 1, 0);
	rw_add(t, 4 * P, P);
	rw_add(t, 8 * P, 1);
	rw_expect_sges(test, rw_ctx_init(t),
		       t->param->kind == RW_IOMMU ? 1 : 3);
}

/* An IOMMU cannot close these. */
static void rw_test_holes(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int n, i;

	for (n = 2; n <= 2 * RW_MAX_SGE + 1; n++) {
		rw_empty(t);
		for (i = 0; i < n; i++)
			rw_add(t, 2 * i * P + 8 * i, 100 + i);
		rw_expect_sges(test, rw_ctx_init(t), n);
	}
}

static void rw_test_segment_size(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int i;

	if (t->param->kind == RW_PHYS)
		kunit_skip(test, "no limit without DMA");
	dma_set_max_seg_size(t->dev.dma_device, 2 * P);
	for (i = 0; i < 4; i++)
		rw_add(t, i * P, P);
	/* a range of IOVAs knows no segments */
	rw_expect_sges(test, rw_ctx_init(t),
		       t->param->kind == RW_IOMMU && t->param->bvec ? 1 : 2);
}

static void rw_test_offset(struct kunit *test)
{
	struct rw_test *t = test->priv;
	bool iommu = t->param->kind == RW_IOMMU;
	static const u32 offsets[] = {
		0, 1, P - 1, P, P + 1, 2 * P, 4 * P - 1, 4 * P, 5 * P - 1,
	};
	int i;

	rw_add_gaps(t, 5);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		t->offset = offsets[i];
		rw_expect_sges(test, rw_ctx_init(t),
			       iommu ? 1 : 5 - offsets[i] / P);
	}
}

static void rw_test_nothing(struct kunit *test)
{
	struct rw_test *t = test->priv;

	rw_expect_refused(test, -EINVAL);
	rw_add_gaps(t, 3);
	t->offset = t->size;
	rw_expect_refused(test, -EINVAL);
	if (t->param->bvec)
		return;
	t->offset++;
	rw_expect_refused(test, -EINVAL);
	t->offset = U32_MAX;
	rw_expect_refused(test, -EINVAL);
}

/* what becomes an MR */

static void rw_test_iwarp_read(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int n, round;

	rw_iwarp(t);
	t->dir = DMA_FROM_DEVICE;
	for (n = 1; n <= 3 * RW_MR_PAGES + 1; n++) {
		/* the second time some have to be invalidated first */
		for (round = 0; round < 2; round++) {
			rw_empty(t);
			rw_add_gaps(t, n);
			rw_expect_mrs(test, rw_ctx_init(t),
				      DIV_ROUND_UP(n, RW_MR_PAGES));
		}
	}
	rw_empty(t);
	rw_add(t, 100, P - 100);
	rw_add(t, 4 * P, 10);
	rw_expect_mrs(test, rw_ctx_init(t), 1);
	t->offset = 50;
	rw_expect_mrs(test, rw_ctx_init(t), 1);
	/* the first entry is not part of it */
	t->offset = P - 100;
	rw_expect_mrs(test, rw_ctx_init(t), 1);
}

/* An entry of more pages than an MR has */
static void rw_test_mr_large(struct kunit *test)
{
	struct rw_test *t = test->priv;

	rw_iwarp(t);
	t->dir = DMA_FROM_DEVICE;
	rw_add(t, 0, 3 * RW_MR_PAGES * P);
	rw_expect_mrs(test, rw_ctx_init(t), 3);
	rw_empty(t);
	rw_add(t, 100, RW_MR_PAGES * P);
	rw_add(t, 10 * P, P);
	rw_expect_refused(test, -EINVAL);
	rw_empty(t);
	rw_add(t, 100, RW_MR_PAGES * P - 100);
	rw_add(t, 10 * P, 2 * RW_MR_PAGES * P - 5);
	rw_expect_mrs(test, rw_ctx_init(t), 3);
}

static void rw_test_iwarp_write(struct kunit *test)
{
	struct rw_test *t = test->priv;

	rw_iwarp(t);
	rw_add_gaps(t, 4);
	rw_expect_sges(test, rw_ctx_init(t),
		       t->param->kind == RW_IOMMU ? 1 : 4);
}

static void rw_test_invalidate(struct kunit *test)
{
	struct rw_test *t = test->priv;
	int i, ret;

	rw_iwarp(t);
	t->dir = DMA_FROM_DEVICE;
	for (i = 0; i < RW_NR_MRS; i++)
		t->mrs[i].mr.need_inval = true;
	rw_add_gaps(t, 2);
	ret = rw_ctx_init(t);
	KUNIT_EXPECT_EQ(test, ret, 3);
	rw_expect_mrs(test, ret, 1);
}

/* The device would rather have an MR than many SGEs, for READs. */
static void rw_test_max_sgl_rd(struct kunit *test)
{
	struct rw_test *t = test->priv;
	bool merged = t->param->kind == RW_IOMMU;
	int n;

	t->dev.attrs.max_sgl_rd = 2;
	for (n = 1; n <= 4; n++) {
		rw_empty(t);
		rw_add_gaps(t, n);
		t->dir = DMA_FROM_DEVICE;
		/* bvecs: never, because it would exhaust the pool */
		if (n > 2 && !merged && !t->param->bvec)
			rw_expect_mrs(test, rw_ctx_init(t), 1);
		else
			rw_expect_sges(test, rw_ctx_init(t), merged ? 1 : n);
		t->dir = DMA_TO_DEVICE;
		rw_expect_sges(test, rw_ctx_init(t), merged ? 1 : n);
	}
	/* many entries, but one SGE */
	rw_empty(t);
	for (n = 0; n < 4; n++)
		rw_add(t, n * P, P);
	t->dir = DMA_FROM_DEVICE;
	rw_expect_sges(test, rw_ctx_init(t), 1);
}

/* The MR pool holds fewer MRs than it takes. */
static void rw_test_pool(struct kunit *test)
{
	struct rw_test *t = test->priv;
	bool merged = t->param->kind == RW_IOMMU;
	int n = RW_MR_PAGES + 1, left;

	t->dir = DMA_FROM_DEVICE;
	rw_add_gaps(t, n);
	for (left = 1; left >= 0; left--) {
		INIT_LIST_HEAD(&t->qp.rdma_mrs);
		if (left)
			list_add(&t->mrs[0].mr.qp_entry, &t->qp.rdma_mrs);

		rw_iwarp(t);
		rw_expect_refused(test, -EAGAIN);
		KUNIT_EXPECT_EQ(test, list_count_nodes(&t->qp.rdma_mrs), left);

		t->ports[1].immutable.core_cap_flags = RDMA_CORE_PORT_IBA_IB;
		t->dev.attrs.max_sgl_rd = 2;
		rw_expect_sges(test, rw_ctx_init(t), merged ? 1 : n);
		KUNIT_EXPECT_EQ(test, list_count_nodes(&t->qp.rdma_mrs), left);
	}
}

/* An MR takes whole pages, apart from its two ends. */
static void rw_test_mr_holes(struct kunit *test)
{
	struct rw_test *t = test->priv;

	rw_iwarp(t);
	t->dir = DMA_FROM_DEVICE;
	rw_add(t, 0, 100);
	rw_add(t, 2 * P + 50, 100);
	rw_expect_refused(test, -EINVAL);
}

/* More in the iterator than there are bvecs */
static void rw_test_bvec_overrun(struct kunit *test)
{
	struct rw_test *t = test->priv;

	if (!t->param->bvec)
		kunit_skip(test, "bvecs only");
	rw_iwarp(t);
	t->dir = DMA_FROM_DEVICE;
	rw_add_gaps(t, 3);
	t->nents = 2;
	rw_expect_refused(test, -EINVAL);
}

static void rw_test_signature(struct kunit *test)
{
	struct rw_test *t = test->priv;
	struct ib_sig_attrs attrs = { .wire.sig_type = IB_SIG_TYPE_NONE };
	struct ib_send_wr *wr;
	int pi, ret;

	if (t->param->bvec)
		kunit_skip(test, "scatterlists only");
	t->qp.integrity_en = true;
	rw_add_gaps(t, 3);
	sg_init_table(t->pi_sgl, 1);
	sg_set_page(t->pi_sgl, t->pages + 31, 64, 0);

	for (pi = 0; pi <= 1; pi++) {
		for (t->map_ret = -EIO; t->map_ret <= 0; t->map_ret += EIO) {
			ret = rdma_rw_ctx_signature_init(&t->ctx, &t->qp, 1,
							 t->sgl, 3, t->pi_sgl,
							 pi, &attrs, RW_REMOTE,
							 RW_RKEY, t->dir);
			if (t->map_ret) {
				KUNIT_EXPECT_EQ(test, ret, -EIO);
				rw_expect_clean(test);
				continue;
			}
			/* at the second go the MR has to be invalidated */
			KUNIT_ASSERT_EQ(test, ret, 2 + pi);
			wr = rdma_rw_ctx_wrs(&t->ctx, &t->qp, 1, &t->cqe, NULL);
			if (pi) {
				KUNIT_EXPECT_EQ(test, wr->opcode,
						IB_WR_LOCAL_INV);
				wr = wr->next;
			}
			KUNIT_EXPECT_EQ(test, wr->opcode,
					IB_WR_REG_MR_INTEGRITY);
			wr = wr->next;
			KUNIT_EXPECT_EQ(test, wr->opcode, IB_WR_RDMA_WRITE);
			KUNIT_EXPECT_EQ(test, wr->sg_list->length, 3 * P - 64);
			KUNIT_EXPECT_EQ(test, wr->sg_list->lkey,
					t->sig_mr.mr.lkey);
			KUNIT_EXPECT_EQ(test, t->qp.mrs_used, 1);
			rdma_rw_ctx_destroy_signature(&t->ctx, &t->qp, 1,
						      t->sgl, 3, t->pi_sgl, pi,
						      t->dir);
			rw_expect_clean(test);
		}
	}

	ret = rdma_rw_ctx_signature_init(&t->ctx, &t->qp, 1, t->sgl,
					 RW_MR_PAGES + 1, t->pi_sgl, 1, &attrs,
					 RW_REMOTE, RW_RKEY, t->dir);
	KUNIT_EXPECT_EQ(test, ret, -EINVAL);
	INIT_LIST_HEAD(&t->qp.sig_mrs);
	ret = rdma_rw_ctx_signature_init(&t->ctx, &t->qp, 1, t->sgl, 3,
					 t->pi_sgl, 1, &attrs, RW_REMOTE,
					 RW_RKEY, t->dir);
	KUNIT_EXPECT_EQ(test, ret, -EAGAIN);
	list_add(&t->sig_mr.mr.qp_entry, &t->qp.sig_mrs);
}

/* Whatever can fail does, one after the other: mappings and allocations. */
static void rw_test_fail(struct kunit *test)
{
#if defined(CONFIG_FAULT_INJECTION) && defined(CONFIG_FAIL_RDMA_MAP)
	struct rw_test *t = test->priv;
	int n, ret, left, use_mr, failed;

	t->dir = DMA_FROM_DEVICE;
	for (use_mr = 0; use_mr <= 1; use_mr++) {
		if (use_mr)
			rw_iwarp(t);
		rw_empty(t);
		rw_add_gaps(t, RW_MR_PAGES);
		failed = 0;
		for (n = 1;; n++) {
			WRITE_ONCE(current->fail_nth, n);
			ret = rw_ctx_init(t);
			left = READ_ONCE(current->fail_nth);
			WRITE_ONCE(current->fail_nth, 0);
			if (left)
				break;
			if (ret >= 0) {
				/* a caller need not notice */
				rw_ctx_destroy(t);
				continue;
			}
			KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
			rw_expect_clean(test);
			failed++;
		}
		KUNIT_EXPECT_GT(test, failed, 0);
		kunit_info(test, "%d of %d failed with %s", failed, n - 1,
			   use_mr ? "MRs" : "SGEs");
		if (use_mr)
			rw_expect_mrs(test, ret, 1);
		else
			rw_expect_sges(test, ret, t->param->kind == RW_IOMMU ?
				       1 : RW_MR_PAGES);
	}
#else
	kunit_skip(test, "needs CONFIG_FAIL_RDMA_MAP");
#endif
}

#define RW_CASE(name) KUNIT_CASE_PARAM(rw_test_##name, rw_gen_params)

static struct kunit_case rw_cases[] = {
	RW_CASE(single),
	RW_CASE(contiguous),
	RW_CASE(pages),
	RW_CASE(holes),
	RW_CASE(segment_size),
	RW_CASE(offset),
	RW_CASE(nothing),
	RW_CASE(iwarp_read),
	RW_CASE(mr_large),
	RW_CASE(iwarp_write),
	RW_CASE(invalidate),
	RW_CASE(max_sgl_rd),
	RW_CASE(pool),
	RW_CASE(mr_holes),
	RW_CASE(bvec_overrun),
	RW_CASE(signature),
	RW_CASE(fail),
	{}
};

static struct kunit_suite rw_suite = {
	.name = "rdma_rw",
	.suite_init = dma_log_suite_init,
	.suite_exit = dma_log_suite_exit,
	.init = rw_init,
	.exit = rw_exit,
	.test_cases = rw_cases,
};

kunit_test_suite(rw_suite);

MODULE_DESCRIPTION("KUnit tests of RDMA READ and WRITE contexts");
MODULE_LICENSE("Dual BSD/GPL");
