/* SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB */
/*
 * For software drivers: a device as the twin of an adapter, whose SGEs and MRs hold
 * DMA addresses. The story is in Documentation/infiniband/twin.rst.
 */
#ifndef _RDMA_TWIN_H
#define _RDMA_TWIN_H

#include <rdma/ib_verbs.h>

#ifdef CONFIG_INFINIBAND_TWIN

int rdma_twin_register_device(struct ib_device *dev, const char *name);
void rdma_twin_put(struct ib_device *dev);
struct page *rdma_twin_page(struct ib_device *dev, u64 addr, size_t *len,
			    bool write);
struct page *rdma_twin_peer_page(struct ib_device *dev, u64 addr, size_t *len,
				 bool write);
void rdma_twin_wr_failed(struct ib_qp *qp, u64 wr_id);

/**
 * rdma_is_twin - whether the device takes DMA addresses
 * @dev: software device
 *
 * Context: Any; does not sleep.
 * Return: false, known to the compiler, without CONFIG_INFINIBAND_TWIN.
 */
static inline bool rdma_is_twin(struct ib_device *dev)
{
	return dev->dma_device;
}

#else

static inline int rdma_twin_register_device(struct ib_device *dev,
					    const char *name)
{
	return ib_register_device(dev, name, NULL);
}

static inline void rdma_twin_put(struct ib_device *dev)
{
}

static inline struct page *rdma_twin_page(struct ib_device *dev, u64 addr,
					  size_t *len, bool write)
{
	return NULL;
}

static inline struct page *rdma_twin_peer_page(struct ib_device *dev, u64 addr,
					       size_t *len, bool write)
{
	return NULL;
}

static inline void rdma_twin_wr_failed(struct ib_qp *qp, u64 wr_id)
{
}

static inline bool rdma_is_twin(struct ib_device *dev)
{
	return false;
}

#endif

#endif /* _RDMA_TWIN_H */
