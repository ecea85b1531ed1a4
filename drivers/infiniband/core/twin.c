// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Twins of adapters: what a device of the machine could reach by DMA, looked up for a
 * software device that was given its DMA addresses.
 */
#include <linux/dma-direct.h>
#include <linux/interval_tree.h>
#include <linux/iommu.h>
#include <linux/iommu-dma.h>
#include <linux/pci.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/tracepoint.h>
#include <linux/vmalloc.h>
#include <rdma/twin.h>
#include <trace/events/dma.h>

#include "core_priv.h"

/* more than the ULPs of a test ever have at a time */
#define TWIN_MAPPINGS	SZ_128K

struct twin_mapping {
	struct interval_tree_node node;
	struct list_head free;
	enum dma_data_direction dir;
};

/* the adapter; there is one at a time */
static char twin_name[32];
static struct device *twin_dev;
static unsigned int twin_users;
static DEFINE_MUTEX(twin_mutex);

/*
 * What is mapped for it, by the tracepoints of the DMA API. Nothing is allocated when
 * something is mapped, since tests make allocations fail.
 */
static struct twin_mapping *twin_mappings;
static LIST_HEAD(twin_free);
static struct rb_root_cached twin_mapped = RB_ROOT_CACHED;
static DEFINE_SPINLOCK(twin_lock);
static bool twin_full;

/* where an access has failed that no WR has been blamed for yet */
static struct ib_device *twin_faulty;

static void twin_map(u64 addr, size_t size, enum dma_data_direction dir)
{
	struct twin_mapping *map;
	unsigned long flags;

	if (!size)
		return;
	spin_lock_irqsave(&twin_lock, flags);
	map = list_first_entry_or_null(&twin_free, struct twin_mapping, free);
	if (map) {
		list_del(&map->free);
		map->node.start = addr;
		map->node.last = addr + size - 1;
		map->dir = dir;
		interval_tree_insert(&map->node, &twin_mapped);
	} else {
		twin_full = true;
	}
	spin_unlock_irqrestore(&twin_lock, flags);
	if (!map)
		dev_err_once(twin_dev, "twin: too many mappings, nothing is looked for any more\n");
}

static void twin_unmap(u64 addr, size_t size, enum dma_data_direction dir)
{
	struct interval_tree_node *node;
	struct twin_mapping *map;
	unsigned long flags;
	bool full;

	if (!size)
		return;
	spin_lock_irqsave(&twin_lock, flags);
	full = twin_full;
	for (node = interval_tree_iter_first(&twin_mapped, addr, addr); node;
	     node = interval_tree_iter_next(node, addr, addr)) {
		map = container_of(node, struct twin_mapping, node);
		if (node->start == addr && node->last == addr + size - 1 &&
		    map->dir == dir) {
			interval_tree_remove(node, &twin_mapped);
			list_add(&map->free, &twin_free);
			break;
		}
	}
	spin_unlock_irqrestore(&twin_lock, flags);
	if (!node && !full)
		dev_err_ratelimited(twin_dev, "twin: %zu bytes at DMA address %#llx are unmapped that were not mapped like that\n",
				    size, addr);
}

static void twin_probe_map_phys(void *data, struct device *dev,
				phys_addr_t phys, dma_addr_t addr, size_t size,
				enum dma_data_direction dir,
				unsigned long attrs)
{
	if (dev == twin_dev && addr != DMA_MAPPING_ERROR)
		twin_map(addr, size, dir);
}

static void twin_probe_unmap_phys(void *data, struct device *dev,
				  dma_addr_t addr, size_t size,
				  enum dma_data_direction dir,
				  unsigned long attrs)
{
	if (dev == twin_dev)
		twin_unmap(addr, size, dir);
}

static void twin_probe_map_sg(void *data, struct device *dev,
			      struct scatterlist *sgl, int nents, int ents,
			      enum dma_data_direction dir, unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	if (dev != twin_dev)
		return;
	for_each_sg(sgl, sg, ents, i)
		twin_map(sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void twin_probe_unmap_sg(void *data, struct device *dev,
				struct scatterlist *sgl, int nents,
				enum dma_data_direction dir,
				unsigned long attrs)
{
	struct scatterlist *sg;
	int i;

	if (dev != twin_dev)
		return;
	/* an IOMMU makes fewer of them, and the rest has no length */
	for_each_sg(sgl, sg, nents, i)
		twin_unmap(sg_dma_address(sg), sg_dma_len(sg), dir);
}

static void twin_probe_alloc(void *data, struct device *dev, void *virt,
			     dma_addr_t addr, size_t size,
			     enum dma_data_direction dir, gfp_t flags,
			     unsigned long attrs)
{
	if (dev == twin_dev && virt)
		twin_map(addr, size, dir);
}

static void twin_probe_free(void *data, struct device *dev, void *virt,
			    dma_addr_t addr, size_t size,
			    enum dma_data_direction dir, unsigned long attrs)
{
	if (dev == twin_dev)
		twin_unmap(addr, size, dir);
}

#define TWIN_PROBE(event, probe) { .name = #event, .func = twin_probe_##probe }

static struct twin_probe {
	const char *name;
	void *func;
	struct tracepoint *tp;
} twin_probes[] = {
	TWIN_PROBE(dma_map_phys, map_phys),
	TWIN_PROBE(dma_unmap_phys, unmap_phys),
	TWIN_PROBE(dma_map_sg, map_sg),
	TWIN_PROBE(dma_unmap_sg, unmap_sg),
	TWIN_PROBE(dma_alloc, alloc),
	TWIN_PROBE(dma_free, free),
	TWIN_PROBE(dma_alloc_pages, alloc),
	TWIN_PROBE(dma_free_pages, free),
};

/* The tracepoints are not exported: they are found by name, but have types. */
static void twin_find_tracepoint(struct tracepoint *tp, void *priv)
{
	struct twin_probe *probe = priv;

	check_trace_callback_type_dma_map_phys(twin_probe_map_phys);
	check_trace_callback_type_dma_unmap_phys(twin_probe_unmap_phys);
	check_trace_callback_type_dma_map_sg(twin_probe_map_sg);
	check_trace_callback_type_dma_unmap_sg(twin_probe_unmap_sg);
	check_trace_callback_type_dma_alloc(twin_probe_alloc);
	check_trace_callback_type_dma_free(twin_probe_free);
	check_trace_callback_type_dma_alloc_pages(twin_probe_alloc);
	check_trace_callback_type_dma_free_pages(twin_probe_free);

	if (!strcmp(tp->name, probe->name))
		probe->tp = tp;
}

static void twin_stop(void)
{
	struct twin_probe *probe;

	for (probe = twin_probes; probe < ARRAY_END(twin_probes); probe++) {
		if (probe->tp)
			tracepoint_probe_unregister(probe->tp, probe->func,
						    NULL);
		probe->tp = NULL;
	}
	tracepoint_synchronize_unregister();
	vfree(twin_mappings);
	twin_mappings = NULL;
	INIT_LIST_HEAD(&twin_free);
	twin_mapped = RB_ROOT_CACHED;
	twin_full = false;
	twin_faulty = NULL;
	put_device(twin_dev);
	twin_dev = NULL;
}

static int twin_start(void)
{
	struct twin_probe *probe;
	struct device *dev;
	int i, ret;

	dev = bus_find_device_by_name(&pci_bus_type, NULL, twin_name);
	if (!dev) {
		pr_err("twin: no PCI device %s\n", twin_name);
		return -ENODEV;
	}
	twin_dev = dev;
	ret = -EBUSY;
	if (dev->driver) {
		pr_err("twin: %s belongs to %s\n", twin_name, dev->driver->name);
		goto out_stop;
	}
	ret = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(64));
	if (ret)
		goto out_stop;
	dma_set_max_seg_size(dev, SZ_2G);
	dma_set_seg_boundary(dev, ULONG_MAX);
	/* MRs consist of pages, also where these are bounced */
	dma_set_min_align_mask(dev, PAGE_SIZE - 1);

	ret = -ENOMEM;
	twin_mappings = vcalloc(TWIN_MAPPINGS, sizeof(*twin_mappings));
	if (!twin_mappings)
		goto out_stop;
	for (i = 0; i < TWIN_MAPPINGS; i++)
		list_add(&twin_mappings[i].free, &twin_free);

	for (probe = twin_probes; probe < ARRAY_END(twin_probes); probe++) {
		for_each_kernel_tracepoint(twin_find_tracepoint, probe);
		ret = probe->tp ? tracepoint_probe_register(probe->tp,
							    probe->func, NULL) :
				  -ENOENT;
		if (ret) {
			probe->tp = NULL;
			goto out_stop;
		}
	}
	pr_info("twin: %s, %s\n", twin_name,
		use_dma_iommu(dev) ? "behind an IOMMU" : "no IOMMU");
	return 0;

out_stop:
	twin_stop();
	return ret;
}

static struct device *twin_get(void)
{
	int ret = 0;

	guard(mutex)(&twin_mutex);
	if (!twin_name[0])
		return NULL;
	if (!twin_users)
		ret = twin_start();
	else if (strcmp(twin_name, dev_name(twin_dev)))
		ret = -EBUSY;
	if (ret)
		return ERR_PTR(ret);
	twin_users++;
	return twin_dev;
}

/**
 * rdma_twin_register_device - register a device that may be a twin
 * @dev: software device; it becomes the twin of the adapter that the module parameter
 *	ib_core.twin names, or does no DMA if it names none
 * @name: as for ib_register_device()
 *
 * The driver's dealloc_driver calls rdma_twin_put().
 *
 * Context: Process context, may sleep.
 * Return: As ib_register_device(); or why the adapter cannot be had: %-ENODEV if it
 *	is not there; %-EBUSY if a driver has it, or there are twins of another one.
 */
int rdma_twin_register_device(struct ib_device *dev, const char *name)
{
	struct device *dma_dev = twin_get();

	if (IS_ERR(dma_dev))
		return PTR_ERR(dma_dev);
	dev->dma_device = dma_dev;
	/* where ULPs look for what an adapter is attached to */
	if (dma_dev)
		dev->dev.parent = dma_dev;
	return ib_register_device(dev, name, dma_dev);
}
EXPORT_SYMBOL_GPL(rdma_twin_register_device);

/**
 * rdma_twin_put - let go of the adapter
 * @dev: twin, or device that does no DMA
 *
 * Context: Process context, may sleep.
 */
void rdma_twin_put(struct ib_device *dev)
{
	guard(mutex)(&twin_mutex);
	if (dev->dma_device && !--twin_users)
		twin_stop();
}
EXPORT_SYMBOL_GPL(rdma_twin_put);

static bool twin_permits(enum dma_data_direction dir, bool write)
{
	return dir == DMA_BIDIRECTIONAL ||
	       dir == (write ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
}

/* Why the adapter's access would fail; NULL if it would not */
static const char *twin_look_up(u64 addr, u64 last, bool write)
{
	struct interval_tree_node *node, *good;
	const char *why = NULL;
	unsigned long flags;
	bool known;

	spin_lock_irqsave(&twin_lock, flags);
	while (addr <= last && !twin_full) {
		known = false;
		good = NULL;
		for (node = interval_tree_iter_first(&twin_mapped, addr, addr);
		     node && !good;
		     node = interval_tree_iter_next(node, addr, addr)) {
			known = true;
			if (twin_permits(container_of(node, struct twin_mapping,
						      node)->dir, write))
				good = node;
		}
		if (!good) {
			why = !known ? "not mapped" :
			      write ? "mapped DMA_TO_DEVICE" :
				      "mapped DMA_FROM_DEVICE";
			break;
		}
		if (good->last >= last)
			break;
		addr = good->last + 1;
	}
	spin_unlock_irqrestore(&twin_lock, flags);
	return why;
}

static struct page *twin_page(u64 addr, size_t *len, bool write,
			      const char **why)
{
	phys_addr_t phys;

	*len = min(*len, PAGE_SIZE - offset_in_page(addr));
	*why = twin_look_up(addr, addr + *len - 1, write);
	if (*why)
		return NULL;
	if (use_dma_iommu(twin_dev))
		phys = iommu_iova_to_phys(iommu_get_domain_for_dev(twin_dev),
					  addr);
	else
		phys = dma_to_phys(twin_dev, addr);
	if (phys && pfn_valid(PHYS_PFN(phys)))
		return pfn_to_page(PHYS_PFN(phys));
	*why = "not mapped";
	return NULL;
}

/**
 * rdma_twin_page - the memory that the adapter would reach by a DMA address
 * @dev: the twin
 * @addr: DMA address, from an SGE or an MR of our own
 * @len: how many bytes are wanted, at least 1; becomes how many there are up to the
 *	end of the page
 * @write: whether the device writes them
 *
 * What the adapter could not do is a mistake of the ULP and told in the kernel log:
 * an address that is not mapped or not any more, or one that is mapped for the other
 * direction.
 *
 * Context: Any; does not sleep.
 * Return: the page, whose offset is that of @addr; or NULL.
 */
struct page *rdma_twin_page(struct ib_device *dev, u64 addr, size_t *len,
			    bool write)
{
	struct page *page;
	const char *why;

	page = twin_page(addr, len, write, &why);
	if (!page) {
		ibdev_err_ratelimited(dev, "twin: the device %s %zu bytes at DMA address %#llx: %s\n",
				      write ? "writes" : "reads", *len, addr,
				      why);
		WRITE_ONCE(twin_faulty, dev);
	}
	return page;
}
EXPORT_SYMBOL_GPL(rdma_twin_page);

/**
 * rdma_twin_peer_page - the same for an address that a peer names
 * @dev: the twin
 * @addr: DMA address under an unsafe global rkey
 * @len: as for rdma_twin_page()
 * @write: whether the device writes there
 *
 * No mistake of the ULP, so nothing is said.
 *
 * Context: Any; does not sleep.
 * Return: As rdma_twin_page().
 */
struct page *rdma_twin_peer_page(struct ib_device *dev, u64 addr, size_t *len,
				 bool write)
{
	const char *why;

	return twin_page(addr, len, write, &why);
}
EXPORT_SYMBOL_GPL(rdma_twin_peer_page);

/* The DMA API has no tracepoint for what is linked into a range of IOVAs. */
void rdma_twin_linked(struct ib_device *dev, const struct ib_sge *sge,
		      enum dma_data_direction dir)
{
	if (twin_dev && dev->dma_device == twin_dev)
		twin_map(sge->addr, sge->length, dir);
}

void rdma_twin_unlinked(struct ib_device *dev, const struct ib_sge *sge,
			enum dma_data_direction dir)
{
	if (twin_dev && dev->dma_device == twin_dev)
		twin_unmap(sge->addr, sge->length, dir);
}

/**
 * rdma_twin_wr_failed - tell which WR an adapter would have failed
 * @qp: the QP
 * @wr_id: of the WR, or the address of its ib_cqe
 *
 * Nothing is said unless rdma_twin_page() found something wrong on the device, and no
 * WR has been named for it yet.
 *
 * Context: Any; does not sleep.
 */
void rdma_twin_wr_failed(struct ib_qp *qp, u64 wr_id)
{
	if (rdma_is_twin(qp->device) &&
	    cmpxchg(&twin_faulty, qp->device, NULL) == qp->device)
		ibdev_err_ratelimited(qp->device, "twin: QP %u: WR %#llx has failed\n",
				      qp->qp_num, wr_id);
}
EXPORT_SYMBOL_GPL(rdma_twin_wr_failed);

static int twin_set(const char *val, const struct kernel_param *kp)
{
	guard(mutex)(&twin_mutex);
	if (strscpy(twin_name, skip_spaces(val), sizeof(twin_name)) < 0) {
		twin_name[0] = 0;
		return -EINVAL;
	}
	strim(twin_name);
	return 0;
}

static int twin_show(char *buffer, const struct kernel_param *kp)
{
	guard(mutex)(&twin_mutex);
	return sysfs_emit(buffer, "%s\n", twin_name);
}

static const struct kernel_param_ops twin_ops = {
	.set = twin_set,
	.get = twin_show,
};
module_param_cb(twin, &twin_ops, NULL, 0600);
MODULE_PARM_DESC(twin, "PCI device without a driver, such as 0000:00:04.0: rxe and siw devices that are added become twins of an adapter there");
