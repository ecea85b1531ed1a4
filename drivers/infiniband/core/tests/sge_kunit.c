// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Tests of the SGE builder, on ib_devices that are never registered: without a
 * dma_device, and with one whose DMA addresses are not the physical ones.
 */
#include <kunit/device.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/dma-direct.h>
#include <linux/highmem.h>
#include <linux/scatterlist.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>
#include <linux/wordpart.h>
#include <rdma/sge.h>
#include <rdma/sge_phys.h>

#include "dma_log.h"

#define P		PAGE_SIZE
#define SGE_LKEY	0x1234
#define SGE_POISON	0x5a
#define SGE_MAX		8
#define SGE_COUNTED	33
#define SGE_ORDER	4
#define SGE_AREA	(P << SGE_ORDER)
#define SGE_DIR		DMA_BIDIRECTIONAL
#define SGE_DMA_BASE	(1ULL << (IS_ENABLED(CONFIG_ARCH_DMA_ADDR_T_64BIT) ? \
				  44 : 30))
#define SGE_DMA_SIZE	(3 * SGE_DMA_BASE)

enum sge_kind {
	SGE_DMA,
	SGE_PHYS,
};

static const struct sge_param {
	const char *name;
	enum sge_kind kind;
} sge_params[] = {
	{ "DMA", SGE_DMA },
	{ "physical", SGE_PHYS },
};

KUNIT_ARRAY_PARAM_DESC(sge, sge_params, name);

/* @len bytes at @off in the test's memory */
struct sge_part {
	u32 off;
	u32 len;
};

struct sge_test {
	enum sge_kind kind;
	struct ib_device dev;
	struct ib_pd pd;
	struct device_dma_parameters dma_parms;
	struct bus_dma_region *ranges;
	struct page *pages;
	phys_addr_t phys;

	struct ib_sge sges[SGE_MAX];
	struct scatterlist sgl[SGE_MAX + 1];
	struct scatterlist pi_sgl[1];
	struct bio_vec bvecs[SGE_MAX];
	int nents;
	unsigned int size;
	int fail_at;

	/* the driver's side of an MR */
	struct ib_mr mr;
	u64 last_iova;
	u64 mr_pages[SGE_MAX];
	int nr_pages;
	int max_pages;
	int map_ret;
	int pi_args[2];
};

/* what the device has to find in an SGE for @off in the test's memory */
static u64 sge_addr(struct sge_test *t, size_t off)
{
	return (t->kind == SGE_DMA ? SGE_DMA_BASE : 0) + t->phys + off;
}

static void sge_expect(struct kunit *test, const struct ib_sge *sge, size_t off,
		       size_t len)
{
	KUNIT_EXPECT_EQ(test, sge->addr, sge_addr(test->priv, off));
	KUNIT_EXPECT_EQ(test, sge->length, len);
	KUNIT_EXPECT_EQ(test, sge->lkey, SGE_LKEY);
}

static void sge_expect_live(struct kunit *test, int n)
{
	struct sge_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, dma_log.nr_live, t->kind == SGE_DMA ? n : 0);
}

static void sge_poison(struct sge_test *t)
{
	memset(t->sges, SGE_POISON, sizeof(t->sges));
}

static void sge_expect_poison(struct kunit *test, int from)
{
	struct sge_test *t = test->priv;

	KUNIT_EXPECT_NULL(test, memchr_inv(&t->sges[from], SGE_POISON,
					   (SGE_MAX - from) *
					   sizeof(*t->sges)));
}

/* @call fails, and leaves no trace */
#define SGE_EXPECT_REFUSED(test, call, err) do {	\
	struct kunit *__test = (test);			\
							\
	sge_poison(__test->priv);			\
	KUNIT_EXPECT_EQ(__test, call, err);		\
	sge_expect_poison(__test, 0);			\
	sge_expect_live(__test, 0);			\
} while (0)

/* @call of a list fails: no SGE names what has been unmapped again */
static void sge_expect_undone(struct kunit *test, int ret, int err, int max_sge)
{
	struct sge_test *t = test->priv;
	int i;

	KUNIT_EXPECT_EQ(test, ret, err);
	for (i = 0; i < max_sge; i++)
		KUNIT_EXPECT_NE(test, t->sges[i].lkey, SGE_LKEY);
	sge_expect_poison(test, max_sge);
	sge_expect_live(test, 0);
}

static bool sge_should_fail(void)
{
	struct sge_test *t = kunit_get_current_test()->priv;

	return t->fail_at && !--t->fail_at;
}

static bool sge_can_fail_at(struct kunit *test)
{
	kunit_activate_static_stub(test, rdma_map_should_fail, sge_should_fail);
	return IS_ENABLED(CONFIG_FAIL_RDMA_MAP);
}

static void sge_set_ranges(struct sge_test *t)
{
	memset(t->ranges, 0, 4 * sizeof(*t->ranges));
	t->ranges[0].dma_start = SGE_DMA_BASE;
	t->ranges[0].size = SGE_DMA_SIZE;
}

/* Take the page at @off out of the device's reach: the DMA API cannot map it. */
static void sge_set_hole(struct sge_test *t, size_t off)
{
	u64 end = t->phys + off + P;

	t->ranges[0].size = t->phys + off;
	t->ranges[1].cpu_start = end;
	t->ranges[1].dma_start = SGE_DMA_BASE + end;
	t->ranges[1].size = SGE_DMA_SIZE - end;
}

static int sge_set_page(struct ib_mr *mr, u64 addr)
{
	struct sge_test *t = container_of(mr, struct sge_test, mr);

	if (t->nr_pages == t->max_pages)
		return -ENOMEM;
	t->mr_pages[t->nr_pages++] = addr;
	return 0;
}

static int sge_map_mr_sg(struct ib_mr *mr, struct scatterlist *sgl, int nents,
			 unsigned int *offset)
{
	struct sge_test *t = container_of(mr, struct sge_test, mr);

	t->nr_pages = 0;
	return t->map_ret ?: ib_sg_to_pages(mr, sgl, nents, offset,
					    sge_set_page);
}

static int sge_map_mr_sg_pi(struct ib_mr *mr, struct scatterlist *sgl,
			    int nents, unsigned int *offset,
			    struct scatterlist *pi_sgl, int pi_nents,
			    unsigned int *pi_offset)
{
	struct sge_test *t = container_of(mr, struct sge_test, mr);

	t->pi_args[0] = sgl == t->sgl ? nents : -1;
	t->pi_args[1] = !pi_sgl || pi_sgl == t->pi_sgl ? pi_nents : -1;
	return t->map_ret;
}

static void sge_init_dma(struct kunit *test, struct sge_test *t)
{
	struct device *dev = kunit_device_register(test, "sge");

	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	/* freed with the driver's grip on the device */
	t->ranges = kzalloc_objs(*t->ranges, 4);
	KUNIT_ASSERT_NOT_NULL(test, t->ranges);
	sge_set_ranges(t);
	dev->dma_range_map = t->ranges;
	dev->coherent_dma_mask = DMA_BIT_MASK(64);
	dev->dma_parms = &t->dma_parms;
	dma_set_max_seg_size(dev, U32_MAX);
#ifdef CONFIG_SWIOTLB
	/* no bouncing: what is out of reach is to fail */
	dev->dma_io_tlb_mem = NULL;
#endif
	t->dev.dma_device = dev;
}

static int sge_init(struct kunit *test)
{
	const struct sge_param *param = test->param_value ?: &sge_params[0];
	struct sge_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->kind = param->kind;
	t->pd.device = &t->dev;
	t->pd.local_dma_lkey = SGE_LKEY;
	t->mr.device = &t->dev;
	t->mr.type = IB_MR_TYPE_INTEGRITY;
	t->max_pages = SGE_MAX;
	t->dev.ops.map_mr_sg = sge_map_mr_sg;
	t->dev.ops.map_mr_sg_pi = sge_map_mr_sg_pi;
	if (t->kind == SGE_DMA)
		sge_init_dma(test, t);

	t->pages = alloc_pages(GFP_KERNEL | __GFP_COMP | __GFP_ZERO, SGE_ORDER);
	KUNIT_ASSERT_NOT_NULL(test, t->pages);
	t->phys = page_to_phys(t->pages);
	test->priv = t;

	memset(&dma_log, 0, sizeof(dma_log));
	dma_log.dev = t->dev.dma_device;
	return 0;
}

/*
 * Whether DMA_API_DEBUG knows of a mapping of @phys. It counts to 7 on top of
 * the first of a cacheline, and warns of the next.
 */
static bool sge_leaked(struct kunit *test, phys_addr_t phys)
{
	struct sge_test *t = test->priv;
	struct device *dev = t->dev.dma_device;
	bool leaked = false;
	dma_addr_t addr[8];
	int i;

	kunit_warning_suppress(test) {
		for (i = 0; i < ARRAY_SIZE(addr); i++) {
			addr[i] = dma_map_phys(dev, phys, 1, DMA_FROM_DEVICE,
					       DMA_ATTR_SKIP_CPU_SYNC);
			KUNIT_EXPECT_EQ(test, dma_mapping_error(dev, addr[i]),
					0);
		}
		leaked = KUNIT_SUPPRESSED_WARNING_COUNT();
	}
	while (i--)
		dma_unmap_phys(dev, addr[i], 1, DMA_FROM_DEVICE,
			       DMA_ATTR_SKIP_CPU_SYNC);
	return leaked;
}

static void sge_exit(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int i;

	if (!t)
		return;
	KUNIT_EXPECT_EQ(test, dma_log.nr_live, 0);
	KUNIT_EXPECT_EQ(test, dma_log.nr_bad, 0);
	dma_log.dev = NULL;

	if (t->kind == SGE_DMA && IS_ENABLED(CONFIG_DMA_API_DEBUG)) {
		sge_set_ranges(t);
		for (i = 0; i < dma_log.nr_seen; i++)
			KUNIT_EXPECT_FALSE(test,
					   sge_leaked(test, dma_log.seen[i]));
	}
	__free_pages(t->pages, SGE_ORDER);
}

/* would DMA_API_DEBUG tell? */
static void sge_test_leak(struct kunit *test)
{
	struct sge_test *t = test->priv;
	struct ib_sge sge;

#ifndef __WARN_FLAGS
	kunit_skip(test, "suppressing a WARN_ONCE() here uses it up");
#endif
	if (!IS_ENABLED(CONFIG_DMA_API_DEBUG))
		kunit_skip(test, "needs CONFIG_DMA_API_DEBUG");

	KUNIT_ASSERT_EQ(test, rdma_map_sge_page(&t->pd, &sge, t->pages, 0, 64,
						SGE_DIR), 0);
	dma_log.dev = NULL;
	KUNIT_EXPECT_TRUE(test, sge_leaked(test, t->phys));
	dma_log.dev = t->dev.dma_device;
	rdma_unmap_sge(&t->dev, &sge, SGE_DIR);
}

/* one piece of memory */

enum sge_call {
	SGE_SINGLE,
	SGE_PAGE,
	SGE_NR_CALLS,
};

static int sge_map(struct sge_test *t, enum sge_call call, size_t off,
		   size_t len, enum dma_data_direction dir)
{
	struct ib_sge *sge = t->sges;

	switch (call) {
	case SGE_SINGLE:
		return rdma_map_sge_single(&t->pd, sge,
					   page_address(t->pages) + off, len,
					   dir);
	default:
		return rdma_map_sge_page(&t->pd, sge, t->pages, off, len, dir);
	}
}

static void sge_test_map(struct kunit *test)
{
	static const struct sge_part parts[] = {
		{ 0, P }, { 1, 1 }, { P - 1, 2 },
		{ 3 * P + 7, 5 * P }, { 0, SGE_AREA },
	};
	static const enum dma_data_direction dirs[] = {
		DMA_BIDIRECTIONAL, DMA_TO_DEVICE, DMA_FROM_DEVICE,
	};
	struct sge_test *t = test->priv;
	struct dma_log_mapping want = {};
	int call, i, n;

	for (n = 0; n < SGE_NR_CALLS * ARRAY_SIZE(parts); n++) {
		call = n % SGE_NR_CALLS;
		i = n / SGE_NR_CALLS;
		want.addr = sge_addr(t, parts[i].off);
		want.len = parts[i].len;
		want.dir = dirs[n % ARRAY_SIZE(dirs)];

		sge_poison(t);
		KUNIT_ASSERT_EQ(test, sge_map(t, call, parts[i].off, want.len,
					      want.dir), 0);
		sge_expect(test, t->sges, parts[i].off, want.len);
		sge_expect_poison(test, 1);
		sge_expect_live(test, 1);
		if (dma_log.nr_live)
			KUNIT_EXPECT_TRUE(test,
					  dma_log_same(&dma_log.live[0], &want));
		rdma_unmap_sge(&t->dev, t->sges, want.dir);
		sge_expect_live(test, 0);
		sge_expect(test, t->sges, parts[i].off, want.len);
	}
}

static void sge_test_length(struct kunit *test)
{
#ifdef CONFIG_64BIT
	static const size_t too_long[] = { 1UL << 32, SIZE_MAX };
	int i;
#endif
	struct sge_test *t = test->priv;
	int call;

	for (call = 0; call < SGE_NR_CALLS; call++) {
		SGE_EXPECT_REFUSED(test, sge_map(t, call, 0, 0, SGE_DIR),
				   -EINVAL);
#ifdef CONFIG_64BIT
		for (i = 0; i < ARRAY_SIZE(too_long); i++)
			SGE_EXPECT_REFUSED(test, sge_map(t, call, 0,
							 too_long[i], SGE_DIR),
					   -EINVAL);
#endif
	}
}

/* More than there is can be mapped if no cache is to be flushed for it. */
static void sge_need_4g(struct kunit *test)
{
	struct sge_test *t = test->priv;

	if (t->kind == SGE_DMA && (!IS_ENABLED(CONFIG_64BIT) ||
				   !dev_is_dma_coherent(t->dev.dma_device)))
		kunit_skip(test, "needs a coherent device on 64 bits");
}

static void sge_test_max_length(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int call;

	sge_need_4g(test);
	for (call = 0; call < SGE_NR_CALLS; call++) {
		KUNIT_ASSERT_EQ(test, sge_map(t, call, 0, U32_MAX, SGE_DIR), 0);
		sge_expect(test, t->sges, 0, U32_MAX);
		rdma_unmap_sge(&t->dev, t->sges, SGE_DIR);
	}
}

static u8 sge_module_buf[64];

static void sge_test_not_linear(struct kunit *test)
{
	struct sge_test *t = test->priv;
	u8 stack_buf[64];
	void *buf;

	SGE_EXPECT_REFUSED(test, rdma_map_sge_single(&t->pd, t->sges, stack_buf,
						     sizeof(stack_buf),
						     SGE_DIR), -EINVAL);

	buf = vmalloc(P);
	KUNIT_ASSERT_NOT_NULL(test, buf);
	SGE_EXPECT_REFUSED(test, rdma_map_sge_single(&t->pd, t->sges, buf,
						     P, SGE_DIR),
			   -EINVAL);
	vfree(buf);

	/* built in, it is part of the kernel image */
	if (is_vmalloc_or_module_addr(sge_module_buf))
		SGE_EXPECT_REFUSED(test, rdma_map_sge_single(&t->pd, t->sges,
							     sge_module_buf, 64,
							     SGE_DIR), -EINVAL);
}

static void sge_test_map_fails(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int call;

	if (!sge_can_fail_at(test))
		kunit_skip(test, "needs CONFIG_FAIL_RDMA_MAP");
	for (call = 0; call < SGE_NR_CALLS; call++) {
		t->fail_at = 1;
		SGE_EXPECT_REFUSED(test, sge_map(t, call, 0, 64, SGE_DIR),
				   -ENOMEM);
	}
}

/* the same, but it is the DMA API that fails */
static void sge_test_map_dma_fails(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int call;

	sge_set_hole(t, P);
	for (call = 0; call < SGE_NR_CALLS; call++)
		kunit_warning_suppress(test)
			SGE_EXPECT_REFUSED(test, sge_map(t, call, P, 64,
							 SGE_DIR), -ENOMEM);
}

static void sge_test_highmem(struct kunit *test)
{
	struct page *page = alloc_page(GFP_HIGHUSER);
	struct sge_test *t = test->priv;
	phys_addr_t phys;
	size_t len = P;
	void *va;

	KUNIT_ASSERT_NOT_NULL(test, page);
	if (!PageHighMem(page)) {
		__free_page(page);
		kunit_skip(test, "no highmem page");
	}
	phys = page_to_phys(page);
	KUNIT_EXPECT_EQ(test, rdma_map_sge_page(&t->pd, t->sges, page, 100, 64,
						SGE_DIR), 0);
	sge_expect(test, t->sges, phys + 100 - t->phys, 64);
	rdma_unmap_sge(&t->dev, t->sges, SGE_DIR);

	va = rdma_kmap_phys(phys + 100, &len);
	KUNIT_EXPECT_EQ(test, len, P - 100);
	memset(va, SGE_POISON, len);
	rdma_kunmap_phys(va);
	va = kmap_local_page(page);
	KUNIT_EXPECT_NULL(test, memchr_inv(va + 100, SGE_POISON, P - 100));
	kunmap_local(va);
	__free_page(page);
}

/* slices, and what else needs no mapping */

static void sge_test_slice(struct kunit *test)
{
	static const struct {
		u32 off, len;
		bool bad;
	} parts[] = {
		{ 0, 1000 }, { 0, 1 }, { 999, 1 }, { 300, 400 }, { 0, 0 },
		{ 1000, 0 }, { 1001, 0, true }, { 0, 1001, true },
		{ 1000, 1, true }, { 999, 2, true }, { U32_MAX, 1, true },
		{ 1, U32_MAX, true }, { 16, U32_MAX - 15, true },
	};
	const struct ib_sge map = {
		.addr = U32_MAX - 500ULL, .length = 1000, .lkey = SGE_LKEY,
	};
	struct ib_sge slice;
	int i, ret = 0, warned = 0;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		memset(&slice, SGE_POISON, sizeof(slice));
		kunit_warning_suppress(test) {
			ret = rdma_sge_slice(&slice, &map, parts[i].off,
					     parts[i].len);
			warned = KUNIT_SUPPRESSED_WARNING_COUNT();
		}
		if (parts[i].bad) {
			KUNIT_EXPECT_EQ(test, ret, -EINVAL);
			KUNIT_EXPECT_NULL(test, memchr_inv(&slice, 0,
							   sizeof(slice)));
#ifdef __WARN_FLAGS	/* elsewhere, what is suppressed is used up, too */
			KUNIT_EXPECT_EQ(test, warned, 1);
#endif
			continue;
		}
		KUNIT_EXPECT_EQ(test, ret, 0);
		KUNIT_EXPECT_EQ(test, slice.addr, map.addr + parts[i].off);
		KUNIT_EXPECT_EQ(test, slice.length, parts[i].len);
		KUNIT_EXPECT_EQ(test, slice.lkey, SGE_LKEY);
		KUNIT_EXPECT_EQ(test, warned, 0);
	}

	/* a slice of a slice */
	KUNIT_EXPECT_EQ(test, rdma_sge_slice(&slice, &map, 100, 200), 0);
	KUNIT_EXPECT_EQ(test, rdma_sge_slice(&slice, &slice, 10, 190), 0);
	KUNIT_EXPECT_EQ(test, slice.addr, map.addr + 110);
	KUNIT_EXPECT_EQ(test, slice.length, 190);
	kunit_warning_suppress(test)
		KUNIT_EXPECT_EQ(test, rdma_sge_slice(&slice, &slice, 0, 191),
				-EINVAL);
}

static void sge_test_mr_sge(struct kunit *test)
{
	const struct ib_mr mr = {
		.iova = 0x1234567800000123, .length = 5000,
		.lkey = 0x77, .rkey = 0x88,
	};
	struct ib_sge sge;

	rdma_mr_sge(&sge, &mr);
	KUNIT_EXPECT_EQ(test, sge.addr, 0x1234567800000123);
	KUNIT_EXPECT_EQ(test, sge.length, 5000);
	KUNIT_EXPECT_EQ(test, sge.lkey, 0x77);
	KUNIT_EXPECT_EQ(test, rdma_sge_slice(&sge, &sge, 4000, 1000), 0);
	KUNIT_EXPECT_EQ(test, sge.addr, 0x1234567800000123 + 4000);
	KUNIT_EXPECT_EQ(test, sge.lkey, 0x77);
}

static void sge_expect_sync(struct kunit *test, const char *who, size_t off,
			    size_t len)
{
	struct sge_test *t = test->priv;
	struct dma_log_mapping want = {
		.addr = sge_addr(t, off), .len = len, .dir = SGE_DIR,
	};

	if (t->kind != SGE_DMA || !IS_ENABLED(CONFIG_DMA_NEED_SYNC))
		return;
	KUNIT_EXPECT_STREQ(test, dma_log.sync_for, who);
	KUNIT_EXPECT_TRUE(test, dma_log_same(&dma_log.sync, &want));
}

/* On a device without DMA there is nothing to see, other than no crash. */
static void sge_test_sync(struct kunit *test)
{
	struct sge_test *t = test->priv;
	struct ib_device *dev = &t->dev;
	struct ib_sge slice;

	KUNIT_ASSERT_EQ(test, sge_map(t, SGE_PAGE, 10, 5000, SGE_DIR), 0);
	KUNIT_ASSERT_EQ(test, rdma_sge_slice(&slice, t->sges, 100, 64), 0);

	rdma_sync_sge_for_cpu(dev, &slice, SGE_DIR);
	sge_expect_sync(test, "cpu", 110, 64);
	rdma_sync_sge_for_device(dev, &slice, SGE_DIR);
	sge_expect_sync(test, "device", 110, 64);
	rdma_sync_sge_for_cpu(dev, t->sges, SGE_DIR);
	sge_expect_sync(test, "cpu", 10, 5000);
	rdma_sync_sge_for_device(dev, t->sges, SGE_DIR);
	sge_expect_sync(test, "device", 10, 5000);

	sge_expect(test, t->sges, 10, 5000);
	rdma_unmap_sge(dev, t->sges, SGE_DIR);
}

static void sge_test_inline(struct kunit *test)
{
	void *bufs[] = { &bufs, sge_module_buf, vmalloc(64), test };
	struct ib_sge sge;
	int i;

	KUNIT_EXPECT_NOT_NULL(test, bufs[2]);
	for (i = 0; i < ARRAY_SIZE(bufs); i++) {
		memset(&sge, SGE_POISON, sizeof(sge));
		rdma_fill_ib_sge_inline(&sge, bufs[i], 33 + i);
		KUNIT_EXPECT_EQ(test, sge.addr, (uintptr_t)bufs[i]);
		KUNIT_EXPECT_EQ(test, sge.length, 33 + i);
		KUNIT_EXPECT_EQ(test, sge.lkey, 0);
	}
	vfree(bufs[2]);
}

/* lists */

static void sge_set_list(struct sge_test *t, const struct sge_part *parts,
			 int nents)
{
	struct scatterlist *sg;
	struct page *page;
	int i;

	/* three or more entries are a chain of two lists */
	if (nents > 2) {
		sg_init_table(t->sgl, 3);
		sg_init_table(t->sgl + 3, nents - 2);
		sg_chain(t->sgl, 3, t->sgl + 3);
	} else {
		sg_init_table(t->sgl, nents);
	}
	t->nents = nents;
	t->size = 0;
	for_each_sg(t->sgl, sg, nents, i) {
		page = t->pages + parts[i].off / P;
		sg_set_page(sg, page, parts[i].len,
			    offset_in_page(parts[i].off));
		bvec_set_page(&t->bvecs[i], page, parts[i].len,
			      offset_in_page(parts[i].off));
		t->size += parts[i].len;
	}
}

static int sge_fill(struct sge_test *t, bool bvec, int max_sge)
{
	struct bvec_iter iter = { .bi_size = t->size };

	if (bvec)
		return rdma_fill_ib_sge_from_bvec(&t->pd, t->sges, max_sge,
						  t->bvecs, iter, SGE_DIR);
	return rdma_fill_ib_sge_from_sgl(&t->pd, t->sges, max_sge, t->sgl,
					 t->nents, SGE_DIR);
}

static void sge_unfill(struct sge_test *t, bool bvec, int n)
{
	if (bvec)
		rdma_unmap_sges(&t->dev, t->sges, n, SGE_DIR);
	else
		rdma_unmap_sgl(&t->dev, t->sgl, t->nents, SGE_DIR);
}

static void sge_expect_list(struct kunit *test, bool bvec,
			    const struct sge_part *in, int nin,
			    const struct sge_part *out, int nout)
{
	struct sge_test *t = test->priv;
	int i, max_sge;

	sge_set_list(t, in, nin);
	for (max_sge = -1; max_sge < nout; max_sge++) {
		sge_poison(t);
		sge_expect_undone(test, sge_fill(t, bvec, max_sge), -E2BIG,
				  max(max_sge, 0));
	}
	for (; max_sge <= SGE_MAX; max_sge++) {
		sge_poison(t);
		KUNIT_ASSERT_EQ(test, sge_fill(t, bvec, max_sge), nout);
		for (i = 0; i < nout; i++)
			sge_expect(test, &t->sges[i], out[i].off, out[i].len);
		sge_expect_poison(test, nout);
		/* bio_vecs are unmapped SGE by SGE, a scatterlist as such */
		sge_expect_live(test, bvec ? nout : 1);
		sge_unfill(t, bvec, nout);
		sge_expect_live(test, 0);
	}
}

static void sge_test_list(struct kunit *test)
{
	static const struct {
		struct sge_part in[4];
		int nin;
		struct sge_part out[4];
		int nout;
	} lists[] = {
		{ { { 7, 1 } }, 1, { { 7, 1 } }, 1 },
		/* all in one */
		{ { { 0, P }, { P, P }, { 2 * P, P }, { 3 * P, 10 } }, 4,
		  { { 0, 3 * P + 10 } }, 1 },
		{ { { 0, P }, { P, 2 * P } }, 2, { { 0, 3 * P } }, 1 },
		/* a gap, an overlap, the wrong way round */
		{ { { 0, P }, { 2 * P, P } }, 2, { { 0, P }, { 2 * P, P } }, 2 },
		{ { { 0, P }, { P + 1, 1 } }, 2, { { 0, P }, { P + 1, 1 } }, 2 },
		{ { { 0, P }, { P - 1, P } }, 2, { { 0, P }, { P - 1, P } }, 2 },
		{ { { P, P }, { 0, P } }, 2, { { P, P }, { 0, P } }, 2 },
		/* the same memory twice */
		{ { { 0, P }, { 0, P } }, 2, { { 0, P }, { 0, P } }, 2 },
		/* both */
		{ { { 5, P - 5 }, { P, P }, { 4 * P + 1, 3 }, { 4 * P + 4, 9 } },
		  4, { { 5, 2 * P - 5 }, { 4 * P + 1, 12 } }, 2 },
		{ { { 0, 9 }, { P, P }, { 2 * P, P }, { 5 * P, P } }, 4,
		  { { 0, 9 }, { P, 2 * P }, { 5 * P, P } }, 3 },
		/* none */
		{ { { 0, P }, { 2 * P, P }, { 4 * P, P }, { 6 * P, P } }, 4,
		  { { 0, P }, { 2 * P, P }, { 4 * P, P }, { 6 * P, P } }, 4 },
		/* nothing in between, nothing ahead */
		{ { { 0, P }, { 5 * P, 0 }, { P, P } }, 3, { { 0, 2 * P } }, 1 },
		{ { { 5 * P, 0 }, { 0, P } }, 2, { { 0, P } }, 1 },
	};
	int i;

	for (i = 0; i < 2 * ARRAY_SIZE(lists); i++)
		sge_expect_list(test, i % 2, lists[i / 2].in, lists[i / 2].nin,
				lists[i / 2].out, lists[i / 2].nout);
}

static void sge_test_list_limits(struct kunit *test)
{
	static const struct sge_part in[] = { { P, P }, { 2 * P, P },
					      { 3 * P, P } };
	static const struct sge_part by_size[] = { { P, 2 * P }, { 3 * P, P } };
	static const struct sge_part by_boundary[] = { { P, P },
						       { 2 * P, 2 * P } };
	struct sge_test *t = test->priv;
	int bvec;

	for (bvec = 0; bvec <= 1; bvec++) {
		dma_set_max_seg_size(t->dev.dma_device, 2 * P);
		sge_expect_list(test, bvec, in, 3, by_size, 2);
		dma_set_max_seg_size(t->dev.dma_device, 3 * P - 1);
		sge_expect_list(test, bvec, in, 3, by_size, 2);
		dma_set_max_seg_size(t->dev.dma_device, U32_MAX);
		dma_set_seg_boundary(t->dev.dma_device, 2 * P - 1);
		sge_expect_list(test, bvec, in, 3, by_boundary, 2);
		dma_set_seg_boundary(t->dev.dma_device, 0);
	}
}

static void sge_expect_at(struct kunit *test, const struct ib_sge *sge,
			  u64 addr, u32 len)
{
	KUNIT_EXPECT_EQ(test, sge->addr, addr);
	KUNIT_EXPECT_EQ(test, sge->length, len);
	KUNIT_EXPECT_EQ(test, sge->lkey, SGE_LKEY);
}

/* Of a scatterlist, what is contiguous in DMA addresses is merged. */
static void sge_test_list_dma(struct kunit *test)
{
	static const struct sge_part apart[] = { { 5 * P, P }, { 2 * P, P } };
	static const struct sge_part joined[] = { { 4 * P, P }, { 5 * P, P } };
	const u64 base = 2 * SGE_DMA_BASE;
	struct sge_test *t = test->priv;

	t->ranges[2] = t->ranges[0];
	t->ranges[0] = (struct bus_dma_region){ t->phys + 5 * P, base, P };
	t->ranges[1] = (struct bus_dma_region){ t->phys, base - P, 5 * P };

	sge_set_list(t, apart, 2);
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, 1), 1);
	sge_expect_at(test, &t->sges[0], base, 2 * P);
	sge_unfill(t, false, 1);

	sge_set_list(t, joined, 2);
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, 2), 2);
	sge_expect_at(test, &t->sges[0], base + 3 * P, P);
	sge_expect_at(test, &t->sges[1], base, P);
	sge_unfill(t, false, 2);
}

/* contiguous, but together more than the 32 bits of an SGE's length */
static void sge_test_list_4g(struct kunit *test)
{
	const struct sge_part parts[] = { { 0, U32_MAX - P + 1 }, { 8 * P, P } };
	const u64 base = 2 * SGE_DMA_BASE;
	struct sge_test *t = test->priv;

	sge_need_4g(test);
	t->ranges[0] = (struct bus_dma_region){ t->phys + 8 * P,
						base + parts[0].len, P };
	t->ranges[1] = (struct bus_dma_region){ t->phys, base, SZ_4G };

	sge_set_list(t, parts, 2);
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, SGE_MAX), 2);
	sge_expect_at(test, &t->sges[0], base, parts[0].len);
	sge_expect_at(test, &t->sges[1], base + parts[0].len, P);
	sge_unfill(t, false, 2);

	t->sgl[1].length = P - 1;
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, SGE_MAX), 1);
	sge_expect_at(test, &t->sges[0], base, U32_MAX);
	sge_unfill(t, false, 1);
}

static void sge_test_list_sync(struct kunit *test)
{
	static const struct sge_part parts[] = { { 0, P }, { 2 * P, P } };
	struct sge_test *t = test->priv;
	struct dma_log_mapping want = { t->sgl, 0, 2, SGE_DIR };

	sge_set_list(t, parts, 2);
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, 2), 2);
	rdma_sync_sgl_for_cpu(&t->dev, t->sgl, 2, SGE_DIR);
	if (t->kind == SGE_DMA && IS_ENABLED(CONFIG_DMA_NEED_SYNC)) {
		KUNIT_EXPECT_STREQ(test, dma_log.sync_for, "cpu");
		KUNIT_EXPECT_TRUE(test, dma_log_same(&dma_log.sync, &want));
	}
	rdma_sync_sgl_for_device(&t->dev, t->sgl, 2, SGE_DIR);
	if (t->kind == SGE_DMA && IS_ENABLED(CONFIG_DMA_NEED_SYNC)) {
		KUNIT_EXPECT_STREQ(test, dma_log.sync_for, "device");
		KUNIT_EXPECT_TRUE(test, dma_log_same(&dma_log.sync, &want));
	}
	sge_unfill(t, false, 2);
}

#ifdef CONFIG_ARCH_HAS_DMA_OPS
static int sge_iommu_map_sg(struct device *dev, struct scatterlist *sgl,
			    int nents, enum dma_data_direction dir,
			    unsigned long attrs)
{
	struct scatterlist *sg;
	unsigned int len = 0;
	int i;

	for_each_sg(sgl, sg, nents, i) {
		len += sg->length;
		/* what a user of the list must not look at */
		sg_dma_address(sg) = 0;
		sg_dma_len(sg) = P;
	}
	sg_dma_address(sgl) = SGE_DMA_BASE;
	sg_dma_len(sgl) = len;
	return 1;
}

static const struct dma_map_ops sge_iommu_ops = {
	.map_sg = sge_iommu_map_sg,
};
#endif

/* An IOMMU makes one SGE of anything. */
static void sge_test_list_iommu(struct kunit *test)
{
#ifdef CONFIG_ARCH_HAS_DMA_OPS
	static const struct sge_part parts[] = { { 5 * P, P }, { 2 * P, P },
						 { 7 * P, P } };
	struct sge_test *t = test->priv;

	set_dma_ops(t->dev.dma_device, &sge_iommu_ops);
	sge_set_list(t, parts, 3);
	KUNIT_ASSERT_EQ(test, sge_fill(t, false, 1), 1);
	sge_expect_at(test, &t->sges[0], SGE_DMA_BASE, 3 * P);
	sge_unfill(t, false, 1);
	KUNIT_EXPECT_EQ(test, rdma_map_mr_sgl(&t->mr, t->sgl, 3, 0, P, SGE_DIR),
			0);
	KUNIT_EXPECT_EQ(test, t->mr.length, 3 * P);
	rdma_unmap_sgl(&t->dev, t->sgl, 3, SGE_DIR);
	set_dma_ops(t->dev.dma_device, NULL);
#else
	kunit_skip(test, "needs CONFIG_ARCH_HAS_DMA_OPS");
#endif
}

static const struct sge_part sge_gaps[] = {
	{ 0, P }, { 2 * P, P }, { 4 * P, P }, { 6 * P, P },
};

/* of which the first two become one SGE */
static const struct sge_part sge_fails[] = {
	{ 0, P }, { P, P }, { 3 * P, P }, { 5 * P, P },
};

#define SGE_FAILS	(ARRAY_SIZE(sge_fails) - 1)

/* a failure after @n mappings */
static void sge_expect_unwound(struct kunit *test, bool bvec, int n, int ret)
{
	struct sge_test *t = test->priv;
	int before = dma_log.nr_maps;

	sge_poison(t);
	KUNIT_EXPECT_EQ(test, sge_fill(t, bvec, SGE_MAX), ret);
	sge_expect_live(test, 0);
	if (t->kind == SGE_DMA)
		KUNIT_EXPECT_EQ(test, dma_log.nr_maps, before + (bvec ? n : 0));
	/* SGEs of bio_vecs are filled by then, and wiped */
	n = bvec ? SGE_FAILS : 0;
	KUNIT_EXPECT_NULL(test, memchr_inv(t->sges, 0, n * sizeof(*t->sges)));
	sge_expect_poison(test, n);
}

static void sge_test_list_fails(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int n;

	if (!sge_can_fail_at(test))
		kunit_skip(test, "needs CONFIG_FAIL_RDMA_MAP");
	sge_set_list(t, sge_fails, ARRAY_SIZE(sge_fails));
	for (n = 0; n < SGE_FAILS; n++) {
		t->fail_at = n + 1;
		sge_expect_unwound(test, true, n, -ENOMEM);
	}
	t->fail_at = 1;
	sge_expect_unwound(test, false, 0, -ENOMEM);
}

static void sge_test_list_dma_fails(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int n;

	sge_set_list(t, sge_fails, ARRAY_SIZE(sge_fails));
	for (n = 0; n < SGE_FAILS; n++) {
		sge_set_hole(t, sge_fails[n ? n + 1 : 0].off);
		kunit_warning_suppress(test) {
			sge_expect_unwound(test, true, n, -ENOMEM);
			sge_expect_unwound(test, false, n, -EIO);
		}
	}
}

static void sge_test_list_empty(struct kunit *test)
{
	static const struct sge_part nothing[] = { { 0, 0 }, { P, 0 } };
	struct sge_test *t = test->priv;
	int bvec;

	for (bvec = 0; bvec <= 1; bvec++) {
		sge_set_list(t, nothing, 2);
		SGE_EXPECT_REFUSED(test, sge_fill(t, bvec, SGE_MAX), -EINVAL);
		t->nents = 0;
		SGE_EXPECT_REFUSED(test, sge_fill(t, bvec, SGE_MAX), -EINVAL);
	}
	SGE_EXPECT_REFUSED(test, rdma_map_mr_sgl(&t->mr, t->sgl, 0, 0, P,
						 SGE_DIR), -EINVAL);
}

/* bio_vecs from the middle of one, which spans pages, to that of another */
static void sge_test_bvec_iter(struct kunit *test)
{
	static const struct sge_part parts[] = {
		{ 0, P }, { 2 * P + 5, 3 * P }, { 5 * P + 5, 100 },
		{ 9 * P, P }, { 0, P },
	};
	struct sge_test *t = test->priv;
	struct bvec_iter iter = {
		.bi_idx = 1,
		.bi_offset = P + 20,
		.bi_size = 2 * P - 20 + 100 + 7,
	};

	sge_set_list(t, parts, ARRAY_SIZE(parts));
	sge_poison(t);
	KUNIT_ASSERT_EQ(test, rdma_fill_ib_sge_from_bvec(&t->pd, t->sges, 2,
							 t->bvecs, iter,
							 SGE_DIR), 2);
	sge_expect(test, &t->sges[0], 3 * P + 25, 2 * P - 20 + 100);
	sge_expect(test, &t->sges[1], 9 * P, 7);
	sge_expect_poison(test, 2);
	rdma_unmap_sges(&t->dev, t->sges, 2, SGE_DIR);
}

/* rdma_unmap_sges() and arrays that were filled by other calls */
static void sge_test_unmap_sges(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int i;

	for (i = 0; i < 3; i++)
		KUNIT_EXPECT_EQ(test, rdma_map_sge_page(&t->pd, &t->sges[i],
							t->pages, i * P + i,
							10 + i, SGE_DIR), 0);
	sge_expect_live(test, 3);
	rdma_unmap_sges(&t->dev, t->sges, 0, SGE_DIR);
	sge_expect_live(test, 3);
	rdma_unmap_sges(&t->dev, t->sges + 1, 2, SGE_DIR);
	sge_expect_live(test, 1);
	rdma_unmap_sge(&t->dev, t->sges, SGE_DIR);
}

/* memory regions */

static void sge_expect_mr(struct kunit *test, size_t off, u64 length,
			  unsigned int page_size, const u32 *pages, int nr)
{
	struct sge_test *t = test->priv;
	int i;

	/* a peer is not to see an address of ours, or to guess this one */
	if (t->kind == SGE_PHYS) {
		KUNIT_EXPECT_EQ(test, lower_32_bits(t->mr.iova),
				off & (page_size - 1));
		KUNIT_EXPECT_NE(test, upper_32_bits(t->mr.iova),
				upper_32_bits(t->last_iova));
		KUNIT_EXPECT_LT(test, t->mr.iova, t->mr.iova + length);
		t->last_iova = t->mr.iova;
	} else {
		KUNIT_EXPECT_EQ(test, t->mr.iova, sge_addr(t, off));
	}
	KUNIT_EXPECT_EQ(test, t->mr.length, length);
	KUNIT_EXPECT_EQ(test, t->mr.page_size, page_size);
	KUNIT_ASSERT_EQ(test, t->nr_pages, nr);
	for (i = 0; i < nr; i++)
		KUNIT_EXPECT_EQ(test, t->mr_pages[i], sge_addr(t, pages[i]));
}

static void sge_test_mr(struct kunit *test)
{
	static const struct sge_part small[] = {
		{ P + 100, P - 100 }, { 5 * P, 2 * P }, { 2 * P, P },
		{ 3 * P, 50 },
	};
	static const struct sge_part large[] = {
		{ P + 10, P - 10 }, { 4 * P, 2 * P }, { 8 * P, 20 },
	};
	static const u32 small_pages[] = { P, 5 * P, 6 * P, 2 * P, 3 * P };
	static const u32 large_pages[] = { 0, 4 * P, 8 * P };
	struct sge_test *t = test->priv;
	struct ib_mr *mr = &t->mr;

	sge_set_list(t, small, 4);
	KUNIT_ASSERT_EQ(test, rdma_map_mr_sgl(mr, t->sgl, 4, 0, P, SGE_DIR), 0);
	sge_expect_live(test, 1);
	sge_expect_mr(test, P + 100, t->size, P, small_pages, 5);
	rdma_unmap_sgl(&t->dev, t->sgl, 4, SGE_DIR);
	sge_expect_live(test, 0);

	KUNIT_ASSERT_EQ(test, rdma_map_mr_sgl(mr, t->sgl, 4, 50, P, SGE_DIR), 0);
	sge_expect_mr(test, P + 150, t->size - 50, P, small_pages, 5);
	rdma_unmap_sgl(&t->dev, t->sgl, 4, SGE_DIR);

	/* past the first entry */
	KUNIT_ASSERT_EQ(test, rdma_map_mr_sgl(mr, t->sgl, 4, P, P, SGE_DIR), 0);
	sge_expect_mr(test, 5 * P + 100, t->size - P, P, small_pages + 1, 4);
	rdma_unmap_sgl(&t->dev, t->sgl, 4, SGE_DIR);

	sge_set_list(t, large, 3);
	KUNIT_ASSERT_EQ(test, rdma_map_mr_sgl(mr, t->sgl, 3, 5, 2 * P, SGE_DIR),
			0);
	sge_expect_mr(test, P + 15, t->size - 5, 2 * P, large_pages, 3);
	rdma_unmap_sgl(&t->dev, t->sgl, 3, SGE_DIR);
}

static void sge_expect_no_mr(struct kunit *test, unsigned int offset, int err)
{
	struct sge_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, rdma_map_mr_sgl(&t->mr, t->sgl, t->nents, offset,
					      P, SGE_DIR), err);
	sge_expect_live(test, 0);
}

static void sge_test_mr_fails(struct kunit *test)
{
	static const struct sge_part gap[] = { { 0, P }, { P, P }, { 3 * P, 10 },
					       { 5 * P, P } };
	struct sge_test *t = test->priv;

	/* a gap within a page: no driver takes more than what is before it */
	sge_set_list(t, gap, 4);
	sge_expect_no_mr(test, 0, -EINVAL);
	KUNIT_EXPECT_EQ(test, t->nr_pages, 3);

	/* too long for the MR */
	sge_set_list(t, sge_gaps, 4);
	t->max_pages = 3;
	sge_expect_no_mr(test, 0, -EINVAL);
	KUNIT_EXPECT_EQ(test, t->nr_pages, 3);
	t->max_pages = 0;
	sge_expect_no_mr(test, 0, -ENOMEM);
	t->max_pages = SGE_MAX;

	/* an offset past the last entry */
	sge_expect_no_mr(test, t->size, -EINVAL);

	t->map_ret = -EIO;
	sge_expect_no_mr(test, 0, -EIO);
	t->map_ret = 0;
	t->dev.ops.map_mr_sg = NULL;
	sge_expect_no_mr(test, 0, -EOPNOTSUPP);
	t->dev.ops.map_mr_sg = sge_map_mr_sg;

	if (t->kind == SGE_DMA) {
		sge_set_hole(t, sge_gaps[2].off);
		kunit_warning_suppress(test)
			sge_expect_no_mr(test, 0, -EIO);
	}
	if (!sge_can_fail_at(test))
		return;
	t->fail_at = 1;
	sge_expect_no_mr(test, 0, -ENOMEM);
}

/* in steps */

/* SGEs, some at a time, from anywhere in the list */
static void sge_test_steps(struct kunit *test)
{
	static const struct sge_part in[] = {
		{ 5, P - 5 }, { P, P }, { 5 * P, 0 }, { 3 * P, P },
		{ 6 * P, P }, { 7 * P, 10 }, { 5 * P, 0 },
	};
	static const struct sge_part out[] = {
		{ 5, 2 * P - 5 }, { 3 * P, P }, { 6 * P, P + 10 },
	};
	struct sge_test *t = test->priv;
	struct rdma_sge_iter start, iter;
	static const u32 skips[] = {
		0, 1, P - 5, 2 * P - 5, 2 * P, 3 * P - 5, 4 * P - 5, 4 * P + 4,
		4 * P + 5, 4 * P + 6,
	};
	int at_once, n, i, j;
	u32 left;

	sge_set_list(t, in, ARRAY_SIZE(in));
	KUNIT_ASSERT_EQ(test, rdma_map_sgl(&t->dev, &start, t->sgl, t->nents,
					   SGE_DIR), 0);
	sge_expect_live(test, 1);
	KUNIT_EXPECT_EQ(test, rdma_count_ib_sge(&t->pd, &start), 3);

	for (at_once = 1; at_once <= 4; at_once++) {
		iter = start;
		sge_poison(t);
		for (i = 0; i < 3; i += n) {
			KUNIT_EXPECT_EQ(test, rdma_count_ib_sge(&t->pd, &iter),
					3 - i);
			n = rdma_fill_ib_sge(&t->pd, &t->sges[i], at_once,
					     &iter);
			KUNIT_ASSERT_EQ(test, n, min(at_once, 3 - i));
		}
		for (i = 0; i < 3; i++)
			sge_expect(test, &t->sges[i], out[i].off, out[i].len);
		sge_expect_poison(test, 3);
		KUNIT_EXPECT_EQ(test, iter.nents, 0);
		KUNIT_EXPECT_EQ(test, rdma_count_ib_sge(&t->pd, &iter), 0);
		KUNIT_EXPECT_EQ(test, rdma_fill_ib_sge(&t->pd, t->sges, 1,
						       &iter), 0);
	}

	for (j = 0; j < ARRAY_SIZE(skips); j++) {
		iter = start;
		rdma_sge_iter_advance(&t->dev, &iter, skips[j]);
		left = t->size > skips[j] ? t->size - skips[j] : 0;
		n = rdma_fill_ib_sge(&t->pd, t->sges, SGE_MAX, &iter);
		KUNIT_EXPECT_EQ(test, !n, !left);
		for (i = n - 1; i >= 0; i--) {
			u32 len = min(left, out[i + 3 - n].len);

			sge_expect(test, &t->sges[i], out[i + 3 - n].off +
				   out[i + 3 - n].len - len, len);
			left -= len;
		}
		KUNIT_EXPECT_EQ(test, left, 0);
	}
	rdma_unmap_sgl(&t->dev, t->sgl, t->nents, SGE_DIR);
}

/* Each SGE is two entries. */
static void sge_test_count(struct kunit *test)
{
	struct sge_test *t = test->priv;
	struct rdma_sge_iter iter;
	struct scatterlist *sgl;
	int n, i;

	sgl = kunit_kcalloc(test, 2 * SGE_COUNTED, sizeof(*sgl), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, sgl);
	for (n = 1; n <= SGE_COUNTED; n++) {
		sg_init_table(sgl, 2 * n);
		for (i = 0; i < 2 * n; i++)
			sg_set_page(&sgl[i], t->pages, 16,
				    i / 2 * 64 + i % 2 * 16);
		KUNIT_ASSERT_EQ(test, rdma_map_sgl(&t->dev, &iter, sgl, 2 * n,
						   SGE_DIR), 0);
		KUNIT_EXPECT_EQ(test, rdma_count_ib_sge(&t->pd, &iter), n);
		KUNIT_EXPECT_PTR_EQ(test, iter.sg, sgl);
		rdma_unmap_sgl(&t->dev, sgl, 2 * n, SGE_DIR);
	}
}

/* Several MRs of one list, and SGEs for the rest of it */
static void sge_test_steps_mr(struct kunit *test)
{
	static const struct sge_part in[] = {
		{ P + 100, 3 * P - 100 }, { 4 * P, 2 * P }, { 8 * P, 50 },
		{ 10 * P, 20 },
	};
	static const struct {
		u32 off, len;
		u32 pages[2];
		int nr;
	} out[] = {
		{ P + 100, 2 * P - 100, { P, 2 * P }, 2 },
		{ 3 * P, 2 * P, { 3 * P, 4 * P }, 2 },
		{ 5 * P, P + 50, { 5 * P, 8 * P }, 2 },
	};
	struct sge_test *t = test->priv;
	struct rdma_sge_iter iter;
	int i;

	sge_set_list(t, in, ARRAY_SIZE(in));
	t->max_pages = 2;
	KUNIT_ASSERT_EQ(test, rdma_map_sgl(&t->dev, &iter, t->sgl, t->nents,
					   SGE_DIR), 0);
	for (i = 0; i < ARRAY_SIZE(out); i++) {
		KUNIT_ASSERT_EQ(test, rdma_fill_ib_mr(&t->mr, &iter, P), 0);
		sge_expect_mr(test, out[i].off, out[i].len, P, out[i].pages,
			      out[i].nr);
	}
	/* the driver refuses, and nothing moves */
	t->map_ret = -EIO;
	KUNIT_EXPECT_EQ(test, rdma_fill_ib_mr(&t->mr, &iter, P), -EIO);
	t->map_ret = 0;
	KUNIT_ASSERT_EQ(test, rdma_fill_ib_sge(&t->pd, t->sges, 2, &iter), 1);
	sge_expect(test, t->sges, 10 * P, 20);
	KUNIT_EXPECT_EQ(test, rdma_fill_ib_mr(&t->mr, &iter, P), -EINVAL);
	sge_expect_live(test, 1);
	rdma_unmap_sgl(&t->dev, t->sgl, t->nents, SGE_DIR);
}

static int sge_map_pi(struct sge_test *t, int pi_nents)
{
	t->pi_args[0] = -1;
	t->pi_args[1] = -1;
	return rdma_map_mr_sgl_pi(&t->mr, t->sgl, t->nents,
				  pi_nents ? t->pi_sgl : NULL, pi_nents, P,
				  SGE_DIR);
}

static void sge_expect_no_pi(struct kunit *test, int err)
{
	KUNIT_EXPECT_EQ(test, sge_map_pi(test->priv, 1), err);
	sge_expect_live(test, 0);
}

static void sge_init_pi(struct sge_test *t)
{
	sge_set_list(t, sge_gaps, 4);
	sg_init_table(t->pi_sgl, 1);
	sg_set_page(t->pi_sgl, t->pages + 8, 16, 0);
}

static void sge_test_mr_pi(struct kunit *test)
{
	struct sge_test *t = test->priv;

	sge_init_pi(t);
	KUNIT_ASSERT_EQ(test, sge_map_pi(t, 1), 0);
	KUNIT_EXPECT_EQ(test, t->pi_args[0], 4);
	KUNIT_EXPECT_EQ(test, t->pi_args[1], 1);
	KUNIT_EXPECT_EQ(test, t->mr.page_size, P);
	sge_expect_live(test, 2);
	rdma_unmap_sgl(&t->dev, t->pi_sgl, 1, SGE_DIR);
	sge_expect_live(test, 1);
	rdma_unmap_sgl(&t->dev, t->sgl, 4, SGE_DIR);

	/* no protection information */
	KUNIT_ASSERT_EQ(test, sge_map_pi(t, 0), 0);
	KUNIT_EXPECT_EQ(test, t->pi_args[0], 4);
	KUNIT_EXPECT_EQ(test, t->pi_args[1], 0);
	sge_expect_live(test, 1);
	rdma_unmap_sgl(&t->dev, t->sgl, 4, SGE_DIR);
}

static void sge_test_mr_pi_fails(struct kunit *test)
{
	struct sge_test *t = test->priv;
	int i;

	sge_init_pi(t);
	t->map_ret = -EIO;
	sge_expect_no_pi(test, -EIO);
	/* a driver tells by a number that it took no more than that */
	t->map_ret = 3;
	sge_expect_no_pi(test, -EINVAL);
	KUNIT_EXPECT_EQ(test, sge_map_pi(t, 0), -EINVAL);
	sge_expect_live(test, 0);
	t->map_ret = 0;
	t->dev.ops.map_mr_sg_pi = NULL;
	sge_expect_no_pi(test, -EOPNOTSUPP);
	t->dev.ops.map_mr_sg_pi = sge_map_mr_sg_pi;
	t->nents = 0;
	sge_expect_no_pi(test, -EINVAL);
	t->nents = 4;

	/* data, or protection information, out of the device's reach */
	for (i = 0; t->kind == SGE_DMA && i < 2; i++) {
		sge_set_hole(t, i * 8 * P);
		kunit_warning_suppress(test)
			sge_expect_no_pi(test, -EIO);
		KUNIT_EXPECT_EQ(test, t->pi_args[0], -1);
	}
	if (!sge_can_fail_at(test))
		return;
	for (i = 1; i <= 2; i++) {
		t->fail_at = i;
		sge_expect_no_pi(test, -ENOMEM);
		KUNIT_EXPECT_EQ(test, t->pi_args[0], -1);
	}
}

/* None of the devices can reach this page, which is enough of one to tell so. */
static struct page *sge_p2p_page(struct kunit *test)
{
#ifdef CONFIG_PCI_P2PDMA
	struct {
		struct dev_pagemap pgmap;
		void *provider;
	} *p2p = kunit_kzalloc(test, sizeof(*p2p), GFP_KERNEL);
	struct page *page = kunit_kzalloc(test, sizeof(*page), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, p2p);
	KUNIT_ASSERT_NOT_NULL(test, page);
	p2p->pgmap.type = MEMORY_DEVICE_PCI_P2PDMA;
	set_page_zone(page, ZONE_DEVICE);
	page_folio(page)->pgmap = &p2p->pgmap;
	return page;
#else
	kunit_skip(test, "needs CONFIG_PCI_P2PDMA");
	return NULL;
#endif
}

static void sge_test_p2p(struct kunit *test)
{
	struct page *page = sge_p2p_page(test);
	struct sge_test *t = test->priv;
	struct scatterlist *sg;
	int i;

	SGE_EXPECT_REFUSED(test, rdma_map_sge_page(&t->pd, t->sges, page, 0, P,
						   SGE_DIR), -EREMOTEIO);

	sge_init_pi(t);
	for_each_sg(t->sgl, sg, 4, i) {
		sge_set_list(t, sge_gaps, 4);
		sg_assign_page(sg, page);
		t->bvecs[i].bv_page = page;
		SGE_EXPECT_REFUSED(test, sge_fill(t, false, SGE_MAX),
				   -EREMOTEIO);
		sge_expect_undone(test, sge_fill(t, true, SGE_MAX), -EREMOTEIO,
				  i);
		sge_expect_no_mr(test, 0, -EREMOTEIO);
		sge_expect_no_pi(test, -EREMOTEIO);
	}
	sge_init_pi(t);
	sg_assign_page(t->pi_sgl, page);
	sge_expect_no_pi(test, -EREMOTEIO);
}

/* the side of a driver without a dma_device */

static void sge_test_is_ram(struct kunit *test)
{
	struct sge_test *t = test->priv;
	unsigned long pfn = page_to_pfn(t->pages);
	u64 end;

	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(t->phys, 1, false));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(t->phys + P - 1, 2, false));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(t->phys, SGE_AREA, false));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(t->phys, SGE_AREA, true));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(page_to_phys(ZERO_PAGE(0)), P,
						 false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(page_to_phys(ZERO_PAGE(0)), P,
						  true));

	while (rdma_phys_is_ram(PFN_PHYS(pfn), P, false))
		pfn++;
	end = PFN_PHYS(pfn);
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_ram(end - 16, 16, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(end - 16, 17, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(end - 2 * P, 3 * P, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(end, 1, false));

	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(U64_MAX, 1, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(U64_MAX, 2, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(U64_MAX - P + 1, P, false));
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(t->phys, SIZE_MAX, false));
	/* not to be cut off to a page of ours */
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(t->phys | 1ULL << 63, 1,
						  false));
}

/* Those of a hole are no RAM, and those of the kernel are not for a peer. */
static void sge_test_is_ram_reserved(struct kunit *test)
{
	struct sge_test *t = test->priv;
	unsigned long pfn;

	for (pfn = 0; pfn < page_to_pfn(t->pages); pfn++)
		if (pfn_valid(pfn) && PageReserved(pfn_to_page(pfn)) &&
		    !is_zero_pfn(pfn))
			break;
	if (pfn == page_to_pfn(t->pages))
		kunit_skip(test, "no reserved page");
	KUNIT_EXPECT_FALSE(test, rdma_phys_is_ram(PFN_PHYS(pfn), 1, false));
}

static void sge_test_is_sane(struct kunit *test)
{
	struct sge_test *t = test->priv;
	bool always = !IS_ENABLED(CONFIG_DEBUG_VIRTUAL);

	KUNIT_EXPECT_TRUE(test, rdma_phys_is_sane(t->phys, SGE_AREA));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_sane(page_to_phys(ZERO_PAGE(0)),
						  P));
	KUNIT_EXPECT_TRUE(test, rdma_phys_is_sane(U64_MAX, 0));
	KUNIT_EXPECT_EQ(test, always, rdma_phys_is_sane(U64_MAX, 1));
	KUNIT_EXPECT_EQ(test, always, rdma_phys_is_sane(t->phys, SIZE_MAX));
	KUNIT_EXPECT_EQ(test, always,
			rdma_phys_is_sane(t->phys | 1ULL << 63, 1));
	KUNIT_EXPECT_EQ(test, always, rdma_phys_is_sane(0ULL - t->phys,
							2 * t->phys));
}

static void sge_test_kmap(struct kunit *test)
{
	static const struct sge_part parts[] = {
		{ 0, P }, { 1, 1 }, { P - 3, 2 * P + 7 }, { P - 1, 2 },
	};
	struct sge_test *t = test->priv;
	u8 *mem = page_address(t->pages), *va;
	size_t len, want;
	int i;

	get_random_bytes(mem, SGE_AREA);
	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		want = parts[i].len;
		if (IS_ENABLED(CONFIG_HIGHMEM))
			want = min(want, P - parts[i].off % P);
		len = parts[i].len;
		va = rdma_kmap_phys(t->phys + parts[i].off, &len);
		KUNIT_ASSERT_NOT_NULL(test, va);
		KUNIT_EXPECT_EQ(test, len, want);
		KUNIT_EXPECT_EQ(test, memcmp(va, mem + parts[i].off, len), 0);
		rdma_kunmap_phys(va);
	}
}

static struct kunit_case sge_cases[] = {
	KUNIT_CASE(sge_test_leak),
	KUNIT_CASE_PARAM(sge_test_map, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_length, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_max_length, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_not_linear, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_map_fails, sge_gen_params),
	KUNIT_CASE(sge_test_map_dma_fails),
	KUNIT_CASE_PARAM(sge_test_highmem, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_p2p, sge_gen_params),
	KUNIT_CASE(sge_test_slice),
	KUNIT_CASE_PARAM(sge_test_sync, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_list_sync, sge_gen_params),
	KUNIT_CASE(sge_test_mr_sge),
	KUNIT_CASE(sge_test_inline),
	KUNIT_CASE_PARAM(sge_test_list, sge_gen_params),
	KUNIT_CASE(sge_test_list_limits),
	KUNIT_CASE(sge_test_list_dma),
	KUNIT_CASE(sge_test_list_4g),
	KUNIT_CASE(sge_test_list_iommu),
	KUNIT_CASE_PARAM(sge_test_list_fails, sge_gen_params),
	KUNIT_CASE(sge_test_list_dma_fails),
	KUNIT_CASE_PARAM(sge_test_list_empty, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_bvec_iter, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_unmap_sges, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_mr, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_mr_fails, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_steps, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_count, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_steps_mr, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_mr_pi, sge_gen_params),
	KUNIT_CASE_PARAM(sge_test_mr_pi_fails, sge_gen_params),
	KUNIT_CASE(sge_test_is_ram),
	KUNIT_CASE(sge_test_is_ram_reserved),
	KUNIT_CASE(sge_test_is_sane),
	KUNIT_CASE(sge_test_kmap),
	{}
};

static struct kunit_suite sge_suite = {
	.name = "rdma_sge",
	.suite_init = dma_log_suite_init,
	.suite_exit = dma_log_suite_exit,
	.init = sge_init,
	.exit = sge_exit,
	.test_cases = sge_cases,
};

kunit_test_suite(sge_suite);

MODULE_DESCRIPTION("KUnit tests for the SGE builder");
MODULE_LICENSE("Dual BSD/GPL");
