/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * What a device under test has mapped. For KUnit suites, whose suite_init is
 * dma_log_suite_init(), and whose init names the device in dma_log.dev.
 */
#ifndef _RDMA_TESTS_DMA_LOG_H
#define _RDMA_TESTS_DMA_LOG_H

#include <kunit/test.h>
#include <linux/scatterlist.h>
#include <linux/tracepoint.h>
#include <trace/events/dma.h>

#define DMA_LOG_MAX	16

/*
 * The accounts of the DMA API: its tracepoints tell what was mapped for the
 * device under test and has not been unmapped by exactly the same arguments.
 */
struct dma_log_mapping {
	const struct scatterlist *sgl;
	u64 addr;
	size_t len;
	enum dma_data_direction dir;
};

static struct {
	const struct device *dev;
	struct dma_log_mapping live[DMA_LOG_MAX];
	int nr_live;
	int nr_maps;
	int nr_bad;
	struct dma_log_mapping sync;
	const char *sync_for;
	phys_addr_t seen[4 * DMA_LOG_MAX];
	int nr_seen;
} dma_log;

static bool dma_log_same(const struct dma_log_mapping *a,
			 const struct dma_log_mapping *b)
{
	return a->sgl == b->sgl && a->addr == b->addr && a->len == b->len &&
	       a->dir == b->dir;
}

static void dma_log_map(struct dma_log_mapping map)
{
	dma_log.nr_maps++;
	if (dma_log.nr_live == ARRAY_SIZE(dma_log.live))
		dma_log.nr_bad++;
	else
		dma_log.live[dma_log.nr_live++] = map;
}

static void dma_log_unmap(struct dma_log_mapping map)
{
	int i;

	for (i = 0; i < dma_log.nr_live; i++) {
		if (dma_log_same(&dma_log.live[i], &map)) {
			dma_log.live[i] = dma_log.live[--dma_log.nr_live];
			return;
		}
	}
	dma_log.nr_bad++;
}

static void dma_log_seen(phys_addr_t phys, enum dma_data_direction dir)
{
	int i;

	for (i = 0; i < dma_log.nr_seen; i++)
		if (dma_log.seen[i] == phys)
			return;
	if (dir != DMA_TO_DEVICE && i < ARRAY_SIZE(dma_log.seen))
		dma_log.seen[dma_log.nr_seen++] = phys;
}

static void dma_probe_dma_map_phys(void *data, struct device *dev,
				   phys_addr_t phys, dma_addr_t addr,
				   size_t size, enum dma_data_direction dir,
				   unsigned long attrs)
{
	if (dev != dma_log.dev || addr == DMA_MAPPING_ERROR)
		return;
	dma_log_seen(phys, dir);
	dma_log_map((struct dma_log_mapping){ NULL, addr, size, dir });
}

static void dma_probe_dma_unmap_phys(void *data, struct device *dev,
				     dma_addr_t addr, size_t size,
				     enum dma_data_direction dir,
				     unsigned long attrs)
{
	if (dev == dma_log.dev)
		dma_log_unmap((struct dma_log_mapping){ NULL, addr, size, dir });
}

static void dma_probe_dma_map_sg(void *data, struct device *dev,
				 struct scatterlist *sgl, int nents, int ents,
				 enum dma_data_direction dir,
				 unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	if (dev != dma_log.dev)
		return;
	for_each_sg(sgl, sg, nents, i)
		dma_log_seen(sg_phys(sg), dir);
	dma_log_map((struct dma_log_mapping){ sgl, 0, nents, dir });
}

static void dma_probe_dma_unmap_sg(void *data, struct device *dev,
				   struct scatterlist *sgl, int nents,
				   enum dma_data_direction dir,
				   unsigned long attrs)
{
	if (dev == dma_log.dev)
		dma_log_unmap((struct dma_log_mapping){ sgl, 0, nents, dir });
}

static void dma_log_sync(const struct device *dev, const char *who,
			 struct dma_log_mapping sync)
{
	if (dev != dma_log.dev)
		return;
	dma_log.sync_for = who;
	dma_log.sync = sync;
}

static void dma_probe_dma_sync_single_for_cpu(void *data, struct device *dev,
					      dma_addr_t addr, size_t size,
					      enum dma_data_direction dir)
{
	dma_log_sync(dev, "cpu", (struct dma_log_mapping){ NULL, addr, size, dir });
}

static void dma_probe_dma_sync_single_for_device(void *data,
						 struct device *dev,
						 dma_addr_t addr, size_t size,
						 enum dma_data_direction dir)
{
	dma_log_sync(dev, "device",
		     (struct dma_log_mapping){ NULL, addr, size, dir });
}

static void dma_probe_dma_sync_sg_for_cpu(void *data, struct device *dev,
					  struct scatterlist *sgl, int nents,
					  enum dma_data_direction dir)
{
	dma_log_sync(dev, "cpu", (struct dma_log_mapping){ sgl, 0, nents, dir });
}

static void dma_probe_dma_sync_sg_for_device(void *data, struct device *dev,
					     struct scatterlist *sgl, int nents,
					     enum dma_data_direction dir)
{
	dma_log_sync(dev, "device",
		     (struct dma_log_mapping){ sgl, 0, nents, dir });
}

#define DMA_PROBE(event) { .name = #event, .func = dma_probe_##event }

static struct dma_probe {
	const char *name;
	void *func;
	struct tracepoint *tp;
} dma_probes[] = {
	DMA_PROBE(dma_map_phys),
	DMA_PROBE(dma_unmap_phys),
	DMA_PROBE(dma_map_sg),
	DMA_PROBE(dma_unmap_sg),
	DMA_PROBE(dma_sync_single_for_cpu),
	DMA_PROBE(dma_sync_single_for_device),
	DMA_PROBE(dma_sync_sg_for_cpu),
	DMA_PROBE(dma_sync_sg_for_device),
};

/* The tracepoints are not exported: they are found by name, but have types. */
static void dma_find_tracepoint(struct tracepoint *tp, void *priv)
{
	struct dma_probe *probe = priv;

	check_trace_callback_type_dma_map_phys(dma_probe_dma_map_phys);
	check_trace_callback_type_dma_unmap_phys(dma_probe_dma_unmap_phys);
	check_trace_callback_type_dma_map_sg(dma_probe_dma_map_sg);
	check_trace_callback_type_dma_unmap_sg(dma_probe_dma_unmap_sg);
	check_trace_callback_type_dma_sync_single_for_cpu(dma_probe_dma_sync_single_for_cpu);
	check_trace_callback_type_dma_sync_single_for_device(dma_probe_dma_sync_single_for_device);
	check_trace_callback_type_dma_sync_sg_for_cpu(dma_probe_dma_sync_sg_for_cpu);
	check_trace_callback_type_dma_sync_sg_for_device(dma_probe_dma_sync_sg_for_device);

	if (!strcmp(tp->name, probe->name))
		probe->tp = tp;
}

static void dma_log_suite_exit(struct kunit_suite *suite)
{
	struct dma_probe *probe;

	for (probe = dma_probes; probe < ARRAY_END(dma_probes); probe++) {
		if (probe->tp)
			tracepoint_probe_unregister(probe->tp, probe->func,
						    NULL);
		probe->tp = NULL;
	}
	tracepoint_synchronize_unregister();
}

static int dma_log_suite_init(struct kunit_suite *suite)
{
	struct dma_probe *probe;
	int ret;

	for (probe = dma_probes; probe < ARRAY_END(dma_probes); probe++) {
		for_each_kernel_tracepoint(dma_find_tracepoint, probe);
		ret = probe->tp ? tracepoint_probe_register(probe->tp,
							    probe->func, NULL) :
				  -ENOENT;
		if (ret) {
			probe->tp = NULL;
			dma_log_suite_exit(suite);
			return ret;
		}
	}
	return 0;
}

#endif /* _RDMA_TESTS_DMA_LOG_H */
