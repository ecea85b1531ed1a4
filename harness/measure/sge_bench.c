// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * What the SGE builder costs, against the code that ULPs wrote by hand before: on
 * a device that does no DMA, and on one with a direct mapping.
 *
 *	insmod sge_bench.ko && cat /sys/kernel/debug/sge_bench
 *
 * Each line: device, what was mapped, picoseconds for each map, fill and unmap by
 * hand, and by the builder. They take turns in who goes first, from read to read.
 */
#include <linux/bvec.h>
#include <linux/debugfs.h>
#include <linux/dma-mapping.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/scatterlist.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <rdma/sge.h>

#define BENCH_NENTS	64
#define BENCH_MAX_SGE	4
#define BENCH_LOOPS	SZ_256K
#define BENCH_DIR	DMA_TO_DEVICE

/* known to the compiler, as a ULP's sizeof() is */
#define BENCH_LEN	64

static struct device *dma_dev;
static struct ib_device *bench_dev;
static struct ib_pd *bench_pd;
static struct dentry *file;

static void *bench_buf;
static struct scatterlist bench_sgl[BENCH_NENTS];
static struct bio_vec bench_bvecs[BENCH_NENTS];
static struct bvec_iter bench_iter, bench_iter_1;
static struct ib_sge bench_sges[BENCH_NENTS], expected[BENCH_NENTS];
static struct ib_mr *bench_mr;
static u64 bench_pages[BENCH_NENTS], expected_pages[BENCH_NENTS];
static int bench_npages;

/*
 * By hand. The wrappers are those of <rdma/ib_verbs.h> at the time, with the
 * physical address that a device without DMA wants now.
 */

static u64 hand_map_single(struct ib_device *dev, void *cpu_addr, size_t size,
			   enum dma_data_direction dir)
{
	if (!ib_has_dma_device(dev))
		return virt_to_phys(cpu_addr);
	return dma_map_single(dev->dma_device, cpu_addr, size, dir);
}

static int hand_mapping_error(struct ib_device *dev, u64 addr)
{
	if (!ib_has_dma_device(dev))
		return 0;
	return dma_mapping_error(dev->dma_device, addr);
}

static void hand_unmap_single(struct ib_device *dev, u64 addr, size_t size,
			      enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_unmap_single(dev->dma_device, addr, size, dir);
}

static noinline __noclone int hand_phys_map_sg(struct scatterlist *sg,
					       int nents)
{
	struct scatterlist *s;
	int i;

	for_each_sg(sg, s, nents, i) {
		sg_dma_address(s) = sg_phys(s);
		sg_dma_len(s) = s->length;
	}
	return nents;
}

static int hand_map_sg(struct ib_device *dev, struct scatterlist *sg,
		       int nents, enum dma_data_direction dir)
{
	if (!ib_has_dma_device(dev))
		return hand_phys_map_sg(sg, nents);
	return dma_map_sg(dev->dma_device, sg, nents, dir);
}

static void hand_unmap_sg(struct ib_device *dev, struct scatterlist *sg,
			  int nents, enum dma_data_direction dir)
{
	if (ib_has_dma_device(dev))
		dma_unmap_sg(dev->dma_device, sg, nents, dir);
}

static u64 hand_map_bvec(struct ib_device *dev, const struct bio_vec *bvec,
			 enum dma_data_direction dir)
{
	if (!ib_has_dma_device(dev))
		return bvec_phys(bvec);
	return dma_map_phys(dev->dma_device, bvec_phys(bvec), bvec->bv_len, dir,
			    0);
}

static noinline __noclone int hand_single(struct ib_pd *pd, struct ib_sge *sge)
{
	sge->addr = hand_map_single(pd->device, bench_buf, BENCH_LEN,
				    BENCH_DIR);
	if (hand_mapping_error(pd->device, sge->addr))
		return -ENOMEM;
	sge->length = BENCH_LEN;
	sge->lkey = pd->local_dma_lkey;
	/* here it is posted */
	barrier();
	hand_unmap_single(pd->device, sge->addr, BENCH_LEN, BENCH_DIR);
	return 0;
}

static noinline __noclone int hand_bvec(struct ib_pd *pd, struct ib_sge *sge)
{
	struct bio_vec bv = mp_bvec_iter_bvec(bench_bvecs, bench_iter_1);

	sge->addr = hand_map_bvec(pd->device, &bv, BENCH_DIR);
	if (hand_mapping_error(pd->device, sge->addr))
		return -ENOMEM;
	sge->length = bv.bv_len;
	sge->lkey = pd->local_dma_lkey;
	barrier();
	hand_unmap_single(pd->device, sge->addr, sge->length, BENCH_DIR);
	return 0;
}

static noinline __noclone int hand_list(struct ib_pd *pd, struct ib_sge *sge)
{
	struct scatterlist *sg;
	int i, n;

	n = hand_map_sg(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	if (n <= 0)
		return -ENOMEM;
	for_each_sg(bench_sgl, sg, n, i) {
		sge[i].addr = sg_dma_address(sg);
		sge[i].length = sg_dma_len(sg);
		sge[i].lkey = pd->local_dma_lkey;
	}
	barrier();
	hand_unmap_sg(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	return 0;
}

static noinline __noclone int hand_bvecs(struct ib_pd *pd, struct ib_sge *sge)
{
	struct bvec_iter iter;
	struct bio_vec bv;
	int i, n = 0;

	for_each_mp_bvec(bv, bench_bvecs, iter, bench_iter) {
		sge[n].addr = hand_map_bvec(pd->device, &bv, BENCH_DIR);
		if (hand_mapping_error(pd->device, sge[n].addr))
			return -ENOMEM;
		sge[n].length = bv.bv_len;
		sge[n++].lkey = pd->local_dma_lkey;
	}
	barrier();
	for (i = 0; i < n; i++)
		hand_unmap_single(pd->device, sge[i].addr, sge[i].length,
				  BENCH_DIR);
	return 0;
}

/* More than a WR's SGEs, so it takes an MR. ib_sg_to_pages() is the series'. */
static noinline __noclone int hand_mr(struct ib_pd *pd, struct ib_sge *sge)
{
	int n, mapped;

	n = hand_map_sg(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	if (n <= BENCH_MAX_SGE)
		return -ENOMEM;
	mapped = ib_map_mr_sg(bench_mr, bench_sgl, n, NULL, PAGE_SIZE);
	if (mapped != n)
		return -EINVAL;
	barrier();
	hand_unmap_sg(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	return 0;
}

/* By the builder */

static noinline __noclone int builder_single(struct ib_pd *pd,
					     struct ib_sge *sge)
{
	int ret;

	ret = rdma_map_sge_single(pd, sge, bench_buf, BENCH_LEN, BENCH_DIR);
	if (ret)
		return ret;
	barrier();
	rdma_unmap_sge(pd->device, sge, BENCH_DIR);
	return 0;
}

static noinline __noclone int builder_bvec(struct ib_pd *pd, struct ib_sge *sge)
{
	int n;

	n = rdma_fill_ib_sge_from_bvec(pd, sge, 1, bench_bvecs, bench_iter_1,
				       BENCH_DIR);
	if (n < 0)
		return n;
	barrier();
	rdma_unmap_sges(pd->device, sge, n, BENCH_DIR);
	return 0;
}

static noinline __noclone int builder_list(struct ib_pd *pd, struct ib_sge *sge)
{
	int n;

	n = rdma_fill_ib_sge_from_sgl(pd, sge, BENCH_NENTS, bench_sgl,
				      BENCH_NENTS, BENCH_DIR);
	if (n < 0)
		return n;
	barrier();
	rdma_unmap_sgl(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	return 0;
}

static noinline __noclone int builder_bvecs(struct ib_pd *pd,
					    struct ib_sge *sge)
{
	int n;

	n = rdma_fill_ib_sge_from_bvec(pd, sge, BENCH_NENTS, bench_bvecs,
				       bench_iter, BENCH_DIR);
	if (n < 0)
		return n;
	barrier();
	rdma_unmap_sges(pd->device, sge, n, BENCH_DIR);
	return 0;
}

/*
 * By the number of entries, or after SGEs were tried: neighbours in memory may be so
 * few of them, which the number does not tell.
 */
static __always_inline int builder_reg(struct ib_pd *pd, struct ib_sge *sge,
				       const bool try)
{
	struct rdma_sge_iter iter, rest;
	int ret;

	ret = rdma_map_sgl(pd->device, &iter, bench_sgl, BENCH_NENTS,
			   BENCH_DIR);
	if (ret)
		return ret;
	if (try) {
		rest = iter;
		rdma_fill_ib_sge(pd, sge, BENCH_MAX_SGE, &rest);
		if (!rest.nents)
			return -EINVAL;
	} else if (iter.nents <= BENCH_MAX_SGE) {
		return -EINVAL;
	}
	ret = rdma_fill_ib_mr(bench_mr, &iter, PAGE_SIZE);
	if (ret || iter.nents)
		return ret ?: -EINVAL;
	barrier();
	rdma_unmap_sgl(pd->device, bench_sgl, BENCH_NENTS, BENCH_DIR);
	return 0;
}

static noinline __noclone int builder_mr(struct ib_pd *pd, struct ib_sge *sge)
{
	return builder_reg(pd, sge, false);
}

static noinline __noclone int builder_tried(struct ib_pd *pd,
					    struct ib_sge *sge)
{
	return builder_reg(pd, sge, true);
}

/* a loop for each: an indirect call would be a part of what is measured */
#define BENCH_LOOP(what)						\
static int loop_##what(struct ib_sge *sge, int loops)			\
{									\
	int ret = 0;							\
									\
	while (!ret && loops--)						\
		ret = what(bench_pd, sge);				\
	return ret;							\
}

BENCH_LOOP(hand_single)
BENCH_LOOP(hand_bvec)
BENCH_LOOP(hand_list)
BENCH_LOOP(hand_bvecs)
BENCH_LOOP(hand_mr)
BENCH_LOOP(builder_single)
BENCH_LOOP(builder_bvec)
BENCH_LOOP(builder_list)
BENCH_LOOP(builder_bvecs)
BENCH_LOOP(builder_mr)
BENCH_LOOP(builder_tried)

static int loop_hand_tried(struct ib_sge *sge, int loops)
{
	return loop_hand_mr(sge, loops);
}

#define BENCH_WHAT(name, loops)						\
	{ #name, { loop_hand_##name, loop_builder_##name }, loops }

static const struct {
	const char *name;
	int (*loop[2])(struct ib_sge *sge, int loops);
	int loops;
} bench_what[] = {
	BENCH_WHAT(single, BENCH_LOOPS),
	BENCH_WHAT(bvec, BENCH_LOOPS),
	BENCH_WHAT(list, BENCH_LOOPS / BENCH_NENTS),
	BENCH_WHAT(bvecs, BENCH_LOOPS / BENCH_NENTS),
	BENCH_WHAT(mr, BENCH_LOOPS / BENCH_NENTS),
	BENCH_WHAT(tried, BENCH_LOOPS / BENCH_NENTS),
};

static int bench_time(int what, int how, u64 *ps)
{
	struct ib_sge *sge = bench_sges;
	int ret, loops = bench_what[what].loops;
	ktime_t start;

	/* a ULP's are not at an address known at compile time */
	OPTIMIZER_HIDE_VAR(sge);
	start = ktime_get();
	ret = bench_what[what].loop[how](sge, loops);
	*ps = div_u64(ktime_to_ns(ktime_sub(ktime_get(), start)) * 1000, loops);
	return ret;
}

/* Both ways have to lead to the same SGEs, or pages of the MR. */
static int bench_compare(int what)
{
	int how, ret;

	for (how = 0; how < 2; how++) {
		memset(bench_sges, 0, sizeof(bench_sges));
		memset(bench_pages, 0, sizeof(bench_pages));
		bench_npages = 0;
		ret = bench_what[what].loop[how](bench_sges, 1);
		if (ret)
			return ret;
		if (bench_npages)
			/* what did not suffice */
			memset(bench_sges, 0, sizeof(bench_sges));
		else if (!bench_sges[0].length)
			return -EIO;
		if (how && (memcmp(expected, bench_sges, sizeof(expected)) ||
			    memcmp(expected_pages, bench_pages,
				   sizeof(expected_pages))))
			return -EIO;
		memcpy(expected, bench_sges, sizeof(expected));
		memcpy(expected_pages, bench_pages, sizeof(expected_pages));
	}
	return 0;
}

static int bench_show(struct seq_file *s, void *unused)
{
	static bool first;
	u64 ps[2];
	int i, dma, ret;

	for (dma = 0; dma < 2; dma++) {
		bench_dev->dma_device = dma ? dma_dev : NULL;
		for (i = 0; i < ARRAY_SIZE(bench_what); i++) {
			ret = bench_compare(i) ?:
			      bench_time(i, first, &ps[first]) ?:
			      bench_time(i, !first, &ps[!first]);
			if (ret)
				return ret;
			seq_printf(s, "%s %s %llu %llu\n",
				   dma ? "direct" : "software",
				   bench_what[i].name, ps[0], ps[1]);
			cond_resched();
		}
	}
	first = !first;
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(bench);

static int bench_set_page(struct ib_mr *mr, u64 addr)
{
	if (bench_npages == BENCH_NENTS)
		return -ENOMEM;
	bench_pages[bench_npages++] = addr;
	return 0;
}

static int bench_map_mr_sg(struct ib_mr *mr, struct scatterlist *sgl, int nents,
			   unsigned int *offset)
{
	bench_npages = 0;
	return ib_sg_to_pages(mr, sgl, nents, offset, bench_set_page);
}

/* Every other page, so that there is nothing to merge. */
static int bench_alloc(void)
{
	int i;

	bench_buf = alloc_pages_exact(2 * BENCH_NENTS * PAGE_SIZE, GFP_KERNEL);
	bench_dev = kzalloc_obj(*bench_dev);
	bench_pd = kzalloc_obj(*bench_pd);
	bench_mr = kzalloc_obj(*bench_mr);
	if (!bench_buf || !bench_dev || !bench_pd || !bench_mr)
		return -ENOMEM;
	bench_dev->ops.map_mr_sg = bench_map_mr_sg;
	bench_mr->device = bench_dev;
	bench_pd->device = bench_dev;
	bench_pd->local_dma_lkey = 0x1234;

	sg_init_table(bench_sgl, BENCH_NENTS);
	for (i = 0; i < BENCH_NENTS; i++) {
		void *page = bench_buf + 2 * i * PAGE_SIZE;

		sg_set_buf(&bench_sgl[i], page, PAGE_SIZE);
		bvec_set_virt(&bench_bvecs[i], page, PAGE_SIZE);
	}
	bench_iter.bi_size = BENCH_NENTS * PAGE_SIZE;
	bench_iter_1.bi_size = PAGE_SIZE;

	dma_dev = root_device_register("sge_bench");
	if (IS_ERR(dma_dev))
		return PTR_ERR(dma_dev);
	return dma_coerce_mask_and_coherent(dma_dev, DMA_BIT_MASK(64));
}

static void bench_free(void)
{
	if (!IS_ERR_OR_NULL(dma_dev))
		root_device_unregister(dma_dev);
	kfree(bench_mr);
	kfree(bench_pd);
	kfree(bench_dev);
	if (bench_buf)
		free_pages_exact(bench_buf, 2 * BENCH_NENTS * PAGE_SIZE);
}

static int __init bench_init(void)
{
	int ret = bench_alloc();

	if (ret)
		bench_free();
	else
		file = debugfs_create_file("sge_bench", 0400, NULL, NULL,
					   &bench_fops);
	return ret;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	debugfs_remove(file);
	bench_free();
}
module_exit(bench_exit);

MODULE_DESCRIPTION("What the SGE builder costs");
MODULE_LICENSE("Dual BSD/GPL");
