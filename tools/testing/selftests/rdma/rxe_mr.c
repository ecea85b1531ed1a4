// SPDX-License-Identifier: GPL-2.0
/*
 * What user space can do with the MRs and memory windows of rxe.
 *
 * Two RC QPs of one device are connected with each other. Tables say which accesses
 * are right; all others must end in an error, and change no byte. On-demand paging
 * MRs must take the same bytes as others do, wherever they lie, and while their
 * pages go. Whatever is asked for, the kernel has to live without a warning.
 *
 * usage: rxe_mr [--only TEXT] [DEVICE]
 *
 * Each test is a process of its own: one that hangs is a failure.
 */
#define _GNU_SOURCE
#include <infiniband/verbs.h>
#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/rdma_user_ioctl_cmds.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "kselftest.h"
#include "user.h"

#ifndef LIMIT
#define LIMIT		90		/* seconds for a test */
#endif
#define PATIENCE	30		/* seconds for a completion */
#define PAGE		4096UL
#define MIB		(1024UL * 1024)
#define REMOTE		(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | \
			 IBV_ACCESS_REMOTE_ATOMIC)
#define RIGHTS		(IBV_ACCESS_LOCAL_WRITE | REMOTE)
#define BINDABLE	(RIGHTS | IBV_ACCESS_MW_BIND)

static const char *device;
static const char *only = "";

static struct ibv_context *ctx;
static struct ibv_pd *pd, *other_pd;
static struct ibv_cq *cq;
static struct ibv_qp *qp[2];
static union ibv_gid gid;
static int gid_index;

static void *pages(size_t count)
{
	void *p = mmap(NULL, count * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static struct ibv_mr *reg(struct ibv_pd *p, void *addr, size_t len,
			  uint64_t iova, int access)
{
	struct ibv_mr *mr = ibv_reg_mr_iova(p, addr, len, iova, access);

	if (!mr)
		die("reg_mr");
	return mr;
}

static struct ibv_mr *reg_here(void *addr, size_t len, int access)
{
	return reg(pd, addr, len, (uintptr_t)addr, access);
}

static void move(struct ibv_qp *q, uint32_t peer, enum ibv_mtu mtu)
{
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT, .port_num = 1,
		.qp_access_flags = BINDABLE, .path_mtu = mtu,
		.dest_qp_num = peer,
		.max_dest_rd_atomic = 4, .max_rd_atomic = 4,
		.min_rnr_timer = 12, .timeout = 14, .retry_cnt = 7,
		.rnr_retry = 7,
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .dgid = gid, .sgid_index = gid_index,
				      .hop_limit = 64 } },
	};

	if (ibv_modify_qp(q, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			  IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		die("INIT");
	a.qp_state = IBV_QPS_RTR;
	if (ibv_modify_qp(q, &a, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
			  IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
			  IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER))
		die("RTR");
	a.qp_state = IBV_QPS_RTS;
	if (ibv_modify_qp(q, &a, IBV_QP_STATE | IBV_QP_TIMEOUT |
			  IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
			  IBV_QP_MAX_QP_RD_ATOMIC))
		die("RTS");
}

static struct ibv_qp *make_qp(struct ibv_pd *p)
{
	struct ibv_qp_init_attr_ex a = {
		.send_cq = cq, .recv_cq = cq, .qp_type = IBV_QPT_RC,
		.sq_sig_all = 1, .pd = p,
		.cap = { .max_send_wr = 8, .max_recv_wr = 8,
			 .max_send_sge = 2, .max_recv_sge = 2 },
		.comp_mask = IBV_QP_INIT_ATTR_PD |
			     IBV_QP_INIT_ATTR_SEND_OPS_FLAGS,
		.send_ops_flags = IBV_QP_EX_WITH_ATOMIC_WRITE,
	};
	struct ibv_qp *q = ibv_create_qp_ex(ctx, &a);

	if (!q)
		die("create_qp");
	return q;
}

/* A WR that fails takes its QP with it. */
static void fresh_qps(void)
{
	struct ibv_wc stale;

	for (int i = 0; i < 2; i++) {
		if (qp[i] && ibv_destroy_qp(qp[i]))
			die("destroy_qp");
		qp[i] = make_qp(pd);
	}
	while (ibv_poll_cq(cq, 1, &stale) > 0)
		;
	for (int i = 0; i < 2; i++)
		move(qp[i], qp[!i]->qp_num, IBV_MTU_1024);
}

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);

	for (; list && *list; list++)
		if (!strcmp(ibv_get_device_name(*list), device))
			ctx = ibv_open_device(*list);
	if (!ctx)
		die("open_device");
	for (gid_index = 0; ; gid_index++) {
		if (ibv_query_gid(ctx, 1, gid_index, &gid))
			die("no GID with an IPv4 address");
		if (!memcmp(gid.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12))
			break;
	}
	pd = ibv_alloc_pd(ctx);
	other_pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 64, NULL, NULL, 0);
	if (!pd || !other_pd || !cq)
		die("pd or cq");
	fresh_qps();
}

/* The next completion's status, or -1 when none comes. */
static int completion(void)
{
	double end = now() + PATIENCE;
	struct ibv_wc wc;

	while (now() < end) {
		int n = ibv_poll_cq(cq, 1, &wc);

		if (n < 0)
			die("poll_cq");
		if (n)
			return wc.status;
		usleep(500);
	}
	return -1;
}

static void post(struct ibv_qp *q, struct ibv_send_wr *wr)
{
	struct ibv_send_wr *bad;

	errno = ibv_post_send(q, wr, &bad);
	if (errno)
		die("post_send");
}

enum op { WRITE, READ, ATOMIC, SEND, ATOMIC_WRITE };
static const char * const op_names[] = {
	"WRITE", "READ", "FETCH_ADD", "SEND", "ATOMIC_WRITE"
};

static void post_op(enum op op, uint64_t addr, uint32_t len, uint32_t lkey,
		    uint64_t raddr, uint32_t rkey)
{
	static const int codes[] = {
		IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ,
		IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_SEND,
	};
	struct ibv_sge sge = { .addr = addr, .length = len, .lkey = lkey };
	struct ibv_send_wr wr = { .sg_list = &sge, .num_sge = 1 };

	/* the older call does not know it */
	if (op == ATOMIC_WRITE) {
		struct ibv_qp_ex *ex = ibv_qp_to_qp_ex(qp[0]);

		ibv_wr_start(ex);
		ex->wr_flags = 0;
		ibv_wr_atomic_write(ex, rkey, raddr, (void *)(uintptr_t)addr);
		errno = ibv_wr_complete(ex);
		if (errno)
			die("atomic write");
		return;
	}

	wr.opcode = codes[op];
	if (op == ATOMIC) {
		wr.wr.atomic.remote_addr = raddr;
		wr.wr.atomic.rkey = rkey;
		wr.wr.atomic.compare_add = 0x0101010101010101;
	} else if (op != SEND) {
		wr.wr.rdma.remote_addr = raddr;
		wr.wr.rdma.rkey = rkey;
	}
	post(qp[0], &wr);
}

static int do_op(enum op op, uint64_t addr, uint32_t len, uint32_t lkey,
		 uint64_t raddr, uint32_t rkey)
{
	post_op(op, addr, len, lkey, raddr, rkey);
	return completion();
}

static int local_inv(struct ibv_qp *q, uint32_t rkey)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_LOCAL_INV,
				  .invalidate_rkey = rkey };

	post(q, &wr);
	return completion();
}

/* the peer's; the error of a SEND_WITH_INV is at the receiver */
static int send_inv(struct ibv_qp *q, uint32_t rkey)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND_WITH_INV,
				  .invalidate_rkey = rkey };
	struct ibv_recv_wr *bad_recv, recv = {};
	int first, second;

	if (ibv_post_recv(q, &recv, &bad_recv))
		die("post_recv");
	post(q == qp[0] ? qp[1] : qp[0], &wr);
	first = completion();
	second = completion();
	return first ? first : second;
}

static struct ibv_mw *make_mw(struct ibv_pd *p, int type)
{
	struct ibv_mw *mw = ibv_alloc_mw(p, type == 1 ? IBV_MW_TYPE_1 :
					 IBV_MW_TYPE_2);

	if (!mw)
		die("alloc_mw");
	return mw;
}

/* what the library would refuse has to get to the kernel, too */
static int bind_mw(struct ibv_qp *q, struct ibv_mw *mw, struct ibv_mr *to,
		   uint64_t addr, uint64_t len, int access, uint32_t *rkey)
{
	struct ibv_mr mr = *to;
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_BIND_MW };
	struct ibv_mw_bind_info info = {
		.mr = &mr, .addr = addr, .length = len,
		.mw_access_flags = access,
	};
	struct ibv_mw_bind one = { .bind_info = info };
	int rc;

	mr.pd = mw->pd;
	if (mw->type == IBV_MW_TYPE_1) {
		int status;

		rc = ibv_bind_mw(q, mw, &one);
		if (rc) {
			errno = rc;
			return -2;
		}
		status = completion();
		*rkey = mw->rkey;
		return status;
	}
	*rkey = ibv_inc_rkey(mw->rkey);
	wr.bind_mw.mw = mw;
	wr.bind_mw.rkey = *rkey;
	wr.bind_mw.bind_info = info;
	rc = ibv_post_send(q, &wr, &bad);
	if (rc) {
		errno = rc;
		return -2;
	}
	return completion();
}

/*
 * Windows: who may reach what by the rkey.
 */
#define MR_AT	PAGE			/* of three pages, the one in the middle */
#define MW_AT	1024UL			/* in it */
#define MW_LEN	1024UL

static const struct {
	const char *name;
	long off;			/* in the MR */
	long len;
	bool good;
} places[] = {
	{ "all of the window", MW_AT, MW_LEN, true },
	{ "its first bytes", MW_AT, 8, true },
	{ "its last bytes", MW_AT + MW_LEN - 8, 8, true },
	{ "just before it", MW_AT - 8, 8, false },
	{ "just behind it", MW_AT + MW_LEN, 8, false },
	{ "half before it", MW_AT - 8, 16, false },
	{ "half behind it", MW_AT + MW_LEN - 8, 16, false },
	{ "one byte more", MW_AT, MW_LEN + 1, false },
	{ "all of the MR", 0, PAGE, false },
	{ "before the MR", -8, 8, false },
	{ "behind the MR", PAGE, 8, false },
};

/* 1 and 2, and 2 zero-based */
static void test_window(int type, int op)
{
	int zero = type == 3 ? IBV_ACCESS_ZERO_BASED : 0;
	uint8_t *dst = pages(3), *src = pages(2);
	struct ibv_mr *to = reg_here(dst + MR_AT, PAGE, BINDABLE);
	struct ibv_mr *from = reg_here(src, 2 * PAGE, RIGHTS);

	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		struct ibv_mw *mw = make_mw(pd, type == 1 ? 1 : 2);
		long len = places[i].len;
		size_t changed = 0, want = 0;
		uint32_t rkey;
		uint64_t raddr;
		int status;

		/* of 8 bytes, and the library wants them aligned */
		if (op == ATOMIC && len != 8 && !places[i].good)
			goto next;
		fresh_qps();
		memset(dst, 'D', 3 * PAGE);
		memset(src, 'S', 2 * PAGE);
		status = bind_mw(qp[1], mw, to, (uintptr_t)to->addr + MW_AT,
				 MW_LEN, REMOTE | zero, &rkey);
		if (status) {
			fail("bind: status %d", status);
			return;
		}
		raddr = places[i].off + (zero ? -MW_AT : (uintptr_t)to->addr);
		status = do_op(op, (uintptr_t)src, op == ATOMIC ? 8 : len,
			       from->lkey, raddr, rkey);
		for (size_t k = 0; k < 3 * PAGE; k++)
			changed += dst[k] != 'D';
		for (size_t k = 0; k < 2 * PAGE; k++)
			changed += src[k] != 'S';
		if (places[i].good)
			want = op == ATOMIC ? 16 : len;
		if (places[i].good ? !!status : status != IBV_WC_REM_ACCESS_ERR)
			fail("%s: status %d", places[i].name, status);
		if (changed != want)
			fail("%s: %zu bytes changed instead of %zu",
			     places[i].name, changed, want);
next:
		ibv_dealloc_mw(mw);
	}
}

static void test_rights(int access, int op)
{
	static const int needs[] = {
		[WRITE] = IBV_ACCESS_REMOTE_WRITE,
		[READ] = IBV_ACCESS_REMOTE_READ,
		[ATOMIC] = IBV_ACCESS_REMOTE_ATOMIC,
	};
	uint8_t *mem = pages(2);
	struct ibv_mr *mr = reg_here(mem, 2 * PAGE, BINDABLE);

	for (int type = 1; type <= 2; type++) {
		struct ibv_mw *mw = make_mw(pd, type);
		int status, want = access & needs[op] ? 0 : IBV_WC_REM_ACCESS_ERR;
		uint32_t rkey;

		fresh_qps();
		if (bind_mw(qp[1], mw, mr, (uintptr_t)mem, PAGE, access, &rkey))
			die("bind");
		status = do_op(op, (uintptr_t)mem + PAGE, 8, mr->lkey,
			       (uintptr_t)mem, rkey);
		if (status != want)
			fail("type %d: status %d", type, status);
		ibv_dealloc_mw(mw);
	}
}

/*
 * Binds that must fail. Offsets are in an MR of one page.
 */
enum { SAME, MR_OF_OTHER, MW_OF_OTHER, TWICE, TO_ZERO_BASED };

static const struct {
	const char *name;
	int type;			/* 0 is both */
	int mr_access, mw_access;
	uint64_t off, len;
	int how;
} binds[] = {
	{ "MR without the right to bind", 0, RIGHTS, REMOTE, 0, PAGE, SAME },
	{ "write to an MR that is read-only", 0, IBV_ACCESS_REMOTE_READ |
	  IBV_ACCESS_MW_BIND, IBV_ACCESS_REMOTE_WRITE, 0, PAGE, SAME },
	{ "atomics on an MR that is read-only", 0, IBV_ACCESS_REMOTE_READ |
	  IBV_ACCESS_MW_BIND, IBV_ACCESS_REMOTE_ATOMIC, 0, PAGE, SAME },
	{ "before the MR", 0, BINDABLE, REMOTE, -8, 16, SAME },
	{ "over the end of the MR", 0, BINDABLE, REMOTE, PAGE - 8, 16, SAME },
	{ "longer than the MR", 0, BINDABLE, REMOTE, 0, PAGE + 1, SAME },
	{ "sum that wraps", 0, BINDABLE, REMOTE, 8, -8UL, SAME },
	{ "sum that wraps to the end", 0, BINDABLE, REMOTE, 4088, -4088UL, SAME },
	{ "zero-based, sum that wraps", 2, BINDABLE,
	  REMOTE | IBV_ACCESS_ZERO_BASED, 8, -8UL, SAME },
	{ "zero-based, before the MR", 2, BINDABLE,
	  REMOTE | IBV_ACCESS_ZERO_BASED, -8, 16, SAME },
	{ "zero-based, behind the MR", 2, BINDABLE,
	  REMOTE | IBV_ACCESS_ZERO_BASED, 1UL << 40, PAGE, SAME },
	{ "type 2 without a length", 2, BINDABLE, REMOTE, 0, 0, SAME },
	{ "type 2 that is bound", 2, BINDABLE, REMOTE, 0, PAGE, TWICE },
	{ "MR of another PD", 0, BINDABLE, REMOTE, 0, PAGE, MR_OF_OTHER },
	{ "window of another PD", 0, BINDABLE, REMOTE, 0, PAGE, MW_OF_OTHER },
};

static void test_bind(int row, int unused)
{
	uint8_t *mem = pages(3);
	bool mr_other = binds[row].how == MR_OF_OTHER;
	struct ibv_mr *mr = reg(mr_other ? other_pd : pd, mem + PAGE, PAGE,
				(uintptr_t)mem + PAGE, binds[row].mr_access);

	for (int type = 1; type <= 2; type++) {
		struct ibv_mw *mw;
		uint32_t rkey;
		int status;

		if (binds[row].type && binds[row].type != type)
			continue;
		fresh_qps();
		mw = make_mw(binds[row].how == MW_OF_OTHER ? other_pd : pd, type);
		if (binds[row].how == TWICE) {
			if (bind_mw(qp[1], mw, mr, (uintptr_t)mem + PAGE, PAGE,
				    REMOTE, &rkey))
				die("first bind");
			mw->rkey = rkey;
		}
		status = bind_mw(qp[1], mw, mr,
				 (uintptr_t)mem + PAGE + binds[row].off,
				 binds[row].len, binds[row].mw_access, &rkey);
		if (status == -2)
			ksft_print_msg("type %d: refused by the library\n", type);
		else if (status != IBV_WC_MW_BIND_ERR)
			fail("type %d: status %d", type, status);
		ibv_dealloc_mw(mw);
	}
}

/*
 * What ends a window.
 */
enum end {
	FRESH,		/* has never been bound */
	LOCAL,		/* LOCAL_INV */
	REMOTE_INV,	/* SEND_WITH_INV */
	LOCAL_TWICE, REMOTE_TWICE,
	TYPE_1,		/* cannot be invalidated */
	FOREIGN,	/* by a QP of another PD */
	SIBLING,	/* by another QP of the PD */
};

static const struct {
	const char *name;
	enum end end;
	int type;
	bool good;	/* what ends it */
	bool alive;	/* after that */
} ends[] = {
	{ "type 2 that is not bound", FRESH, 2, false, false },
	{ "bound type 2 by LOCAL_INV", LOCAL, 2, true, false },
	{ "bound type 2 by SEND_WITH_INV", REMOTE_INV, 2, true, false },
	{ "bound type 2 by LOCAL_INV, twice", LOCAL_TWICE, 2, false, false },
	{ "bound type 2 by SEND_WITH_INV, twice", REMOTE_TWICE, 2, false, false },
	{ "type 1", TYPE_1, 1, false, true },
	{ "type 2 by a QP of another PD", FOREIGN, 2, false, true },
	{ "type 2 by another QP of the PD", SIBLING, 2, false, true },
};

static void test_invalidate(int row, int unused)
{
	uint8_t *mem = pages(2);
	struct ibv_mr *mr = reg_here(mem, 2 * PAGE, BINDABLE);
	struct ibv_mw *mw = make_mw(pd, ends[row].type);
	struct ibv_qp *third[2] = {};
	uint32_t rkey = mw->rkey;
	int status = -1;

	if (ends[row].end != FRESH &&
	    bind_mw(qp[1], mw, mr, (uintptr_t)mem, PAGE, REMOTE, &rkey))
		die("bind");
	if (ends[row].end != FRESH &&
	    do_op(WRITE, (uintptr_t)mem + PAGE, 8, mr->lkey, (uintptr_t)mem, rkey))
		fail("the window does not work");
	switch (ends[row].end) {
	case FRESH:
	case LOCAL:
	case TYPE_1:
		status = local_inv(qp[1], rkey);
		break;
	case LOCAL_TWICE:
		local_inv(qp[1], rkey);
		status = local_inv(qp[1], rkey);
		break;
	case REMOTE_INV:
		status = send_inv(qp[1], rkey);
		break;
	case REMOTE_TWICE:
		send_inv(qp[1], rkey);
		status = send_inv(qp[1], rkey);
		break;
	case FOREIGN:
	case SIBLING:
		for (int i = 0; i < 2; i++)
			third[i] = make_qp(ends[row].end == FOREIGN ?
					   other_pd : pd);
		for (int i = 0; i < 2; i++)
			move(third[i], third[!i]->qp_num, IBV_MTU_1024);
		status = local_inv(third[0], rkey);
	}
	if (ends[row].good ? status != 0 : status <= 0)
		fail("invalidation: status %d", status);
	/* the QP that has asked for the impossible is dead; type 1 lets others in */
	if (ends[row].end == TYPE_1 || ends[row].end >= LOCAL_TWICE ||
	    ends[row].end == FRESH)
		if (!third[0])
			fresh_qps();
	status = do_op(WRITE, (uintptr_t)mem + PAGE, 8, mr->lkey,
		       (uintptr_t)mem, rkey);
	if (ends[row].alive ? status != 0 : status != IBV_WC_REM_ACCESS_ERR)
		fail("WRITE after it: status %d", status);
	ibv_dealloc_mw(mw);
	ibv_dereg_mr(mr);
}

/* The memory is no longer the peer's when LOCAL_INV has completed. */
static void test_invalidate_in_use(int type, int op)
{
	size_t size = 16 * MIB, done = 0;
	uint8_t *dst = pages(size / PAGE), *src = pages(size / PAGE);
	struct ibv_mr *to = reg_here(dst, size, BINDABLE);
	struct ibv_mr *from = reg_here(src, size, RIGHTS);
	struct ibv_mw *mw = make_mw(pd, type);
	struct ibv_send_wr wr = { .opcode = IBV_WR_LOCAL_INV };
	struct ibv_mw_bind gone = { .bind_info = { .mr = to } };
	uint8_t *watch = (op == WRITE ? dst : src) + 64 * 1024;
	bool inv = false, other = false;
	double end = now() + PATIENCE;
	uint32_t rkey;

	if (bind_mw(qp[1], mw, to, (uintptr_t)dst, size, REMOTE, &rkey))
		die("bind");
	memset(src, op == WRITE ? 'S' : 'D', size);
	memset(dst, op == WRITE ? 'D' : 'S', size);
	post_op(op, (uintptr_t)src, size, from->lkey, (uintptr_t)dst, rkey);
	while (__atomic_load_n(watch, __ATOMIC_RELAXED) == 'D' && now() < end)
		;
	if (type == 1) {
		if (ibv_bind_mw(qp[1], mw, &gone))
			die("unbind");
	} else {
		wr.invalidate_rkey = rkey;
		post(qp[1], &wr);
	}
	while ((!inv || !other) && now() < end) {
		struct ibv_wc wc;

		if (!ibv_poll_cq(cq, 1, &wc))
			continue;
		if (wc.qp_num == qp[1]->qp_num) {
			if (!inv && wc.status)
				fail("the window's end: status %d", wc.status);
			inv = true;
			if (op == WRITE)
				memset(dst, 'E', size);
		} else {
			if (wc.status != IBV_WC_REM_ACCESS_ERR)
				fail("%s: status %d", op_names[op], wc.status);
			other = true;
		}
	}
	if (!inv || !other)
		fail("no completion");
	/* one packet may have been under way */
	for (size_t i = 0; op == WRITE && i < size; i++)
		done += dst[i] != 'E';
	if (done > 1024)
		fail("%zu bytes came after the window's end", done);
	ibv_dealloc_mw(mw);
}

/*
 * Objects that go.
 */
static void timed(const char *what, double start)
{
	if (now() - start > 5)
		fail("%s takes %.0f s", what, now() - start);
}

static void test_destroy_qp(int type, int unused)
{
	uint8_t *mem = pages(2);
	struct ibv_mr *mr = reg_here(mem, 2 * PAGE, BINDABLE);
	struct ibv_mw *mw = make_mw(pd, type);
	double start;
	uint32_t rkey;
	int status;

	if (bind_mw(qp[1], mw, mr, (uintptr_t)mem, PAGE, REMOTE, &rkey))
		die("bind");
	start = now();
	fresh_qps();
	timed("destroy_qp", start);
	status = do_op(WRITE, (uintptr_t)mem + PAGE, 8, mr->lkey,
		       (uintptr_t)mem, rkey);
	if (type == 1 ? status != 0 : status != IBV_WC_REM_ACCESS_ERR)
		fail("WRITE through the next QP: status %d", status);
	fresh_qps();
	if (!ibv_dereg_mr(mr))
		fail("an MR goes while a window is bound to it");
	if (ibv_dealloc_mw(mw))
		fail("dealloc_mw: %s", strerror(errno));
	else if (ibv_dereg_mr(mr))
		fail("dereg_mr: %s", strerror(errno));
}

static pthread_barrier_t barrier;
static struct ibv_mr *race_mr;
static int race_rc;

static void *race_dereg(void *unused)
{
	for (;;) {
		pthread_barrier_wait(&barrier);
		if (!race_mr)
			return NULL;
		race_rc = ibv_dereg_mr(race_mr);
		pthread_barrier_wait(&barrier);
	}
}

/* an MR goes while a window is bound to it: one of both has to fail */
static void test_bind_dereg(int type, int unused)
{
	double end = now() + 8, start;
	uint8_t *mem = pages(1);
	pthread_t thread;
	int both = 0, rounds = 0;

	pthread_barrier_init(&barrier, NULL, 2);
	if (pthread_create(&thread, NULL, race_dereg, NULL))
		die("thread");
	while (now() < end && !failed) {
		struct ibv_mw *mw = make_mw(pd, type);
		uint32_t rkey;
		int status;

		race_mr = reg_here(mem, PAGE, BINDABLE);
		pthread_barrier_wait(&barrier);
		start = now();
		while (now() - start < rounds % 64 / 1000000.0)
			;
		status = bind_mw(qp[1], mw, race_mr, (uintptr_t)mem, PAGE,
				 REMOTE, &rkey);
		pthread_barrier_wait(&barrier);
		timed("dereg_mr", start);
		if (!race_rc && !status)
			both++;
		ibv_dealloc_mw(mw);
		if (status)
			fresh_qps();
		if (race_rc)
			ibv_dereg_mr(race_mr);
		rounds++;
	}
	if (both)
		fail("both succeed, %d times of %d", both, rounds);
	race_mr = NULL;
	pthread_barrier_wait(&barrier);
	pthread_join(thread, NULL);
}

/*
 * MRs: on demand or not, at an iova of their own. Every byte has to be where it
 * should. The MR is of four pages less 200 bytes, and begins at byte 100 of the first.
 */
#define HEAD	100UL
#define LEN	(4 * PAGE - 200)

static const struct {
	const char *name;
	uint64_t page;			/* of the iova */
	bool relative;			/* to the address */
} iovas[] = {
	{ "its address", 0, true },
	{ "0", 0 },
	{ "below its address", -64UL * PAGE, true },
	{ "above its address", 64 * PAGE, true },
	{ "the end of 64 bits", -4UL * PAGE },
};

static const struct {
	size_t off, len;		/* in the MR */
	bool bad;
} spans[] = {
	{ 0, 1000 },			/* one packet */
	{ 512, 100 },			/* within a page */
	{ PAGE - HEAD - 100, 200 },	/* over its end */
	{ 0, 3000 },			/* three packets */
	{ 2 * PAGE - HEAD - 1500, 3000 },
	{ PAGE - HEAD, PAGE },		/* a page */
	{ 7, 4091 },
	{ LEN - 1, 1 },
	{ 0, LEN },
	{ LEN, 1, true },
	{ LEN - 1, 2, true },
	{ -1UL, 1, true },
	{ 0, LEN + 1, true },
	{ PAGE * 1000, 8, true },
};

enum way { WRITE_TO, READ_FROM, WRITE_FROM, READ_INTO, RECV_INTO, SEND_FROM, WAYS };
static const char * const way_names[] = {
	"WRITE to", "READ from", "WRITE from", "READ into", "RECV into",
	"SEND from",
};

/* all bytes differ from their neighbours and from those a page or MTU away */
static uint8_t pattern(size_t i, int seed)
{
	return i * 7 + (i >> 8) * 31 + seed;
}

static void fill(uint8_t *p, size_t len, int seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = pattern(i, seed);
}

static void test_bytes(int way, int arg)
{
	int access = RIGHTS | (arg & 1 ? IBV_ACCESS_ON_DEMAND : 0);
	uint8_t *mem = pages(6), *plain = pages(6);
	uint8_t *start = mem + PAGE + HEAD;
	uint64_t iova = iovas[arg >> 1].page +
			(iovas[arg >> 1].relative ? (uintptr_t)start : HEAD);
	struct ibv_mr *mr, *other = reg_here(plain, 6 * PAGE, RIGHTS);
	bool into = way == WRITE_TO || way == READ_INTO || way == RECV_INTO;
	bool local = way != WRITE_TO && way != READ_FROM;

	mr = reg(pd, start, LEN, iova, access);
	for (size_t s = 0; s < ARRAY_SIZE(spans); s++) {
		size_t len = spans[s].len, bad = 0, first = 0;
		/* without on-demand paging, too, the other side is not aligned */
		uint64_t here = iova + spans[s].off, there = (uintptr_t)plain + 64;
		struct ibv_sge sge = { here, len, mr->lkey };
		struct ibv_sge psge = { there, len, other->lkey };
		struct ibv_recv_wr *bad_wr, recv = {
			.sg_list = way == RECV_INTO ? &sge : &psge,
			.num_sge = 1,
		};
		uint8_t *dst = into ? mem : plain;
		size_t at = into ? PAGE + HEAD + spans[s].off : 64;
		size_t from = into ? 64 : PAGE + HEAD + spans[s].off;
		int status;

		fill(into ? plain : mem, 6 * PAGE, 1);
		fill(dst, 6 * PAGE, 100);
		switch (way) {
		case WRITE_TO:
		case READ_FROM:
			status = do_op(way == WRITE_TO ? WRITE : READ, there, len,
				       other->lkey, here, mr->rkey);
			break;
		case WRITE_FROM:
		case READ_INTO:
			status = do_op(way == READ_INTO ? READ : WRITE, here, len,
				       mr->lkey, there, other->rkey);
			break;
		default:
			if (ibv_post_recv(qp[1], &recv, &bad_wr))
				die("post_recv");
			if (way == RECV_INTO)
				status = do_op(SEND, there, len, other->lkey, 0, 0);
			else
				status = do_op(SEND, here, len, mr->lkey, 0, 0);
			if (!status)
				status = completion();
		}
		for (size_t i = 0; i < 6 * PAGE; i++) {
			bool in = !spans[s].bad && i >= at && i < at + len;
			uint8_t want = in ? pattern(i - at + from, 1) :
					    pattern(i, 100);

			/* what failed in between may have got so far */
			if (dst[i] != want && !bad++)
				first = i;
		}
		if (spans[s].bad ? status <= 0 : status != 0)
			fail("%zu bytes at %zd: status %d", len,
			     (ssize_t)spans[s].off, status);
		if (bad && !(spans[s].bad && (local || len > 1024)))
			fail("%zu bytes at %zd: %zu wrong bytes, first at %zu",
			     len, (ssize_t)spans[s].off, bad, first);
		if (status)
			fresh_qps();
	}
}

static void test_atomics(int op, int arg)
{
	int access = RIGHTS | (arg & 1 ? IBV_ACCESS_ON_DEMAND : 0);
	uint64_t iova = iovas[arg >> 1].page;
	/* of two pages */
	static const struct {
		size_t off;
		int status;
	} at[] = {
		{ 0, 0 }, { PAGE - 8, 0 }, { PAGE, 0 }, { 2 * PAGE - 8, 0 },
		{ 2 * PAGE, IBV_WC_REM_ACCESS_ERR },
		{ -8UL, IBV_WC_REM_ACCESS_ERR },
	};
	uint8_t *mem = pages(4);
	uint64_t *local = pages(1);
	struct ibv_mr *mr, *other = reg_here(local, PAGE, RIGHTS);

	if (iovas[arg >> 1].relative)
		iova += (uintptr_t)mem + PAGE;
	else if (iova)
		iova = -2UL * PAGE;
	mr = reg(pd, mem + PAGE, 2 * PAGE, iova, access);
	for (size_t i = 0; i < ARRAY_SIZE(at); i++) {
		uint64_t *target = (uint64_t *)(mem + PAGE + at[i].off);
		uint64_t want = 0x1111111111111111;
		int status;

		memset(mem, 0x11, 4 * PAGE);
		*local = 0x2222222222222222;
		status = do_op(op, (uintptr_t)local, 8, other->lkey,
			       iova + at[i].off, mr->rkey);
		if (status != at[i].status)
			fail("at %zd: status %d", (ssize_t)at[i].off, status);
		if (!at[i].status)
			want = op == ATOMIC ? 0x1212121212121212 :
					      0x2222222222222222;
		if (*target != want)
			fail("at %zd: %#llx", (ssize_t)at[i].off,
			     (unsigned long long)*target);
		if (op == ATOMIC && !status && *local != 0x1111111111111111)
			fail("at %zd: says %#llx", (ssize_t)at[i].off,
			     (unsigned long long)*local);
		if (status)
			fresh_qps();
	}
}

/*
 * Sizes and places of MRs.
 */
/* maps 2 MiB of memory again and again */
static uint8_t *map_big(size_t size)
{
	int fd = memfd_create("big", 0);
	uint8_t *at = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
			   MAP_NORESERVE, -1, 0);

	if (fd < 0 || ftruncate(fd, 2 * MIB) || at == MAP_FAILED)
		die("memfd");
	for (size_t off = 0; off < size; off += 2 * MIB)
		if (mmap(at + off, 2 * MIB, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			die("mmap of a part");
	return at;
}

static void test_size(int mib, int odp)
{
	size_t size = mib * MIB;
	uint8_t *big = odp ? pages(size / PAGE) : map_big(size);
	struct ibv_mr *mr = reg_here(big, size, RIGHTS |
				     (odp ? IBV_ACCESS_ON_DEMAND : 0));
	uint8_t *src = pages(1);
	struct ibv_mr *from = reg_here(src, PAGE, RIGHTS);
	int status;

	memset(src, 'S', PAGE);
	status = do_op(WRITE, (uintptr_t)src, 1, from->lkey,
		       (uintptr_t)big + size - 1, mr->rkey);
	if (status || big[size - 1] != 'S')
		fail("status %d, last byte %#x", status, big[size - 1]);
	if (ibv_dereg_mr(mr))
		fail("dereg_mr: %s", strerror(errno));
}

static const struct {
	const char *name;
	uint64_t addr, len, iova;	/* addr 1 is a page of ours */
} places_bad[] = {
	{ "no bytes", 1, 0, 0 },
	{ "the last page of 64 bits", -PAGE, PAGE, -PAGE },
	{ "over the end of 64 bits", -PAGE, 2 * PAGE, -PAGE },
	{ "all of 64 bits", 0, -1UL, 0 },
	{ "all of 64 bits from page 1", PAGE, -1UL - PAGE, PAGE },
	{ "2^63 bytes", 0, 1UL << 63, 0 },
	{ "the kernel's half", 1UL << 63, PAGE, 1UL << 63 },
	{ "an iova with another offset", 1, PAGE, 0x7000001 },
	{ "512 GiB", 1, 1UL << 39, 0 },
};

/* refused, and nothing is left that could be used */
static void test_place(int row, int odp)
{
	uint8_t *mem = pages(2);
	uint64_t addr = places_bad[row].addr == 1 ? (uintptr_t)mem :
			places_bad[row].addr;
	struct ibv_mr *mr;

	/* the second page is not there */
	if (places_bad[row].addr == 1 && places_bad[row].len != 2 * PAGE)
		munmap(mem + PAGE, PAGE);
	mr = ibv_reg_mr_iova(pd, (void *)(uintptr_t)addr, places_bad[row].len,
			     places_bad[row].iova,
			     RIGHTS | (odp ? IBV_ACCESS_ON_DEMAND : 0));
	if (!mr)
		return;
	/* who maps on demand sees no more than the sums; no page comes of it */
	if (odp && (!strcmp(places_bad[row].name, "512 GiB") ||
		    !strcmp(places_bad[row].name, "the kernel's half"))) {
		int status = do_op(READ, (uintptr_t)mem, 8, mr->lkey,
				   places_bad[row].iova + places_bad[row].len - 8,
				   mr->rkey);

		if (status <= 0)
			fail("status %d", status);
	} else {
		fail("registered");
	}
	ibv_dereg_mr(mr);
}

/*
 * Prefetch. The ioctl itself, as the provider may lack the verb.
 */
static int advise(uint32_t advice, uint32_t flags, uint64_t addr, uint32_t len,
		  uint32_t lkey)
{
	struct ib_uverbs_sge sge = { .addr = addr, .length = len, .lkey = lkey };
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attr[4];
	} cmd = {
		.hdr = { .length = sizeof(cmd), .object_id = UVERBS_OBJECT_MR,
			 .method_id = UVERBS_METHOD_ADVISE_MR, .num_attrs = 4,
			 .driver_id = RDMA_DRIVER_RXE },
		.attr = {
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_PD_HANDLE,
			  .data = pd->handle },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_ADVICE, .len = 8,
			  .data = advice },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_FLAGS, .len = 8,
			  .data = flags },
			{ .attr_id = UVERBS_ATTR_ADVISE_MR_SGE_LIST,
			  .len = sizeof(sge), .data = (uintptr_t)&sge },
		},
	};

	return ioctl(ctx->cmd_fd, RDMA_VERBS_IOCTL, &cmd) ? errno : 0;
}

static const struct {
	const char *name;
	bool plain;			/* the MR is no ODP one */
	uint64_t off;			/* in the MR, of two pages */
	uint32_t len;
	bool good;
	bool written;			/* has to be there after a WRITE advice */
} advices[] = {
	{ "all of the MR", false, 0, 2 * PAGE, true, true },
	{ "the last byte", false, 2 * PAGE - 1, 1, true, false },
	{ "a plain MR", true, 0, 2 * PAGE, false, false },
	{ "behind the MR", false, 2 * PAGE, PAGE, false, false },
	{ "before the MR", false, -PAGE, PAGE, false, false },
	{ "over its end", false, PAGE, 2 * PAGE, false, false },
	{ "4 GiB", false, 0, -1U, false, false },
	{ "2 GiB", false, 0, 1U << 31, false, false },
	{ "the end of 64 bits", false, -2UL * PAGE - 0x7000000, PAGE, false, false },
	{ "around the end of 64 bits", false, -1UL - 0x7000000, -1U, false, false },
};

static void test_advise(int row, int unused)
{
	for (int i = 0; i < 6; i++) {
		uint8_t *mem = pages(2);
		unsigned char here[2] = {};
		uint64_t iova = 0x7000000;
		struct ibv_mr *mr = reg(pd, mem, 2 * PAGE, iova, RIGHTS |
					(advices[row].plain ? 0 :
					 IBV_ACCESS_ON_DEMAND));
		bool flush = i & 1;
		int rc = advise(IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH + i / 2,
				flush ? IB_UVERBS_ADVISE_MR_FLAG_FLUSH : 0,
				iova + advices[row].off, advices[row].len,
				mr->lkey);

		if (advices[row].good ? rc : !rc)
			fail("advice %d, flush %d: %s", i / 2, flush, strerror(rc));
		if (!flush)
			usleep(100000);
		mincore(mem, 2 * PAGE, here);
		if (advices[row].written && i / 2 == 1 && !(here[0] & here[1] & 1))
			fail("advice %d, flush %d: pages are not there", i / 2, flush);
		ibv_dereg_mr(mr);
	}
}

/*
 * Pages of an ODP MR that go while the MR is used.
 */
enum race { DONTNEED, UNMAP, REMAP, PROTECT, FORK, RACES };
static const char * const race_names[] = {
	"madvise", "munmap", "mremap", "mprotect", "fork"
};

#define RACE_PAGES	8
static bool race_end;

struct race_arg {
	uint8_t *mem, *spare;
	struct ibv_mr *mr;
	int race;
};

/* another one that looks for the pages of the MR at the same time */
static void *prefetcher(void *p)
{
	struct race_arg *a = p;

	while (!__atomic_load_n(&race_end, __ATOMIC_RELAXED))
		advise(IB_UVERBS_ADVISE_MR_ADVICE_PREFETCH_WRITE,
		       IB_UVERBS_ADVISE_MR_FLAG_FLUSH, (uintptr_t)a->mem,
		       RACE_PAGES * PAGE, a->mr->lkey);
	return NULL;
}

static void *racer(void *p)
{
	struct race_arg *a = p;
	size_t size = RACE_PAGES * PAGE;

	while (!__atomic_load_n(&race_end, __ATOMIC_RELAXED)) {
		switch (a->race) {
		case DONTNEED:
			madvise(a->mem, size, MADV_DONTNEED);
			break;
		case UNMAP:
			munmap(a->mem + PAGE, size - PAGE);
			mmap(a->mem + PAGE, size - PAGE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
			break;
		case REMAP:
			mremap(a->mem, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			       a->spare);
			mremap(a->spare, size, size, MREMAP_MAYMOVE | MREMAP_FIXED,
			       a->mem);
			break;
		case PROTECT:
			mprotect(a->mem, size, PROT_READ);
			mprotect(a->mem, size, PROT_READ | PROT_WRITE);
			break;
		case FORK: {
			pid_t pid = fork();

			if (!pid)
				_exit(0);
			waitpid(pid, NULL, 0);
			break;
		}
		}
	}
	return NULL;
}

/* Errors are right where there is no page. What nobody has mapped stays as it is. */
static void test_race(int race, int odp)
{
	size_t size = RACE_PAGES * PAGE;
	struct race_arg a = { .race = race, .spare = pages(RACE_PAGES) };
	uint8_t *src = pages(RACE_PAGES), *victim = pages(RACE_PAGES);
	struct ibv_mr *mr, *from = reg_here(src, size, RIGHTS);
	double end = now() + 4;
	pthread_t thread, second;
	int bad = 0, ok = 0;

	a.mem = pages(RACE_PAGES);
	memset(src, 'S', size);
	mr = reg_here(a.mem, size, RIGHTS | IBV_ACCESS_ON_DEMAND);
	a.mr = mr;
	race_end = false;
	if (pthread_create(&thread, NULL, racer, &a) ||
	    pthread_create(&second, NULL, prefetcher, &a))
		die("thread");
	while (now() < end && !failed) {
		int status = do_op(ok & 1 ? READ : WRITE, (uintptr_t)src, size,
				   from->lkey, (uintptr_t)a.mem, mr->rkey);

		if (status == -1)
			fail("no completion");
		if (status) {
			bad++;
			fresh_qps();
		} else {
			ok++;
		}
		/* what has been given back is somebody else's now */
		madvise(victim, size, MADV_DONTNEED);
		memset(victim, 'V', size);
		for (size_t i = 0; i < size; i++)
			if (victim[i] != 'V') {
				fail("a page of others is written to");
				break;
			}
		memset(src, 'S', size);
	}
	__atomic_store_n(&race_end, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	pthread_join(second, NULL);
	ksft_print_msg("%d accesses, %d refused\n", ok + bad, bad);
	if (race != UNMAP && race != REMAP && race != PROTECT && bad)
		fail("%d accesses failed", bad);
	/* as it is now */
	if (!failed) {
		fresh_qps();
		bad = do_op(WRITE, (uintptr_t)src, size, from->lkey,
			    (uintptr_t)a.mem, mr->rkey);
		if (bad || memcmp(a.mem, src, size))
			fail("afterwards: status %d", bad);
	}
}

/*
 * One process for each test.
 */

static bool listing;
static int tests;

static void run(void (*test)(int, int), int a, int b, const char *format, ...)
{
	unsigned long before = taint();
	char name[200];
	va_list args;
	int bad;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	if (!strstr(name, only))
		return;
	tests++;
	if (listing)
		return;
	announce(name);
	bad = FORKED(name, open_device(); test(a, b));
	if (taint() & ~before) {
		ksft_print_msg("the kernel complains\n");
		bad = 1;
	}
	ksft_test_result(!bad, "%s\n", name);
}

static void run_all(void)
{
	static const int ops[] = { WRITE, READ, ATOMIC };
	static const int rights[] = { IBV_ACCESS_REMOTE_READ,
		IBV_ACCESS_REMOTE_WRITE, IBV_ACCESS_REMOTE_ATOMIC };
	static const char * const types[] = { "", "type 1", "type 2",
		"type 2, zero-based" };
	static const char * const kinds[] = { "plain", "ODP" };
	static const struct {
		int mib, odp;
	} sizes[] = {
		{ 1026, 0 }, { 1026, 1 }, { 3072, 1 }, { 5000, 1 },
	};

	/* first, while there is contiguous memory: UML maps each piece of it */
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		run(test_size, sizes[i].mib, sizes[i].odp, "size: %s MR of %d MiB",
		    kinds[sizes[i].odp], sizes[i].mib);
	for (int type = 1; type <= 3; type++)
		for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
			run(test_window, type, ops[i], "window: %s, %s",
			    types[type], op_names[ops[i]]);
	for (size_t k = 0; k < ARRAY_SIZE(rights); k++)
		for (size_t i = 0; i < ARRAY_SIZE(ops); i++)
			run(test_rights, rights[k], ops[i],
			    "window: rights to %s, %s",
			    k == 0 ? "read" : k == 1 ? "write" : "do atomics",
			    op_names[ops[i]]);
	for (size_t i = 0; i < ARRAY_SIZE(binds); i++)
		run(test_bind, i, 0, "bind: %s", binds[i].name);
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		run(test_invalidate, i, 0, "invalidate: %s", ends[i].name);
	for (int type = 1; type <= 2; type++)
		for (int op = WRITE; op <= READ; op++)
			run(test_invalidate_in_use, type, op,
			    "invalidate: type %d during a %s", type,
			    op_names[op]);
	for (int type = 1; type <= 2; type++)
		run(test_destroy_qp, type, 0,
		    "destroy: QP of a bound window, type %d", type);
	for (int type = 1; type <= 2; type++)
		run(test_bind_dereg, type, 0,
		    "destroy: MR while it is bound, type %d", type);
	for (int odp = 0; odp < 2; odp++)
		for (size_t i = 0; i < ARRAY_SIZE(iovas); i++) {
			for (int way = 0; way < WAYS; way++)
				run(test_bytes, way, i << 1 | odp,
				    "bytes: %s a%s MR, iova %s", way_names[way],
				    odp ? "n ODP" : " plain", iovas[i].name);
			run(test_atomics, ATOMIC, i << 1 | odp,
			    "bytes: FETCH_ADD, %s MR, iova %s", kinds[odp],
			    iovas[i].name);
			run(test_atomics, ATOMIC_WRITE, i << 1 | odp,
			    "bytes: ATOMIC_WRITE, %s MR, iova %s", kinds[odp],
			    iovas[i].name);
		}
	for (size_t i = 0; i < ARRAY_SIZE(advices); i++)
		run(test_advise, i, 0, "prefetch: %s", advices[i].name);
	for (int race = 0; race < RACES; race++)
		run(test_race, race, 1, "race: ODP and %s", race_names[race]);
	for (int odp = 0; odp < 2; odp++) {
		for (size_t i = 0; i < ARRAY_SIZE(places_bad); i++)
			run(test_place, i, odp, "place: %s MR, %s", kinds[odp],
			    places_bad[i].name);
	}
}

int main(int argc, char **argv)
{
	int i = 1;

	if (argc > 2 && !strcmp(argv[1], "--only")) {
		only = argv[2];
		i = 3;
	}
	device = i < argc ? argv[i] : find_device();
	ksft_print_header();
	if (!device)
		ksft_exit_skip("no rxe device\n");
	listing = true;
	run_all();
	listing = false;
	ksft_set_plan(tests);
	run_all();
	ksft_finished();
}
