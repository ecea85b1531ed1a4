// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Two QPs of one kernel, connected over rdma_cm, move a number of messages of one
 * size. Builds with and without <rdma/sge.h>, to compare kernels.
 *
 *	insmod rdma_bench.ko src=10.9.0.1 dst=10.9.1.1
 *	echo read 4096 20000 16 >/sys/kernel/debug/rdma_bench/run
 *
 * That is what, bytes, how many, and how many at a time. The write returns when
 * the last one is complete, and fails if one did or if the data is wrong.
 */
#include <linux/debugfs.h>
#include <linux/inet.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <rdma/ib_verbs.h>
#include <rdma/rdma_cm.h>
#if __has_include(<rdma/sge.h>)
#include <rdma/sge.h>
#define BENCH_BUILDER 1
#else
#define BENCH_BUILDER 0
#endif

static char *src = "";
module_param(src, charp, 0444);
MODULE_PARM_DESC(src, "IP address of the device that connects");
static char *dst = "";
module_param(dst, charp, 0444);
MODULE_PARM_DESC(dst, "IP address of the device that listens");

#define BENCH_PORT	"18516"
#define BENCH_SIZE	SZ_1M
#define BENCH_DEPTH	64
#define BENCH_TIMEOUT	(300 * HZ)
#define BENCH_DIR	DMA_BIDIRECTIONAL

/* A QP, and memory: as an SGE, and as an MR for the peer */
struct bench_end {
	struct rdma_cm_id *id;
	struct ib_pd *pd;
	struct ib_cq *cq;
	void *buf;
	struct ib_sge sge;
	bool mapped;
	struct scatterlist sg;
	struct ib_mr *mr;
	bool mr_mapped;
	enum rdma_cm_event_type event;
	struct completion cm_done;
};

static struct rdma_cm_id *listener;
static struct bench_end client, server;
static struct dentry *bench_dir;

static struct {
	struct mutex mutex;
	enum ib_wr_opcode opcode;
	u32 size;
	unsigned int total, depth;

	/* the counters are the completion handlers', too */
	spinlock_t lock;
	unsigned int posted, sent, received;
	int err;
	struct completion done;
} run;

static void bench_sent(struct ib_cq *cq, struct ib_wc *wc);
static void bench_received(struct ib_cq *cq, struct ib_wc *wc);
static void bench_registered(struct ib_cq *cq, struct ib_wc *wc);

static struct ib_cqe sent_cqe = { .done = bench_sent };
static struct ib_cqe received_cqe = { .done = bench_received };
static struct ib_cqe registered_cqe = { .done = bench_registered };

/* Memory: what a ULP does on either kernel */

#if BENCH_BUILDER
static int bench_map(struct bench_end *end)
{
	return rdma_map_sge_single(end->pd, &end->sge, end->buf, BENCH_SIZE,
				   BENCH_DIR);
}

static void bench_unmap(struct bench_end *end)
{
	rdma_unmap_sge(end->pd->device, &end->sge, BENCH_DIR);
}

static int bench_map_mr(struct bench_end *end)
{
	return rdma_map_mr_sgl(end->mr, &end->sg, 1, 0, PAGE_SIZE, BENCH_DIR);
}

static void bench_unmap_mr(struct bench_end *end)
{
	rdma_unmap_sgl(end->pd->device, &end->sg, 1, BENCH_DIR);
}
#else
static int bench_map(struct bench_end *end)
{
	struct ib_device *dev = end->pd->device;

	end->sge.addr = ib_dma_map_single(dev, end->buf, BENCH_SIZE, BENCH_DIR);
	if (ib_dma_mapping_error(dev, end->sge.addr))
		return -ENOMEM;
	end->sge.length = BENCH_SIZE;
	end->sge.lkey = end->pd->local_dma_lkey;
	return 0;
}

static void bench_unmap(struct bench_end *end)
{
	ib_dma_unmap_single(end->pd->device, end->sge.addr, BENCH_SIZE,
			    BENCH_DIR);
}

static int bench_map_mr(struct bench_end *end)
{
	struct ib_device *dev = end->pd->device;

	if (ib_dma_map_sg(dev, &end->sg, 1, BENCH_DIR) != 1)
		return -ENOMEM;
	if (ib_map_mr_sg(end->mr, &end->sg, 1, NULL, PAGE_SIZE) == 1)
		return 0;
	ib_dma_unmap_sg(dev, &end->sg, 1, BENCH_DIR);
	return -EINVAL;
}

static void bench_unmap_mr(struct bench_end *end)
{
	ib_dma_unmap_sg(end->pd->device, &end->sg, 1, BENCH_DIR);
}
#endif

/* Work requests */

static int bench_recv(void)
{
	struct ib_recv_wr wr = {
		.wr_cqe = &received_cqe,
		.sg_list = &server.sge,
		.num_sge = 1,
	};

	return ib_post_recv(server.id->qp, &wr, NULL);
}

static int bench_post(void)
{
	struct ib_sge sge = client.sge;
	struct ib_rdma_wr wr = {
		.wr = {
			.wr_cqe = &sent_cqe,
			.sg_list = &sge,
			.num_sge = 1,
			.opcode = run.opcode,
			.send_flags = IB_SEND_SIGNALED,
		},
		.remote_addr = server.mr->iova,
		.rkey = server.mr->rkey,
	};

	/* an RDMA READ of iWARP takes an MR on this side, too */
	if (run.opcode == IB_WR_RDMA_READ &&
	    rdma_protocol_iwarp(client.id->device, client.id->port_num)) {
		sge.addr = client.mr->iova;
		sge.lkey = client.mr->lkey;
	}
	sge.length = run.size;
	return ib_post_send(client.id->qp, &wr.wr, NULL);
}

/* A SEND is not posted before there is a receive for it. */
static void bench_pump(void)
{
	while (!run.err && run.posted < run.total &&
	       run.posted - run.sent < run.depth &&
	       run.posted - run.received < run.depth) {
		run.err = bench_post();
		run.posted += !run.err;
	}
	if (run.err || (run.sent == run.total && run.received == run.total))
		complete(&run.done);
}

static void bench_fail(const char *what, enum ib_wc_status status)
{
	/* a disconnect flushes the receives */
	if (status != IB_WC_WR_FLUSH_ERR)
		pr_err("rdma_bench: %s: %s\n", what, ib_wc_status_msg(status));
	run.err = -EIO;
}

static void bench_sent(struct ib_cq *cq, struct ib_wc *wc)
{
	spin_lock(&run.lock);
	if (wc->status != IB_WC_SUCCESS)
		bench_fail("send queue", wc->status);
	run.sent++;
	if (run.opcode != IB_WR_SEND)
		run.received++;
	bench_pump();
	spin_unlock(&run.lock);
}

static void bench_received(struct ib_cq *cq, struct ib_wc *wc)
{
	spin_lock(&run.lock);
	if (wc->status != IB_WC_SUCCESS)
		bench_fail("receive queue", wc->status);
	else if (wc->byte_len != run.size || bench_recv())
		run.err = -EIO;
	run.received++;
	bench_pump();
	spin_unlock(&run.lock);
}

static void bench_registered(struct ib_cq *cq, struct ib_wc *wc)
{
	if (wc->status != IB_WC_SUCCESS)
		bench_fail("IB_WR_REG_MR", wc->status);
	complete(&run.done);
}

static int bench_wait(void)
{
	if (!wait_for_completion_timeout(&run.done, BENCH_TIMEOUT))
		run.err = -ETIMEDOUT;
	return run.err;
}

static int bench_run(void)
{
	bool read = run.opcode == IB_WR_RDMA_READ;
	void *from = read ? server.buf : client.buf;
	void *to = read ? client.buf : server.buf;
	int ret;

	get_random_bytes(from, run.size);
	memset(to, 0, run.size);
	run.posted = 0;
	run.sent = 0;
	run.received = 0;
	reinit_completion(&run.done);

	spin_lock(&run.lock);
	bench_pump();
	spin_unlock(&run.lock);
	ret = bench_wait();
	if (!ret && memcmp(from, to, run.size)) {
		pr_err("rdma_bench: wrong data\n");
		ret = -EIO;
	}
	return ret;
}

static ssize_t bench_write(struct file *file, const char __user *ubuf,
			   size_t len, loff_t *pos)
{
	char buf[64] = {}, what[8];
	int ret;

	if (len >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, len))
		return -EFAULT;

	guard(mutex)(&run.mutex);
	/* the QPs do not survive a failure */
	if (run.err)
		return run.err;
	if (sscanf(buf, "%7s %u %u %u", what, &run.size, &run.total,
		   &run.depth) != 4 ||
	    !run.size || run.size > BENCH_SIZE || !run.total || !run.depth ||
	    run.depth > BENCH_DEPTH)
		return -EINVAL;
	if (!strcmp(what, "send"))
		run.opcode = IB_WR_SEND;
	else if (!strcmp(what, "read"))
		run.opcode = IB_WR_RDMA_READ;
	else if (!strcmp(what, "write"))
		run.opcode = IB_WR_RDMA_WRITE;
	else
		return -EINVAL;

	ret = bench_run();
	return ret ?: len;
}

static const struct file_operations bench_fops = {
	.owner = THIS_MODULE,
	.write = bench_write,
};

/* The connection */

static int bench_cm_event(struct rdma_cm_id *id, struct rdma_cm_event *event)
{
	struct bench_end *end = id->context;

	switch (event->event) {
	case RDMA_CM_EVENT_DISCONNECTED:
	case RDMA_CM_EVENT_TIMEWAIT_EXIT:
		return 0;
	case RDMA_CM_EVENT_CONNECT_REQUEST:
		if (end->id)
			return -EBUSY;
		end->id = id;
		break;
	default:
		break;
	}
	end->event = event->event;
	complete(&end->cm_done);
	return 0;
}

static int bench_wait_cm(struct bench_end *end, enum rdma_cm_event_type event)
{
	if (!wait_for_completion_timeout(&end->cm_done, 30 * HZ)) {
		pr_err("rdma_bench: no rdma_cm event\n");
		return -ETIMEDOUT;
	}
	if (end->event == event)
		return 0;
	pr_err("rdma_bench: %s\n", rdma_event_msg(end->event));
	return -ECONNREFUSED;
}

static int bench_create_qp(struct bench_end *end)
{
	struct ib_device *dev = end->id->device;
	struct ib_qp_init_attr attr = {
		.qp_type = IB_QPT_RC,
		.sq_sig_type = IB_SIGNAL_REQ_WR,
		/* one more for the IB_WR_REG_MR, one for draining */
		.cap.max_send_wr = BENCH_DEPTH + 2,
		.cap.max_recv_wr = BENCH_DEPTH + 1,
		.cap.max_send_sge = 1,
		.cap.max_recv_sge = 1,
	};

	end->pd = ib_alloc_pd(dev, 0);
	if (IS_ERR(end->pd))
		return PTR_ERR(end->pd);
	end->cq = ib_alloc_cq(dev, NULL, 2 * BENCH_DEPTH + 3, 0,
			      IB_POLL_WORKQUEUE);
	if (IS_ERR(end->cq))
		return PTR_ERR(end->cq);
	attr.send_cq = end->cq;
	attr.recv_cq = end->cq;
	return rdma_create_qp(end->id, end->pd, &attr);
}

static int bench_alloc(struct bench_end *end)
{
	int ret;

	end->mr = ib_alloc_mr(end->pd, IB_MR_TYPE_MEM_REG,
			      BENCH_SIZE >> PAGE_SHIFT);
	if (IS_ERR(end->mr))
		return PTR_ERR(end->mr);
	/* contiguous */
	end->buf = (void *)__get_free_pages(GFP_KERNEL | __GFP_ZERO,
					    get_order(BENCH_SIZE));
	if (!end->buf)
		return -ENOMEM;

	ret = bench_map(end);
	if (ret)
		return ret;
	end->mapped = true;
	sg_init_one(&end->sg, end->buf, BENCH_SIZE);
	ret = bench_map_mr(end);
	end->mr_mapped = !ret;
	return ret;
}

static int bench_register(struct bench_end *end)
{
	struct ib_reg_wr wr = {
		.wr = {
			.wr_cqe = &registered_cqe,
			.opcode = IB_WR_REG_MR,
			.send_flags = IB_SEND_SIGNALED,
		},
		.mr = end->mr,
		.key = end->mr->rkey,
		.access = IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_READ |
			  IB_ACCESS_REMOTE_WRITE,
	};
	int ret;

	reinit_completion(&run.done);
	ret = ib_post_send(end->id->qp, &wr.wr, NULL);
	return ret ?: bench_wait();
}

static void bench_conn_param(struct bench_end *end,
			     struct rdma_conn_param *param)
{
	struct ib_device *dev = end->id->device;

	*param = (struct rdma_conn_param) {
		.responder_resources = min(dev->attrs.max_qp_rd_atom, 16),
		.initiator_depth = min(dev->attrs.max_qp_init_rd_atom, 16),
		.retry_count = 7,
		.rnr_retry_count = 7,
	};
}

static int bench_resolve(struct sockaddr *from, struct sockaddr *to)
{
	int ret;

	client.id = rdma_create_id(&init_net, bench_cm_event, &client,
				   RDMA_PS_TCP, IB_QPT_RC);
	if (IS_ERR(client.id))
		return PTR_ERR(client.id);
	ret = rdma_resolve_addr(client.id, from, to, 10000) ?:
	      bench_wait_cm(&client, RDMA_CM_EVENT_ADDR_RESOLVED);
	if (ret)
		return ret;
	return rdma_resolve_route(client.id, 10000) ?:
	       bench_wait_cm(&client, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static int bench_accept(void)
{
	struct rdma_conn_param param;
	int i, ret;

	ret = bench_create_qp(&server) ?: bench_alloc(&server);
	for (i = 0; !ret && i < BENCH_DEPTH; i++)
		ret = bench_recv();
	if (ret)
		return ret;
	bench_conn_param(&server, &param);
	rdma_lock_handler(server.id);
	ret = rdma_accept(server.id, &param);
	rdma_unlock_handler(server.id);
	return ret;
}

static int bench_connect(void)
{
	struct sockaddr_storage from, to;
	struct rdma_conn_param param;
	int ret;

	ret = inet_pton_with_scope(&init_net, AF_UNSPEC, src, NULL, &from) ?:
	      inet_pton_with_scope(&init_net, AF_UNSPEC, dst, BENCH_PORT, &to);
	if (ret)
		return ret;
	listener = rdma_create_id(&init_net, bench_cm_event, &server,
				  RDMA_PS_TCP, IB_QPT_RC);
	if (IS_ERR(listener))
		return PTR_ERR(listener);
	ret = rdma_bind_addr(listener, (struct sockaddr *)&to) ?:
	      rdma_listen(listener, 1) ?:
	      bench_resolve((struct sockaddr *)&from, (struct sockaddr *)&to) ?:
	      bench_create_qp(&client) ?:
	      bench_alloc(&client);
	if (ret)
		return ret;
	bench_conn_param(&client, &param);
	return rdma_connect(client.id, &param) ?:
	       bench_wait_cm(&server, RDMA_CM_EVENT_CONNECT_REQUEST) ?:
	       bench_accept() ?:
	       bench_wait_cm(&client, RDMA_CM_EVENT_ESTABLISHED) ?:
	       bench_wait_cm(&server, RDMA_CM_EVENT_ESTABLISHED) ?:
	       bench_register(&server) ?:
	       bench_register(&client);
}

static void bench_free(struct bench_end *end)
{
	if (IS_ERR_OR_NULL(end->id))
		return;
	if (end->id->qp) {
		ib_drain_qp(end->id->qp);
		rdma_destroy_qp(end->id);
	}
	if (end->mr_mapped)
		bench_unmap_mr(end);
	if (!IS_ERR_OR_NULL(end->mr))
		ib_dereg_mr(end->mr);
	if (end->mapped)
		bench_unmap(end);
	free_pages((unsigned long)end->buf, get_order(BENCH_SIZE));
	if (!IS_ERR_OR_NULL(end->cq))
		ib_free_cq(end->cq);
	if (!IS_ERR_OR_NULL(end->pd))
		ib_dealloc_pd(end->pd);
	rdma_destroy_id(end->id);
}

static void bench_disconnect(void)
{
	/* first, as it may still be making a server.id */
	if (!IS_ERR_OR_NULL(listener))
		rdma_destroy_id(listener);
	if (!IS_ERR_OR_NULL(client.id))
		rdma_disconnect(client.id);
	bench_free(&client);
	bench_free(&server);
}

static int __init bench_init(void)
{
	int ret;

	mutex_init(&run.mutex);
	spin_lock_init(&run.lock);
	init_completion(&run.done);
	init_completion(&client.cm_done);
	init_completion(&server.cm_done);
	ret = bench_connect();
	if (ret) {
		bench_disconnect();
		return ret;
	}
	bench_dir = debugfs_create_dir("rdma_bench", NULL);
	debugfs_create_file("run", 0200, bench_dir, NULL, &bench_fops);
	return 0;
}
module_init(bench_init);

static void __exit bench_exit(void)
{
	debugfs_remove(bench_dir);
	bench_disconnect();
}
module_exit(bench_exit);

MODULE_DESCRIPTION("Two kernel QPs that move a number of messages");
MODULE_LICENSE("Dual BSD/GPL");
