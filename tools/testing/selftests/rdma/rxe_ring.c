// SPDX-License-Identifier: GPL-2.0
/*
 * What a process writes to the rings that it shares with rxe.
 *
 * The queues of a user's QPs, SRQs and CQs are mapped by the process. Each test
 * here is one field of a WQE, or an index of a ring, and writes one hostile value
 * after the other to it. Whatever it is, the kernel has to live, and the WR to
 * complete: with an error if it must not be executed, and then the QP goes to the
 * error state, or as if nothing had happened if the field is none of the user's.
 * No memory but that of the MRs may show up at the other end.
 *
 * usage: rxe_ring [--only TEXT] [DEVICE]
 *        rxe_ring --random SECONDS [SEED] [DEVICE]
 *
 * Each value is tried in a process of its own: one that hangs is a failure.
 */
#include "cm_pair.h"
/* not the one of the system, which may be older */
#include "../../../../include/uapi/rdma/rdma_user_rxe.h"
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "kselftest.h"

#define SIZE		5000		/* of a message: five packets */
#define FIRST		3000		/* of it in the first SGE */
#define UD_SIZE		64
#define INLINE_SIZE	48
#define MAX_INLINE	64
#define MAX_SEND_SGE	(MAX_INLINE / sizeof(struct rxe_sge))
#define MAX_RECV_SGE	2
#define BUF_PAGES	2
#define CQ_ENTRIES	255
#define SLOTS		15
#define PATIENCE	4		/* seconds for a completion */
#define LIMIT		20		/* seconds for a process */
#define SKIP_BYTES	64		/* what atomics and GRHs write to */

/* those of the newest kernel, which libibverbs may not know yet */
enum { WR_FLUSH = 14, WR_ATOMIC_WRITE = 15, WR_REG_MR = 0x20 };
enum { ACCESS_FLUSH_GLOBAL = 1 << 8 };

#define ALL_RIGHTS	(RIGHTS | IBV_ACCESS_REMOTE_ATOMIC | \
			 IBV_ACCESS_MW_BIND | ACCESS_FLUSH_GLOBAL)

enum kind {
	SEND, SEND_INLINE, WRITE, READ, FETCH_ADD, ATOMIC_WRITE, FLUSH,
	LOCAL_INV, BIND_MW, UC_SEND, UC_WRITE, UD_SEND, UD_AV,
	RECV, SRQ_RECV, UD_RECV,
	KINDS
};

#define BIT(kind)	(1u << (kind))
#define INLINES		BIT(SEND_INLINE)
#define RECVS		(BIT(RECV) | BIT(SRQ_RECV) | BIT(UD_RECV))
#define UDS		(BIT(UD_SEND) | BIT(UD_AV))
#define LOCALS		(BIT(LOCAL_INV) | BIT(BIND_MW))
#define SENDS		(BIT(KINDS) - 1 - RECVS)
/* have SGEs */
#define SGES		(BIT(SEND) | BIT(WRITE) | BIT(READ) | BIT(FETCH_ADD) | \
			 BIT(UC_SEND) | BIT(UC_WRITE) | UDS)
/* show what the driver does with its own state in a WQE */
#define OWN		(BIT(SEND) | BIT(SEND_INLINE) | BIT(READ) | \
			 BIT(FETCH_ADD) | BIT(ATOMIC_WRITE) | BIT(BIND_MW) | \
			 BIT(UC_WRITE) | BIT(UD_SEND))
/* have the peer look at an address; one that does not fit fails */
#define REMOTES		(BIT(WRITE) | BIT(READ) | BIT(FETCH_ADD) | \
			 BIT(ATOMIC_WRITE))

static const struct {
	const char *name;
	enum ibv_qp_type type;
	uint32_t opcode;
} kinds[KINDS] = {
	[SEND]		= { "RC SEND", IBV_QPT_RC, IBV_WR_SEND },
	[SEND_INLINE]	= { "RC SEND inline", IBV_QPT_RC, IBV_WR_SEND },
	[WRITE]		= { "RC WRITE", IBV_QPT_RC, IBV_WR_RDMA_WRITE },
	[READ]		= { "RC READ", IBV_QPT_RC, IBV_WR_RDMA_READ },
	[FETCH_ADD]	= { "RC FETCH_ADD", IBV_QPT_RC,
			    IBV_WR_ATOMIC_FETCH_AND_ADD },
	[ATOMIC_WRITE]	= { "RC ATOMIC_WRITE", IBV_QPT_RC, WR_ATOMIC_WRITE },
	[FLUSH]		= { "RC FLUSH", IBV_QPT_RC, WR_FLUSH },
	[LOCAL_INV]	= { "RC LOCAL_INV", IBV_QPT_RC, IBV_WR_LOCAL_INV },
	[BIND_MW]	= { "RC BIND_MW", IBV_QPT_RC, IBV_WR_BIND_MW },
	[UC_SEND]	= { "UC SEND", IBV_QPT_UC, IBV_WR_SEND },
	[UC_WRITE]	= { "UC WRITE", IBV_QPT_UC, IBV_WR_RDMA_WRITE },
	[UD_SEND]	= { "UD SEND", IBV_QPT_UD, IBV_WR_SEND },
	[UD_AV]		= { "UD SEND by AV", IBV_QPT_UD, IBV_WR_SEND },
	[RECV]		= { "receive", IBV_QPT_RC, IBV_WR_SEND },
	[SRQ_RECV]	= { "SRQ receive", IBV_QPT_RC, IBV_WR_SEND },
	[UD_RECV]	= { "UD receive", IBV_QPT_UD, IBV_WR_SEND },
};

/* what has to come of a value */
enum want {
	ANY,		/* a completion */
	GOOD,		/* the field is not the user's: as if it were not forged */
	BAD,		/* a completion with an error */
};

struct ring {
	struct rxe_queue_buf *buf;
	uint32_t mask;
	uint32_t shift;
};

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_qp *qp[2];
static struct ibv_cq *cq[2];
static struct ibv_srq *srq;
static struct ibv_mr *mr[2];
static struct ibv_mw *mw;
static uint8_t *mem[2];
static union ibv_gid gid;
static int gid_index;
static uint32_t ah_num;
static struct rxe_av av;
static struct ring sq, rq, cq_ring;
static const char *device;
static const char *only = "";
/* what move() and make_qps() give the QPs */
static int path_mtu = IBV_MTU_1024;
static uint32_t qkeys[2] = { 0x1111, 0x1111 };
static int send_sges = 2, max_inline = MAX_INLINE;
static int retries = 1;

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (int i = 0; list && list[i]; i++)
		if (!strcmp(ibv_get_device_name(list[i]), device))
			ctx = ibv_open_device(list[i]);
	if (!ctx)
		die("open_device");
	pd = ibv_alloc_pd(ctx);
	if (!pd)
		die("alloc_pd");
	/* an IPv4 one, as cm_pair.h has use for it, too */
	for (gid_index = 0; ; gid_index++) {
		if (ibv_query_gid(ctx, 1, gid_index, &gid))
			die("no GID with an IPv4 address");
		if (!memcmp(gid.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12))
			break;
	}
}

/* the rings that were mapped since the last call; the larger entries first */
static int new_rings(struct ring *rings)
{
	static unsigned long known[32];
	static size_t count;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int n = 0;

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start;
		struct ring ring;
		size_t i;

		if (!strstr(line, "uverbs"))
			continue;
		start = strtoul(line, NULL, 16);
		for (i = 0; i < count && known[i] != start; i++)
			;
		if (i < count || count == ARRAY_SIZE(known) || n == 2)
			continue;
		known[count++] = start;
		ring.buf = (void *)start;
		ring.mask = ring.buf->index_mask;
		ring.shift = ring.buf->log2_elem_size;
		rings[n++] = ring;
	}
	if (maps)
		fclose(maps);
	if (!n)
		die("a ring is not mapped");
	if (n == 2 && rings[0].shift < rings[1].shift) {
		struct ring first = rings[0];

		rings[0] = rings[1];
		rings[1] = first;
	}
	return n;
}

static void *slot(struct ring *ring, uint32_t index)
{
	return ring->buf->data + ((size_t)(index & ring->mask) << ring->shift);
}

static uint32_t load(uint32_t *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void store(uint32_t *p, uint32_t value)
{
	__atomic_store_n(p, value, __ATOMIC_RELEASE);
}

/* 0, or -1 if the kernel says no */
static int move(int i, enum ibv_qp_state state)
{
	enum ibv_qp_type type = qp[i]->qp_type;
	int mask = IBV_QP_STATE;
	struct ibv_qp_attr a = {
		.qp_state = state, .port_num = 1, .qkey = qkeys[i],
		.qp_access_flags = type == IBV_QPT_RC ?
			ALL_RIGHTS : IBV_ACCESS_REMOTE_WRITE,
		.path_mtu = path_mtu,
		.dest_qp_num = qp[!i]->qp_num,
		.max_dest_rd_atomic = 4, .max_rd_atomic = 4,
		.min_rnr_timer = 1, .timeout = 10, .retry_cnt = retries,
		.rnr_retry = 1,
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .dgid = gid, .sgid_index = gid_index,
				      .hop_limit = 64 } },
	};

	switch (state) {
	case IBV_QPS_INIT:
		mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT |
			(type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS);
		break;
	case IBV_QPS_RTR:
		if (type != IBV_QPT_UD)
			mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
				IBV_QP_RQ_PSN;
		if (type == IBV_QPT_RC)
			mask |= IBV_QP_MAX_DEST_RD_ATOMIC |
				IBV_QP_MIN_RNR_TIMER;
		break;
	case IBV_QPS_RTS:
		mask |= IBV_QP_SQ_PSN;
		if (type == IBV_QPT_RC)
			mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
				IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
		break;
	default:
		break;
	}
	return ibv_modify_qp(qp[i], &a, mask) ? -1 : 0;
}

static int try_move_all(void)
{
	for (int i = 0; i < 2; i++)
		if (move(i, IBV_QPS_INIT) || move(i, IBV_QPS_RTR) ||
		    move(i, IBV_QPS_RTS))
			return -1;
	return 0;
}

static void move_all(void)
{
	if (try_move_all())
		die("modify_qp");
}

/* the first sends, the second receives; sq and rq are the rings of the WQEs */
static void make_qps(enum kind kind)
{
	struct ibv_srq_init_attr s = {
		.attr = { .max_wr = SLOTS, .max_sge = MAX_RECV_SGE },
	};

	for (int i = 0; i < 2; i++) {
		cq[i] = ibv_create_cq(ctx, CQ_ENTRIES, NULL, NULL, 0);
		if (!cq[i])
			die("create_cq");
		new_rings(&cq_ring);
	}
	if (kind == SRQ_RECV) {
		srq = ibv_create_srq(pd, &s);
		if (!srq)
			die("create_srq");
		new_rings(&rq);
	}
	for (int i = 0; i < 2; i++) {
		struct ibv_qp_init_attr a = {
			.qp_type = kinds[kind].type, .sq_sig_all = 1,
			.send_cq = cq[i], .recv_cq = cq[i],
			.srq = i ? srq : NULL,
			.cap = { .max_send_wr = SLOTS, .max_recv_wr = SLOTS,
				 .max_send_sge = send_sges,
				 .max_recv_sge = MAX_RECV_SGE,
				 .max_inline_data = max_inline },
		};
		struct ring rings[2];
		int n;

		qp[i] = ibv_create_qp(pd, &a);
		if (!qp[i])
			die("create_qp");
		n = new_rings(rings);
		if (i == 0) {
			sq = rings[0];
		} else if (!srq) {
			if (n != 2)
				die("a receive queue is not mapped");
			rq = rings[1];
		}
	}
}

static void fill(void)
{
	memset(mem[0], 'S', BUF_PAGES * 4096);
	memset(mem[1], 'D', BUF_PAGES * 4096);
}

static void make_av(void)
{
	char path[300], netdev[64] = "";
	unsigned char *mac = av.dmac;
	FILE *file;

	av.port_num = 1;
	av.network_type = RXE_NETWORK_TYPE_IPV4;
	av.grh.sgid_index = gid_index;
	av.grh.hop_limit = 64;
	memcpy(&av.sgid_addr._sockaddr_in.sin_addr, gid.raw + 12, 4);
	memcpy(&av.dgid_addr._sockaddr_in.sin_addr, gid.raw + 12, 4);
	snprintf(path, sizeof(path),
		 "/sys/class/infiniband/%s/ports/1/gid_attrs/ndevs/%d", device,
		 gid_index);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%63s", netdev) != 1)
		die(path);
	fclose(file);
	snprintf(path, sizeof(path), "/sys/class/net/%s/address", netdev);
	file = fopen(path, "r");
	if (!file || fscanf(file, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1,
			    mac + 2, mac + 3, mac + 4, mac + 5) != 6)
		die(path);
	fclose(file);
}

/* The provider puts the number of an AH into the ring, and tells it nowhere else. */
static void make_ah(void)
{
	struct ibv_ah_attr a = {
		.is_global = 1, .port_num = 1,
		.grh = { .dgid = gid, .sgid_index = gid_index, .hop_limit = 64 },
	};
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_SEND };

	wr.wr.ud.ah = ibv_create_ah(pd, &a);
	if (!wr.wr.ud.ah)
		die("create_ah");
	/* not executed: the QP is in the reset state */
	ibv_post_send(qp[0], &wr, &bad);
	ah_num = ((struct rxe_send_wqe *)slot(&sq, 0))->wr.wr.ud.ah_num;
	store(&sq.buf->producer_index, 0);
	make_av();
}

static void set_up_unconnected(enum kind kind)
{
	open_device();
	for (int i = 0; i < 2; i++) {
		mem[i] = pages(BUF_PAGES);
		mr[i] = ibv_reg_mr(pd, mem[i], BUF_PAGES * 4096, ALL_RIGHTS);
		if (!mr[i])
			die("reg_mr");
	}
	fill();
	make_qps(kind);
	if (kinds[kind].type == IBV_QPT_UD)
		make_ah();
}

static void set_up(enum kind kind)
{
	set_up_unconnected(kind);
	move_all();
	if (kind == BIND_MW) {
		mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
		if (!mw)
			die("alloc_mw");
	}
}

static void set_sges(struct rxe_dma_info *dma, int end, uint32_t size,
		     uint32_t first)
{
	dma->num_sge = size > first ? 2 : 1;
	dma->length = size;
	dma->resid = size;
	dma->sge[0].addr = (uintptr_t)mem[end];
	dma->sge[0].length = size > first ? first : size;
	dma->sge[0].lkey = mr[end]->lkey;
	dma->sge[1].addr = (uintptr_t)mem[end] + first;
	dma->sge[1].length = size - dma->sge[0].length;
	dma->sge[1].lkey = mr[end]->lkey;
}

/* what librxe would write for a good WR */
static void build_send(void *where, enum kind kind)
{
	struct rxe_send_wqe *w = where;

	memset(w, 0, 1UL << sq.shift);
	w->wr.wr_id = 1;
	w->wr.opcode = kinds[kind].opcode;
	w->wr.send_flags = IBV_SEND_SIGNALED;
	switch (kind) {
	case SEND_INLINE:
		w->wr.send_flags |= IBV_SEND_INLINE;
		w->dma.length = INLINE_SIZE;
		w->dma.resid = INLINE_SIZE;
		memset(w->dma.inline_data, 'S', MAX_INLINE);
		break;
	case WRITE:
	case UC_WRITE:
	case READ:
		w->wr.wr.rdma.remote_addr = (uintptr_t)mem[1];
		w->wr.wr.rdma.rkey = mr[1]->rkey;
		break;
	case FETCH_ADD:
		w->wr.wr.atomic.remote_addr = (uintptr_t)mem[1];
		w->wr.wr.atomic.rkey = mr[1]->rkey;
		break;
	case ATOMIC_WRITE:
		w->wr.wr.rdma.remote_addr = (uintptr_t)mem[1];
		w->wr.wr.rdma.rkey = mr[1]->rkey;
		w->dma.length = 8;
		w->dma.resid = 8;
		memset(w->dma.atomic_wr, 'S', 8);
		break;
	case FLUSH:
		w->wr.wr.flush.remote_addr = (uintptr_t)mem[1];
		w->wr.wr.flush.rkey = mr[1]->rkey;
		w->wr.wr.flush.length = SIZE;
		w->wr.wr.flush.type = 1;
		w->dma.length = SIZE;
		w->dma.resid = SIZE;
		break;
	case LOCAL_INV:
		w->wr.ex.invalidate_rkey = mr[0]->lkey;
		break;
	case BIND_MW:
		w->wr.wr.mw.addr = (uintptr_t)mem[0];
		w->wr.wr.mw.length = 4096;
		w->wr.wr.mw.mr_lkey = mr[0]->lkey;
		w->wr.wr.mw.mw_rkey = mw->rkey;
		w->wr.wr.mw.rkey = ibv_inc_rkey(mw->rkey);
		w->wr.wr.mw.access = IBV_ACCESS_REMOTE_READ;
		break;
	case UD_SEND:
	case UD_RECV:
	case UD_AV:
		w->wr.wr.ud.remote_qpn = qp[1]->qp_num;
		w->wr.wr.ud.remote_qkey = 0x1111;
		if (kind == UD_AV)
			w->wr.wr.ud.av = av;
		else
			w->wr.wr.ud.ah_num = ah_num;
		break;
	default:
		break;
	}
	/* the addresses lie at the same place */
	w->iova = w->wr.wr.rdma.remote_addr;
	if (BIT(kind) & (UDS | BIT(UD_RECV)))
		set_sges(&w->dma, 0, UD_SIZE, UD_SIZE / 2);
	else if (kind == FETCH_ADD)
		set_sges(&w->dma, 0, 8, 8);
	else if (BIT(kind) & (SGES | RECVS))
		set_sges(&w->dma, 0, SIZE, FIRST);
}

static void build_recv(void *where)
{
	struct rxe_recv_wqe *w = where;

	memset(w, 0, sizeof(*w));
	w->wr_id = 2;
	set_sges(&w->dma, 1, BUF_PAGES * 4096, 4096);
}

static void post(struct ring *ring)
{
	store(&ring->buf->producer_index,
	      (load(&ring->buf->producer_index) + 1) & ring->mask);
}

/* a completion of QP i, or status -1 */
static int wait_for(int i, int seconds)
{
	time_t end = time(NULL) + seconds + 1;
	struct ibv_wc wc;

	while (time(NULL) < end) {
		int n = ibv_poll_cq(cq[i], 1, &wc);

		if (n < 0)
			die("poll_cq");
		if (n)
			return wc.status;
		usleep(500);
	}
	return -1;
}

static enum ibv_qp_state state_of(int i)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

	if (ibv_query_qp(qp[i], &attr, IBV_QP_STATE, &init))
		die("query_qp");
	return attr.qp_state;
}

/* the QP goes there after it has told of the WR that failed */
static bool fails(int i)
{
	for (int n = 0; n < PATIENCE * 200; n++) {
		if (state_of(i) == IBV_QPS_ERR)
			return true;
		usleep(5000);
	}
	return false;
}

/* in either buffer is nothing but what was in one of them before */
static int foreign(void)
{
	for (int i = 0; i < 2; i++)
		for (int k = SKIP_BYTES; k < BUF_PAGES * 4096; k++)
			if (mem[i][k] != 'S' && mem[i][k] != 'D')
				return i * BUF_PAGES * 4096 + k;
	return 0;
}

/* how many bytes from START on in buffer I are C */
static int same(int i, int start, char c)
{
	int k = start;

	while (k < BUF_PAGES * 4096 && mem[i][k] == c)
		k++;
	return k - start;
}

static bool moved(enum kind kind)
{
	switch (kind) {
	case READ:
		return same(0, 0, 'D') == SIZE;
	case SEND:
	case WRITE:
	case UC_SEND:
	case UC_WRITE:
	case RECV:
	case SRQ_RECV:
		return same(1, 0, 'S') == SIZE;
	case SEND_INLINE:
		return same(1, 0, 'S') == INLINE_SIZE;
	case ATOMIC_WRITE:
		return same(1, 0, 'S') == 8;
	case UD_SEND:
	case UD_AV:
	case UD_RECV:
		return same(1, 40, 'S') == UD_SIZE;
	default:
		return true;
	}
}

/* a kind's good WR, but for SIZE bytes at OFFSET, which become VALUE */
static void try(enum kind kind, const char *field, unsigned int offset,
		unsigned int size, uint64_t value, enum want want)
{
	unsigned long before = taint();
	bool recv = BIT(kind) & RECVS;
	int side = recv, status, other = 0, where;
	uint64_t wqe[512];

	set_up(kind);
	/* what a SEND needs, and more than that */
	for (int i = 0; i < (recv ? 1 : 3); i++) {
		build_recv(slot(&rq, i));
		if (recv && size)
			memcpy((uint8_t *)slot(&rq, i) + offset, &value, size);
		post(&rq);
	}
	build_send(wqe, kind);
	if (!recv && size)
		memcpy((uint8_t *)wqe + offset, &value, size);
	memcpy(slot(&sq, 0), wqe, 1UL << sq.shift);
	post(&sq);
	if (doorbell(qp[0]))
		die("doorbell");

	if (recv)
		other = wait_for(0, PATIENCE);
	/* what UD and UC cannot receive they drop */
	status = wait_for(side, kind == UD_RECV && want == ANY ? 1 : PATIENCE);
	if (status < 0 && kind == UD_RECV && want == ANY) {
		move(1, IBV_QPS_ERR);
		status = wait_for(1, PATIENCE);
	}
	if (want == GOOD && (BIT(kind) & (BIT(UC_SEND) | BIT(UC_WRITE) | UDS)))
		for (int i = 0; i < 200 && !moved(kind); i++)
			usleep(5000);
	where = foreign();
	/* with this flag the SGEs themselves are the data, or a GRH lies there */
	if ((!strcmp(field, "wr.send_flags") && value & IBV_SEND_INLINE) ||
	    kind == UD_RECV)
		where = 0;
	if (status < 0 || other < 0)
		fail("%s = %#llx: no completion%s", field,
		     (unsigned long long)value, other < 0 ? " of the send" : "");
	else if (want == GOOD && status)
		fail("%s = %#llx: %s", field, (unsigned long long)value,
		     ibv_wc_status_str(status));
	else if (want == GOOD && !moved(kind))
		fail("%s = %#llx: the data is not there", field,
		     (unsigned long long)value);
	else if (want == BAD && !status)
		fail("%s = %#llx: success", field, (unsigned long long)value);
	else if (status && !fails(side))
		fail("%s = %#llx: failed, but the QP is in state %d", field,
		     (unsigned long long)value, state_of(side));
	if (where)
		fail("%s = %#llx: %#x at %d, which was in neither buffer", field,
		     (unsigned long long)value,
		     mem[where / (BUF_PAGES * 4096)][where % (BUF_PAGES * 4096)],
		     where);
	/* one that is bound has a reference to the QP */
	if (mw && ibv_dealloc_mw(mw))
		fail("dealloc_mw: %s", strerror(errno));
	if (ibv_destroy_qp(qp[0]) || ibv_destroy_qp(qp[1]))
		fail("%s = %#llx: destroy_qp: %s", field,
		     (unsigned long long)value, strerror(errno));
	if (taint() != before)
		fail("%s = %#llx: the kernel is tainted", field,
		     (unsigned long long)value);
}

/* the values of a field of SIZE bytes */
static const uint64_t values[] = {
	0, 1, 3, 5, 8, 9, 0x41, 0xff, 0x102, 0x1000, 0x1000000, 0x7fffffff,
	0x80000000, 0x80000010, 0xffffffff,
	0x7ffffffff000, 0x8000000000000000, 0xffff888000000000,
	0xfffffffffffff000, 0xffffffffffffffff,
};

/* what becomes of any value, and of some by their size */
enum rule { IS_ANY, IS_GOOD, IS_BAD, OPCODE, FLAGS, NUM_SGE, LENGTH, SGE_LENGTH };

/* of a field: its name, and where it is */
#define S(member, kinds, rule) \
	{ #member, kinds, offsetof(struct rxe_send_wqe, member), \
	  sizeof(((struct rxe_send_wqe *)0)->member), rule }
#define R(member, rule) \
	{ #member, RECVS, offsetof(struct rxe_recv_wqe, member), \
	  sizeof(((struct rxe_recv_wqe *)0)->member), rule }

static const struct field {
	const char *name;
	uint32_t kinds;
	uint32_t offset;
	uint32_t size;
	enum rule rule;
} fields[] = {
	S(wr.wr_id, BIT(SEND) | BIT(UD_SEND), IS_GOOD),
	S(wr.opcode, SENDS, OPCODE),
	S(wr.send_flags, SENDS, FLAGS),
	S(wr.ex.invalidate_rkey, BIT(SEND), IS_GOOD),
	S(wr.ex.invalidate_rkey, BIT(LOCAL_INV), IS_BAD),
	S(wr.wr.rdma.remote_addr, BIT(SEND), IS_GOOD),
	S(wr.wr.rdma.remote_addr, BIT(WRITE) | BIT(UC_WRITE), IS_ANY),
	S(wr.wr.rdma.rkey, BIT(WRITE) | BIT(READ) | BIT(ATOMIC_WRITE), IS_BAD),
	S(wr.wr.rdma.rkey, BIT(UC_WRITE), IS_ANY),
	S(wr.wr.atomic.rkey, BIT(FETCH_ADD), IS_BAD),
	S(wr.wr.atomic.swap, BIT(FETCH_ADD), IS_GOOD),
	S(wr.wr.flush.length, BIT(FLUSH), IS_ANY),
	S(wr.wr.flush.type, BIT(FLUSH), IS_ANY),
	S(wr.wr.flush.level, BIT(FLUSH), IS_ANY),
	S(wr.wr.ud.remote_qpn, UDS, IS_ANY),
	S(wr.wr.ud.remote_qkey, UDS, IS_ANY),
	S(wr.wr.ud.pkey_index, UDS, IS_GOOD),
	S(wr.wr.ud.ah_num, BIT(UD_SEND), IS_ANY),
	S(wr.wr.ud.av.port_num, BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.network_type, BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.dmac[0], BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.grh.sgid_index, BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.grh.hop_limit, BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.sgid_addr._sockaddr_in.sin_addr, BIT(UD_AV), IS_ANY),
	S(wr.wr.ud.av.dgid_addr._sockaddr_in.sin_addr, BIT(UD_AV), IS_ANY),
	S(wr.wr.mw.addr, BIT(BIND_MW), IS_ANY),
	S(wr.wr.mw.length, BIT(BIND_MW), IS_ANY),
	S(wr.wr.mw.mr_lkey, BIT(BIND_MW), IS_BAD),
	S(wr.wr.mw.mw_rkey, BIT(BIND_MW), IS_BAD),
	S(wr.wr.mw.rkey, BIT(BIND_MW), IS_ANY),
	S(wr.wr.mw.access, BIT(BIND_MW), IS_ANY),
	S(status, OWN, IS_GOOD),
	S(state, OWN, IS_GOOD),
	S(mask, OWN, IS_GOOD),
	S(first_psn, BIT(SEND) | BIT(WRITE) | BIT(READ), IS_GOOD),
	S(last_psn, BIT(SEND) | BIT(WRITE) | BIT(READ), IS_GOOD),
	S(ack_length, BIT(SEND) | BIT(READ), IS_GOOD),
	S(ssn, BIT(SEND) | BIT(READ), IS_GOOD),
	S(has_rd_atomic, BIT(SEND) | BIT(READ) | BIT(FETCH_ADD), IS_GOOD),
	S(iova, BIT(SEND) | BIT(SEND_INLINE) | UDS, IS_GOOD),
	S(iova, REMOTES, IS_BAD),
	S(iova, BIT(UC_WRITE) | BIT(FLUSH), IS_ANY),
	S(dma.length, SENDS - BIT(LOCAL_INV), LENGTH),
	S(dma.resid, OWN, IS_GOOD),
	S(dma.cur_sge, OWN, IS_GOOD),
	S(dma.num_sge, SENDS - BIT(LOCAL_INV), NUM_SGE),
	S(dma.sge_offset, OWN, IS_GOOD),
	S(dma.sge[0].addr, SGES, IS_BAD),
	S(dma.sge[0].length, SGES, SGE_LENGTH),
	S(dma.sge[0].lkey, SGES, IS_BAD),
	S(dma.sge[1].addr, SGES - BIT(FETCH_ADD), IS_BAD),
	S(dma.sge[1].length, SGES - BIT(FETCH_ADD), SGE_LENGTH),
	S(dma.sge[1].lkey, SGES - BIT(FETCH_ADD), IS_BAD),
	R(wr_id, IS_GOOD),
	R(dma.length, IS_GOOD),
	R(dma.resid, IS_GOOD),
	R(dma.cur_sge, IS_GOOD),
	R(dma.num_sge, NUM_SGE),
	R(dma.sge_offset, IS_GOOD),
	R(dma.sge[0].addr, IS_BAD),
	R(dma.sge[0].length, SGE_LENGTH),
	R(dma.sge[0].lkey, IS_BAD),
	R(dma.sge[1].length, SGE_LENGTH),
};

/* what a user may post */
static bool allowed(enum ibv_qp_type type, uint32_t opcode)
{
	static const struct {
		uint32_t opcode;
		uint32_t types;
	} table[] = {
		{ IBV_WR_RDMA_WRITE, BIT(IBV_QPT_RC) | BIT(IBV_QPT_UC) },
		{ IBV_WR_RDMA_WRITE_WITH_IMM, BIT(IBV_QPT_RC) | BIT(IBV_QPT_UC) },
		{ IBV_WR_SEND, BIT(IBV_QPT_RC) | BIT(IBV_QPT_UC) |
			       BIT(IBV_QPT_UD) },
		{ IBV_WR_SEND_WITH_IMM, BIT(IBV_QPT_RC) | BIT(IBV_QPT_UC) |
					BIT(IBV_QPT_UD) },
		{ IBV_WR_RDMA_READ, BIT(IBV_QPT_RC) },
		{ IBV_WR_ATOMIC_CMP_AND_SWP, BIT(IBV_QPT_RC) },
		{ IBV_WR_ATOMIC_FETCH_AND_ADD, BIT(IBV_QPT_RC) },
		{ IBV_WR_LOCAL_INV, BIT(IBV_QPT_RC) },
		{ IBV_WR_BIND_MW, BIT(IBV_QPT_RC) | BIT(IBV_QPT_UC) },
		{ IBV_WR_SEND_WITH_INV, BIT(IBV_QPT_RC) },
		{ WR_FLUSH, BIT(IBV_QPT_RC) },
		{ WR_ATOMIC_WRITE, BIT(IBV_QPT_RC) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++)
		if (table[i].opcode == opcode)
			return table[i].types & BIT(type);
	return false;
}

static enum want expect(enum kind kind, const struct field *f, uint64_t value)
{
	bool recv = BIT(kind) & RECVS;
	bool inlined = value & IBV_SEND_INLINE;

	switch (f->rule) {
	case IS_GOOD:
		return GOOD;
	case IS_BAD:
		/* what may be there already */
		if (!strcmp(f->name, "dma.sge[0].lkey") && !value)
			return BAD;
		return kind == UD_RECV ? ANY : BAD;
	case OPCODE:
		return allowed(kinds[kind].type, value) ? ANY : BAD;
	case FLAGS:
		/* data that is neither in the WQE nor in an SGE */
		if (kind == SEND_INLINE && !inlined)
			return BAD;
		/* for these inline says nothing */
		if (BIT(kind) & (BIT(READ) | BIT(FETCH_ADD) | BIT(ATOMIC_WRITE)))
			inlined = kind == SEND_INLINE;
		return kind == LOCAL_INV || value > 0xf ||
			inlined != (kind == SEND_INLINE) ? ANY : GOOD;
	case NUM_SGE:
		if (BIT(kind) & LOCALS)
			return GOOD;
		if (!value && BIT(kind) & SGES)
			return BAD;
		return value > (recv ? MAX_RECV_SGE : MAX_SEND_SGE) ? BAD : ANY;
	case LENGTH:
		if (kind == FLUSH)
			return value > 0x80000000 ? BAD : ANY;
		if (kind == ATOMIC_WRITE)
			return value == 8 ? GOOD : BAD;
		if (kind == SEND_INLINE)
			return value > MAX_INLINE ? BAD : ANY;
		return GOOD;
	case SGE_LENGTH:
		/* more than a message can be long is no mistake */
		if (kind == RECV || kind == SRQ_RECV)
			return strstr(f->name, "[0]") ?
				(value >= SIZE ? GOOD : ANY) :
				(value >= SIZE - 4096 ? GOOD : BAD);
		if (recv)
			return ANY;
		if (kind == FETCH_ADD)
			return value < 8 || value > 0x80000000 ? BAD : ANY;
		return value > BUF_PAGES * 4096 && kind != UD_SEND &&
			kind != UD_AV ? BAD : ANY;
	default:
		return ANY;
	}
}

static int walk_field(enum kind kind, const struct field *f)
{
	uint32_t last = f->rule == OPCODE ? 0x28 : 0;
	int bad = 0;
	char what[120];

	for (size_t i = 0; i < ARRAY_SIZE(values) + last; i++) {
		/* all the small ones of an opcode, then the rest */
		uint64_t value = i < last ? i : values[i - last];

		if (f->size < 8 && value >> f->size * 8)
			continue;
		snprintf(what, sizeof(what), "%s = %#llx", f->name,
			 (unsigned long long)value);
		bad += FORKED(what, try(kind, f->name, f->offset, f->size, value,
					expect(kind, f, value)));
	}
	return bad;
}

static int walk_good(enum kind kind)
{
	return FORKED("a good WR", try(kind, "nothing", 0, 0, 0,
				       kind == LOCAL_INV ? BAD : GOOD));
}

/* --- indices, and rings that change while the kernel looks at them --- */

/* the kernel does not go on with a ring for ever, and the device is in order */
static void at_rest(struct ring *ring, unsigned long before)
{
	uint32_t seen = 0, now = 1;

	for (int i = 0; i < 40 && seen != now; i++) {
		seen = load(&ring->buf->consumer_index);
		usleep(100000);
		now = load(&ring->buf->consumer_index);
	}
	if (seen != now)
		fail("the kernel goes on and on through the ring");
	for (int i = 0; i < 2; i++)
		if (ibv_destroy_qp(qp[i]))
			fail("destroy_qp: %s", strerror(errno));
	if (taint() != before)
		fail("the kernel is tainted");
}

enum index { SQ_PRODUCER, RQ_PRODUCER, SRQ_PRODUCER, CQ_CONSUMER, COPIES, SIZES };

static void index_value(enum index which, uint64_t value)
{
	unsigned long before = taint();
	enum kind kind = which == SRQ_PRODUCER ? SRQ_RECV : SEND;

	set_up(kind);
	for (int i = 0; i < 4; i++) {
		build_recv(slot(&rq, i));
		post(&rq);
	}
	for (int i = 0; i < 3; i++)
		build_send(slot(&sq, i), kind);
	store(&sq.buf->producer_index, 1);
	switch (which) {
	case SQ_PRODUCER:
		store(&sq.buf->producer_index, value);
		break;
	case RQ_PRODUCER:
	case SRQ_PRODUCER:
		store(&rq.buf->producer_index, value);
		break;
	case CQ_CONSUMER:
		store(&cq_ring.buf->consumer_index, value);
		break;
	case COPIES:
		store(&sq.buf->consumer_index, value);
		store(&rq.buf->consumer_index, value);
		store(&cq_ring.buf->producer_index, value);
		break;
	case SIZES:
		sq.buf->index_mask = value;
		rq.buf->index_mask = value;
		cq_ring.buf->index_mask = value;
		sq.buf->log2_elem_size = value;
		rq.buf->log2_elem_size = value;
		break;
	}
	doorbell(qp[0]);
	usleep(100000);
	at_rest(&sq, before);
}

static int index_values(enum index which)
{
	int bad = 0;

	for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
		char what[80];

		if (values[i] >> 32)
			break;
		snprintf(what, sizeof(what), "%#llx",
			 (unsigned long long)values[i]);
		bad += FORKED(what, index_value(which, values[i]));
	}
	return bad;
}

/* a WR that nobody answers is sent again: what does the kernel look at then? */
static void while_retrying(int psn)
{
	unsigned long before = taint();
	struct rxe_send_wqe *w;
	int status;

	set_up(WRITE);
	move(1, IBV_QPS_ERR);
	w = slot(&sq, 0);
	build_send(w, WRITE);
	post(&sq);
	doorbell(qp[0]);
	/* for the first packet */
	usleep(2000);
	for (int i = 0; i < 2000; i++) {
		if (psn) {
			w->first_psn = i * 0x12345;
			w->dma.cur_sge = i;
			w->dma.num_sge = 0x1000000;
			w->dma.sge[0].length = i & 1;
			w->wr.opcode = i;
		} else {
			store(&sq.buf->producer_index, 0xfffffff0 + i);
		}
		usleep(20);
	}
	status = wait_for(0, PATIENCE);
	if (status <= 0)
		fail("no completion with an error, but %d", status);
	at_rest(&sq, before);
}

static uint32_t stop;
static uint32_t *flip[4];
static uint32_t flip_to[4][2];

static void *flipper(void *unused)
{
	for (int i = 0; !load(&stop); i++)
		for (int k = 0; k < 4; k++)
			if (flip[k])
				store(flip[k], flip_to[k][i & 1]);
	return unused;
}

/* a field has two values in turn while WRs are executed */
static void two_values(int which)
{
	static const struct {
		bool recv;
		uint32_t offset;
		uint32_t values[2];
	} table[] = {
		{ false, offsetof(struct rxe_send_wqe, dma.num_sge),
		  { 2, 0x1000000 } },
		{ false, offsetof(struct rxe_send_wqe, wr.opcode),
		  { IBV_WR_SEND, 0x7fffffff } },
		{ true, offsetof(struct rxe_recv_wqe, dma.num_sge),
		  { 2, 0x1000000 } },
		{ true, offsetof(struct rxe_recv_wqe, dma.cur_sge),
		  { 0, 0x1000000 } },
	};
	bool recv = table[which].recv;
	unsigned long before = taint();
	pthread_t thread;

	set_up(recv ? RECV : SEND);
	for (int round = 0; round < 20; round++) {
		struct ring *ring = recv ? &rq : &sq;
		uint8_t *wqe = slot(ring, load(&ring->buf->producer_index));

		build_recv(slot(&rq, load(&rq.buf->producer_index)));
		build_send(slot(&sq, load(&sq.buf->producer_index)), SEND);
		flip[0] = (uint32_t *)(wqe + table[which].offset);
		memcpy(flip_to[0], table[which].values, sizeof(flip_to[0]));
		store(&stop, 0);
		if (pthread_create(&thread, NULL, flipper, NULL))
			die("thread");
		post(&rq);
		post(&sq);
		doorbell(qp[0]);
		if (wait_for(0, PATIENCE) < 0)
			fail("round %d: no completion", round);
		store(&stop, 1);
		pthread_join(thread, NULL);
		if (foreign())
			fail("round %d: memory of somebody else's", round);
		if (state_of(0) == IBV_QPS_ERR || state_of(1) == IBV_QPS_ERR) {
			for (int i = 0; i < 2; i++)
				if (move(i, IBV_QPS_ERR) ||
				    move(i, IBV_QPS_RESET))
					die("reset");
			move_all();
		}
		while (wait_for(0, -1) >= 0 || wait_for(1, -1) >= 0)
			;
	}
	at_rest(&sq, before);
}

/* producer indices that run ahead while a QP is flushed */
static void moving_producer(int state)
{
	unsigned long before = taint();
	pthread_t thread;

	set_up(SEND);
	flip[0] = &sq.buf->producer_index;
	flip[1] = &rq.buf->producer_index;
	for (int k = 0; k < 2; k++) {
		flip_to[k][0] = 7;
		flip_to[k][1] = 14;
	}
	if (pthread_create(&thread, NULL, flipper, NULL))
		die("thread");
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 2; i++)
			if (move(i, state))
				fail("state %d: %s", state, strerror(errno));
		usleep(2000);
		for (int i = 0; i < 2; i++)
			move(i, IBV_QPS_RESET);
		move_all();
		doorbell(qp[0]);
	}
	store(&stop, 1);
	pthread_join(thread, NULL);
	at_rest(&sq, before);
}

/* without the provider, which would unmap the ring */
static int raw_resize_cq(struct ibv_cq *which, uint32_t cqe)
{
	struct {
		struct ib_uverbs_resize_cq_resp core;
		struct rxe_resize_cq_resp own;
	} answer;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_resize_cq arg;
	} cmd = {
		.hdr = { .command = IB_USER_VERBS_CMD_RESIZE_CQ,
			 .in_words = sizeof(cmd) / 4,
			 .out_words = sizeof(answer) / 4 },
		.arg = { .response = (uintptr_t)&answer,
			 .cq_handle = which->handle, .cqe = cqe },
	};

	return write(ctx->cmd_fd, &cmd, sizeof(cmd)) < 0 ? -1 : 0;
}

/* the driver's index of a CQ is not read back from a queue that can be mapped */
static void resize(int unused)
{
	unsigned long before = taint();
	pthread_t thread;

	set_up(SEND);
	flip[0] = &cq_ring.buf->consumer_index;
	flip[1] = &cq_ring.buf->producer_index;
	for (int k = 0; k < 2; k++) {
		flip_to[k][0] = 1;
		flip_to[k][1] = 0xfffffff0;
	}
	for (int round = 0; round < 30; round++) {
		store(&stop, 0);
		if (pthread_create(&thread, NULL, flipper, NULL))
			die("thread");
		usleep(500);
		/* may be refused, as it looks full */
		raw_resize_cq(cq[1], round & 1 ? 100 : CQ_ENTRIES);
		store(&stop, 1);
		pthread_join(thread, NULL);
		build_recv(slot(&rq, load(&rq.buf->producer_index)));
		build_send(slot(&sq, load(&sq.buf->producer_index)), SEND);
		post(&rq);
		post(&sq);
		doorbell(qp[0]);
		wait_for(0, 1);
	}
	at_rest(&sq, before);
}

/* the size of an SRQ is not what the process says */
static void srq_size(int unused)
{
	struct ibv_srq_attr attr = { 0 };

	set_up(SRQ_RECV);
	rq.buf->index_mask = 0x7fff;
	if (ibv_query_srq(srq, &attr))
		die("query_srq");
	if (attr.max_wr != SLOTS)
		fail("max_wr is %u", attr.max_wr);
	attr.srq_limit = 1000;
	if (!ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT))
		fail("a limit of 1000 for %d WRs", SLOTS);
	rq.buf->index_mask = SLOTS;
	attr.max_wr = 20;
	attr.srq_limit = 50;
	if (!ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
		fail("a limit of 50 for 20 WRs");
	attr.max_wr = 100;
	if (ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT))
		fail("100 WRs with a limit of 50: %s", strerror(errno));
	attr.max_wr = 20;
	if (!ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR))
		fail("20 WRs for a limit of 50");
}

/* what was posted before a reset is gone after it */
static void stale(int kind)
{
	struct ibv_wc wc;
	int n;

	set_up(kind);
	if (kind == WRITE)
		move(1, IBV_QPS_ERR);
	for (int i = 0; i < 5; i++) {
		build_send(slot(&sq, i), kind);
		post(&sq);
	}
	/* nobody answers, or nobody has told the driver */
	if (kind == WRITE)
		doorbell(qp[0]);
	for (int i = 0; i < 2; i++)
		move(i, IBV_QPS_RESET);
	move_all();
	while (ibv_poll_cq(cq[0], 1, &wc) > 0)
		;
	doorbell(qp[0]);
	usleep(300000);
	for (n = 0; ibv_poll_cq(cq[0], 1, &wc) > 0; n++)
		;
	if (n)
		fail("%d WRs complete that were there before the reset", n);
	if (state_of(0) != IBV_QPS_RTS)
		fail("the QP is in state %d", state_of(0));
}

/* --- the attributes of QPs, and what else is not in a ring --- */

/* a message larger than 64 KiB on a QP that does not split it */
static void no_mtu(int unused)
{
	static const int bad[] = { 255, 6, 0 };
	unsigned long before = taint();
	size_t size = 65528;
	struct rxe_send_wqe *w;
	struct ibv_mr *large;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		path_mtu = bad[i];
		set_up_unconnected(WRITE);
		if (move(0, IBV_QPS_INIT) || move(1, IBV_QPS_INIT))
			die("init");
		if (move(0, IBV_QPS_RTR))
			continue;
		fail("path_mtu %d is taken", bad[i]);
		if (bad[i])
			continue;
		if (move(1, IBV_QPS_RTR) || move(0, IBV_QPS_RTS))
			die("modify_qp");
		large = ibv_reg_mr(pd, pages(17), 17 * 4096, ALL_RIGHTS);
		if (!large)
			die("reg_mr");
		w = slot(&sq, 0);
		build_send(w, WRITE);
		w->dma.num_sge = 1;
		w->dma.length = size;
		w->dma.resid = size;
		w->dma.sge[0].addr = (uintptr_t)large->addr;
		w->dma.sge[0].length = size;
		w->dma.sge[0].lkey = large->lkey;
		w->wr.wr.rdma.remote_addr = (uintptr_t)large->addr;
		w->wr.wr.rdma.rkey = large->rkey;
		w->iova = w->wr.wr.rdma.remote_addr;
		post(&sq);
		doorbell(qp[0]);
		wait_for(0, 1);
	}
	if (taint() != before)
		fail("the kernel is tainted");
}

static int modify(int mask, enum ibv_qp_state state, enum ibv_qp_state cur)
{
	struct ibv_qp_attr a = {
		.qp_state = state, .cur_qp_state = cur, .sq_psn = 0x123456,
		.rq_psn = 0x123456, .path_mtu = IBV_MTU_256,
		.max_dest_rd_atomic = 2, .min_rnr_timer = 2,
		.timeout = 10, .retry_cnt = 1, .rnr_retry = 1,
		.max_rd_atomic = 4,
	};

	return ibv_modify_qp(qp[0], &a, mask) ? -1 : 0;
}

/* what the process says of the state of a QP has to be right */
static void cur_state(int unused)
{
	int to_rts = IBV_QP_STATE | IBV_QP_CUR_STATE | IBV_QP_SQ_PSN |
		     IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
		     IBV_QP_MAX_QP_RD_ATOMIC;

	set_up(WRITE);
	if (modify(IBV_QP_STATE | IBV_QP_CUR_STATE, IBV_QPS_RTS, IBV_QPS_RTS))
		fail("RTS for RTS: %s", strerror(errno));
	if (!modify(to_rts, IBV_QPS_RTS, IBV_QPS_RTR))
		fail("RTR for RTS");
	move(0, IBV_QPS_ERR);
	if (!modify(to_rts, IBV_QPS_RTS, IBV_QPS_RTR))
		fail("RTR for the error state");
	if (!modify(IBV_QP_STATE | IBV_QP_CUR_STATE, IBV_QPS_RTS, IBV_QPS_SQE))
		fail("SQE for the error state");
	if (!fails(0))
		fail("the QP is in state %d", state_of(0));
}

/* attributes that may not change in RTS, whether or not it is named */
static void no_state(int unused)
{
	static const int bad[] = {
		IBV_QP_SQ_PSN, IBV_QP_RQ_PSN, IBV_QP_PATH_MTU,
		IBV_QP_MAX_DEST_RD_ATOMIC, IBV_QP_MAX_QP_RD_ATOMIC,
		IBV_QP_TIMEOUT, IBV_QP_CUR_STATE,
	};

	set_up(WRITE);
	if (modify(IBV_QP_MIN_RNR_TIMER, 0, 0))
		fail("min_rnr_timer: %s", strerror(errno));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		if (!modify(bad[i], 0, IBV_QPS_INIT))
			fail("mask %#x is taken", bad[i]);
}

/* a Q_Key that a QP does not have, and that not everyone may set */
static void privileged_qkey(int unused)
{
	struct rxe_send_wqe *w;

	for (int own = 0; own < 2; own++) {
		qkeys[0] = own ? 0x80010000 : 0x1111;
		qkeys[1] = 0x80010000;
		set_up(UD_SEND);
		build_recv(slot(&rq, 0));
		post(&rq);
		w = slot(&sq, 0);
		build_send(w, UD_SEND);
		w->wr.wr.ud.remote_qkey = 0x80010000;
		post(&sq);
		doorbell(qp[0]);
		if (wait_for(0, PATIENCE))
			fail("not sent");
		if ((wait_for(1, own ? PATIENCE : 0) < 0) == own)
			fail("sent by a QP with Q_Key %#x: %sreceived",
			     qkeys[0], own ? "not " : "");
	}
}

/* an ATOMIC_WRITE and a WRITE of no bytes on a QP that has no SGEs */
static void no_sges(int unused)
{
	send_sges = 0;
	max_inline = 0;
	set_up(ATOMIC_WRITE);
	build_send(slot(&sq, 0), ATOMIC_WRITE);
	build_send(slot(&sq, 1), WRITE);
	((struct rxe_send_wqe *)slot(&sq, 1))->dma.num_sge = 0;
	((struct rxe_send_wqe *)slot(&sq, 1))->dma.length = 0;
	post(&sq);
	post(&sq);
	doorbell(qp[0]);
	if (wait_for(0, PATIENCE) || wait_for(0, PATIENCE))
		fail("not executed");
	if (!moved(ATOMIC_WRITE))
		fail("%d bytes are right, and the first is %#x",
		     same(1, 0, 'S'), mem[1][0]);
}

/* the first packets of a WR are lost, and the WR is sent again */
static void sent_again(int kind)
{
	int status;

	retries = 7;
	set_up_unconnected(kind);
	if (move(0, IBV_QPS_INIT) || move(1, IBV_QPS_INIT) ||
	    move(0, IBV_QPS_RTR) || move(0, IBV_QPS_RTS))
		die("modify_qp");
	for (int i = 0; i < 3; i++) {
		build_recv(slot(&rq, i));
		post(&rq);
	}
	build_send(slot(&sq, 0), kind);
	post(&sq);
	doorbell(qp[0]);
	usleep(20000);
	if (move(1, IBV_QPS_RTR))
		die("modify_qp");
	status = wait_for(0, PATIENCE);
	if (status)
		fail("%s", status < 0 ? "no completion" :
		     ibv_wc_status_str(status));
	else if (!moved(kind))
		fail("the data is not there");
}

/* a receive that has part of a message when the QP goes to the error state */
static void flush_receives(int kind)
{
	struct rxe_send_wqe *w;
	int status;

	set_up(kind);
	for (int i = 0; i < 2; i++) {
		build_recv(slot(&rq, i));
		post(&rq);
	}
	/* two packets go out before the SGE that is bad is found */
	w = slot(&sq, 0);
	build_send(w, SEND);
	w->dma.sge[1].lkey = 0;
	post(&sq);
	doorbell(qp[0]);
	if (wait_for(0, PATIENCE) <= 0)
		die("a bad lkey is taken");
	usleep(20000);
	move(1, IBV_QPS_ERR);
	for (int i = 0; i < (kind == RECV ? 2 : 1); i++) {
		status = wait_for(1, PATIENCE);
		if (status != IBV_WC_WR_FLUSH_ERR)
			fail("receive %d: status %d", i, status);
	}
	if (wait_for(1, 0) >= 0)
		fail("one receive too many is flushed");
	/* nor does it come back with the next error */
	move(0, IBV_QPS_RESET);
	move(1, IBV_QPS_RESET);
	move_all();
	w = slot(&sq, load(&sq.buf->producer_index));
	build_send(w, WRITE);
	w->wr.wr.rdma.rkey = 0x12345678;
	post(&sq);
	doorbell(qp[0]);
	if (wait_for(0, PATIENCE) <= 0)
		die("a bad rkey is taken");
	if (wait_for(1, 0) >= 0)
		fail("a receive from before the reset is completed");
}

/* a queue that has been used up and is empty is drained */
static void drained(int unused)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_SQD };

	set_up(WRITE);
	for (int i = 0; i <= SLOTS; i++) {
		build_send(slot(&sq, i), WRITE);
		post(&sq);
		doorbell(qp[0]);
		if (wait_for(0, PATIENCE))
			die("write");
	}
	if (ibv_modify_qp(qp[0], &attr, IBV_QP_STATE))
		die("sqd");
	for (int i = 0; i < 100; i++) {
		if (ibv_query_qp(qp[0], &attr, IBV_QP_STATE, &init))
			die("query_qp");
		if (!attr.sq_draining)
			return;
		usleep(10000);
	}
	fail("it drains for ever");
}

/* in 64 bytes of the heap, which are free when this returns */
static void *leave_traces(void *unused)
{
	struct pollfd fds[36];

	for (int i = 0; i < ARRAY_SIZE(fds); i++) {
		fds[i].fd = -1;
		fds[i].events = 0x5a5a;
	}
	poll(fds, ARRAY_SIZE(fds), 20);
	return unused;
}

/* the driver's answer to a command is written by it from end to end */
static void look_at_padding(int unused)
{
	struct {
		struct ib_uverbs_create_cq_resp core;
		struct rxe_create_cq_resp own;
	} answer;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_create_cq arg;
	} cmd = {
		.hdr = { .command = IB_USER_VERBS_CMD_CREATE_CQ,
			 .in_words = sizeof(cmd) / 4,
			 .out_words = sizeof(answer) / 4 },
		.arg = { .response = (uintptr_t)&answer, .cqe = 1,
			 .comp_channel = -1 },
	};
	pthread_t threads[8];
	int bad = 0;

	open_device();
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < ARRAY_SIZE(threads); k++)
			if (pthread_create(&threads[k], NULL, leave_traces, NULL))
				die("thread");
		for (int k = 0; k < ARRAY_SIZE(threads); k++)
			pthread_join(threads[k], NULL);
		memset(&answer, 0, sizeof(answer));
		if (write(ctx->cmd_fd, &cmd, sizeof(cmd)) != sizeof(cmd))
			die("create_cq");
		if (answer.own.mi.pad)
			bad = answer.own.mi.pad;
	}
	if (bad)
		fail("the padding is %#x", bad);
}

/* --- threads that call the same verb at the same time --- */

#define THREADS		4
#define RACE		5	/* seconds */

static int raw_modify_srq(uint32_t max_wr)
{
	struct mminfo info;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_modify_srq arg;
		struct rxe_modify_srq_cmd own;
	} cmd = {
		.hdr = { .command = IB_USER_VERBS_CMD_MODIFY_SRQ,
			 .in_words = sizeof(cmd) / 4 },
		.arg = { .srq_handle = srq->handle,
			 .attr_mask = IBV_SRQ_MAX_WR, .max_wr = max_wr },
		.own = { .mmap_info_addr = (uintptr_t)&info },
	};

	return write(ctx->cmd_fd, &cmd, sizeof(cmd)) < 0 ? -1 : 0;
}

static void *race_qps(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	int side = seed & 1;

	while (!load(&stop)) {
		int how = rand_r(&seed) % 4;

		if (how < 2) {
			move(side, IBV_QPS_RESET);
		} else if (how == 2) {
			move(side, IBV_QPS_ERR);
		} else {
			move(side, IBV_QPS_INIT);
			move(side, IBV_QPS_RTR);
			move(side, IBV_QPS_RTS);
		}
	}
	return NULL;
}

/* something to do for those whose QPs these are */
static void *race_posts(void *unused)
{
	while (!load(&stop)) {
		uint32_t n = load(&sq.buf->producer_index);

		build_recv(slot(&rq, n));
		post(&rq);
		build_send(slot(&sq, n), SEND);
		post(&sq);
		doorbell(qp[0]);
		for (int i = 0; i < 2; i++) {
			struct ibv_wc wc[4];

			ibv_poll_cq(cq[i], ARRAY_SIZE(wc), wc);
		}
	}
	return unused;
}

static void *race_cq(void *arg)
{
	unsigned int seed = (uintptr_t)arg;

	while (!load(&stop))
		raw_resize_cq(cq[0], 1 + rand_r(&seed) % 4000);
	return NULL;
}

static void *race_srq(void *arg)
{
	unsigned int seed = (uintptr_t)arg;
	struct ibv_srq_attr attr;

	while (!load(&stop)) {
		raw_modify_srq(1 + rand_r(&seed) % 1000);
		if (ibv_query_srq(srq, &attr))
			die("query_srq");
		attr.srq_limit = 1;
		ibv_modify_srq(srq, &attr, IBV_SRQ_LIMIT);
	}
	return NULL;
}

enum race { MODIFY_QP, RESIZE_CQ, MODIFY_SRQ };

static void race(int which)
{
	static void *(* const calls[])(void *) = {
		[MODIFY_QP] = race_qps, [RESIZE_CQ] = race_cq,
		[MODIFY_SRQ] = race_srq,
	};
	unsigned long before = taint();
	pthread_t threads[THREADS + 1];

	set_up(which == MODIFY_SRQ ? SRQ_RECV : SEND);
	for (int i = 0; i <= THREADS; i++) {
		void *(*call)(void *) = i < THREADS ? calls[which] : race_posts;

		/* a ring that is resized is not mapped any more */
		if (i == THREADS && which != MODIFY_QP)
			threads[i] = 0;
		else if (pthread_create(&threads[i], NULL, call,
					(void *)(uintptr_t)i))
			die("thread");
	}
	sleep(RACE);
	store(&stop, 1);
	for (int i = 0; i <= THREADS; i++)
		if (threads[i])
			pthread_join(threads[i], NULL);
	at_rest(&sq, before);
}

/* --- by rdma_cm: a WR is in the ring before the QP can send --- */

enum { CM_GOOD, CM_REG_MR, CM_HUGE };
static int cm_kind;
static uint64_t mark = 0x5ca1ab1e0ddba115ULL;
static struct ibv_mr *cm_mr;
static void *cm_mem;

static struct rxe_send_wqe *find_wqe(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	struct rxe_send_wqe *found = NULL;
	char line[512];

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;

		if (!strstr(line, "uverbs") ||
		    sscanf(line, "%lx-%lx", &start, &end) != 2)
			continue;
		for (unsigned long at = start; at + 64 <= end; at += 8)
			if (*(uint64_t *)at == mark)
				found = (void *)at;
	}
	if (maps)
		fclose(maps);
	if (!found)
		die("the WQE is not in a ring");
	return found;
}

static void post_and_forge(void)
{
	struct ibv_sge sge = { 0 };
	struct ibv_send_wr *bad, wr = {
		.wr_id = mark, .opcode = IBV_WR_RDMA_WRITE, .sg_list = &sge,
		.num_sge = 1,
	};
	struct rxe_send_wqe *w;

	cm_mem = pages(1);
	cm_mr = ibv_reg_mr(client->pd, cm_mem, 4096, RIGHTS);
	if (!cm_mr)
		die("reg_mr");
	sge.addr = (uintptr_t)cm_mem;
	sge.lkey = cm_mr->lkey;
	ibv_post_send(client->qp, &wr, &bad);	/* refused, but stays there */
	w = find_wqe();
	if (cm_kind == CM_HUGE)
		w->wr.opcode = 0x7fffffff;
	if (cm_kind == CM_REG_MR) {
		/* wr.reg: pointer, key, access */
		w->wr.opcode = WR_REG_MR;
		w->wr.wr.mw.addr = 0x1000;
		((uint32_t *)&w->wr.wr)[2] = cm_mr->rkey;
		((uint32_t *)&w->wr.wr)[3] = RIGHTS;
	}
}

static void cm(int kind)
{
	unsigned long before = taint();
	struct ibv_wc wc = { 0 };
	char address[32];
	int status;

	cm_kind = kind;
	open_device();
	snprintf(address, sizeof(address), "%u.%u.%u.%u", gid.raw[12],
		 gid.raw[13], gid.raw[14], gid.raw[15]);
	connect_pair(address, post_and_forge);
	doorbell(client->qp);
	status = wait_wc(&wc);
	if (status < 0)
		fail("no completion");
	else if (kind == CM_GOOD ? status : !status)
		fail("%s", ibv_wc_status_str(status));
	disconnect_pair();
	if (taint() != before)
		fail("the kernel is tainted");
}

static const struct {
	const char *name;
	void (*run)(int arg);	/* or for all values of an index */
	int arg;
} others[] = {
	{ "rdma_cm, nothing forged", cm, CM_GOOD },
	{ "rdma_cm, REG_MR", cm, CM_REG_MR },
	{ "rdma_cm, unknown opcode", cm, CM_HUGE },
	{ "index: producer of a send queue", NULL, SQ_PRODUCER },
	{ "index: producer of a receive queue", NULL, RQ_PRODUCER },
	{ "index: producer of an SRQ", NULL, SRQ_PRODUCER },
	{ "index: consumer of a CQ", NULL, CQ_CONSUMER },
	{ "index: copies of the driver's", NULL, COPIES },
	{ "index: sizes of the rings", NULL, SIZES },
	{ "index: producer, while a WR is sent again", while_retrying, 0 },
	{ "index: WRs from before a reset", stale, WRITE },
	{ "index: WRs from before a reset, UD", stale, UD_SEND },
	{ "changes: WQE while it is sent again", while_retrying, 1 },
	{ "changes: num_sge of a send", two_values, 0 },
	{ "changes: opcode of a send", two_values, 1 },
	{ "changes: num_sge of a receive", two_values, 2 },
	{ "changes: cur_sge of a receive", two_values, 3 },
	{ "changes: indices of a CQ that is resized", resize, 0 },
	{ "changes: producer indices in the error state", moving_producer,
	  IBV_QPS_ERR },
	{ "changes: producer indices in a reset", moving_producer,
	  IBV_QPS_RESET },
	{ "size of an SRQ", srq_size, 0 },
	{ "path_mtu 0", no_mtu, 0 },
	{ "cur_qp_state", cur_state, 0 },
	{ "attributes without a state", no_state, 0 },
	{ "a privileged Q_Key", privileged_qkey, 0 },
	{ "max_send_sge 0", no_sges, 0 },
	{ "sent again: SEND", sent_again, SEND },
	{ "sent again: WRITE", sent_again, WRITE },
	{ "sent again: READ", sent_again, READ },
	{ "sent again: FETCH_ADD", sent_again, FETCH_ADD },
	{ "sent again: ATOMIC_WRITE", sent_again, ATOMIC_WRITE },
	{ "sent again: FLUSH", sent_again, FLUSH },
	{ "receive, flushed", flush_receives, RECV },
	{ "SRQ receive, flushed", flush_receives, SRQ_RECV },
	{ "drained", drained, 0 },
	{ "padding", look_at_padding, 0 },
	{ "modify_qp by four threads", race, MODIFY_QP },
	{ "resize_cq by four threads", race, RESIZE_CQ },
	{ "modify_srq by four threads", race, MODIFY_SRQ },
};

/* --- a random walk --- */

static uint64_t state;

static uint32_t any(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 16) % below;
}

static uint64_t any_value(void)
{
	uint64_t value = values[any(ARRAY_SIZE(values))];

	return any(2) ? value : value + any(64) - 32;
}

static void forge_any(void)
{
	struct ring *ring = any(2) ? &sq : &rq;
	uint32_t at;

	switch (any(16)) {
	case 0:
		store(&sq.buf->producer_index, any_value());
		break;
	case 1:
		store(&rq.buf->producer_index, any_value());
		break;
	case 2:
		store(&cq_ring.buf->consumer_index, any_value());
		break;
	case 3:	/* any word of the ring's header, too */
		((uint32_t *)ring->buf)[any(96)] = any_value();
		break;
	case 4 ... 9:	/* any word of a WQE */
		at = any(1 << ring->shift) & ~3;
		*(uint32_t *)((uint8_t *)slot(ring, any(SLOTS + 1)) + at) =
			any_value();
		break;
	default: {	/* a field of one */
		const struct field *f = &fields[any(ARRAY_SIZE(fields))];
		uint64_t value = any_value();

		ring = f->kinds & RECVS ? &rq : &sq;
		memcpy((uint8_t *)slot(ring, any(SLOTS + 1)) + f->offset, &value,
		       f->size);
	}
	}
}

static void *forger(void *unused)
{
	while (!load(&stop))
		forge_any();
	return unused;
}

/* one process of the walk: a pair of QPs, used and forged for some rounds */
static void wander(uint64_t seed)
{
	unsigned long before = taint();
	pthread_t thread;
	struct ibv_wc wc[16];
	bool racing;
	enum kind kind;

	state = seed | 1;
	kind = any(KINDS);
	racing = any(2);
	set_up(kind);
	store(&stop, 0);
	if (racing && pthread_create(&thread, NULL, forger, NULL))
		die("thread");
	for (int round = 0; round < 30; round++) {
		int n = 1 + any(4);

		for (int i = 0; i < n; i++) {
			build_recv(slot(&rq, load(&rq.buf->producer_index)));
			post(&rq);
			/* the ring is the same, whatever is made of it */
			build_send(slot(&sq, load(&sq.buf->producer_index)), kind);
			post(&sq);
		}
		for (int i = any(4); !racing && i; i--)
			forge_any();
		doorbell(qp[0]);
		usleep(any(2) ? any(3000) : 0);
		/* the provider would follow a forged index */
		store(&cq_ring.buf->consumer_index,
		      load(&cq_ring.buf->producer_index) & cq_ring.mask);
		ibv_poll_cq(cq[0], ARRAY_SIZE(wc), wc);
		if (!any(16))
			ibv_resize_cq(cq[0], 50 + any(CQ_ENTRIES - 50));
		if (state_of(0) != IBV_QPS_RTS || state_of(1) != IBV_QPS_RTS ||
		    !any(10)) {
			for (int i = 0; i < 2; i++) {
				if (any(2))
					move(i, IBV_QPS_ERR);
				move(i, IBV_QPS_RESET);
			}
			/* what is forged may bring it to the error state */
			if (try_move_all())
				break;
		}
	}
	store(&stop, 1);
	if (racing)
		pthread_join(thread, NULL);
	if (mw)
		ibv_dealloc_mw(mw);
	for (int i = 0; i < 2; i++)
		if (ibv_destroy_qp(qp[i]))
			fail("seed %llu: destroy_qp: %s",
			     (unsigned long long)seed, strerror(errno));
	if (taint() != before)
		fail("seed %llu: the kernel is tainted",
		     (unsigned long long)seed);
}

static int walk(int seconds, uint64_t seed)
{
	time_t end = time(NULL) + seconds;
	unsigned long count = 0;
	int bad = 0;

	printf("# seed %llu\n", (unsigned long long)seed);
	while (time(NULL) < end && bad < 10) {
		char what[60];

		snprintf(what, sizeof(what), "seed %llu",
			 (unsigned long long)(seed + count));
		bad += FORKED(what, wander(seed + count));
		count++;
	}
	printf("# %lu processes\n", count);
	return bad;
}

static bool wanted(const char *name)
{
	return strstr(name, only);
}

/* run all that are wanted, or count them */
static int all(bool run)
{
	char name[120];
	int count = 0;

	for (int kind = 0; kind < KINDS; kind++)
		for (int i = -1; i < (int)ARRAY_SIZE(fields); i++) {
			const struct field *f = &fields[i];

			if (i >= 0 && !(f->kinds & BIT(kind)))
				continue;
			snprintf(name, sizeof(name), "%s: %s", kinds[kind].name,
				 i < 0 ? "nothing forged" : f->name);
			if (!wanted(name))
				continue;
			count++;
			if (!run)
				continue;
			announce(name);
			ksft_test_result(!(i < 0 ? walk_good(kind) :
					   walk_field(kind, f)), "%s\n", name);
		}
	for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
		if (!wanted(others[i].name))
			continue;
		count++;
		if (!run)
			continue;
		announce(others[i].name);
		ksft_test_result(!(others[i].run ?
				   FORKED(others[i].name,
					  others[i].run(others[i].arg)) :
				   index_values(others[i].arg)),
				 "%s\n", others[i].name);
	}
	return count;
}

int main(int argc, char **argv)
{
	uint64_t seed = time(NULL) * 1000003ULL;
	int seconds = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--only") && i + 1 < argc) {
			only = argv[++i];
		} else if (!strcmp(argv[i], "--random") && i + 1 < argc) {
			seconds = atoi(argv[++i]);
			if (i + 1 < argc && strspn(argv[i + 1], "0123456789") ==
					    strlen(argv[i + 1]))
				seed = strtoull(argv[++i], NULL, 10);
		} else {
			device = argv[i];
		}
	}
	ksft_print_header();
	if (!device)
		device = find_device();
	if (!device)
		ksft_exit_skip("there is no rxe device\n");
	if (seconds) {
		ksft_set_plan(1);
		ksft_test_result(!walk(seconds, seed), "random walk\n");
	} else {
		ksft_set_plan(all(false));
		all(true);
	}
	ksft_finished();
}
