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
static struct ib_sge sges[BENCH_NENTS], expected[BENCH_NENTS];

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

static noinline __noclone int hand_single(struct ib_pd *pd, struct ib_sge *sge,
					  void *buf)
{
	sge->addr = hand_map_single(pd->device, buf, BENCH_LEN, BENCH_DIR);
	if (hand_mapping_error(pd->device, sge->addr))
		return -ENOMEM;
	sge->length = BENCH_LEN;
	sge->lkey = pd->local_dma_lkey;
	/* here it is posted */
	barrier();
	hand_unmap_single(pd->device, sge->addr, BENCH_LEN, BENCH_DIR);
	return 0;
}

static noinline __noclone int hand_sgl(struct ib_pd *pd, struct ib_sge *sge,
				       struct scatterlist *sgl, int nents)
{
	struct scatterlist *sg;
	int i, n;

	n = hand_map_sg(pd->device, sgl, nents, BENCH_DIR);
	if (n <= 0)
		return -ENOMEM;
	for_each_sg(sgl, sg, n, i) {
		sge[i].addr = sg_dma_address(sg);
		sge[i].length = sg_dma_len(sg);
		sge[i].lkey = pd->local_dma_lkey;
	}
	barrier();
	hand_unmap_sg(pd->device, sgl, nents, BENCH_DIR);
	return 0;
}

/* By the builder */

static noinline __noclone int builder_single(struct ib_pd *pd,
					     struct ib_sge *sge, void *buf)
{
	int ret;

	ret = rdma_map_sge_single(pd, sge, buf, BENCH_LEN, BENCH_DIR);
	if (ret)
		return ret;
	barrier();
	rdma_unmap_sge(pd->device, sge, BENCH_DIR);
	return 0;
}

static noinline __noclone int builder_sgl(struct ib_pd *pd, struct ib_sge *sge,
					  struct scatterlist *sgl, int nents)
{
	int n;

	n = rdma_fill_ib_sge_from_sgl(pd, sge, nents, sgl, nents, BENCH_DIR);
	if (n < 0)
		return n;
	barrier();
	rdma_unmap_sgl(pd->device, sgl, nents, BENCH_DIR);
	return 0;
}

static int bench_loop(bool list, bool builder, u64 *ps)
{
	int i, ret = 0, loops = list ? BENCH_LOOPS / BENCH_NENTS : BENCH_LOOPS;
	struct ib_sge *sge = sges;
	ktime_t start;

	/* a ULP's are not at an address known at compile time */
	OPTIMIZER_HIDE_VAR(sge);
	start = ktime_get();
	if (list && builder)
		for (i = 0; !ret && i < loops; i++)
			ret = builder_sgl(bench_pd, sge, bench_sgl,
					  BENCH_NENTS);
	else if (list)
		for (i = 0; !ret && i < loops; i++)
			ret = hand_sgl(bench_pd, sge, bench_sgl, BENCH_NENTS);
	else if (builder)
		for (i = 0; !ret && i < loops; i++)
			ret = builder_single(bench_pd, sge, bench_buf);
	else
		for (i = 0; !ret && i < loops; i++)
			ret = hand_single(bench_pd, sge, bench_buf);

	*ps = div_u64(ktime_to_ns(ktime_sub(ktime_get(), start)) * 1000, loops);
	return ret;
}

/* Both ways have to lead to the same SGEs. */
static int bench_compare(bool list)
{
	int ret;

	memset(sges, 0, sizeof(sges));
	ret = list ? hand_sgl(bench_pd, sges, bench_sgl, BENCH_NENTS) :
		     hand_single(bench_pd, sges, bench_buf);
	if (ret)
		return ret;
	memcpy(expected, sges, sizeof(sges));
	memset(sges, 0, sizeof(sges));
	ret = list ? builder_sgl(bench_pd, sges, bench_sgl, BENCH_NENTS) :
		     builder_single(bench_pd, sges, bench_buf);
	if (ret)
		return ret;
	return memcmp(expected, sges, sizeof(sges)) ? -EIO : 0;
}

static int bench_show(struct seq_file *s, void *unused)
{
	static bool first;
	unsigned int what;
	u64 ps[2];
	int ret;

	for (what = 0; what < 4; what++) {
		bool dma = what & 1, list = what & 2;

		bench_dev->dma_device = dma ? dma_dev : NULL;
		ret = bench_compare(list) ?:
		      bench_loop(list, first, &ps[first]) ?:
		      bench_loop(list, !first, &ps[!first]);
		if (ret)
			return ret;
		seq_printf(s, "%s %s %llu %llu\n", dma ? "direct" : "software",
			   list ? "list" : "single", ps[0], ps[1]);
		cond_resched();
	}
	first = !first;
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(bench);

/* Every other page, so that there is nothing to merge. */
static int bench_alloc(void)
{
	int i;

	bench_buf = alloc_pages_exact(2 * BENCH_NENTS * PAGE_SIZE, GFP_KERNEL);
	bench_dev = kzalloc_obj(*bench_dev);
	bench_pd = kzalloc_obj(*bench_pd);
	if (!bench_buf || !bench_dev || !bench_pd)
		return -ENOMEM;
	bench_pd->device = bench_dev;
	bench_pd->local_dma_lkey = 0x1234;

	sg_init_table(bench_sgl, BENCH_NENTS);
	for (i = 0; i < BENCH_NENTS; i++)
		sg_set_buf(&bench_sgl[i], bench_buf + 2 * i * PAGE_SIZE,
			   PAGE_SIZE);

	dma_dev = root_device_register("sge_bench");
	if (IS_ERR(dma_dev))
		return PTR_ERR(dma_dev);
	return dma_coerce_mask_and_coherent(dma_dev, DMA_BIT_MASK(64));
}

static void bench_free(void)
{
	if (!IS_ERR_OR_NULL(dma_dev))
		root_device_unregister(dma_dev);
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
