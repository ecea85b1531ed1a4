// SPDX-License-Identifier: GPL-2.0 OR Linux-OpenIB
/*
 * Two QPs of one kernel, connected over rdma_cm, move data in every way that
 * <rdma/sge.h> offers, and then do what a device has to refuse.
 *
 *	insmod rdma_loop.ko src=10.9.0.1 dst=10.9.1.1
 *	cat /sys/kernel/debug/kunit/rdma_loop/results
 *
 * The addresses name two RDMA devices, or one device twice. With dev=rvt0 instead,
 * both QPs are on that device, and rdma_cm is not needed. Each case has a pair of
 * QPs of its own. If it fails half-way, loop_exit() destroys them before the memory
 * goes that their WRs may name.
 */
#include <kunit/test.h>
#include <linux/highmem.h>
#include <linux/inet.h>
#include <linux/iommu-dma.h>
#include <linux/memory_hotplug.h>
#include <linux/ratelimit_types.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>
#include <rdma/ib_cache.h>
#include <rdma/rdma_cm.h>
#include <rdma/sge.h>
#include <trace/events/printk.h>

static char *src = "";
module_param(src, charp, 0444);
MODULE_PARM_DESC(src, "IP address of the device that connects");
static char *dst = "";
module_param(dst, charp, 0444);
MODULE_PARM_DESC(dst, "IP address of the device that listens");
static char *port = "18515";
module_param(port, charp, 0444);
MODULE_PARM_DESC(port, "port to listen on");
static char *loop_dev_name = "";
module_param_named(dev, loop_dev_name, charp, 0444);
MODULE_PARM_DESC(dev, "device to connect to itself, by ib_modify_qp()");

#define LOOP_TIMEOUT	(30 * HZ)
#define LOOP_RESOLVE_MS	10000
#define LOOP_MAX_SGE	32
#define LOOP_INLINE	64
#define LOOP_GUARD	0x6b
/* of the messages that are there to be refused */
#define LOOP_LEN	64

#define LOOP_WRITABLE	(IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE)

static struct sockaddr_storage loop_src, loop_dst;
static struct ib_device *loop_dev;
/* a case could not connect: the others need not wait as long */
static bool loop_unreachable;

enum loop_how {
	LOOP_SINGLE,
	LOOP_PAGE,
	LOOP_SLICE,
	LOOP_SGL,
	LOOP_BVECS,
	LOOP_MR,
};

struct loop_end {
	struct loop_end *peer;
	struct rdma_cm_id *id;
	struct ib_device *dev;
	u32 port;
	struct ib_qp *qp;
	struct ib_pd *pd;
	struct ib_cq *cq;
	struct ib_qp_cap cap;
	unsigned int pd_flags;
	bool classic_cq;
	struct list_head registered;
	enum rdma_cm_event_type event;
	struct completion cm_done;
};

struct loop {
	struct rdma_cm_id *listener;
	struct loop_end client;
	struct loop_end server;
	u32 seed;
};

/*
 * Memory for a message. @sgl is where in it the message is: the rest of the
 * pages is guards.
 */
struct loop_buf {
	struct loop_end *end;
	struct scatterlist sgl[LOOP_MAX_SGE];
	int nseg;
	int order;
	int nents;
	size_t len;

	/* while it is mapped */
	struct ib_device *dev;
	enum loop_how how;
	enum dma_data_direction dir;
	struct bio_vec bvecs[LOOP_MAX_SGE];
	struct ib_sge maps[LOOP_MAX_SGE];
	int nmaps;
	struct ib_sge sges[LOOP_MAX_SGE];
	struct ib_mr *mr;
	/* the MR's iova is an offset, as a ULP may set it */
	bool low;
	struct list_head entry;
};

struct loop_wr {
	const char *what;
	struct ib_cqe cqe;
	struct completion done;
	struct ib_wc wc;
	int ret;
};

static bool loop_iwarp(struct loop_end *end)
{
	return rdma_protocol_iwarp(end->dev, end->port);
}

static bool loop_is_phys(struct loop_end *end)
{
	return !ib_has_dma_device(end->dev);
}

/* Connections */

static int loop_cm_event(struct rdma_cm_id *id, struct rdma_cm_event *event)
{
	struct loop_end *end = id->context;

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

static void loop_wait_cm(struct kunit *test, struct loop_end *end,
			 enum rdma_cm_event_type event)
{
	KUNIT_ASSERT_NE_MSG(test, 0,
			    wait_for_completion_timeout(&end->cm_done,
							LOOP_TIMEOUT),
			    "no rdma_cm event, not even an error");
	KUNIT_ASSERT_STREQ(test, rdma_event_msg(end->event),
			   rdma_event_msg(event));
}

static void loop_poll(struct ib_cq *cq)
{
	struct ib_wc wc[4];
	int i, n;

	while ((n = ib_poll_cq(cq, ARRAY_SIZE(wc), wc)) > 0)
		for (i = 0; i < n; i++)
			wc[i].wr_cqe->done(cq, &wc[i]);
}

/* The handler of a CQ may poll and re-arm it on the spot. */
static void loop_cq_handler(struct ib_cq *cq, void *context)
{
	do {
		loop_poll(cq);
	} while (ib_req_notify_cq(cq, IB_CQ_NEXT_COMP |
				      IB_CQ_REPORT_MISSED_EVENTS) > 0);
}

static void loop_create_cq(struct kunit *test, struct loop_end *end)
{
	struct ib_device *dev = end->dev;
	struct ib_cq_init_attr attr = { .cqe = 128 };

	if (!end->classic_cq) {
		end->cq = ib_alloc_cq(dev, NULL, attr.cqe, 0,
				      IB_POLL_WORKQUEUE);
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, end->cq);
		return;
	}
	end->cq = ib_create_cq(dev, loop_cq_handler, NULL, NULL, &attr);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, end->cq);
	KUNIT_ASSERT_EQ(test, 0, ib_req_notify_cq(end->cq, IB_CQ_NEXT_COMP));
}

static int loop_new_qp(struct loop_end *end, struct ib_qp_init_attr *attr)
{
	struct ib_qp *qp;
	int ret;

	if (end->id) {
		ret = rdma_create_qp(end->id, end->pd, attr);
		if (!ret)
			end->qp = end->id->qp;
		return ret;
	}
	qp = ib_create_qp(end->pd, attr);
	if (IS_ERR(qp))
		return PTR_ERR(qp);
	end->qp = qp;
	return 0;
}

static void loop_create_qp(struct kunit *test, struct loop_end *end)
{
	struct ib_device *dev = end->dev;
	struct ib_qp_init_attr attr = {
		.qp_type = IB_QPT_RC,
		.sq_sig_type = IB_SIGNAL_REQ_WR,
		.cap.max_send_wr = 16,
		.cap.max_recv_wr = 16,
		.cap.max_send_sge = min(dev->attrs.max_send_sge, LOOP_MAX_SGE),
		.cap.max_recv_sge = min(dev->attrs.max_recv_sge, LOOP_MAX_SGE),
		.cap.max_inline_data = LOOP_INLINE,
	};

	end->pd = ib_alloc_pd(dev, end->pd_flags);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, end->pd);
	loop_create_cq(test, end);
	attr.send_cq = end->cq;
	attr.recv_cq = end->cq;

	/* no device has to support inline data */
	if (loop_new_qp(end, &attr)) {
		attr.cap.max_inline_data = 0;
		KUNIT_ASSERT_EQ(test, 0, loop_new_qp(end, &attr));
	}
	end->cap = attr.cap;
}

/* By rdma_cm */

static void loop_create_cm_qp(struct kunit *test, struct loop_end *end)
{
	end->dev = end->id->device;
	end->port = end->id->port_num;
	loop_create_qp(test, end);
}

static void loop_conn_param(struct loop_end *end, struct rdma_conn_param *param)
{
	struct ib_device *dev = end->dev;

	*param = (struct rdma_conn_param) {
		.responder_resources = min(dev->attrs.max_qp_rd_atom, 8),
		.initiator_depth = min(dev->attrs.max_qp_init_rd_atom, 8),
		.retry_count = 7,
		.rnr_retry_count = 7,
	};
}

static void loop_listen(struct kunit *test, struct loop *loop)
{
	loop->listener = rdma_create_id(&init_net, loop_cm_event, &loop->server,
					RDMA_PS_TCP, IB_QPT_RC);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, loop->listener);
	KUNIT_ASSERT_EQ(test, 0,
			rdma_bind_addr(loop->listener,
				       (struct sockaddr *)&loop_dst));
	KUNIT_ASSERT_EQ(test, 0, rdma_listen(loop->listener, 1));
}

static void loop_resolve(struct kunit *test, struct loop_end *client)
{
	client->id = rdma_create_id(&init_net, loop_cm_event, client,
				    RDMA_PS_TCP, IB_QPT_RC);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, client->id);
	KUNIT_ASSERT_EQ(test, 0,
			rdma_resolve_addr(client->id,
					  (struct sockaddr *)&loop_src,
					  (struct sockaddr *)&loop_dst,
					  LOOP_RESOLVE_MS));
	loop_wait_cm(test, client, RDMA_CM_EVENT_ADDR_RESOLVED);
	KUNIT_ASSERT_EQ(test, 0,
			rdma_resolve_route(client->id, LOOP_RESOLVE_MS));
	loop_wait_cm(test, client, RDMA_CM_EVENT_ROUTE_RESOLVED);
}

static int loop_accept(struct loop_end *server, struct rdma_conn_param *param)
{
	int ret;

	rdma_lock_handler(server->id);
	ret = rdma_accept(server->id, param);
	rdma_unlock_handler(server->id);
	return ret;
}

static void loop_ping(struct kunit *test, struct loop_end *end);

static void loop_connect_cm(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_end *client = &loop->client, *server = &loop->server;
	struct rdma_conn_param param;

	loop_listen(test, loop);
	loop_resolve(test, client);
	loop_create_cm_qp(test, client);
	loop_conn_param(client, &param);
	KUNIT_ASSERT_EQ(test, 0, rdma_connect(client->id, &param));

	loop_wait_cm(test, server, RDMA_CM_EVENT_CONNECT_REQUEST);
	loop_create_cm_qp(test, server);
	loop_conn_param(server, &param);
	KUNIT_ASSERT_EQ(test, 0, loop_accept(server, &param));
	loop_wait_cm(test, server, RDMA_CM_EVENT_ESTABLISHED);
	loop_wait_cm(test, client, RDMA_CM_EVENT_ESTABLISHED);
}

/* By hand, on one device: by LID, or on RoCE by the first GID */

static void loop_create_dev_qp(struct kunit *test, struct loop_end *end)
{
	end->dev = loop_dev;
	end->port = rdma_start_port(end->dev);
	KUNIT_ASSERT_FALSE_MSG(test, loop_iwarp(end),
			       "iWARP connects by rdma_cm only");
	loop_create_qp(test, end);
}

static void loop_init_ah(struct kunit *test, struct loop_end *end,
			 struct rdma_ah_attr *ah, u32 lid)
{
	union ib_gid gid;

	ah->type = rdma_ah_find_type(end->dev, end->port);
	rdma_ah_set_port_num(ah, end->port);
	rdma_ah_set_dlid(ah, lid);
	if (rdma_protocol_roce(end->dev, end->port)) {
		KUNIT_ASSERT_EQ(test, 0, rdma_query_gid(end->dev, end->port, 0,
							&gid));
		rdma_ah_set_grh(ah, &gid, 0, 0, 1, 0);
	}
}

static void loop_ready_to_send(struct kunit *test, struct loop_end *end)
{
	struct ib_device *dev = end->dev;
	struct ib_port_attr port_attr = {};
	struct ib_qp_attr attr = {
		.qp_state = IB_QPS_INIT,
		.port_num = end->port,
		.qp_access_flags = IB_ACCESS_REMOTE_WRITE |
				   IB_ACCESS_REMOTE_READ |
				   IB_ACCESS_REMOTE_ATOMIC,
		.dest_qp_num = end->peer->qp->qp_num,
		.max_dest_rd_atomic = min(dev->attrs.max_qp_rd_atom, 8),
		.max_rd_atomic = min(dev->attrs.max_qp_init_rd_atom, 8),
		.min_rnr_timer = 1,
		.timeout = 14,
		.retry_cnt = 7,
		.rnr_retry = 7,
	};

	KUNIT_ASSERT_EQ(test, 0, ib_query_port(dev, end->port, &port_attr));
	attr.path_mtu = port_attr.active_mtu;
	loop_init_ah(test, end, &attr.ah_attr, port_attr.lid);

	KUNIT_ASSERT_EQ(test, 0,
			ib_modify_qp(end->qp, &attr,
				     IB_QP_STATE | IB_QP_PKEY_INDEX |
				     IB_QP_PORT | IB_QP_ACCESS_FLAGS));
	attr.qp_state = IB_QPS_RTR;
	KUNIT_ASSERT_EQ(test, 0,
			ib_modify_qp(end->qp, &attr,
				     IB_QP_STATE | IB_QP_AV | IB_QP_PATH_MTU |
				     IB_QP_DEST_QPN | IB_QP_RQ_PSN |
				     IB_QP_MAX_DEST_RD_ATOMIC |
				     IB_QP_MIN_RNR_TIMER));
	attr.qp_state = IB_QPS_RTS;
	KUNIT_ASSERT_EQ(test, 0,
			ib_modify_qp(end->qp, &attr,
				     IB_QP_STATE | IB_QP_TIMEOUT |
				     IB_QP_RETRY_CNT | IB_QP_RNR_RETRY |
				     IB_QP_SQ_PSN | IB_QP_MAX_QP_RD_ATOMIC));
}

static void loop_connect_dev(struct kunit *test)
{
	struct loop *loop = test->priv;

	loop_create_dev_qp(test, &loop->client);
	loop_create_dev_qp(test, &loop->server);
	loop_ready_to_send(test, &loop->client);
	loop_ready_to_send(test, &loop->server);
}

static void loop_connect(struct kunit *test)
{
	struct loop *loop = test->priv;

	if (loop_dev)
		loop_connect_dev(test);
	else
		loop_connect_cm(test);

	/* on iWARP the client has to be the first to send */
	loop_ping(test, &loop->client);
}

static void loop_destroy_id(struct rdma_cm_id **id)
{
	if (!IS_ERR_OR_NULL(*id))
		rdma_destroy_id(*id);
	*id = NULL;
}

static void loop_dereg_mr(struct loop_buf *buf)
{
	if (!buf->mr)
		return;
	list_del(&buf->entry);
	/* it fails if the driver has lost a reference */
	WARN_ON(ib_dereg_mr(buf->mr));
	buf->mr = NULL;
}

static void loop_destroy_qp(struct loop_end *end)
{
	struct loop_buf *buf, *next;

	if (end->qp && end->id)
		rdma_destroy_qp(end->id);
	else if (end->qp)
		ib_destroy_qp(end->qp);
	end->qp = NULL;

	list_for_each_entry_safe(buf, next, &end->registered, entry)
		loop_dereg_mr(buf);
}

static void loop_destroy_pd(struct loop_end *end)
{
	if (!IS_ERR_OR_NULL(end->cq)) {
		if (end->classic_cq)
			ib_destroy_cq(end->cq);
		else
			ib_free_cq(end->cq);
	}
	end->cq = NULL;

	if (!IS_ERR_OR_NULL(end->pd)) {
		end->pd->uobject = NULL;
		ib_dealloc_pd(end->pd);
	}
	end->pd = NULL;
	end->dev = NULL;
}

static void loop_disconnect(struct loop *loop)
{
	struct loop_end *client = &loop->client, *server = &loop->server;

	/* first, as it may still be making a server->id */
	loop_destroy_id(&loop->listener);

	if (!IS_ERR_OR_NULL(client->id))
		rdma_disconnect(client->id);
	loop_destroy_qp(client);
	loop_destroy_qp(server);
	loop_destroy_id(&client->id);
	loop_destroy_id(&server->id);
	loop_destroy_pd(client);
	loop_destroy_pd(server);
	reinit_completion(&client->cm_done);
	reinit_completion(&server->cm_done);
}

/* After the QPs went down: shows that nothing else did. */
static void loop_reconnect(struct kunit *test)
{
	loop_disconnect(test->priv);
	loop_connect(test);
}

/* Memory */

static u8 loop_pattern(u32 seed, size_t pos)
{
	return ((u32)pos + seed) * 0x9e3779b1U >> 24;
}

/* Writes or compares the page at byte @start of segment @sg. */
static bool loop_walk_page(struct kunit *test, struct scatterlist *sg,
			   size_t start, size_t pos, u32 seed, bool fill)
{
	struct page *page = sg_page(sg) + (start >> PAGE_SHIFT);
	u8 *va = kmap_local_page(page);
	size_t i, in_sg;
	u8 want, got;

	for (i = 0; i < PAGE_SIZE; i++) {
		/* wraps around, and is out of range, before the message */
		in_sg = start + i - sg->offset;
		want = in_sg < sg->length ? loop_pattern(seed, pos + in_sg) :
					    LOOP_GUARD;
		if (fill)
			va[i] = want;
		else if (va[i] != want)
			break;
	}
	got = i < PAGE_SIZE ? va[i] : 0;
	kunmap_local(va);
	if (i == PAGE_SIZE)
		return true;

	KUNIT_FAIL(test, "%s byte %zu is %#x, not %#x",
		   in_sg < sg->length ? "data" : "guard",
		   in_sg < sg->length ? pos + in_sg : start + i, got, want);
	return false;
}

static void loop_walk(struct kunit *test, struct loop_buf *buf, u32 seed,
		      bool fill)
{
	size_t start, pos = 0;
	int i;

	for (i = 0; i < buf->nseg; i++) {
		for (start = 0; start < PAGE_SIZE << buf->order;
		     start += PAGE_SIZE)
			if (!loop_walk_page(test, &buf->sgl[i], start, pos,
					    seed, fill))
				return;
		pos += buf->sgl[i].length;
	}
}

/* Returns the seed, to check by, here or at the other end. */
static u32 loop_fill(struct kunit *test, struct loop_buf *buf)
{
	struct loop *loop = test->priv;

	loop->seed += SZ_16M + 1;
	loop_walk(test, buf, loop->seed, true);
	return loop->seed;
}

static void loop_check(struct kunit *test, struct loop_buf *buf, u32 seed)
{
	loop_walk(test, buf, seed, false);
}

static void loop_unmap(struct loop_buf *buf)
{
	if (!buf->nmaps)
		return;
	if (buf->how == LOOP_MR || buf->how == LOOP_SGL)
		rdma_unmap_sgl(buf->dev, buf->sgl, buf->nents, buf->dir);
	else
		rdma_unmap_sges(buf->dev, buf->maps, buf->nmaps, buf->dir);
	buf->nmaps = 0;
}

static void loop_buf_free(void *data)
{
	struct loop_buf *buf = data;
	int i;

	loop_dereg_mr(buf);
	loop_unmap(buf);
	for (i = 0; i < buf->nseg; i++)
		if (sg_page(&buf->sgl[i]))
			__free_pages(sg_page(&buf->sgl[i]), buf->order);
	kfree(buf);
}

static void loop_buf_put(struct kunit *test, struct loop_buf *buf)
{
	kunit_release_action(test, loop_buf_free, buf);
}

static struct loop_buf *loop_alloc(struct kunit *test, struct loop_end *end,
				   int nseg, int order, gfp_t gfp)
{
	struct loop_buf *buf = kzalloc_obj(*buf);
	struct page *page;
	int i;

	KUNIT_ASSERT_NOT_NULL(test, buf);
	buf->end = end;
	buf->nseg = nseg;
	buf->order = order;
	sg_init_table(buf->sgl, nseg);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, loop_buf_free, buf));

	for (i = 0; i < nseg; i++) {
		page = alloc_pages(gfp, order);
		KUNIT_ASSERT_NOT_NULL(test, page);
		sg_assign_page(&buf->sgl[i], page);
		if (gfp & __GFP_HIGHMEM)
			KUNIT_ASSERT_TRUE(test, PageHighMem(page));
	}
	return buf;
}

/* The message, without gaps, so that it fits an MR. */
static void loop_shape(struct loop_buf *buf, size_t offset, size_t len)
{
	size_t n;
	int i;

	buf->len = len;
	buf->nents = 0;
	for (i = 0; i < buf->nseg; i++) {
		n = min(len, (PAGE_SIZE << buf->order) - offset);
		buf->sgl[i].offset = offset;
		buf->sgl[i].length = n;
		buf->nents += !!n;
		len -= n;
		offset = 0;
	}
}

/* The message in @buf->nseg parts, with gaps between them. */
static void loop_scatter(struct loop_buf *buf, size_t len)
{
	int i;

	buf->len = len;
	buf->nents = buf->nseg;
	for (i = 0; i < buf->nseg; i++) {
		buf->sgl[i].offset = 1 + 61 * i;
		buf->sgl[i].length = len / buf->nseg;
	}
	buf->sgl[i - 1].length += len % buf->nseg;
}

static struct loop_buf *loop_buf(struct kunit *test, struct loop_end *end,
				 size_t len, size_t offset, gfp_t gfp)
{
	u32 max = min(end->cap.max_send_sge, end->cap.max_recv_sge);
	struct loop_buf *buf;
	int nseg = 1;

	if (len >= PAGE_SIZE)
		nseg = clamp(min(max, end->dev->attrs.max_sge_rd), 1, 4);
	buf = loop_alloc(test, end, nseg,
			 get_order(DIV_ROUND_UP(offset + len, nseg)), gfp);
	loop_shape(buf, offset, len);
	return buf;
}

/* Work requests */

static void loop_done(struct ib_cq *cq, struct ib_wc *wc)
{
	struct loop_wr *wr = container_of(wc->wr_cqe, struct loop_wr, cqe);

	wr->wc = *wc;
	complete(&wr->done);
}

static struct loop_wr *loop_wr(struct kunit *test, const char *what)
{
	struct loop_wr *wr = kunit_kzalloc(test, sizeof(*wr), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, wr);
	wr->what = what;
	wr->cqe.done = loop_done;
	init_completion(&wr->done);
	return wr;
}

static enum ib_wc_status loop_wait(struct kunit *test, struct loop_wr *wr)
{
	KUNIT_ASSERT_NE_MSG(test, 0,
			    wait_for_completion_timeout(&wr->done,
							LOOP_TIMEOUT),
			    "no completion of a %s", wr->what);
	return wr->wc.status;
}

/* A WR that is refused is done, too. */
static struct loop_wr *loop_try_post(struct kunit *test, struct loop_end *end,
				     struct ib_send_wr *send)
{
	struct loop_wr *wr = loop_wr(test, "send WR");

	send->wr_cqe = &wr->cqe;
	send->send_flags |= IB_SEND_SIGNALED;
	wr->ret = ib_post_send(end->qp, send, NULL);
	if (wr->ret) {
		wr->wc.status = wr->ret == -EINVAL ? IB_WC_LOC_PROT_ERR :
						     IB_WC_GENERAL_ERR;
		complete(&wr->done);
	}
	return wr;
}

static struct loop_wr *loop_post(struct kunit *test, struct loop_end *end,
				 struct ib_send_wr *send)
{
	struct loop_wr *wr = loop_try_post(test, end, send);

	KUNIT_ASSERT_EQ(test, 0, wr->ret);
	return wr;
}

static struct ib_rdma_wr loop_rdma_wr(enum ib_wr_opcode op, struct ib_sge *sges,
				      int nsge, u64 remote_addr, u32 rkey)
{
	return (struct ib_rdma_wr) {
		.wr.opcode = op,
		.wr.sg_list = sges,
		.wr.num_sge = nsge,
		.remote_addr = remote_addr,
		.rkey = rkey,
	};
}

static struct loop_wr *loop_post_rdma(struct kunit *test, struct loop_end *end,
				      enum ib_wr_opcode op, struct ib_sge *sges,
				      int nsge, u64 remote_addr, u32 rkey)
{
	struct ib_rdma_wr rdma = loop_rdma_wr(op, sges, nsge, remote_addr,
					      rkey);

	return loop_post(test, end, &rdma.wr);
}

static struct loop_wr *loop_post_send(struct kunit *test, struct loop_end *end,
				      struct ib_sge *sges, int nsge)
{
	return loop_post_rdma(test, end, IB_WR_SEND, sges, nsge, 0, 0);
}

static struct loop_wr *loop_post_recv(struct kunit *test, struct loop_end *end,
				      struct ib_sge *sges, int nsge)
{
	struct loop_wr *wr = loop_wr(test, "receive WR");
	struct ib_recv_wr recv = {
		.wr_cqe = &wr->cqe,
		.sg_list = sges,
		.num_sge = nsge,
	};

	KUNIT_ASSERT_EQ(test, 0, ib_post_recv(end->qp, &recv, NULL));
	return wr;
}

/* Mappings */

static struct loop_wr *loop_post_reg(struct kunit *test, struct loop_buf *buf,
				     int access)
{
	struct ib_reg_wr reg = {
		.wr.opcode = IB_WR_REG_MR,
		.mr = buf->mr,
		.key = buf->mr->rkey,
		.access = access,
	};

	return loop_post(test, buf->end, &reg.wr);
}

static int loop_mr_pages(struct loop_buf *buf)
{
	return buf->nents << buf->order;
}

static bool loop_fits_mr(struct loop_buf *buf)
{
	return loop_mr_pages(buf) <=
	       buf->end->dev->attrs.max_fast_reg_page_list_len;
}

/* A new MR, or the one it has under a new key. */
static void loop_prepare_mr(struct kunit *test, struct loop_buf *buf)
{
	struct ib_mr *mr;

	if (buf->mr) {
		ib_update_fast_reg_key(buf->mr, ib_inc_rkey(buf->mr->rkey));
		return;
	}
	mr = ib_alloc_mr(buf->end->pd, IB_MR_TYPE_MEM_REG, loop_mr_pages(buf));
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, mr);
	buf->mr = mr;
	list_add(&buf->entry, &buf->end->registered);
}

/* One SGE, of the MR: for its own end, and for the peer by its rkey. */
static void loop_map_mr(struct kunit *test, struct loop_buf *buf,
			unsigned int skip, unsigned int page_size, int access,
			enum dma_data_direction dir)
{
	struct loop_wr *wr;
	struct ib_mr *mr;

	loop_prepare_mr(test, buf);
	mr = buf->mr;
	KUNIT_ASSERT_EQ(test, 0, rdma_map_mr_sgl(mr, buf->sgl, buf->nents, skip,
						 page_size, dir));
	buf->dev = mr->device;
	buf->how = LOOP_MR;
	buf->dir = dir;
	buf->nmaps = 1;
	KUNIT_EXPECT_EQ(test, mr->length, buf->len - skip);
	if (loop_is_phys(buf->end))
		KUNIT_EXPECT_EQ(test, lower_32_bits(mr->iova),
				(buf->sgl[0].offset + skip) %
				max_t(u32, page_size, PAGE_SIZE));
	if (buf->low)
		mr->iova = lower_32_bits(mr->iova);

	wr = loop_post_reg(test, buf, access);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
	rdma_mr_sge(&buf->sges[0], mr);
}

static void loop_register(struct kunit *test, struct loop_buf *buf, int access)
{
	enum dma_data_direction dir = DMA_TO_DEVICE;

	if (access & IB_ACCESS_LOCAL_WRITE)
		dir = access & (IB_ACCESS_REMOTE_READ | IB_ACCESS_REMOTE_ATOMIC) ?
		      DMA_BIDIRECTIONAL : DMA_FROM_DEVICE;
	loop_map_mr(test, buf, 0, PAGE_SIZE, access, dir);
}

static int loop_map_one(struct loop_buf *buf, int i, enum loop_how how,
			enum dma_data_direction dir)
{
	struct scatterlist *sg = &buf->sgl[i];
	struct ib_sge *map = &buf->maps[i];
	struct ib_pd *pd = buf->end->pd;

	switch (how) {
	case LOOP_SINGLE:
		return rdma_map_sge_single(pd, map, sg_virt(sg), sg->length,
					   dir);
	case LOOP_PAGE:
		return rdma_map_sge_page(pd, map, sg_page(sg), sg->offset,
					 sg->length, dir);
	case LOOP_SLICE:
		return rdma_map_sge_page(pd, map, sg_page(sg), 0,
					 PAGE_SIZE << buf->order, dir);
	default:
		return -EINVAL;
	}
}

static struct ib_sge loop_slice(struct kunit *test, const struct ib_sge *map,
				u32 offset, u32 len)
{
	struct ib_sge slice;

	KUNIT_ASSERT_EQ(test, rdma_sge_slice(&slice, map, offset, len), 0);
	return slice;
}

/* The iterator starts within the first bio_vec. */
static int loop_map_bvecs(struct loop_buf *buf, enum dma_data_direction dir)
{
	struct bvec_iter iter = {
		.bi_size = buf->len,
		.bi_offset = buf->sgl[0].offset,
	};
	struct scatterlist *sg;
	int i;

	for_each_sg(buf->sgl, sg, buf->nents, i)
		bvec_set_page(&buf->bvecs[i], sg_page(sg), sg->length,
			      sg->offset);
	buf->bvecs[0].bv_offset = 0;
	buf->bvecs[0].bv_len += iter.bi_offset;
	return rdma_fill_ib_sge_from_bvec(buf->end->pd, buf->maps,
					  ARRAY_SIZE(buf->maps), buf->bvecs,
					  iter, dir);
}

static int loop_map_list(struct loop_buf *buf, enum loop_how how,
			 enum dma_data_direction dir)
{
	int i, ret;

	if (how == LOOP_SGL)
		return rdma_fill_ib_sge_from_sgl(buf->end->pd, buf->maps,
						 ARRAY_SIZE(buf->maps),
						 buf->sgl, buf->nents, dir);
	if (how == LOOP_BVECS)
		return loop_map_bvecs(buf, dir);

	for (i = 0; i < buf->nents; i++) {
		ret = loop_map_one(buf, i, how, dir);
		if (ret) {
			rdma_unmap_sges(buf->end->pd->device, buf->maps, i,
					dir);
			return ret;
		}
	}
	return i;
}

/* The SGEs cover the message, and say where it is as the device wants it. */
static void loop_check_sges(struct kunit *test, struct loop_buf *buf)
{
	struct ib_sge *sge = buf->sges;
	struct scatterlist *sg;
	size_t len = 0;
	u64 addr, off = 0;
	int i;

	for (i = 0; i < buf->nmaps; i++) {
		KUNIT_EXPECT_EQ(test, sge[i].lkey,
				buf->end->pd->local_dma_lkey);
		len += sge[i].length;
	}
	KUNIT_EXPECT_EQ(test, len, buf->len);
	if (ib_has_dma_device(buf->dev))
		return;

	for_each_sg(buf->sgl, sg, buf->nents, i) {
		KUNIT_ASSERT_LT(test, sge - buf->sges, buf->nmaps);
		addr = sg_phys(sg);
		KUNIT_ASSERT_EQ(test, sge->addr + off, addr);
		off += sg->length;
		KUNIT_ASSERT_LE(test, off, sge->length);
		if (off == sge->length) {
			sge++;
			off = 0;
		}
	}
}

static void loop_map(struct kunit *test, struct loop_buf *buf,
		     enum loop_how how, enum dma_data_direction dir)
{
	struct scatterlist *sg;
	int i, n;

	if (how == LOOP_MR) {
		/* on iWARP the sink of an RDMA READ is written to by the peer */
		loop_register(test, buf,
			      dir == DMA_TO_DEVICE ? 0 : LOOP_WRITABLE);
		return;
	}

	n = loop_map_list(buf, how, dir);
	KUNIT_ASSERT_GT(test, n, 0);
	buf->dev = buf->end->pd->device;
	buf->how = how;
	buf->dir = dir;
	buf->nmaps = n;
	memcpy(buf->sges, buf->maps, n * sizeof(*buf->sges));
	if (how == LOOP_SLICE)
		for_each_sg(buf->sgl, sg, buf->nents, i)
			buf->sges[i] = loop_slice(test, &buf->maps[i],
						  sg->offset, sg->length);
	loop_check_sges(test, buf);
}

/* A small message to or from @end, not mapped yet. */
static struct loop_buf *loop_small_buf(struct kunit *test, struct loop_end *end)
{
	return loop_buf(test, end, LOOP_LEN, 33, GFP_KERNEL);
}

static struct loop_wr *loop_small_recv(struct kunit *test, struct loop_end *end)
{
	struct loop_buf *buf = loop_small_buf(test, end);

	loop_map(test, buf, LOOP_SINGLE, DMA_FROM_DEVICE);
	return loop_post_recv(test, end, buf->sges, buf->nmaps);
}

/* Transfers */

static void loop_send(struct kunit *test, struct loop_buf *near,
		      struct loop_buf *far, enum loop_how how)
{
	struct loop_wr *recv, *send;

	loop_map(test, near, how, DMA_TO_DEVICE);
	loop_map(test, far, how, DMA_FROM_DEVICE);
	recv = loop_post_recv(test, far->end, far->sges, far->nmaps);
	send = loop_post_send(test, near->end, near->sges, near->nmaps);
	KUNIT_ASSERT_EQ(test, loop_wait(test, send), IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
	KUNIT_EXPECT_EQ(test, recv->wc.byte_len, far->len);
}

/* Both are mapped, @far to an MR. */
static void loop_write_mapped(struct kunit *test, struct loop_buf *near,
			      struct loop_buf *far)
{
	struct loop_wr *write;

	write = loop_post_rdma(test, near->end, IB_WR_RDMA_WRITE, near->sges,
			       near->nmaps, far->sges[0].addr, far->mr->rkey);
	KUNIT_ASSERT_EQ(test, loop_wait(test, write), IB_WC_SUCCESS);

	/* on iWARP only what arrives later tells that the data has arrived */
	loop_ping(test, near->end);
}

static void loop_write(struct kunit *test, struct loop_buf *near,
		       struct loop_buf *far, enum loop_how how)
{
	loop_map(test, near, how, DMA_TO_DEVICE);
	loop_register(test, far, LOOP_WRITABLE);
	loop_write_mapped(test, near, far);
}

static void loop_read(struct kunit *test, struct loop_buf *near,
		      struct loop_buf *far, enum loop_how how)
{
	struct loop_wr *read;

	loop_map(test, near, how, DMA_FROM_DEVICE);
	loop_register(test, far, IB_ACCESS_REMOTE_READ);
	read = loop_post_rdma(test, near->end, IB_WR_RDMA_READ, near->sges,
			      near->nmaps, far->sges[0].addr, far->mr->rkey);
	KUNIT_ASSERT_EQ(test, loop_wait(test, read), IB_WC_SUCCESS);
}

static void loop_release(struct kunit *test, struct loop_buf *near,
			 struct loop_buf *far)
{
	loop_buf_put(test, near);
	loop_buf_put(test, far);
}

/* Consumes the buffers. */
static void loop_transfer(struct kunit *test, enum ib_wr_opcode op,
			  struct loop_buf *near, struct loop_buf *far,
			  enum loop_how how)
{
	u32 near_seed = loop_fill(test, near);
	u32 far_seed = loop_fill(test, far);

	if (op == IB_WR_RDMA_READ)
		loop_read(test, near, far, how);
	else if (op == IB_WR_RDMA_WRITE)
		loop_write(test, near, far, how);
	else
		loop_send(test, near, far, how);
	loop_unmap(near);
	loop_unmap(far);

	if (op == IB_WR_RDMA_READ)
		near_seed = far_seed;
	loop_check(test, near, near_seed);
	loop_check(test, far, near_seed);
	loop_release(test, near, far);
}

static void loop_ping(struct kunit *test, struct loop_end *end)
{
	loop_transfer(test, IB_WR_SEND, loop_small_buf(test, end),
		      loop_small_buf(test, end->peer), LOOP_SINGLE);
}

/* What can be mapped at once, whatever its offset and the order of its pages */
static size_t loop_max_len(struct loop_end *end)
{
	struct device *dma_dev = end->dev->dma_device;

	if (!dma_dev)
		return SIZE_MAX;
	return rounddown_pow_of_two(dma_max_mapping_size(dma_dev)) / 2;
}

/* From @offset at one end to another offset at the other. */
static void loop_move(struct kunit *test, struct loop_end *end,
		      enum ib_wr_opcode op, enum loop_how how, size_t len,
		      size_t offset, gfp_t gfp)
{
	struct loop_buf *near, *far;

	len = min(len, loop_max_len(end));
	near = loop_buf(test, end, len, offset, gfp);
	far = loop_buf(test, end->peer, len, 5 * offset % 4093, gfp);
	if (loop_fits_mr(near) && loop_fits_mr(far))
		loop_transfer(test, op, near, far, how);
	else
		loop_release(test, near, far);
}

static const struct loop_builder {
	const char *name;
	enum loop_how how;
} loop_builders[] = {
	{ "single",	LOOP_SINGLE },
	{ "page",	LOOP_PAGE },
	{ "slice",	LOOP_SLICE },
	{ "sgl",	LOOP_SGL },
	{ "bvecs",	LOOP_BVECS },
	{ "mr",		LOOP_MR },
};

KUNIT_ARRAY_PARAM_DESC(loop_builders, loop_builders, name);

/* The sink of an RDMA READ is one SGE of an MR there: RFC 5040. */
static void loop_skip_read_sink(struct kunit *test, enum loop_how how)
{
	struct loop *loop = test->priv;

	if (how != LOOP_MR && loop_iwarp(&loop->client))
		kunit_skip(test, "iWARP reads into MRs only");
}

static void loop_sizes(struct kunit *test, enum ib_wr_opcode op)
{
	static const size_t lens[] = { 1, 7, 512, 4095, 4096, 4097,
				       SZ_64K - 1, SZ_64K, SZ_1M };
	static const size_t offsets[] = { 0, 1, 13, 511, 2051 };
	const struct loop_builder *builder = test->param_value;
	struct loop *loop = test->priv;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(lens); i++)
		for (j = 0; j < ARRAY_SIZE(offsets); j++) {
			/* both ends, both kinds of CQs */
			struct loop_end *end = (i + j) % 2 ? &loop->server :
							     &loop->client;

			/* takes its time, and shows nothing new */
			if (lens[i] > SZ_8K && j % 4)
				continue;
			if (lens[i] > SZ_64K && j / 4 != builder->how % 2)
				continue;
			loop_move(test, end, op, builder->how, lens[i],
				  offsets[j], GFP_KERNEL);
		}
}

static void loop_test_send(struct kunit *test)
{
	loop_sizes(test, IB_WR_SEND);
}

static void loop_test_write(struct kunit *test)
{
	loop_sizes(test, IB_WR_RDMA_WRITE);
}

static void loop_test_read(struct kunit *test)
{
	const struct loop_builder *builder = test->param_value;

	loop_skip_read_sink(test, builder->how);
	loop_sizes(test, IB_WR_RDMA_READ);
}

static const struct loop_op {
	const char *name;
	enum ib_wr_opcode op;
} loop_ops[] = {
	{ "send",	IB_WR_SEND },
	{ "write",	IB_WR_RDMA_WRITE },
	{ "read",	IB_WR_RDMA_READ },
};

KUNIT_ARRAY_PARAM_DESC(loop_ops, loop_ops, name);

/* Of no bytes: on iWARP the peer is told of the sink all the same. */
static void loop_test_empty_read(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_small_buf(test, &loop->client);
	struct loop_buf *far = loop_small_buf(test, &loop->server);
	struct loop_wr *read;
	struct ib_sge sge;

	loop_map(test, near, LOOP_SINGLE, DMA_FROM_DEVICE);
	loop_register(test, far, IB_ACCESS_REMOTE_READ);
	sge = loop_slice(test, near->sges, 0, 0);
	read = loop_post_rdma(test, near->end, IB_WR_RDMA_READ, &sge, 1,
			      far->sges[0].addr, far->mr->rkey);
	KUNIT_EXPECT_EQ(test, loop_wait(test, read), IB_WC_SUCCESS);
	loop_ping(test, near->end);
}

/* The same, while the peer still answers others. */
static void loop_test_empty_reads(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *far = loop_buf(test, &loop->server, SZ_256K, 0,
					GFP_KERNEL);
	struct loop_buf *near = loop_buf(test, &loop->client, SZ_256K, 0,
					 GFP_KERNEL);
	u32 seed = loop_fill(test, far);
	struct loop_wr *reads[4];
	struct ib_sge sge;
	int i;

	loop_register(test, far, IB_ACCESS_REMOTE_READ);
	loop_register(test, near,
		      IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE);
	for (i = 0; i < ARRAY_SIZE(reads); i++) {
		sge = loop_slice(test, near->sges, 0, i % 2 ? 0 : SZ_256K);
		reads[i] = loop_post_rdma(test, near->end, IB_WR_RDMA_READ,
					  &sge, 1, far->sges[0].addr,
					  far->mr->rkey);
	}
	for (i = 0; i < ARRAY_SIZE(reads); i++)
		KUNIT_EXPECT_EQ(test, loop_wait(test, reads[i]), IB_WC_SUCCESS);
	loop_ping(test, near->end);
	loop_unmap(near);
	loop_check(test, near, seed);
}

/* From 1 to all SGEs here; if there are SGEs at the peer, from all to 1. */
static void loop_test_sges(struct kunit *test)
{
	const struct loop_op *param = test->param_value;
	struct loop *loop = test->priv;
	struct loop_end *client = &loop->client, *server = &loop->server;
	u32 max = min3(client->cap.max_send_sge, server->cap.max_recv_sge,
		       LOOP_MAX_SGE);
	const size_t len = 2003;
	struct loop_buf *near, *far;
	int n;

	if (param->op == IB_WR_RDMA_READ) {
		loop_skip_read_sink(test, LOOP_PAGE);
		max = min(max, client->dev->attrs.max_sge_rd);
	}
	KUNIT_ASSERT_GT(test, max, 1);
	for (n = 1; n <= max; n++) {
		near = loop_alloc(test, client, n, 0, GFP_KERNEL);
		loop_scatter(near, len);
		if (param->op == IB_WR_SEND) {
			far = loop_alloc(test, server, max + 1 - n, 0,
					 GFP_KERNEL);
			loop_scatter(far, len);
		} else {
			far = loop_buf(test, server, len, 9, GFP_KERNEL);
		}
		loop_transfer(test, param->op, near, far, LOOP_PAGE);
	}
}

/* Buffers that stay mapped; each message is somewhere else in them. */
static void loop_test_long_lived(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_alloc(test, &loop->client, 1, 2,
					   GFP_KERNEL);
	struct loop_buf *far = loop_alloc(test, &loop->server, 1, 2,
					  GFP_KERNEL);
	struct ib_device *dev = loop->client.dev;
	struct ib_device *peer = loop->server.dev;
	struct loop_wr *recv, *send;
	struct ib_sge from, to;
	u32 seed;
	int i;

	loop_shape(near, 0, PAGE_SIZE << 2);
	loop_shape(far, 0, PAGE_SIZE << 2);
	loop_map(test, near, LOOP_PAGE, DMA_TO_DEVICE);
	loop_map(test, far, LOOP_PAGE, DMA_FROM_DEVICE);

	for (i = 0; i < 20; i++) {
		rdma_sync_sge_for_cpu(dev, near->maps, DMA_TO_DEVICE);
		rdma_sync_sge_for_cpu(peer, far->maps, DMA_FROM_DEVICE);
		loop_shape(near, 300 * i, 1 + 500 * i);
		loop_shape(far, 6000 - 300 * i, 1 + 500 * i);
		loop_fill(test, far);
		seed = loop_fill(test, near);
		rdma_sync_sge_for_device(dev, near->maps, DMA_TO_DEVICE);
		rdma_sync_sge_for_device(peer, far->maps, DMA_FROM_DEVICE);

		from = loop_slice(test, near->maps, 300 * i, near->len);
		to = loop_slice(test, far->maps, 6000 - 300 * i, far->len);
		recv = loop_post_recv(test, far->end, &to, 1);
		send = loop_post_send(test, near->end, &from, 1);
		KUNIT_ASSERT_EQ(test, loop_wait(test, send), IB_WC_SUCCESS);
		KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
		rdma_sync_sge_for_cpu(peer, &to, DMA_FROM_DEVICE);
		loop_check(test, far, seed);
	}
}

/* Pages that have no kernel address, by all that takes such. */
static void loop_test_highmem(struct kunit *test)
{
	/* siw has three ways to send */
	static const size_t lens[] = { 7, 3000, SZ_64K };
	const struct loop_builder *builder = test->param_value;
	struct loop *loop = test->priv;
	int i, j;

	if (!totalhigh_pages())
		kunit_skip(test, "no highmem");
	if (builder->how == LOOP_SINGLE)
		kunit_skip(test, "linear memory only");

	for (i = 0; i < ARRAY_SIZE(loop_ops); i++) {
		/* see loop_skip_read_sink() */
		if (loop_ops[i].op == IB_WR_RDMA_READ &&
		    builder->how != LOOP_MR && loop_iwarp(&loop->client))
			continue;
		for (j = 0; j < ARRAY_SIZE(lens); j++)
			loop_move(test, &loop->client, loop_ops[i].op,
				  builder->how, lens[j], 511, GFP_HIGHUSER);
	}
}

/* Inline payload: any kernel memory, and free as soon as it is posted */

static void loop_post_inline(struct kunit *test, struct loop_buf *far,
			     enum ib_wr_opcode op, u8 *payload, u32 seed)
{
	struct loop *loop = test->priv;
	struct ib_sge sges[2];
	struct ib_rdma_wr rdma = {
		.wr.opcode = op,
		.wr.sg_list = sges,
		.wr.num_sge = 1,
		.wr.send_flags = IB_SEND_INLINE,
	};
	struct loop_wr *wr;
	size_t half = far->len / 2, i;

	for (i = 0; i < far->len; i++)
		payload[i] = loop_pattern(seed, i);
	rdma_fill_ib_sge_inline(&sges[0], payload, far->len);
	if (half) {
		rdma_fill_ib_sge_inline(&sges[0], payload, half);
		rdma_fill_ib_sge_inline(&sges[1], payload + half,
					far->len - half);
		rdma.wr.num_sge = 2;
	}
	if (far->mr) {
		rdma.remote_addr = far->sges[0].addr;
		rdma.rkey = far->mr->rkey;
	}
	wr = loop_post(test, &loop->client, &rdma.wr);
	memset(payload, LOOP_GUARD, far->len);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
}

static void loop_inline(struct kunit *test, u8 *payload, size_t len)
{
	struct loop *loop = test->priv;
	struct loop_end *server = &loop->server;
	struct loop_buf *far = loop_buf(test, server, len, 33, GFP_KERNEL);
	struct loop_wr *recv;
	u32 seed = ~loop_fill(test, far);

	loop_map(test, far, LOOP_PAGE, DMA_FROM_DEVICE);
	recv = loop_post_recv(test, server, far->sges, far->nmaps);
	loop_post_inline(test, far, IB_WR_SEND, payload, seed);
	KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
	loop_unmap(far);
	loop_check(test, far, seed);

	seed = ~loop_fill(test, far);
	loop_register(test, far, LOOP_WRITABLE);
	loop_post_inline(test, far, IB_WR_RDMA_WRITE, payload, seed);
	loop_ping(test, &loop->client);
	loop_unmap(far);
	loop_check(test, far, seed);
	loop_buf_put(test, far);
}

static void loop_vfree(void *payload)
{
	vfree(payload);
}

static void loop_test_inline(struct kunit *test)
{
	struct loop *loop = test->priv;
	size_t max = min_t(u32, loop->client.cap.max_inline_data, LOOP_INLINE);
	u8 stack[LOOP_INLINE], *kmem, *vmem;
	size_t len;

	if (!max)
		kunit_skip(test, "the device supports no inline data");
	kmem = kunit_kmalloc(test, LOOP_INLINE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, kmem);
	vmem = vmalloc(2 * PAGE_SIZE);
	KUNIT_ASSERT_NOT_NULL(test, vmem);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, loop_vfree, vmem));

	for (len = 1; len <= max; len += min(9, max - len) ?: 1) {
		loop_inline(test, kmem, len);
		loop_inline(test, stack, len);
		/* across two pages, which need not be neighbours */
		loop_inline(test, vmem + PAGE_SIZE - len / 2, len);
	}
}

/* Memory regions */

static void loop_mr_write(struct kunit *test, struct loop_buf *far,
			  unsigned int skip, unsigned int page_size)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_buf(test, &loop->client, far->len, 33,
					 GFP_KERNEL);
	size_t offset = far->sgl[0].offset, len = far->len;
	u32 seed = loop_fill(test, near);

	loop_fill(test, far);
	loop_map(test, near, LOOP_SGL, DMA_TO_DEVICE);

	loop_shape(far, offset - skip, skip + len);
	loop_map_mr(test, far, skip, page_size, LOOP_WRITABLE, DMA_FROM_DEVICE);
	loop_write_mapped(test, near, far);
	loop_dereg_mr(far);
	loop_unmap(far);
	loop_shape(far, offset, len);
	loop_check(test, far, seed);
	loop_release(test, near, far);
}

/* The MR starts within the list's first entry, even in its second page. */
static void loop_test_mr_offset(struct kunit *test)
{
	struct loop *loop = test->priv;
	size_t skip;

	for (skip = 1; skip < 2 * PAGE_SIZE; skip += 1300) {
		struct loop_buf *far = loop_alloc(test, &loop->server, 2, 2,
						  GFP_KERNEL);

		loop_shape(far, 7 + skip, 5 * PAGE_SIZE);
		loop_mr_write(test, far, skip, PAGE_SIZE);
	}
}

/* A few bytes of an MR, on either side of where a page ends. */
static void loop_test_mr_page_end(struct kunit *test)
{
	const struct loop_op *param = test->param_value;
	struct loop *loop = test->priv;
	struct loop_buf *near, *far;
	size_t len, n;

	for (len = 2; len <= 44; len += 7)
		for (n = 1; n < len; n += 4) {
			near = loop_alloc(test, &loop->client, 2, 0,
					  GFP_KERNEL);
			loop_shape(near, PAGE_SIZE - n, len);
			far = loop_alloc(test, &loop->server, 2, 0, GFP_KERNEL);
			loop_shape(far, PAGE_SIZE + n - len, len);
			loop_transfer(test, param->op, near, far, LOOP_MR);
		}
}

static void loop_test_mr_page_size(struct kunit *test)
{
	const unsigned int page_size = PAGE_SIZE << 2;
	struct loop *loop = test->priv;
	struct loop_end *server = &loop->server;
	struct device *dma_device = server->dev->dma_device;
	bool direct = dma_device && !use_dma_iommu(dma_device);
	unsigned int align_mask = 0;
	struct loop_buf *far;
	size_t offset;

	if (!(server->dev->attrs.page_size_cap & page_size))
		kunit_skip(test, "the device has no MR pages of 4 pages");
	/* bounce buffers are aligned to no more than was asked for */
	if (direct) {
		align_mask = dma_get_min_align_mask(dma_device);
		dma_set_min_align_mask(dma_device, page_size - 1);
	}
	for (offset = 0; offset < page_size; offset += PAGE_SIZE + 100) {
		far = loop_alloc(test, server, 2, 2, GFP_KERNEL);
		loop_shape(far, offset, page_size + 1000);
		loop_mr_write(test, far, 0, page_size);
	}
	if (direct)
		dma_set_min_align_mask(dma_device, align_mask);
}

static void loop_local_inv(struct kunit *test, struct loop_buf *buf)
{
	struct ib_send_wr inv = {
		.opcode = IB_WR_LOCAL_INV,
		.ex.invalidate_rkey = buf->mr->rkey,
	};
	struct loop_wr *wr;

	wr = loop_post(test, buf->end, &inv);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
}

/* The peer of @buf invalidates its MR. */
static void loop_remote_inv(struct kunit *test, struct loop_buf *buf)
{
	struct loop_wr *recv = loop_small_recv(test, buf->end);
	struct ib_send_wr inv = {
		.opcode = IB_WR_SEND_WITH_INV,
		.ex.invalidate_rkey = buf->mr->rkey,
	};
	struct loop_wr *wr;

	wr = loop_post(test, buf->end->peer, &inv);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
	KUNIT_EXPECT_TRUE(test, recv->wc.wc_flags & IB_WC_WITH_INVALIDATE);
	KUNIT_EXPECT_EQ(test, recv->wc.ex.invalidate_rkey, buf->mr->rkey);
}

/* One MR, mapped again and again, invalidated by either end. */
static void loop_test_mr_reuse(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *far = loop_buf(test, &loop->server, SZ_64K, 99,
					GFP_KERNEL);
	struct loop_buf *near;
	u32 seed;
	int i;

	for (i = 0; i < 6; i++) {
		near = loop_buf(test, &loop->client, SZ_64K, 7 * i, GFP_KERNEL);
		loop_fill(test, far);
		seed = loop_fill(test, near);
		loop_map(test, near, LOOP_BVECS, DMA_TO_DEVICE);
		loop_register(test, far, LOOP_WRITABLE);
		loop_write_mapped(test, near, far);
		if (i % 2)
			loop_local_inv(test, far);
		else
			loop_remote_inv(test, far);
		loop_unmap(far);
		loop_check(test, far, seed);
		loop_buf_put(test, near);
	}
}

/* SGEs of one MR that are not in its order: its second half comes first. */
static void loop_test_mr_order(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_alloc(test, &loop->client, 4, 0,
					   GFP_KERNEL);
	struct loop_buf *far = loop_alloc(test, &loop->server, 4, 0,
					  GFP_KERNEL);
	struct page *page;
	u32 seed;
	int i;

	/* no neighbours, which would be one in a list of pages */
	page = sg_page(&near->sgl[1]);
	sg_assign_page(&near->sgl[1], sg_page(&near->sgl[2]));
	sg_assign_page(&near->sgl[2], page);
	loop_shape(near, 0, 4 * PAGE_SIZE);
	loop_shape(far, 0, 4 * PAGE_SIZE);
	loop_fill(test, far);
	seed = loop_fill(test, near);
	loop_register(test, near, 0);
	loop_register(test, far, LOOP_WRITABLE);

	near->sges[0].length /= 2;
	near->sges[1] = near->sges[0];
	near->sges[0].addr += near->sges[0].length;
	near->nmaps = 2;
	loop_write_mapped(test, near, far);
	near->nmaps = 1;

	loop_unmap(near);
	loop_unmap(far);
	for (i = 0; i < 4; i++)
		loop_walk_page(test, &far->sgl[i], 0,
			       (i + 2) % 4 * PAGE_SIZE, seed, false);
	loop_buf_put(test, near);
	loop_buf_put(test, far);
}

/* Of a list with more entries than the MR has pages, as many as fit. */
static void loop_test_mr_prefix(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *buf = loop_alloc(test, &loop->client, 3, 0, GFP_KERNEL);
	struct ib_device *dev = loop->client.dev;
	struct rdma_sge_iter iter;
	struct ib_mr *mr;
	u64 len = 0;
	int n = 0;

	loop_shape(buf, 0, 3 * PAGE_SIZE);
	mr = ib_alloc_mr(loop->client.pd, IB_MR_TYPE_MEM_REG, 2);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, mr);
	buf->mr = mr;
	list_add(&buf->entry, &loop->client.registered);

	KUNIT_ASSERT_EQ(test, 0, rdma_map_sgl(dev, &iter, buf->sgl, buf->nents,
					      DMA_TO_DEVICE));
	/* an IOMMU can make one of them, which siw takes as such */
	for (; iter.nents; n++) {
		KUNIT_ASSERT_EQ(test, 0, rdma_fill_ib_mr(mr, &iter, PAGE_SIZE));
		KUNIT_ASSERT_GT(test, mr->length, 0);
		if (!n && !ib_has_dma_device(dev)) {
			KUNIT_EXPECT_EQ(test, mr->length, 2 * PAGE_SIZE);
			KUNIT_EXPECT_EQ(test, iter.nents, 1);
		}
		len += mr->length;
	}
	KUNIT_EXPECT_EQ(test, len, 3 * PAGE_SIZE);
	if (!ib_has_dma_device(dev))
		KUNIT_EXPECT_EQ(test, n, 2);
	rdma_unmap_sgl(dev, buf->sgl, buf->nents, DMA_TO_DEVICE);
}

/*
 * SGEs of one MR, and what is between them goes on to the end of a page. The
 * empty one before them stands for no memory.
 */
static void loop_test_mr_parts(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_alloc(test, &loop->client, 1, 1,
					   GFP_KERNEL);
	struct loop_buf *far = loop_alloc(test, &loop->server, 1, 1,
					  GFP_KERNEL);
	struct loop_wr *recv, *send;
	struct ib_sge from[3], to[2];
	int i;

	loop_shape(near, 0, 2 * PAGE_SIZE);
	loop_shape(far, 0, 2 * PAGE_SIZE);
	loop_fill(test, near);
	loop_fill(test, far);
	loop_register(test, near, 0);
	loop_map(test, far, LOOP_PAGE, DMA_FROM_DEVICE);
	from[0] = loop_slice(test, near->sges, 0, 0);
	for (i = 0; i < 2; i++) {
		from[i + 1] = loop_slice(test, near->sges, i * PAGE_SIZE, 100);
		to[i] = loop_slice(test, far->sges, i * PAGE_SIZE, 100);
	}
	recv = loop_post_recv(test, far->end, to, 2);
	send = loop_post_send(test, near->end, from, 3);
	KUNIT_ASSERT_EQ(test, loop_wait(test, send), IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
	loop_unmap(near);
	loop_unmap(far);
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_MEMEQ(test, sg_virt(far->sgl) + i * PAGE_SIZE,
				   sg_virt(near->sgl) + i * PAGE_SIZE, 100);
}

/*
 * Each SGE has a byte of its first page and one of its last. No page of the MR has
 * its neighbour behind it. All of it is one FPDU on lo, when TCP has a window for it.
 */
static void loop_test_mr_pages(struct kunit *test)
{
	static const int inner[] = { 3, 3, 3, 3, 3, 0 };
	struct loop *loop = test->priv;
	int n = min_t(u32, loop->client.cap.max_send_sge, ARRAY_SIZE(inner));
	struct ib_sge from[ARRAY_SIZE(inner)];
	struct loop_buf *near, *far;
	struct loop_wr *recv, *send;
	int i, pages = 0;
	size_t len = 0, j;
	u32 seed;
	u8 *got;

	for (i = 0; i < 8; i++)
		loop_move(test, &loop->client, IB_WR_SEND, LOOP_SGL, SZ_1M, 0,
			  GFP_KERNEL);
	for (i = 0; i < n; i++) {
		len += 2 + inner[i] * PAGE_SIZE;
		pages += 2 + inner[i];
	}
	near = loop_alloc(test, &loop->client, pages, 1, GFP_KERNEL);
	near->nents = pages;
	near->len = pages * PAGE_SIZE;
	for (i = 0; i < pages; i++)
		near->sgl[i].length = PAGE_SIZE;
	far = loop_alloc(test, &loop->server, 1, get_order(len), GFP_KERNEL);
	loop_shape(far, 0, len);
	seed = loop_fill(test, near);
	loop_fill(test, far);
	loop_register(test, near, 0);
	loop_map(test, far, LOOP_PAGE, DMA_FROM_DEVICE);
	for (i = 0, pages = 0; i < n; pages += 2 + inner[i++])
		from[i] = loop_slice(test, near->sges,
				     (pages + 1) * PAGE_SIZE - 1,
				     2 + inner[i] * PAGE_SIZE);
	recv = loop_post_recv(test, far->end, far->sges, far->nmaps);
	send = loop_post_send(test, near->end, from, n);
	KUNIT_ASSERT_EQ(test, loop_wait(test, send), IB_WC_SUCCESS);
	KUNIT_ASSERT_EQ(test, loop_wait(test, recv), IB_WC_SUCCESS);
	loop_unmap(near);
	loop_unmap(far);

	got = sg_virt(far->sgl);
	for (i = 0; i < n; i++)
		for (j = 0; j < from[i].length; j++)
			KUNIT_ASSERT_EQ(test, *got++,
					loop_pattern(seed, from[i].addr + j -
						     near->sges[0].addr));
}

/*
 * A list whose second entry has an address by hand, or no length: the mistakes of a
 * ULP that builds for hardware. The warning is part of what it gets.
 */
static void loop_test_mr_forged(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *buf = loop_alloc(test, &loop->client, 2, 0,
					  GFP_KERNEL);
	struct page *page = sg_page(&buf->sgl[1]);
	int i;

	if (!loop_is_phys(&loop->client))
		kunit_skip(test, "the device takes DMA addresses");
	loop_shape(buf, 0, 2 * PAGE_SIZE);
	loop_prepare_mr(test, buf);
	for (i = 0; i < 4; i++) {
		struct scatterlist sgl[2] = { buf->sgl[0], buf->sgl[1] };
		/* behind one that is good, or alone */
		int first = i / 2;

		if (i % 2)
			sg_assign_page(&sgl[1], NULL);
		else
			sgl[1].length = 0;
		sg_dma_address(&sgl[1]) = page_to_phys(page);
		kunit_warning_suppress(test)
			KUNIT_EXPECT_EQ(test, -EINVAL,
					ib_map_mr_sg(buf->mr, sgl + first,
						     2 - first, NULL,
						     PAGE_SIZE));
	}
}

static void loop_test_mr_pi(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct ib_device *dev = loop->client.dev;
	struct loop_buf *data, *pi;

	if (!(dev->attrs.kernel_cap_flags & IBK_INTEGRITY_HANDOVER))
		kunit_skip(test, "the device knows no protection information");
	data = loop_buf(test, &loop->client, 8 * 512, 0, GFP_KERNEL);
	pi = loop_buf(test, &loop->client, 8 * 8, 0, GFP_KERNEL);
	data->mr = ib_alloc_mr_integrity(loop->client.pd, 1, 1);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, data->mr);
	list_add(&data->entry, &loop->client.registered);
	KUNIT_ASSERT_EQ(test, 0,
			rdma_map_mr_sgl_pi(data->mr, data->sgl, data->nents,
					   pi->sgl, pi->nents, PAGE_SIZE,
					   DMA_TO_DEVICE));
	KUNIT_EXPECT_EQ(test, data->mr->length, data->len + pi->len);
	rdma_unmap_sgl(dev, pi->sgl, pi->nents, DMA_TO_DEVICE);
	rdma_unmap_sgl(dev, data->sgl, data->nents, DMA_TO_DEVICE);
}

/* Returns what is there after it. */
static u64 loop_atomic(struct kunit *test, enum ib_wr_opcode op,
		       u64 compare_add, u64 swap, u64 was)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_buf(test, &loop->client, sizeof(was), 40,
					 GFP_KERNEL);
	struct loop_buf *far = loop_buf(test, &loop->server, sizeof(was), 1000,
					GFP_KERNEL);
	u64 *old = sg_virt(near->sgl), *word = sg_virt(far->sgl);
	struct ib_atomic_wr atomic = {
		.wr.opcode = op,
		.wr.sg_list = near->sges,
		.wr.num_sge = 1,
		.compare_add = compare_add,
		.swap = swap,
	};
	struct loop_wr *wr;

	loop_fill(test, near);
	loop_fill(test, far);
	*word = was;
	loop_map(test, near, LOOP_SINGLE, DMA_FROM_DEVICE);
	loop_register(test, far,
		      IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_ATOMIC);
	atomic.remote_addr = far->sges[0].addr;
	atomic.rkey = far->mr->rkey;
	wr = loop_post(test, near->end, &atomic.wr);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
	loop_unmap(near);
	loop_unmap(far);
	KUNIT_EXPECT_EQ(test, *old, was);
	return *word;
}

static void loop_test_atomic(struct kunit *test)
{
	const u64 a = 0x123456789abcdef0, b = ~a / 3;
	struct loop *loop = test->priv;

	if (loop->server.dev->attrs.atomic_cap == IB_ATOMIC_NONE)
		kunit_skip(test, "the device has no atomics");
	KUNIT_EXPECT_EQ(test, a + b,
			loop_atomic(test, IB_WR_ATOMIC_FETCH_AND_ADD, a, 0, b));
	KUNIT_EXPECT_EQ(test, b,
			loop_atomic(test, IB_WR_ATOMIC_CMP_AND_SWP, a, b, a));
	KUNIT_EXPECT_EQ(test, a + 1,
			loop_atomic(test, IB_WR_ATOMIC_CMP_AND_SWP, a, b,
				    a + 1));
}

/* Hostile: SGEs of our own that no device may follow */

enum loop_side {
	LOOP_SEND_SIDE,
	LOOP_RECV_SIDE,
	LOOP_WRITE_SIDE,
	LOOP_READ_SIDE,
	LOOP_SIDES,
};

static struct loop_end *loop_side_end(struct loop *loop, enum loop_side side)
{
	return side == LOOP_RECV_SIDE ? &loop->server : &loop->client;
}

/*
 * Posts @sges, LOOP_LEN bytes that are bad, and all that they need to be good. A
 * device may look at the SGEs of a send when it is posted, and refuse it then.
 */
static struct loop_wr *loop_post_bad(struct kunit *test, enum loop_side side,
				     struct ib_sge *sges, int nsge,
				     struct loop_buf *peer)
{
	struct loop *loop = test->priv;
	struct ib_rdma_wr rdma;
	struct loop_wr *bad;

	switch (side) {
	case LOOP_SEND_SIDE:
		loop_small_recv(test, &loop->server);
		rdma = loop_rdma_wr(IB_WR_SEND, sges, nsge, 0, 0);
		break;
	case LOOP_RECV_SIDE:
		loop_map(test, peer, LOOP_SINGLE, DMA_TO_DEVICE);
		bad = loop_post_recv(test, &loop->server, sges, nsge);
		loop_post_send(test, &loop->client, peer->sges, 1);
		return bad;
	case LOOP_WRITE_SIDE:
		loop_register(test, peer, LOOP_WRITABLE);
		rdma = loop_rdma_wr(IB_WR_RDMA_WRITE, sges, nsge,
				    peer->sges[0].addr, peer->mr->rkey);
		break;
	default:
		loop_register(test, peer, IB_ACCESS_REMOTE_READ);
		rdma = loop_rdma_wr(IB_WR_RDMA_READ, sges, nsge,
				    peer->sges[0].addr, peer->mr->rkey);
		break;
	}
	return loop_try_post(test, &loop->client, &rdma.wr);
}

/* Returns the WR when it is done. No memory has changed, and the device lives. */
static struct loop_wr *loop_bad_wr(struct kunit *test, enum loop_side side,
				   struct ib_sge *sges, int nsge)
{
	struct loop *loop = test->priv;
	struct loop_buf *peer;
	struct loop_wr *bad;
	u32 seed;

	peer = loop_small_buf(test, loop_side_end(loop, side)->peer);
	seed = loop_fill(test, peer);
	bad = loop_post_bad(test, side, sges, nsge, peer);
	loop_wait(test, bad);
	loop_reconnect(test);
	loop_unmap(peer);
	loop_check(test, peer, seed);
	loop_buf_put(test, peer);
	return bad;
}

/* Returns how it failed. */
static enum ib_wc_status loop_bad_local(struct kunit *test, enum loop_side side,
					struct ib_sge *sges, int nsge)
{
	return loop_bad_wr(test, side, sges, nsge)->wc.status;
}

/*
 * A peer must not get at what is not RAM. Of an SGE of our own a device is only
 * asked to see if there is no page.
 */
static bool loop_is_ram(u64 addr, bool peer)
{
	unsigned long pfn = PHYS_PFN(addr);

	if (addr >> PAGE_SHIFT != pfn || !pfn_valid(pfn))
		return false;
	/* elsewhere RAM may be unknown to the resource tree */
	return !peer || !IS_ENABLED(CONFIG_X86) || page_is_ram(pfn);
}

enum loop_addr_kind {
	LOOP_ADDR,
	LOOP_ADDR_VIRT,
	LOOP_ADDR_BORDER,
};

static const struct loop_addr {
	const char *name;
	enum loop_addr_kind kind;
	u64 addr;
} loop_addrs[] = {
	{ "hole below 1 MiB",	LOOP_ADDR, 0xa0000 },
	{ "32 GiB",		LOOP_ADDR, 8ULL * SZ_4G },
	{ "2^52",		LOOP_ADDR, BIT_ULL(52) },
	{ "last page",		LOOP_ADDR, U64_MAX - SZ_4K + 1 },
	{ "wraps around",	LOOP_ADDR, U64_MAX - LOOP_LEN / 2 },
	{ "virtual address",	LOOP_ADDR_VIRT },
	{ "border of RAM",	LOOP_ADDR_BORDER },
};

KUNIT_ARRAY_PARAM_DESC(loop_addrs, loop_addrs, name);

/* From here on LOOP_LEN bytes are not RAM, or not all of them. */
static u64 loop_addr(struct kunit *test, struct loop_buf *buf, bool peer)
{
	const struct loop_addr *param = test->param_value;
	u64 addr = param->addr;

	if (param->kind == LOOP_ADDR_VIRT)
		addr = (uintptr_t)sg_virt(buf->sgl);

	if (param->kind == LOOP_ADDR_BORDER) {
		addr = page_to_phys(sg_page(buf->sgl));
		while (loop_is_ram(addr, peer))
			addr += PAGE_SIZE;
		addr -= LOOP_LEN / 4;
	} else if (loop_is_ram(addr, peer)) {
		kunit_skip(test, "there is RAM at %#llx", addr);
	}
	return addr;
}

static void loop_skip_unless_phys(struct kunit *test)
{
	struct loop *loop = test->priv;

	if (!loop_is_phys(&loop->client) || !loop_is_phys(&loop->server))
		kunit_skip(test, "no device that takes physical addresses");
}

/*
 * A broken device would write to what may be anybody's memory before the border
 * of RAM, so this is only read. And on iWARP only MRs are read into.
 */
static bool loop_may_sink(struct kunit *test, bool read)
{
	const struct loop_addr *param = test->param_value;
	struct loop *loop = test->priv;

	return param->kind != LOOP_ADDR_BORDER &&
	       !(read && loop_iwarp(&loop->client));
}

/* Alone, and behind an SGE that is good. */
static void loop_not_ram(struct kunit *test, enum loop_side side)
{
	struct loop *loop = test->priv;
	struct loop_end *end = loop_side_end(loop, side);
	struct loop_buf *good = loop_small_buf(test, end);
	struct ib_sge sges[2];

	sges[1].addr = loop_addr(test, good, false);
	sges[1].length = LOOP_LEN;
	sges[1].lkey = end->pd->local_dma_lkey;
	KUNIT_EXPECT_EQ(test, loop_bad_local(test, side, sges + 1, 1),
			IB_WC_LOC_PROT_ERR);

	loop_map(test, good, LOOP_SINGLE, DMA_BIDIRECTIONAL);
	sges[0] = loop_slice(test, good->sges, 0, 16);
	sges[1].length = LOOP_LEN - 16;
	sges[1].lkey = end->pd->local_dma_lkey;
	KUNIT_EXPECT_EQ(test, loop_bad_local(test, side, sges, 2),
			IB_WC_LOC_PROT_ERR);
}

static void loop_test_not_ram(struct kunit *test)
{
	enum loop_side side;

	loop_skip_unless_phys(test);
	if (!IS_ENABLED(CONFIG_DEBUG_VIRTUAL))
		kunit_skip(test, "the device trusts its own side");
	for (side = 0; side < LOOP_SIDES; side++)
		if (side == LOOP_SEND_SIDE || side == LOOP_WRITE_SIDE ||
		    loop_may_sink(test, side == LOOP_READ_SIDE))
			loop_not_ram(test, side);
}

/* iWARP tells the peer where an RDMA READ goes, and that must be no address. */
static void loop_test_read_sink(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *buf;
	u32 seed;

	loop_skip_unless_phys(test);
	if (!loop_iwarp(&loop->client))
		kunit_skip(test, "not iWARP");
	buf = loop_small_buf(test, &loop->client);
	seed = loop_fill(test, buf);
	loop_map(test, buf, LOOP_SINGLE, DMA_FROM_DEVICE);
	KUNIT_EXPECT_EQ(test, IB_WC_LOC_PROT_ERR,
			loop_bad_local(test, LOOP_READ_SIDE, buf->sges, 1));
	loop_unmap(buf);
	loop_check(test, buf, seed);
}

/*
 * Kernel code cannot post to the QP of a user. But what makes the PD a user's is
 * that it has a uobject, so it gets one until loop_destroy_pd().
 */
static void loop_test_user_pd(struct kunit *test)
{
	static struct ib_uobject user;
	struct loop *loop = test->priv;
	struct loop_end *end;
	struct loop_buf *buf;
	enum loop_side side;
	u32 seed;

	if (ib_has_dma_device(loop->client.dev) ||
	    ib_has_dma_device(loop->server.dev))
		kunit_skip(test, "the device checks keys by itself");
	for (side = 0; side < LOOP_SIDES; side++) {
		if (side == LOOP_READ_SIDE && loop_iwarp(&loop->client))
			continue;
		end = loop_side_end(loop, side);
		buf = loop_small_buf(test, end);
		seed = loop_fill(test, buf);
		loop_map(test, buf, LOOP_SINGLE, DMA_BIDIRECTIONAL);
		buf->sges[0].lkey = 0;
		end->pd->uobject = &user;
		KUNIT_EXPECT_EQ(test, IB_WC_LOC_PROT_ERR,
				loop_bad_local(test, side, buf->sges, 1));
		loop_unmap(buf);
		loop_check(test, buf, seed);
		loop_buf_put(test, buf);
	}
}

/* An SGE of an MR whose key or address is off by that, on each of the sides */
static void loop_bad_mr_sge(struct kunit *test, u32 key, int by)
{
	struct loop *loop = test->priv;
	enum loop_side side;
	struct loop_buf *buf;
	u32 seed;

	for (side = 0; side < LOOP_SIDES; side++) {
		buf = loop_small_buf(test, loop_side_end(loop, side));
		seed = loop_fill(test, buf);
		loop_register(test, buf, LOOP_WRITABLE);
		buf->sges[0].lkey ^= key;
		buf->sges[0].addr += by;
		KUNIT_EXPECT_EQ(test, IB_WC_LOC_PROT_ERR,
				loop_bad_local(test, side, buf->sges, 1));
		loop_unmap(buf);
		loop_check(test, buf, seed);
		loop_buf_put(test, buf);
	}
}

/* The key that an MR had, or will have, in another use. */
static void loop_test_bad_lkey(struct kunit *test)
{
	loop_bad_mr_sge(test, 0xff, 0);
}

static const struct loop_range {
	const char *name;
	int by;
} loop_ranges[] = {
	{ "past the end",	1 },
	{ "before the start",	-1 },
	{ "wraps into it",	-40 },
	{ "at the end",		LOOP_LEN },
};

KUNIT_ARRAY_PARAM_DESC(loop_ranges, loop_ranges, name);

/* An SGE of an MR that is not all of it in the MR. */
static void loop_test_bad_range(struct kunit *test)
{
	const struct loop_range *param = test->param_value;

	loop_bad_mr_sge(test, 0, param->by);
}

/* What waits behind a READ whose answer may not be put here is flushed. */
static void loop_test_bad_read(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_buf *far = loop_small_buf(test, &loop->server);
	struct loop_buf *near = loop_small_buf(test, &loop->client);
	u32 seed = loop_fill(test, near);
	struct ib_rdma_wr wrs[4] = {};
	struct ib_sge sges[ARRAY_SIZE(wrs)];
	struct loop_wr *reads[ARRAY_SIZE(wrs)];
	int i, ret;

	loop_register(test, far, IB_ACCESS_REMOTE_READ);
	loop_register(test, near,
		      IB_ACCESS_LOCAL_WRITE | IB_ACCESS_REMOTE_WRITE);
	for (i = 0; i < ARRAY_SIZE(wrs); i++) {
		reads[i] = loop_wr(test, "READ");
		sges[i] = loop_slice(test, near->sges, 0, 16);
		wrs[i] = loop_rdma_wr(IB_WR_RDMA_READ, &sges[i], 1,
				      far->sges[0].addr, far->mr->rkey);
		wrs[i].wr.wr_cqe = &reads[i]->cqe;
		wrs[i].wr.send_flags = IB_SEND_SIGNALED;
		if (i)
			wrs[i - 1].wr.next = &wrs[i].wr;
	}
	sges[0].lkey ^= 0xff;
	ret = ib_post_send(near->end->qp, &wrs[0].wr, NULL);
	if (ret == -EINVAL)
		kunit_skip(test, "the device looks at SGEs when they are posted");
	KUNIT_ASSERT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, loop_wait(test, reads[0]), IB_WC_LOC_PROT_ERR);
	for (i = 1; i < ARRAY_SIZE(wrs); i++)
		KUNIT_EXPECT_EQ(test, loop_wait(test, reads[i]),
				IB_WC_WR_FLUSH_ERR);
	loop_reconnect(test);
	loop_unmap(near);
	loop_check(test, near, seed);
}

/* A completion handler that posts again, to the QP that is being flushed. */
struct loop_repost {
	struct ib_cqe cqe;
	struct ib_qp *qp;
	bool send;
	int left;
	struct completion done;
};

static int loop_repost(struct loop_repost *again)
{
	struct ib_send_wr send = {
		.wr_cqe = &again->cqe,
		.opcode = IB_WR_SEND,
		.send_flags = IB_SEND_SIGNALED,
	};
	struct ib_recv_wr recv = { .wr_cqe = &again->cqe };

	return again->send ? ib_post_send(again->qp, &send, NULL) :
			     ib_post_recv(again->qp, &recv, NULL);
}

/* A device may also refuse to post to a QP that is no more. */
static void loop_repost_done(struct ib_cq *cq, struct ib_wc *wc)
{
	struct loop_repost *again = container_of(wc->wr_cqe, struct loop_repost,
						 cqe);

	if (!again->left-- || loop_repost(again))
		complete(&again->done);
}

static void loop_test_flush(struct kunit *test)
{
	struct ib_qp_attr attr = { .qp_state = IB_QPS_ERR };
	struct loop_repost again = {
		.cqe.done = loop_repost_done,
		.left = 3,
	};
	struct loop *loop = test->priv;

	/* whose CQ calls its handler on the spot */
	again.qp = loop->server.qp;
	init_completion(&again.done);
	KUNIT_ASSERT_EQ(test, 0, loop_repost(&again));
	KUNIT_ASSERT_EQ(test, 0, ib_modify_qp(again.qp, &attr, IB_QP_STATE));
	KUNIT_EXPECT_NE(test, 0, wait_for_completion_timeout(&again.done,
							     LOOP_TIMEOUT));

	reinit_completion(&again.done);
	again.send = true;
	again.left = 3;
	if (!loop_repost(&again))
		KUNIT_EXPECT_NE(test, 0,
				wait_for_completion_timeout(&again.done,
							    LOOP_TIMEOUT));
	/* what of it is left names this stack */
	loop_reconnect(test);
}

static void loop_test_too_many_sges(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct ib_qp_cap *cap = &loop->client.cap;
	int n = max(cap->max_send_sge, cap->max_recv_sge) + 1, i;
	struct loop_buf *buf = loop_small_buf(test, &loop->client);
	struct loop_wr *wr = loop_wr(test, "bad WR");
	struct ib_send_wr send = { .wr_cqe = &wr->cqe, .opcode = IB_WR_SEND };
	struct ib_recv_wr recv = { .wr_cqe = &wr->cqe };
	const struct ib_send_wr *bad_send = NULL;
	const struct ib_recv_wr *bad_recv = NULL;
	struct ib_sge *sges = kunit_kcalloc(test, n, sizeof(*sges), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, sges);
	loop_map(test, buf, LOOP_SINGLE, DMA_BIDIRECTIONAL);
	for (i = 0; i < n; i++)
		sges[i] = loop_slice(test, buf->sges, 0, 1);
	send.sg_list = sges;
	send.num_sge = cap->max_send_sge + 1;
	recv.sg_list = sges;
	recv.num_sge = cap->max_recv_sge + 1;

	KUNIT_EXPECT_NE(test, 0, ib_post_send(loop->client.qp, &send,
					      &bad_send));
	KUNIT_EXPECT_PTR_EQ(test, bad_send, &send);
	KUNIT_EXPECT_NE(test, 0, ib_post_recv(loop->client.qp, &recv,
					      &bad_recv));
	KUNIT_EXPECT_PTR_EQ(test, bad_recv, &recv);

	/* neither is in the way of what comes next */
	loop_ping(test, &loop->client);
	loop_ping(test, &loop->server);
	KUNIT_EXPECT_FALSE(test, completion_done(&wr->done));
}

/* Hostile: what a peer may ask for */

/*
 * The peer refuses: no memory changes and the connection breaks. On IB it tells
 * why; on iWARP an RDMA WRITE is complete when it has been sent.
 */
static void loop_refused(struct kunit *test, enum ib_wr_opcode op,
			 u64 remote_addr, u32 rkey)
{
	struct loop *loop = test->priv;
	struct loop_buf *near = loop_small_buf(test, &loop->client);
	bool iwarp = loop_iwarp(&loop->client);
	bool read = op == IB_WR_RDMA_READ;
	u32 near_seed = loop_fill(test, near);
	struct loop_wr *wr, *recv;

	loop_map(test, near, iwarp && read ? LOOP_MR : LOOP_SINGLE,
		 read ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
	recv = loop_small_recv(test, &loop->server);
	wr = loop_post_rdma(test, &loop->client, op, near->sges, 1, remote_addr,
			    rkey);
	if (!iwarp)
		KUNIT_EXPECT_EQ(test, loop_wait(test, wr), IB_WC_REM_ACCESS_ERR);
	else
		KUNIT_EXPECT_NE(test, loop_wait(test, read ? wr : recv),
				IB_WC_SUCCESS);

	loop_reconnect(test);
	loop_unmap(near);
	loop_check(test, near, near_seed);
	loop_buf_put(test, near);
}

enum loop_target_kind {
	LOOP_RKEY_ZERO,
	LOOP_RKEY_RESERVED,
	LOOP_RKEY_OTHER,
	LOOP_RKEY_INVALID,
	LOOP_WRONG_ACCESS,
	LOOP_PAST_END,
	LOOP_AT_END,
	LOOP_BEFORE,
	LOOP_WRAP,
	LOOP_WRAP_INTO,
	LOOP_IOVA_OTHER,
	LOOP_IOVA_STALE,
};

static const struct loop_target {
	const char *name;
	enum loop_target_kind kind;
} loop_targets[] = {
	{ "rkey 0",		LOOP_RKEY_ZERO },
	{ "local_dma_lkey",	LOOP_RKEY_RESERVED },
	{ "key of another use",	LOOP_RKEY_OTHER },
	{ "invalidated",	LOOP_RKEY_INVALID },
	{ "other access",	LOOP_WRONG_ACCESS },
	{ "past the end",	LOOP_PAST_END },
	{ "at the end",		LOOP_AT_END },
	{ "before the start",	LOOP_BEFORE },
	{ "wraps around",	LOOP_WRAP },
	{ "wraps into it",	LOOP_WRAP_INTO },
	{ "address in another",	LOOP_IOVA_OTHER },
	{ "address before",	LOOP_IOVA_STALE },
};

KUNIT_ARRAY_PARAM_DESC(loop_targets, loop_targets, name);

static void loop_aim(struct kunit *test, struct loop_buf *far,
		     enum ib_wr_opcode op, u64 *addr, u32 *rkey)
{
	const struct loop_target *target = test->param_value;
	bool read = op == IB_WR_RDMA_READ;
	struct loop_buf *other;

	/* where the memory really is: no MR would be needed to find it */
	if (target->kind <= LOOP_RKEY_RESERVED) {
		loop_map(test, far, LOOP_SINGLE, DMA_BIDIRECTIONAL);
		*addr = far->sges[0].addr;
		*rkey = target->kind == LOOP_RKEY_ZERO ?
				0 : far->end->pd->local_dma_lkey;
		return;
	}

	if (target->kind >= LOOP_IOVA_OTHER && !loop_is_phys(far->end))
		kunit_skip(test, "the device does not choose iovas");
	if (target->kind == LOOP_WRONG_ACCESS)
		read = !read;
	far->low = target->kind == LOOP_WRAP_INTO && loop_is_phys(far->end);
	loop_register(test, far, read ? IB_ACCESS_REMOTE_READ : LOOP_WRITABLE);
	*addr = far->sges[0].addr;
	*rkey = far->mr->rkey;
	switch (target->kind) {
	case LOOP_RKEY_OTHER:
		*rkey ^= 0xff;
		break;
	case LOOP_RKEY_INVALID:
		loop_local_inv(test, far);
		break;
	case LOOP_PAST_END:
		*addr += 1;
		break;
	case LOOP_AT_END:
		*addr += LOOP_LEN;
		break;
	case LOOP_BEFORE:
		*addr -= 1;
		break;
	case LOOP_WRAP:
		*addr = U64_MAX - LOOP_LEN / 2;
		break;
	case LOOP_WRAP_INTO:
		/* more than the offset is */
		*addr -= 40;
		break;
	case LOOP_IOVA_OTHER:
		/* at the same offset, registered for the same */
		other = loop_small_buf(test, far->end);
		loop_register(test, other,
			      read ? IB_ACCESS_REMOTE_READ : LOOP_WRITABLE);
		*addr = other->sges[0].addr;
		break;
	case LOOP_IOVA_STALE:
		/* the same MR and memory again */
		loop_local_inv(test, far);
		loop_unmap(far);
		loop_register(test, far,
			      read ? IB_ACCESS_REMOTE_READ : LOOP_WRITABLE);
		*rkey = far->mr->rkey;
		break;
	default:
		break;
	}
}

static void loop_bad_remote(struct kunit *test, enum ib_wr_opcode op)
{
	struct loop *loop = test->priv;
	struct loop_buf *far = loop_small_buf(test, &loop->server);
	u32 rkey, seed = loop_fill(test, far);
	u64 addr;

	loop_aim(test, far, op, &addr, &rkey);
	loop_refused(test, op, addr, rkey);
	loop_unmap(far);
	loop_check(test, far, seed);
	loop_buf_put(test, far);
}

static void loop_test_bad_remote(struct kunit *test)
{
	loop_bad_remote(test, IB_WR_RDMA_WRITE);
	loop_bad_remote(test, IB_WR_RDMA_READ);
}

/* By the unsafe global rkey the peer names memory as the device does. */
static void loop_unsafe_ram(struct kunit *test, enum ib_wr_opcode op)
{
	struct loop *loop = test->priv;
	struct loop_end *server = &loop->server;
	const size_t len = 2 * PAGE_SIZE + 77;
	struct loop_buf *near = loop_buf(test, &loop->client, len, 1,
					 GFP_KERNEL);
	struct loop_buf *far = loop_alloc(test, server, 1, 2, GFP_KERNEL);
	bool read = op == IB_WR_RDMA_READ;
	u32 seed, far_seed;
	struct loop_wr *wr;

	loop_shape(far, 2222, len);
	seed = loop_fill(test, near);
	far_seed = loop_fill(test, far);
	loop_map(test, near, loop_iwarp(server) && read ? LOOP_MR : LOOP_SGL,
		 read ? DMA_FROM_DEVICE : DMA_TO_DEVICE);
	loop_map(test, far, LOOP_SINGLE, DMA_BIDIRECTIONAL);
	wr = loop_post_rdma(test, near->end, op, near->sges, near->nmaps,
			    far->sges[0].addr, server->pd->unsafe_global_rkey);
	KUNIT_ASSERT_EQ(test, loop_wait(test, wr), IB_WC_SUCCESS);
	loop_ping(test, near->end);
	loop_unmap(near);
	loop_unmap(far);
	loop_check(test, read ? near : far, read ? far_seed : seed);
	loop_release(test, near, far);
}

static void loop_test_unsafe_rkey(struct kunit *test)
{
	struct loop *loop = test->priv;
	struct loop_end *server = &loop->server;
	struct loop_buf *far;
	u64 addr;

	loop_skip_unless_phys(test);
	server->pd_flags = IB_PD_UNSAFE_GLOBAL_RKEY;
	loop_reconnect(test);
	loop_unsafe_ram(test, IB_WR_RDMA_WRITE);
	loop_unsafe_ram(test, IB_WR_RDMA_READ);
	if (loop_may_sink(test, false))
		loop_refused(test, IB_WR_RDMA_WRITE, page_to_phys(ZERO_PAGE(0)),
			     server->pd->unsafe_global_rkey);

	far = loop_small_buf(test, server);
	addr = loop_addr(test, far, true);
	loop_refused(test, IB_WR_RDMA_READ, addr,
		     server->pd->unsafe_global_rkey);
	if (loop_may_sink(test, false))
		loop_refused(test, IB_WR_RDMA_WRITE, addr,
			     server->pd->unsafe_global_rkey);
}

/* A twin of an adapter complains: Documentation/infiniband/twin.rst */

#define LOOP_LINE	160

/* what twins have said, heard as kfence_test.c hears what KFENCE says */
static struct {
	raw_spinlock_t lock;
	int n;
	char lines[2][LOOP_LINE];
} loop_said = {
	.lock = __RAW_SPIN_LOCK_UNLOCKED(loop_said.lock),
};

static void loop_hear(void *data, const char *text, size_t len)
{
	if (!strnstr(text, ": twin: ", len))
		return;
	guard(raw_spinlock_irqsave)(&loop_said.lock);
	if (loop_said.n < ARRAY_SIZE(loop_said.lines))
		strscpy(loop_said.lines[loop_said.n], text,
			min(len + 1, LOOP_LINE));
	loop_said.n++;
}

static void loop_stop_hearing(void *unused)
{
	unregister_trace_console(loop_hear, NULL);
	tracepoint_synchronize_unregister();
}

static void loop_start_hearing(struct kunit *test)
{
	loop_said.n = 0;
	KUNIT_ASSERT_EQ(test, 0, register_trace_console(loop_hear, NULL));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, loop_stop_hearing,
						  NULL));
}

/* Since loop_start_hearing() that many lines, and no more, were said. */
static void loop_expect_said(struct kunit *test, int n)
{
	kunit_release_action(test, loop_stop_hearing, NULL);
	KUNIT_ASSERT_EQ_MSG(test, loop_said.n, n, "%s",
			    loop_said.n ? loop_said.lines[0] : "nothing said");
	/* more often than this it would keep silent */
	schedule_timeout_uninterruptible(DEFAULT_RATELIMIT_INTERVAL /
					 DEFAULT_RATELIMIT_BURST + 1);
}

/* The whole line is repeated for who looks for complaints in the kernel log. */
static __printf(3, 4)
void loop_expect_line(struct kunit *test, int i, const char *fmt, ...)
{
	char want[LOOP_LINE];
	va_list args;

	va_start(args, fmt);
	vsnprintf(want, sizeof(want), fmt, args);
	va_end(args);
	KUNIT_ASSERT_TRUE_MSG(test, strends(loop_said.lines[i], want),
			      "\"%s\" does not end in \"%s\"",
			      loop_said.lines[i], want);
	kunit_info(test, "on purpose: %s\n", loop_said.lines[i]);
}

static bool loop_is_twin(struct loop_end *end)
{
	enum rdma_driver_id id = end->dev->ops.driver_id;

	return ib_has_dma_device(end->dev) &&
	       (id == RDMA_DRIVER_RXE || id == RDMA_DRIVER_SIW);
}

static void loop_skip_unless_twin(struct kunit *test)
{
	struct loop *loop = test->priv;

	if (!loop_is_twin(&loop->client) || !loop_is_twin(&loop->server))
		kunit_skip(test, "no twin of an adapter");
}

enum loop_mistake_kind {
	LOOP_NEVER_MAPPED,
	LOOP_TOO_SHORT,
	LOOP_UNMAPPED,
	LOOP_OTHER_WAY,
};

static const struct loop_mistake {
	const char *name;
	enum loop_mistake_kind kind;
	bool mr;
} loop_mistakes[] = {
	{ "never mapped",		LOOP_NEVER_MAPPED },
	{ "mapped in part",		LOOP_TOO_SHORT },
	{ "unmapped already",		LOOP_UNMAPPED, true },
	{ "mapped the other way",	LOOP_OTHER_WAY, true },
};

KUNIT_ARRAY_PARAM_DESC(loop_mistakes, loop_mistakes, name);

/*
 * No other message is at this offset. Memory that is mapped meanwhile may get the DMA
 * address of what is unmapped, and the bytes that are used would be mapped again.
 */
static struct loop_buf *loop_bad_buf(struct kunit *test, struct loop_end *end)
{
	return loop_buf(test, end, LOOP_LEN, PAGE_SIZE / 4, GFP_KERNEL);
}

/* Memory that the device is about to write or read, and must not. Returns why. */
static const char *loop_map_badly(struct kunit *test, struct loop_buf *buf,
				  enum loop_how how, bool write)
{
	const struct loop_mistake *mistake = test->param_value;
	bool from = write != (mistake->kind == LOOP_OTHER_WAY);
	enum dma_data_direction dir = from ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
	unsigned int offset = buf->sgl[0].offset;

	if (mistake->kind == LOOP_NEVER_MAPPED) {
		buf->sges[0].addr = sg_phys(buf->sgl);
		buf->sges[0].length = buf->len;
		buf->sges[0].lkey = buf->end->pd->local_dma_lkey;
		return "not mapped";
	}

	if (mistake->kind == LOOP_TOO_SHORT)
		loop_shape(buf, offset, LOOP_LEN / 2);
	if (how == LOOP_MR)
		loop_map_mr(test, buf, 0, PAGE_SIZE,
			    write ? LOOP_WRITABLE : IB_ACCESS_REMOTE_READ, dir);
	else
		loop_map(test, buf, how, dir);
	if (mistake->kind == LOOP_OTHER_WAY)
		return from ? "mapped DMA_FROM_DEVICE" : "mapped DMA_TO_DEVICE";

	if (mistake->kind == LOOP_TOO_SHORT) {
		loop_shape(buf, offset, LOOP_LEN);
		buf->sges[0].length = LOOP_LEN;
	} else {
		loop_unmap(buf);
	}
	return "not mapped";
}

static void loop_expect_access(struct kunit *test, struct loop_end *end,
			       bool write, u64 addr, const char *why)
{
	loop_expect_line(test, 0,
			 " %s: twin: the device %s %u bytes at DMA address %#llx: %s",
			 dev_name(&end->dev->dev), write ? "writes" : "reads",
			 LOOP_LEN, addr, why);
}

static void loop_twin_local(struct kunit *test, enum loop_side side,
			    enum loop_how how)
{
	bool write = side == LOOP_RECV_SIDE || side == LOOP_READ_SIDE;
	struct loop_end *end = loop_side_end(test->priv, side);
	struct loop_buf *buf = loop_bad_buf(test, end);
	u32 seed = loop_fill(test, buf), qpn = end->qp->qp_num;
	const char *why = loop_map_badly(test, buf, how, write);
	struct loop_wr *bad;

	loop_start_hearing(test);
	bad = loop_bad_wr(test, side, buf->sges, 1);
	KUNIT_EXPECT_EQ(test, bad->wc.status, IB_WC_LOC_PROT_ERR);
	loop_unmap(buf);
	loop_check(test, buf, seed);
	loop_expect_said(test, 2);
	loop_expect_access(test, end, write, buf->sges[0].addr, why);
	loop_expect_line(test, 1, " %s: twin: QP %u: WR %#llx has failed",
			 dev_name(&end->dev->dev), qpn,
			 (u64)(uintptr_t)&bad->cqe);
	loop_buf_put(test, buf);
}

/* No WR of the end that has made the mistake fails. */
static void loop_twin_peer(struct kunit *test, enum ib_wr_opcode op)
{
	struct loop *loop = test->priv;
	struct loop_buf *far = loop_bad_buf(test, &loop->server);
	bool write = op == IB_WR_RDMA_WRITE;
	u32 seed = loop_fill(test, far);
	const char *why = loop_map_badly(test, far, LOOP_MR, write);

	loop_start_hearing(test);
	loop_refused(test, op, far->sges[0].addr, far->mr->rkey);
	loop_unmap(far);
	loop_check(test, far, seed);
	loop_expect_said(test, 1);
	loop_expect_access(test, far->end, write, far->sges[0].addr, why);
	loop_buf_put(test, far);
}

static void loop_test_twin(struct kunit *test)
{
	const struct loop_mistake *mistake = test->param_value;
	struct loop *loop = test->priv;
	enum loop_side side;

	loop_skip_unless_twin(test);
	/* first: it leaves the twin with a WR of the server to blame, which follows */
	if (mistake->mr) {
		loop_twin_peer(test, IB_WR_RDMA_WRITE);
		loop_twin_peer(test, IB_WR_RDMA_READ);
	}
	for (side = 0; side < LOOP_SIDES; side++) {
		if (side != LOOP_READ_SIDE || !loop_iwarp(&loop->client))
			loop_twin_local(test, side, LOOP_SINGLE);
		if (mistake->mr)
			loop_twin_local(test, side, LOOP_MR);
	}
}

static const struct loop_unmapping {
	const char *name;
	u32 len;
	enum dma_data_direction dir;
} loop_unmappings[] = {
	{ "part of it",		LOOP_LEN / 2, DMA_TO_DEVICE },
	{ "the other way",	LOOP_LEN, DMA_FROM_DEVICE },
};

KUNIT_ARRAY_PARAM_DESC(loop_unmappings, loop_unmappings, name);

/*
 * DMA_API_DEBUG counts an error. The twin takes the memory for mapped from then on, so
 * it is where nothing else is looked for.
 */
static void loop_test_twin_unmap(struct kunit *test)
{
	const struct loop_unmapping *param = test->param_value;
	struct loop *loop = test->priv;
	struct loop_end *end = &loop->client;
	struct loop_buf *buf;

	loop_skip_unless_twin(test);
	buf = loop_buf(test, end, LOOP_LEN, PAGE_SIZE / 2, GFP_KERNEL);
	loop_fill(test, buf);
	loop_map(test, buf, LOOP_SINGLE, DMA_TO_DEVICE);
	buf->maps[0].length = param->len;
	buf->dir = param->dir;
	loop_start_hearing(test);
	kunit_warning_suppress(test)
		loop_unmap(buf);
	loop_expect_said(test, 1);
	loop_expect_line(test, 0,
			 " %s: twin: %u bytes at DMA address %#llx are unmapped that were not mapped like that",
			 dev_name(end->dev->dma_device), param->len,
			 buf->maps[0].addr);
}

/* The suite */

static struct kunit_case loop_cases[] = {
	KUNIT_CASE_PARAM_ATTR(loop_test_send, loop_builders_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM_ATTR(loop_test_write, loop_builders_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM_ATTR(loop_test_read, loop_builders_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE(loop_test_empty_read),
	KUNIT_CASE(loop_test_empty_reads),
	KUNIT_CASE_PARAM(loop_test_sges, loop_ops_gen_params),
	KUNIT_CASE(loop_test_long_lived),
	KUNIT_CASE_PARAM(loop_test_highmem, loop_builders_gen_params),
	KUNIT_CASE(loop_test_inline),
	KUNIT_CASE(loop_test_mr_offset),
	KUNIT_CASE_PARAM(loop_test_mr_page_end, loop_ops_gen_params),
	KUNIT_CASE(loop_test_mr_page_size),
	KUNIT_CASE(loop_test_mr_reuse),
	KUNIT_CASE(loop_test_mr_order),
	KUNIT_CASE(loop_test_mr_prefix),
	KUNIT_CASE(loop_test_mr_parts),
	KUNIT_CASE(loop_test_mr_pages),
	KUNIT_CASE(loop_test_mr_forged),
	KUNIT_CASE(loop_test_mr_pi),
	KUNIT_CASE(loop_test_atomic),
	KUNIT_CASE_PARAM_ATTR(loop_test_not_ram, loop_addrs_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE(loop_test_read_sink),
	KUNIT_CASE(loop_test_user_pd),
	KUNIT_CASE(loop_test_bad_lkey),
	KUNIT_CASE_PARAM(loop_test_bad_range, loop_ranges_gen_params),
	KUNIT_CASE(loop_test_bad_read),
	KUNIT_CASE(loop_test_flush),
	KUNIT_CASE(loop_test_too_many_sges),
	KUNIT_CASE_PARAM(loop_test_bad_remote, loop_targets_gen_params),
	KUNIT_CASE_PARAM(loop_test_unsafe_rkey, loop_addrs_gen_params),
	KUNIT_CASE_PARAM_ATTR(loop_test_twin, loop_mistakes_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM(loop_test_twin_unmap, loop_unmappings_gen_params),
	{}
};

static void loop_init_end(struct loop_end *end, struct loop_end *peer)
{
	end->peer = peer;
	INIT_LIST_HEAD(&end->registered);
	init_completion(&end->cm_done);
}

static int loop_init(struct kunit *test)
{
	struct loop *loop = kunit_kzalloc(test, sizeof(*loop), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, loop);
	loop_init_end(&loop->client, &loop->server);
	loop_init_end(&loop->server, &loop->client);
	loop->server.classic_cq = true;
	test->priv = loop;

	KUNIT_ASSERT_FALSE_MSG(test, loop_unreachable,
			       "no connection, dev=%s src=%s dst=%s",
			       loop_dev_name, src, dst);
	loop_unreachable = true;
	loop_connect(test);
	loop_unreachable = false;
	return 0;
}

static void loop_exit(struct kunit *test)
{
	if (test->priv)
		loop_disconnect(test->priv);
}

static int loop_add_dev(struct ib_device *dev)
{
	if (!strcmp(dev_name(&dev->dev), loop_dev_name) &&
	    ib_device_try_get(dev))
		loop_dev = dev;
	return 0;
}

static struct ib_client loop_client = {
	.name = "rdma_loop",
	.add = loop_add_dev,
};

/* A device is found by its name only by a client that is told of all. */
static int loop_find_dev(void)
{
	int ret = ib_register_client(&loop_client);

	if (ret)
		return ret;
	ib_unregister_client(&loop_client);
	if (loop_dev)
		return 0;
	pr_err("rdma_loop: there is no device %s\n", loop_dev_name);
	return -ENODEV;
}

static int loop_suite_init(struct kunit_suite *suite)
{
	loop_unreachable = false;
	if (*loop_dev_name)
		return loop_find_dev();
	if (inet_pton_with_scope(&init_net, AF_UNSPEC, src, NULL, &loop_src) ||
	    inet_pton_with_scope(&init_net, AF_UNSPEC, dst, port, &loop_dst)) {
		pr_err("rdma_loop: src= and dst= want the IP addresses of two RDMA devices, port= a number; or dev= the name of one\n");
		return -EINVAL;
	}
	return 0;
}

static void loop_suite_exit(struct kunit_suite *suite)
{
	if (loop_dev)
		ib_device_put(loop_dev);
	loop_dev = NULL;
}

static struct kunit_suite loop_suite = {
	.name = "rdma_loop",
	.suite_init = loop_suite_init,
	.suite_exit = loop_suite_exit,
	.init = loop_init,
	.exit = loop_exit,
	.test_cases = loop_cases,
};

kunit_test_suite(loop_suite);

MODULE_DESCRIPTION("Test of RDMA devices and <rdma/sge.h>: two connected QPs");
MODULE_LICENSE("Dual BSD/GPL");
