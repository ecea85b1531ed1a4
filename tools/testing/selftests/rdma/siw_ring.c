// SPDX-License-Identifier: GPL-2.0
/*
 * What siw reads from memory that a user can write to: each field of the send,
 * receive, shared receive and completion rings with hostile values, lengths and
 * ranges that wrap, and registrations at the ends of what there is.
 *
 * A user QP of siw has its rings mapped. libsiw fills them in, but nothing makes
 * a process use it, so this writes them itself. A WR that may not be carried out
 * has to complete with the right error, to move no byte, and to take its QP to
 * the error state; the kernel has to live.
 *
 * Each case is a process of its own, so that one which hangs has failed and the
 * next one runs.
 *
 * usage: siw_ring [ADDRESS]		all cases; ADDRESS is that of a siw device,
 *					without it one is made for the test
 *        siw_ring --only TEXT [ADDRESS]	those that have TEXT in their names
 *        siw_ring --random SECONDS [SEED] [ADDRESS]
 *					random changes, also while the kernel reads
 */
#include <rdma/rdma_cma.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/siw-abi.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "kselftest.h"
#include "user.h"

#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
		IBV_ACCESS_REMOTE_READ)
#define PAGE 4096
#define SIZE (4 * PAGE)		/* of each buffer */
#define COVERED (3 * PAGE + 96)	/* of it, by its MR */
#define LEN 64
#define HALF 0x80000000u
#define MARK 0x5ca1ab1e0ddba115ULL
#define WRS 8			/* in each ring */
#define MANY_WRS 8192		/* so many that it takes a while to read them */
#define PATIENCE 5		/* seconds until a completion is missing */
#define OWN_ADDRESS "10.9.77.1"
#define ARRAY(a) (sizeof(a) / sizeof(*(a)))

/* of what somebody else reads or writes meanwhile */
#define GET(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)
#define PUT(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)

/* what a case wants to see */
enum want {
	GOOD,		/* success, and the data is there */
	DONE,		/* success, with no data */
	SENT,		/* a completion, with no data */
	OP_ERR,		/* IBV_WC_LOC_QP_OP_ERR */
	PROT_ERR,	/* IBV_WC_LOC_PROT_ERR */
	LEN_ERR,	/* IBV_WC_LOC_LEN_ERR */
	ANY,		/* a completion, whichever */
	NONE,		/* nothing has been posted */
};

static const char *address = OWN_ADDRESS;
static uint16_t port;
static int report[2];

/* of one case */
static struct rdma_cm_id *client, *server, *listener;
static struct ibv_pd *pd;
static struct ibv_cq *scq, *rcq;
static struct ibv_srq *srq;
static struct ibv_mr *src_mr, *dst_mr, *big_mr;
static uint8_t *src, *dst, *big;
static struct siw_sqe *sq;
static struct siw_rqe *rq;	/* of the server, or its SRQ's */
static int with_srq, wrs = WRS;

/* The end of a case: its reason, or nothing if all is well. */
static void __noreturn __printf(1, 2) verdict(const char *format, ...)
{
	char text[300];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (write(report[1], text, len) != len)
		_exit(2);
	_exit(0);
}

static void __noreturn broken(const char *what)
{
	verdict("cannot be tested: %s: %s", what, strerror(errno));
}

/* High up, so that an address less 2 GiB is one, in UML as well. */
static void *pages(size_t size)
{
	static uintptr_t hint = 1UL << 36;
	void *p = mmap((void *)hint, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (p == MAP_FAILED)
		broken("mmap");
	hint += 1UL << 32;
	return p;
}

/* The entry with the ID MARK in one of the rings of this process. */
static void *find_entry(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	void *found = NULL;
	char line[512], right;

	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;

		if (!strstr(line, "uverbs") ||
		    sscanf(line, "%lx-%lx %c", &start, &end, &right) != 3 ||
		    right != 'r')
			continue;
		for (unsigned long at = start; at + 64 <= end; at += 8)
			if (*(uint64_t *)at == MARK)
				found = (void *)at;
	}
	if (maps)
		fclose(maps);
	if (!found)
		broken("no ring has what was posted");
	return found;
}

/* The rings start with the first entry that libsiw posts; take it back. */
static void find_sq(struct ibv_qp *qp)
{
	struct ibv_send_wr *bad, wr = { .wr_id = MARK, .opcode = IBV_WR_SEND };

	ibv_post_send(qp, &wr, &bad);	/* refused in this state, but there */
	sq = find_entry();
	memset(sq, 0, sizeof(*sq));
}

static void find_rq(struct ibv_qp *qp)
{
	struct ibv_sge sge = { 0 };
	struct ibv_recv_wr *bad, wr = { .wr_id = MARK, .sg_list = &sge,
					.num_sge = 1 };

	if (with_srq ? ibv_post_srq_recv(srq, &wr, &bad) :
		       ibv_post_recv(qp, &wr, &bad))
		broken("post_recv");
	rq = find_entry();
	memset(rq, 0, sizeof(*rq));
}

static void create_qp(struct rdma_cm_id *id, struct ibv_srq *shared)
{
	struct ibv_qp_init_attr a = {
		.qp_type = IBV_QPT_RC, .sq_sig_all = 1, .srq = shared,
		.send_cq = scq, .recv_cq = rcq,
		.cap = { .max_send_wr = wrs, .max_recv_wr = wrs,
			 .max_send_sge = 3, .max_recv_sge = 3 },
	};

	if (rdma_create_qp(id, pd, &a))
		broken("create_qp");
}

static void listening(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };

	if (inet_pton(AF_INET, address, &sin.sin_addr) != 1)
		broken(address);
	if (rdma_create_id(NULL, &listener, NULL, RDMA_PS_TCP) ||
	    rdma_bind_addr(listener, (struct sockaddr *)&sin) ||
	    rdma_listen(listener, 1))
		broken("listen");
	port = rdma_get_src_port(listener);
}

static void *serve(void *unused)
{
	struct rdma_conn_param param = { .responder_resources = 4,
					 .initiator_depth = 4 };

	if (rdma_get_request(listener, &server))
		broken("get_request");
	create_qp(server, srq);
	find_rq(server->qp);
	if (rdma_accept(server, &param))
		broken("accept");
	return unused;
}

static void open_device(struct ibv_context *verbs)
{
	if (verbs->device->transport_type != IBV_TRANSPORT_IWARP)
		broken("no siw device");
	pd = ibv_alloc_pd(verbs);
	scq = ibv_create_cq(verbs, 4 * wrs, NULL, NULL, 0);
	rcq = ibv_create_cq(verbs, 4 * wrs, NULL, NULL, 0);
	if (with_srq) {
		struct ibv_srq_init_attr a = {
			.attr = { .max_wr = WRS, .max_sge = 3 } };

		srq = ibv_create_srq(pd, &a);
		if (!srq)
			broken("create_srq");
	}
	if (!pd || !scq || !rcq)
		broken("pd or cq");
	src = pages(SIZE);
	dst = pages(SIZE);
	src_mr = ibv_reg_mr(pd, src, COVERED, RIGHTS);
	dst_mr = ibv_reg_mr(pd, dst, COVERED, RIGHTS);
	if (!src_mr || !dst_mr)
		broken("reg_mr");
}

static void fill(void)
{
	for (int i = 0; i < SIZE; i++)
		src[i] = 1 + i % 127;
	memset(dst, 0xdd, SIZE);
}

/* both ends of a connection, at one address */
static void connect_pair(void)
{
	struct rdma_conn_param param = { .responder_resources = 4,
					 .initiator_depth = 4 };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	pthread_t thread;

	listening();
	inet_pton(AF_INET, address, &sin.sin_addr);
	sin.sin_port = port;
	if (rdma_create_id(NULL, &client, NULL, RDMA_PS_TCP) ||
	    rdma_resolve_addr(client, NULL, (struct sockaddr *)&sin, 2000) ||
	    rdma_resolve_route(client, 2000))
		broken("resolve");
	if (!pd)
		open_device(client->verbs);
	create_qp(client, NULL);
	find_sq(client->qp);
	fill();
	if (pthread_create(&thread, NULL, serve, NULL))
		broken("thread");
	if (rdma_connect(client, &param))
		broken("connect");
	pthread_join(thread, NULL);
}

static void disconnect_pair(void)
{
	/* no rdma_disconnect(): it would wait for the other end, which is us */
	rdma_destroy_qp(client);
	rdma_destroy_qp(server);
	rdma_destroy_id(client);
	rdma_destroy_id(server);
	rdma_destroy_id(listener);
}

/* the status of the next completion; -1 if there is none */
static int wait_wc(struct ibv_cq *cq, struct ibv_wc *wc, double seconds)
{
	double end = now() + seconds;

	do {
		int n = ibv_poll_cq(cq, 1, wc);

		if (n < 0)
			broken("poll_cq");
		if (n)
			return wc->status;
		usleep(1000);
	} while (now() < end);
	return -1;
}

static int has_error_state(struct ibv_qp *qp)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	double end = now() + PATIENCE;

	do {
		if (ibv_query_qp(qp, &attr, IBV_QP_STATE, &init))
			broken("query_qp");
		if (attr.qp_state == IBV_QPS_ERR)
			return 1;
		usleep(1000);
	} while (now() < end);
	return 0;
}

static const struct siw_sqe good_sqe = { .flags = SIW_WQE_VALID |
						  SIW_WQE_SIGNALLED,
					 .num_sge = 1 };
static const struct siw_rqe good_rqe = { .flags = SIW_WQE_VALID,
					 .num_sge = 1 };

static struct siw_sqe make_sqe(enum siw_opcode opcode)
{
	struct siw_sqe s = good_sqe;

	s.id = 1;
	s.opcode = opcode;
	s.raddr = (uintptr_t)dst;
	s.rkey = dst_mr->rkey;
	s.sge[0] = (struct siw_sge){ (uintptr_t)src, LEN, src_mr->lkey };
	if (opcode == SIW_OP_READ) {
		s.raddr = (uintptr_t)src;
		s.rkey = src_mr->rkey;
		s.sge[0] = (struct siw_sge){ (uintptr_t)dst, LEN, dst_mr->lkey };
	}
	return s;
}

static struct siw_rqe make_rqe(void)
{
	struct siw_rqe r = good_rqe;

	r.id = 2;
	r.sge[0] = (struct siw_sge){ (uintptr_t)dst, COVERED, dst_mr->lkey };
	return r;
}

static void post_sqe(int index, const struct siw_sqe *s)
{
	memcpy((void *)&sq[index] + 16, (void *)s + 16, sizeof(*s) - 16);
	sq[index].id = s->id;
	sq[index].num_sge = s->num_sge;
	sq[index].opcode = s->opcode;
	sq[index].rkey = s->rkey;
	PUT(&sq[index].flags, s->flags);
}

static void post_rqe(int index, const struct siw_rqe *r)
{
	memcpy(rq[index].sge, r->sge, sizeof(r->sge));
	rq[index].id = r->id;
	rq[index].num_sge = r->num_sge;
	rq[index].opcode = r->opcode;
	rq[index].unused = r->unused;
	PUT(&rq[index].flags, r->flags);
}

/* bytes of dst that are no longer 0xdd, and whether those of a good WR are */
static int changed(int len, int *right)
{
	int count = 0;

	*right = !memcmp(dst, src, len);
	for (int i = 0; i < SIZE; i++)
		count += dst[i] != 0xdd;
	return count;
}

/*
 * What has become of the WR with the completion queue CQ of QP, if the peer gets
 * LEN bytes by a good one.
 */
static void judge(struct ibv_qp *qp, struct ibv_cq *cq, enum want want, int len)
{
	static const int statuses[] = {
		[GOOD] = IBV_WC_SUCCESS, [DONE] = IBV_WC_SUCCESS,
		[OP_ERR] = IBV_WC_LOC_QP_OP_ERR,
		[PROT_ERR] = IBV_WC_LOC_PROT_ERR,
		[LEN_ERR] = IBV_WC_LOC_LEN_ERR,
	};
	double end = now() + PATIENCE;
	struct ibv_wc wc;
	int status, count, right;

	status = wait_wc(cq, &wc, want == NONE ? .3 : PATIENCE);
	if (want == NONE) {
		if (status >= 0)
			verdict("completed with \"%s\", though not posted",
				ibv_wc_status_str(status));
		return;
	}
	if (status < 0)
		verdict("no completion");
	if (want != ANY && want != SENT && status != statuses[want])
		verdict("\"%s\" instead of \"%s\"", ibv_wc_status_str(status),
			ibv_wc_status_str(statuses[want]));
	if (status != IBV_WC_SUCCESS && !has_error_state(qp))
		verdict("the QP is not in the error state");
	if (want == GOOD) {
		/* siw completes when TCP has it */
		do {
			count = changed(len, &right);
			if (count < len)
				usleep(1000);
		} while (count < len && now() < end);
		if (count != len || !right)
			verdict("%d bytes moved instead of %d, %s", count, len,
				right ? "right" : "wrong");
	} else if (want != ANY) {
		usleep(20000);
		count = changed(0, &right);
		if (count)
			verdict("%d bytes moved", count);
	}
}

/*
 * Send rings
 */

/* WHERE in an SQE, with SIZE bytes; the value is added to that of BASE */
enum base { ZERO, SRC, DST, SRC_KEY, DST_KEY };

struct value {
	uint64_t value;
	enum base base;
	enum want want;
};

struct field {
	const char *name;
	size_t where, size;
	const struct value *values;
	size_t count;
};

static uint64_t resolve(const struct value *v)
{
	switch (v->base) {
	case SRC:
		return (uintptr_t)src + v->value;
	case DST:
		return (uintptr_t)dst + v->value;
	case SRC_KEY:
		return src_mr->lkey + v->value;
	case DST_KEY:
		return dst_mr->rkey + v->value;
	default:
		return v->value;
	}
}

/* the SQE that is changed is a WRITE; a SEND finds a good RQE */
static const struct value sq_opcodes[] = {
	{ SIW_OP_WRITE, ZERO, GOOD }, { SIW_OP_READ, ZERO, ANY },
	{ SIW_OP_READ_LOCAL_INV, ZERO, OP_ERR }, { SIW_OP_SEND, ZERO, GOOD },
	{ SIW_OP_SEND_WITH_IMM, ZERO, OP_ERR },
	{ SIW_OP_SEND_REMOTE_INV, ZERO, ANY },
	{ SIW_OP_FETCH_AND_ADD, ZERO, OP_ERR },
	{ SIW_OP_COMP_AND_SWAP, ZERO, OP_ERR },
	{ SIW_OP_RECEIVE, ZERO, OP_ERR },
	{ SIW_OP_READ_RESPONSE, ZERO, OP_ERR },
	{ SIW_OP_INVAL_STAG, ZERO, OP_ERR }, { SIW_OP_REG_MR, ZERO, OP_ERR },
	{ SIW_NUM_OPCODES, ZERO, OP_ERR }, { 13, ZERO, OP_ERR },
	{ 0x20, ZERO, OP_ERR }, { 0x7f, ZERO, OP_ERR }, { 0x80, ZERO, OP_ERR },
	{ 0xff, ZERO, OP_ERR },
};

/* the length is good for inline data, and there is what the ring has */
static const struct value sq_flags[] = {
	{ SIW_WQE_VALID, ZERO, NONE },		/* not signalled */
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED | SIW_WQE_SOLICITED, ZERO, GOOD },
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED | SIW_WQE_READ_FENCE, ZERO, GOOD },
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED | SIW_WQE_INLINE, ZERO, ANY },
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED | SIW_WQE_REM_INVAL, ZERO, ANY },
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED | SIW_WQE_COMPLETED, ZERO, ANY },
	{ 0x80 | SIW_WQE_VALID | SIW_WQE_SIGNALLED, ZERO, ANY },
	{ 0x8000 | SIW_WQE_VALID | SIW_WQE_SIGNALLED, ZERO, ANY },
	{ 0xffff, ZERO, ANY }, { 0xfffe, ZERO, NONE }, { 0x0100, ZERO, NONE },
	{ SIW_WQE_SIGNALLED, ZERO, NONE }, { SIW_WQE_INLINE, ZERO, NONE },
};

static const struct value sq_num_sges[] = {
	{ 0, ZERO, DONE }, { 2, ZERO, GOOD }, { SIW_MAX_SGE, ZERO, GOOD },
	{ SIW_MAX_SGE + 1, ZERO, OP_ERR }, { 8, ZERO, OP_ERR },
	{ 0x10, ZERO, OP_ERR }, { 0x7f, ZERO, OP_ERR }, { 0x80, ZERO, OP_ERR },
	{ 0xff, ZERO, OP_ERR },
};

static const struct value sge_lengths[] = {
	{ 0, ZERO, DONE }, { COVERED + 1, ZERO, PROT_ERR },
	{ SIZE, ZERO, PROT_ERR }, { SIZE + 1, ZERO, PROT_ERR },
	{ 0x7fffffff, ZERO, PROT_ERR }, { HALF, ZERO, PROT_ERR },
	{ HALF + LEN, ZERO, PROT_ERR }, { 0xffffffff, ZERO, PROT_ERR },
	{ 0xfffff000, ZERO, PROT_ERR },
};

static const struct value sge_addrs[] = {
	{ 0, ZERO, PROT_ERR }, { -1, SRC, PROT_ERR },
	{ COVERED - LEN + 1, SRC, PROT_ERR }, { COVERED, SRC, PROT_ERR },
	{ SIZE, SRC, PROT_ERR }, { 1ULL << 32, SRC, PROT_ERR },
	{ 1ULL << 44, SRC, PROT_ERR }, { -(1ULL << 44), SRC, PROT_ERR },
	{ 1ULL << 63, SRC, PROT_ERR }, { 1ULL << 63, ZERO, PROT_ERR },
	{ -1ULL, ZERO, PROT_ERR }, { -(uint64_t)LEN, ZERO, PROT_ERR },
	{ -(uint64_t)PAGE, ZERO, PROT_ERR }, { 0x60000000, ZERO, PROT_ERR },
	{ 0xffff888000000000, ZERO, PROT_ERR },
};

static const struct value sge_keys[] = {
	{ 0, ZERO, PROT_ERR }, { 1, ZERO, PROT_ERR }, { 0xff, ZERO, PROT_ERR },
	{ 0x100, SRC_KEY, PROT_ERR }, { 1, SRC_KEY, PROT_ERR },
	{ 0x80000000, SRC_KEY, PROT_ERR }, { 0xffffffff, ZERO, PROT_ERR },
};

/* the peer refuses it, mostly when siw has said that it is sent */
static const struct value sq_rkeys[] = {
	{ 0, ZERO, SENT }, { 1, DST_KEY, SENT }, { 0xffffffff, ZERO, SENT },
	{ 0x100, DST_KEY, SENT },
};

static const struct value sq_raddrs[] = {
	{ 0, ZERO, SENT }, { -1, DST, SENT }, { COVERED - LEN + 1, DST, SENT },
	{ 1ULL << 63, DST, SENT }, { -1ULL, ZERO, SENT },
	{ -(uint64_t)LEN, ZERO, SENT }, { -(uint64_t)LEN + 1, ZERO, SENT },
	{ 1ULL << 44, DST, SENT },
};

static const struct value any_ids[] = {
	{ 0, ZERO, GOOD }, { -1ULL, ZERO, GOOD },
};

static const struct field sq_fields[] = {
	{ "id", offsetof(struct siw_sqe, id),
	  sizeof(good_sqe.id), any_ids, ARRAY(any_ids) },
	{ "flags", offsetof(struct siw_sqe, flags),
	  sizeof(good_sqe.flags), sq_flags, ARRAY(sq_flags) },
	{ "num_sge", offsetof(struct siw_sqe, num_sge),
	  sizeof(good_sqe.num_sge), sq_num_sges, ARRAY(sq_num_sges) },
	{ "opcode", offsetof(struct siw_sqe, opcode),
	  sizeof(good_sqe.opcode), sq_opcodes, ARRAY(sq_opcodes) },
	{ "rkey", offsetof(struct siw_sqe, rkey),
	  sizeof(good_sqe.rkey), sq_rkeys, ARRAY(sq_rkeys) },
	{ "raddr", offsetof(struct siw_sqe, raddr),
	  sizeof(good_sqe.raddr), sq_raddrs, ARRAY(sq_raddrs) },
	{ "sge[0].laddr", offsetof(struct siw_sqe, sge[0].laddr),
	  sizeof(good_sqe.sge[0].laddr), sge_addrs, ARRAY(sge_addrs) },
	{ "sge[0].length", offsetof(struct siw_sqe, sge[0].length),
	  sizeof(good_sqe.sge[0].length), sge_lengths, ARRAY(sge_lengths) },
	{ "sge[0].lkey", offsetof(struct siw_sqe, sge[0].lkey),
	  sizeof(good_sqe.sge[0].lkey), sge_keys, ARRAY(sge_keys) },
};

static void sq_case(const struct field *f, const struct value *v)
{
	struct siw_sqe forged, behind;
	struct siw_rqe r;
	uint64_t value;
	struct ibv_wc wc;
	int status;

	connect_pair();
	r = make_rqe();
	post_rqe(0, &r);
	forged = make_sqe(SIW_OP_WRITE);
	behind = forged;
	behind.id = 3;
	value = resolve(v);
	memcpy((uint8_t *)&forged + f->where, &value, f->size);
	post_sqe(0, &forged);
	/* what is behind one that fails is flushed */
	if (v->want == OP_ERR || v->want == PROT_ERR || v->want == LEN_ERR)
		post_sqe(1, &behind);
	doorbell(client->qp);
	judge(client->qp, scq, v->want, LEN);
	if (v->want == OP_ERR || v->want == PROT_ERR || v->want == LEN_ERR) {
		status = wait_wc(scq, &wc, PATIENCE);
		if (status != IBV_WC_WR_FLUSH_ERR)
			verdict("the WR behind it: %s", status < 0 ?
				"no completion" : ibv_wc_status_str(status));
	}
	disconnect_pair();
	verdict("%s", "");
}

#define WRITE_AND_SEND 0xff	/* a case of each */

/* two or three fields at once */
struct combination {
	const char *name;
	uint8_t opcode;
	uint16_t flags;
	uint8_t num_sge;
	struct { uint64_t off; uint32_t len; } sge[3];
	enum want want;
	int len;		/* of good ones */
};

#define SIGNALLED (SIW_WQE_VALID | SIW_WQE_SIGNALLED)
#define INLINE (SIGNALLED | SIW_WQE_INLINE)
#define FENCED (SIGNALLED | SIW_WQE_READ_FENCE)

static const struct combination combinations[] = {
	{ "three SGEs", WRITE_AND_SEND, SIGNALLED, 3,
	  { { 0, 96 }, { 96, 4000 }, { 4096, 4000 } }, GOOD, 8096 },
	{ "2 * 2 GiB: sum 0", WRITE_AND_SEND, SIGNALLED, 2, { { 0, HALF }, { 0, HALF } },
	  PROT_ERR },
	{ "sum 16", WRITE_AND_SEND, SIGNALLED, 2, { { 0, HALF }, { 0, HALF + 16 } },
	  PROT_ERR },
	{ "sum 1024, from past the MR on", WRITE_AND_SEND, SIGNALLED, 2,
	  { { COVERED, HALF }, { 0, HALF + 1024 } }, PROT_ERR },
	{ "sum 1024, to past the MR", WRITE_AND_SEND, SIGNALLED, 2,
	  { { COVERED - 96, HALF }, { 0, HALF + 1024 } }, PROT_ERR },
	{ "sum 1024, from far beyond", WRITE_AND_SEND, SIGNALLED, 2,
	  { { 0x40000000, HALF }, { 0, HALF + 1024 } }, PROT_ERR },
	{ "good SGE first, sum 96", WRITE_AND_SEND, SIGNALLED, 3,
	  { { 0, 96 }, { 0, HALF }, { 0, HALF } }, PROT_ERR },
	{ "empty SGE first", WRITE_AND_SEND, SIGNALLED, 2, { { 0, 0 }, { 0, LEN } },
	  GOOD, LEN },
	{ "empty SGE first, not aligned, two pages", WRITE_AND_SEND, SIGNALLED, 2,
	  { { 1, 0 }, { 0, 2 * PAGE } }, GOOD, 2 * PAGE },
	{ "empty SGE in the middle", WRITE_AND_SEND, SIGNALLED, 3,
	  { { 0, 100 }, { -1ULL, 0 }, { 100, 1000 } }, GOOD, 1100 },
	{ "empty SGE last", WRITE_AND_SEND, SIGNALLED, 2, { { 0, LEN }, { 5, 0 } },
	  GOOD, LEN },
	{ "three empty SGEs", WRITE_AND_SEND, SIGNALLED, 3, { { 0, 0 }, { 1, 0 }, { 2, 0 } },
	  DONE },
	{ "inline, too long by one", WRITE_AND_SEND, INLINE, 1,
	  { { 0, SIW_MAX_INLINE + 1 } }, OP_ERR },
	{ "inline, 64 KiB", WRITE_AND_SEND, INLINE, 1, { { 0, 0x10000 } }, OP_ERR },
	{ "inline, 2 GiB", WRITE_AND_SEND, INLINE, 1, { { 0, HALF } }, OP_ERR },
	{ "inline, 4 GiB - 1", WRITE_AND_SEND, INLINE, 1, { { 0, 0xffffffff } }, OP_ERR },
	{ "inline, num_sge 255", WRITE_AND_SEND, INLINE, 255, { { 0, LEN } }, ANY },
	{ "inline, empty", WRITE_AND_SEND, INLINE, 1, { { 0, 0 } }, DONE },
	{ "READ", SIW_OP_READ, SIGNALLED, 1, { { 0, LEN } }, GOOD, LEN },
	{ "READ, inline", SIW_OP_READ, INLINE, 1, { { 0, LEN } }, OP_ERR },
	{ "READ, fenced", SIW_OP_READ, FENCED, 1, { { 0, LEN } }, OP_ERR },
	{ "READ, num_sge 0", SIW_OP_READ, SIGNALLED, 0, { { 0, LEN } }, ANY },
	{ "READ, num_sge 255", SIW_OP_READ, SIGNALLED, 255, { { 0, LEN } },
	  ANY },
	{ "INVAL_STAG, inline", SIW_OP_INVAL_STAG, INLINE, 255,
	  { { 0, 0xffffffff } }, OP_ERR },
	{ "SEND_REMOTE_INV, inline, too long by one", SIW_OP_SEND_REMOTE_INV,
	  INLINE, 1, { { 0, SIW_MAX_INLINE + 1 } }, OP_ERR },
};

static void post_combination(const struct combination *c, uint8_t opcode)
{
	struct siw_sqe s = make_sqe(opcode);

	s.flags = c->flags;
	s.num_sge = c->num_sge;
	for (int i = 0; i < 3; i++) {
		s.sge[i] = s.sge[0];
		s.sge[i].laddr = s.sge[0].laddr + c->sge[i].off -
				 (i ? c->sge[0].off : 0);
		s.sge[i].length = c->sge[i].len;
	}
	post_sqe(0, &s);
	doorbell(client->qp);
}

static void combination_case(const struct combination *c, uint8_t opcode)
{
	struct siw_rqe r;

	connect_pair();
	r = make_rqe();
	post_rqe(0, &r);
	post_combination(c, opcode);
	judge(client->qp, scq, c->want, c->len);
	disconnect_pair();
	verdict("%s", "");
}

/* Not signalled, so that the pages themselves go to TCP: a SEND is the sign. */
static void zero_copy_case(int empty)
{
	struct siw_sqe s;
	struct siw_rqe r;
	struct ibv_wc wc;
	int right, status;

	connect_pair();
	s = make_sqe(SIW_OP_WRITE);
	s.flags = SIW_WQE_VALID;
	s.num_sge = 1 + empty;
	s.sge[empty] = s.sge[0];
	s.sge[empty].length = 2 * PAGE;
	if (empty)
		s.sge[0] = (struct siw_sge){ 1, 0, 0 };
	r = make_rqe();
	r.sge[0].length = 0;
	post_rqe(0, &r);
	post_sqe(0, &s);
	s = make_sqe(SIW_OP_SEND);
	s.num_sge = 0;
	post_sqe(1, &s);
	doorbell(client->qp);
	status = wait_wc(rcq, &wc, PATIENCE);
	if (status)
		verdict("the SEND behind it: %s", status < 0 ? "no completion" :
			ibv_wc_status_str(status));
	if (changed(2 * PAGE, &right) != 2 * PAGE || !right)
		verdict("the wrong bytes moved");
	disconnect_pair();
	verdict("%s", "");
}

static void good_zero_copy(void)
{
	zero_copy_case(0);
}

static void empty_zero_copy(void)
{
	zero_copy_case(1);
}

/* An MR of 2 GiB, over one small file that is mapped again and again. */
static void register_big(void)
{
	const size_t size = HALF, piece = 2 << 20;
	int fd = memfd_create("big", 0);

	if (fd < 0 || ftruncate(fd, piece))
		broken("memfd");
	big = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS |
		   MAP_NORESERVE, -1, 0);
	if (big == MAP_FAILED)
		broken("mmap");
	for (size_t off = 0; off < size; off += piece)
		if (mmap(big + off, piece, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
			broken("mmap of a part");
	memset(big, 'B', piece);
	big_mr = ibv_reg_mr(pd, big, size, RIGHTS);
	if (!big_mr)
		broken("reg_mr of 2 GiB");
}

/* Each SGE is all right, but no message is as long as their sum. */
static void long_message(void)
{
	struct siw_sqe s;

	connect_pair();
	register_big();
	s = make_sqe(SIW_OP_WRITE);
	s.num_sge = 3;
	s.sge[0] = (struct siw_sge){ (uintptr_t)big, HALF, big_mr->lkey };
	s.sge[1] = s.sge[0];
	s.sge[2] = s.sge[0];
	s.sge[2].length = LEN;
	post_sqe(0, &s);
	doorbell(client->qp);
	judge(client->qp, scq, LEN_ERR, 0);
	disconnect_pair();
	verdict("%s", "");
}

/* The data is in the SQE, and the peer's MR is gone afterwards. */
static void inline_inval(void)
{
	struct siw_sqe s;
	struct siw_rqe r;
	struct ibv_mr *gone;
	struct ibv_wc wc;
	int status;

	connect_pair();
	gone = ibv_reg_mr(pd, dst, COVERED, RIGHTS);
	if (!gone)
		broken("reg_mr");
	r = make_rqe();
	post_rqe(0, &r);
	s = make_sqe(SIW_OP_SEND_REMOTE_INV);
	s.flags = INLINE;
	s.rkey = gone->rkey;
	s.sge[0] = (struct siw_sge){ 0, SIW_MAX_INLINE, 0 };
	memcpy(&s.sge[1], src, SIW_MAX_INLINE);
	post_sqe(0, &s);
	doorbell(client->qp);
	judge(client->qp, scq, GOOD, SIW_MAX_INLINE);
	status = wait_wc(rcq, &wc, PATIENCE);
	if (status)
		verdict("the peer: %s", status < 0 ? "no completion" :
			ibv_wc_status_str(status));
	fill();
	s = make_sqe(SIW_OP_WRITE);
	s.rkey = gone->rkey;
	post_sqe(1, &s);
	doorbell(client->qp);
	judge(client->qp, scq, DONE, 0);
	disconnect_pair();
	verdict("%s", "");
}

/* What is posted to a QP that is in the error state gets flushed, all of it. */
static void after_error(void)
{
	struct siw_sqe s;
	struct ibv_wc wc;
	int status;

	connect_pair();
	s = make_sqe(SIW_OP_WRITE);
	s.sge[0].lkey = 0xffffffff;
	post_sqe(0, &s);
	doorbell(client->qp);
	judge(client->qp, scq, PROT_ERR, 0);
	for (int i = 1; i < 4 * WRS; i++) {
		s = make_sqe(i & 1 ? SIW_OP_WRITE : SIW_OP_READ);
		s.id = 100 + i;
		post_sqe(i % WRS, &s);
		doorbell(client->qp);
		status = wait_wc(scq, &wc, PATIENCE);
		if (status != IBV_WC_WR_FLUSH_ERR)
			verdict("WR %d: %s", i, status < 0 ? "no completion" :
				ibv_wc_status_str(status));
		if (wc.wr_id != s.id)
			verdict("WR %d: the completion of another one", i);
	}
	disconnect_pair();
	verdict("%s", "");
}

/* A short message is of the memory that was registered. */
static void mapped_anew(void)
{
	static const int lens[] = { 16, 32, LEN };
	uint8_t old[LEN];
	int right;

	connect_pair();
	memcpy(old, src, sizeof(old));
	if (mmap(src, SIZE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != src)
		broken("mmap");
	memset(src, 0xee, SIZE);
	for (size_t i = 0; i < ARRAY(lens); i++) {
		struct siw_sqe s = make_sqe(SIW_OP_WRITE);
		double end = now() + PATIENCE;
		struct ibv_wc wc;

		memset(dst, 0xdd, SIZE);
		s.sge[0].length = lens[i];
		post_sqe(i, &s);
		doorbell(client->qp);
		if (wait_wc(scq, &wc, PATIENCE))
			verdict("WRITE of %d bytes fails", lens[i]);
		while (changed(0, &right) < lens[i] && now() < end)
			usleep(1000);
		if (memcmp(dst, old, lens[i]))
			verdict("%d bytes of other memory", lens[i]);
	}
	disconnect_pair();
	verdict("%s", "");
}

/* The peer has 2 GiB to read, and the MR that takes it is small. */
static void long_read(void)
{
	struct siw_sqe s;
	struct ibv_wc wc;
	int right, count, status;

	connect_pair();
	register_big();
	s = make_sqe(SIW_OP_READ);
	s.raddr = (uintptr_t)big;
	s.rkey = big_mr->rkey;
	s.sge[0].laddr = (uintptr_t)dst + 3 * PAGE;
	s.sge[0].length = HALF;
	post_sqe(0, &s);
	doorbell(client->qp);
	status = wait_wc(scq, &wc, PATIENCE);
	usleep(100000);
	count = changed(0, &right);
	if (count)
		verdict("%d bytes moved, into an MR that ends after 96", count);
	if (status != IBV_WC_LOC_PROT_ERR)
		verdict("%s", status < 0 ? "no completion" :
			ibv_wc_status_str(status));
	disconnect_pair();
	verdict("%s", "");
}

/*
 * Receive rings
 */

static const struct value rq_num_sges[] = {
	{ 0, ZERO, LEN_ERR }, { 2, ZERO, GOOD }, { SIW_MAX_SGE, ZERO, GOOD },
	{ SIW_MAX_SGE + 1, ZERO, OP_ERR }, { 8, ZERO, OP_ERR },
	{ 0x7f, ZERO, OP_ERR }, { 0x80, ZERO, OP_ERR }, { 0xff, ZERO, OP_ERR },
};

static const struct value rq_flags[] = {
	{ SIW_WQE_VALID | SIW_WQE_INLINE, ZERO, GOOD },
	{ SIW_WQE_VALID | SIW_WQE_SIGNALLED, ZERO, GOOD },
	{ SIW_WQE_VALID | 0x8000, ZERO, GOOD }, { 0xffff, ZERO, GOOD },
};

static const struct value rq_lengths[] = {
	{ 0, ZERO, LEN_ERR }, { LEN - 1, ZERO, LEN_ERR },
	{ 0x7fffffff, ZERO, ANY }, { HALF, ZERO, ANY },
	{ 0xffffffff, ZERO, ANY },
};

static const struct value rq_addrs[] = {
	{ 0, ZERO, PROT_ERR }, { -1, DST, PROT_ERR },
	{ COVERED - LEN + 1, DST, PROT_ERR }, { 1ULL << 44, DST, PROT_ERR },
	{ 1ULL << 63, DST, PROT_ERR }, { -1ULL, ZERO, PROT_ERR },
	{ -(uint64_t)LEN, ZERO, PROT_ERR },
};

static const struct value rq_keys[] = {
	{ 0, ZERO, PROT_ERR }, { 1, DST_KEY, PROT_ERR },
	{ 0xffffffff, ZERO, PROT_ERR }, { 0x100, DST_KEY, PROT_ERR },
};

static const struct value rq_ignored[] = {
	{ 0, ZERO, GOOD }, { SIW_OP_REG_MR, ZERO, GOOD },
	{ 0xffffffff, ZERO, GOOD },
};

static const struct field rq_fields[] = {
	{ "id", offsetof(struct siw_rqe, id),
	  sizeof(good_rqe.id), any_ids, ARRAY(any_ids) },
	{ "flags", offsetof(struct siw_rqe, flags),
	  sizeof(good_rqe.flags), rq_flags, ARRAY(rq_flags) },
	{ "num_sge", offsetof(struct siw_rqe, num_sge),
	  sizeof(good_rqe.num_sge), rq_num_sges, ARRAY(rq_num_sges) },
	{ "opcode", offsetof(struct siw_rqe, opcode),
	  sizeof(good_rqe.opcode), rq_ignored, ARRAY(rq_ignored) },
	{ "unused", offsetof(struct siw_rqe, unused),
	  sizeof(good_rqe.unused), rq_ignored, ARRAY(rq_ignored) },
	{ "sge[0].laddr", offsetof(struct siw_rqe, sge[0].laddr),
	  sizeof(good_rqe.sge[0].laddr), rq_addrs, ARRAY(rq_addrs) },
	{ "sge[0].length", offsetof(struct siw_rqe, sge[0].length),
	  sizeof(good_rqe.sge[0].length), rq_lengths, ARRAY(rq_lengths) },
	{ "sge[0].lkey", offsetof(struct siw_rqe, sge[0].lkey),
	  sizeof(good_rqe.sge[0].lkey), rq_keys, ARRAY(rq_keys) },
};

static void rq_case(const struct field *f, const struct value *v)
{
	struct siw_rqe forged;
	struct siw_sqe s;
	uint64_t value;

	connect_pair();
	forged = make_rqe();
	value = resolve(v);
	memcpy((uint8_t *)&forged + f->where, &value, f->size);
	post_rqe(0, &forged);
	s = make_sqe(SIW_OP_SEND);
	post_sqe(0, &s);
	doorbell(client->qp);
	judge(server->qp, rcq, v->want, LEN);
	disconnect_pair();
	if (srq && ibv_destroy_srq(srq))
		verdict("the SRQ cannot be destroyed");
	verdict("%s", "");
}

/* room for more than 4 GiB is room for a message of 64 bytes */
static void rq_wraps(void)
{
	struct siw_rqe r;
	struct siw_sqe s;

	connect_pair();
	r = make_rqe();
	r.num_sge = 2;
	r.sge[0].length = LEN;
	r.sge[1] = (struct siw_sge){ (uintptr_t)dst + LEN, -LEN, dst_mr->lkey };
	post_rqe(0, &r);
	s = make_sqe(SIW_OP_SEND);
	post_sqe(0, &s);
	doorbell(client->qp);
	judge(server->qp, rcq, GOOD, LEN);
	disconnect_pair();
	verdict("%s", "");
}

/*
 * Rings that are written to for as long as the kernel reads them
 */

/* entries that the kernel has given back, as the process that refills sees it */
static long *given_back;

static void count_given_back(int more)
{
	PUT(given_back, *given_back + more);
}

/* those of one WR, in the end of all */
static void empty_cqes(struct siw_cqe *cqes, int i)
{
	for (int k = 4 * i; k < 4 * i + 4; k++)
		PUT(&cqes[k].flags, 0);
}

static void refill_sq(struct siw_cqe *cqes)
{
	for (int i = 0; i < wrs; i++) {
		empty_cqes(cqes, i);
		count_given_back(!GET(&sq[i].flags));
		PUT(&sq[i].flags, SIW_WQE_VALID);
	}
}

/* not flushed, but carried out: unsignalled, there is nothing to wait for */
static void refill_inval(struct siw_cqe *cqes)
{
	for (int i = 0; i < wrs; i++) {
		empty_cqes(cqes, i);
		if (GET(&sq[i].flags))
			continue;
		count_given_back(1);
		sq[i].opcode = SIW_OP_INVAL_STAG;
		sq[i].rkey = src_mr->lkey;
		PUT(&sq[i].flags, SIW_WQE_VALID);
	}
}

static void refill_rq(struct siw_cqe *cqes)
{
	for (int i = 0; i < wrs; i++) {
		empty_cqes(cqes, i);
		count_given_back(!GET(&rq[i].flags));
		PUT(&rq[i].flags, SIW_WQE_VALID);
	}
}

static void refill_cq(struct siw_cqe *cqes)
{
	for (int k = 0; k < 4 * wrs; k++) {
		count_given_back(!GET(&cqes[k].flags));
		cqes[k].opcode = 0xff;
		cqes[k].status = 0xffff;
		PUT(&cqes[k].flags, 0xff);
	}
}

/* the ring of the CQ, by what one WR has left in it */
static struct siw_cqe *find_cq(struct ibv_cq *cq)
{
	struct siw_sqe s = make_sqe(SIW_OP_SEND);
	struct siw_rqe r = make_rqe();
	struct siw_cqe *cqes;
	struct ibv_wc wc;

	s.id = cq == scq ? MARK : 1;
	r.id = cq == scq ? 2 : MARK;
	post_rqe(0, &r);
	post_sqe(0, &s);
	doorbell(client->qp);
	if (wait_wc(scq, &wc, PATIENCE) || wait_wc(rcq, &wc, PATIENCE))
		broken("SEND");
	sq[0].id = 0;
	rq[0].id = 0;
	cqes = find_entry();
	return cqes;
}

static void stay_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* with one CPU alone there is little to see */
	sched_setaffinity(0, sizeof(set), &set);
}

/*
 * By another process, as libsiw takes the rings from this one. No more than
 * MOST entries may be given back meanwhile: there is a flush when the connection
 * ends, and when the QP is destroyed, and each of them has to end.
 */
static void refill(void (*how)(struct siw_cqe *cqes), struct ibv_cq *cq, long most)
{
	struct siw_cqe *cqes;
	long before;
	pid_t pid;

	given_back = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (given_back == MAP_FAILED)
		broken("mmap");
	wrs = MANY_WRS;
	connect_pair();
	cqes = find_cq(cq);
	pid = fork();
	if (pid < 0)
		broken("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		stay_on(1);
		for (;;)
			how(cqes);
	}
	stay_on(0);
	usleep(20000);
	before = GET(given_back);
	if (how == refill_inval) {
		doorbell(client->qp);
		usleep(100000);
	}
	disconnect_pair();
	if (how == refill_cq && (ibv_destroy_cq(scq) || ibv_destroy_cq(rcq)))
		verdict("the CQ cannot be destroyed");
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	if (GET(given_back) - before > most)
		verdict("%ld entries given back, and %ld would have been all",
			GET(given_back) - before, most);
	verdict("%s", "");
}

#define MAX_WRS 32768	/* of any SQ: so much may be flushed at a time */

static void refilled_sq(void)
{
	refill(refill_sq, scq, 3 * MAX_WRS);
}

static void refilled_inval(void)
{
	refill(refill_inval, scq, 3 * MAX_WRS);
}

static void refilled_rq(void)
{
	refill(refill_rq, rcq, 3 * MANY_WRS);
}

static void refilled_cq(void)
{
	refill(refill_cq, scq, 2 * 4 * MANY_WRS);
}

/*
 * Registrations
 */

static void open_only(void)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };

	inet_pton(AF_INET, address, &sin.sin_addr);
	if (rdma_create_id(NULL, &client, NULL, RDMA_PS_TCP) ||
	    rdma_bind_addr(client, (struct sockaddr *)&sin))
		broken("bind_addr");
	open_device(client->verbs);
}

/* lengths that cannot be had: refused, and without a splat */
static void long_mrs(void)
{
	static const uint64_t lengths[] = {
		1ULL << 36, 1ULL << 40, 1ULL << 42, 1ULL << 44,
		(1ULL << 44) + PAGE, 1ULL << 47, 1ULL << 63, -(1ULL << 44),
		-(uint64_t)PAGE, -1ULL,
	};
	static const uint64_t starts[] = {
		0, PAGE, 1ULL << 46, 1ULL << 47, 1ULL << 63, -(uint64_t)PAGE,
	};

	open_only();
	for (size_t i = 0; i < ARRAY(lengths); i++) {
		if (ibv_reg_mr(pd, src, lengths[i], RIGHTS))
			verdict("%#llx bytes registered",
				(unsigned long long)lengths[i]);
		for (size_t k = 0; k < ARRAY(starts); k++)
			if (ibv_reg_mr(pd, (void *)(uintptr_t)starts[k],
				       lengths[i], RIGHTS))
				verdict("%#llx bytes at %#llx registered",
					(unsigned long long)lengths[i],
					(unsigned long long)starts[k]);
	}
	verdict("%s", "");
}

struct iova {
	const char *name;
	uint64_t iova;
	uint64_t len;
	int refused;
};

static const struct iova iovas[] = {
	{ "0", 0, SIZE },
	{ "1 MiB", 1 << 20, SIZE },
	{ "in the middle", 1ULL << 63, SIZE },
	{ "up to the end of 64 bits", -(uint64_t)SIZE, SIZE },
	{ "beyond the end of 64 bits", -(uint64_t)PAGE, SIZE, 1 },
};

/* short and long, both as the sink of the peer and as the source */
static void iova_case(const struct iova *v)
{
	static const int lens[] = { 16, LEN, 3 * PAGE };
	struct ibv_mr *from, *to;
	struct siw_sqe s;

	connect_pair();
	from = ibv_reg_mr_iova(pd, src, v->len, v->iova, RIGHTS);
	to = ibv_reg_mr_iova(pd, dst, v->len, v->iova, RIGHTS);
	if (v->refused || !from || !to) {
		if (v->refused != !from || v->refused != !to)
			verdict("%s", from ? "registered" : "refused");
		verdict("%s", "");
	}
	for (size_t i = 0; i < ARRAY(lens); i++) {
		fill();
		s = make_sqe(SIW_OP_WRITE);
		s.raddr = v->iova;
		s.rkey = to->rkey;
		s.sge[0] = (struct siw_sge){ v->iova, lens[i], from->lkey };
		post_sqe(2 * i, &s);
		doorbell(client->qp);
		judge(client->qp, scq, GOOD, lens[i]);
		fill();
		s = make_sqe(SIW_OP_READ);
		s.raddr = v->iova;
		s.rkey = from->rkey;
		s.sge[0] = (struct siw_sge){ v->iova, lens[i], to->lkey };
		post_sqe(2 * i + 1, &s);
		doorbell(client->qp);
		judge(client->qp, scq, GOOD, lens[i]);
	}
	/* one byte before, and up to one behind it */
	fill();
	s = make_sqe(SIW_OP_WRITE);
	s.sge[0] = (struct siw_sge){ v->iova + v->len - LEN + 1, LEN,
				     from->lkey };
	post_sqe(2 * ARRAY(lens), &s);
	doorbell(client->qp);
	judge(client->qp, scq, PROT_ERR, 0);
	disconnect_pair();
	verdict("%s", "");
}

/*
 * A peer that is none: segments by hand, over plain TCP
 */

struct mpa_request {
	char key[16];
	uint16_t bits, private_len;
};

static void send_all(int fd, const void *data, size_t len)
{
	if (send(fd, data, len, MSG_NOSIGNAL) != (ssize_t)len)
		broken("send");
}

/* one segment of an RDMA WRITE, with 0 or 4 bytes of data */
static void send_write(int fd, uint32_t stag, uint64_t to, const void *data,
		       int last)
{
	uint8_t frame[24] = { 0 };
	size_t len = data ? 4 : 0;

	frame[1] = 14 + len;
	frame[2] = 0x81 | (last ? 0x40 : 0);	/* tagged, version 1 */
	frame[3] = 0x40;			/* RDMAP version 1, WRITE */
	for (int i = 0; i < 4; i++)
		frame[4 + i] = stag >> (24 - 8 * i);
	for (int i = 0; i < 8; i++)
		frame[8 + i] = to >> (56 - 8 * i);
	if (data)
		memcpy(frame + 16, data, len);
	send_all(fd, frame, 16 + len + 4);	/* and no CRC */
}

/* a READ, as a peer asks for it: all numbers in network order in the frame */
struct read_request {
	uint16_t mpa_len;
	uint8_t ddp, rdmap;
	uint32_t reserved, qn, msn, mo;
	uint32_t sink_stag, sink_to[2], size, source_stag, source_to[2];
};

static const struct read_request stray_read = {
	.mpa_len = __builtin_bswap16(sizeof(stray_read) - 2),
	.ddp = 0x41, .rdmap = 0x41,		/* last, version 1; READ request */
	.qn = __builtin_bswap32(1), .msn = __builtin_bswap32(1),
	.sink_stag = 0x51515151, .sink_to = { 0x52525252, 0x53535353 },
	.size = 0x44000000, .source_stag = 0x55555555,
	.source_to = { 0x56565656, 0x57575757 },
};

/* The other end of SERVER, over plain TCP; ready to send. */
static int connect_raw(pthread_t *thread)
{
	struct mpa_request request = { .key = "MPA ID Req Frame",
				       .bits = htons(1) };
	struct timeval patience = { .tv_sec = PATIENCE };
	struct sockaddr_in sin = { .sin_family = AF_INET };
	char answer[64];
	int fd;

	listening();
	if (pthread_create(thread, NULL, serve, NULL))
		broken("thread");
	inet_pton(AF_INET, address, &sin.sin_addr);
	sin.sin_port = port;
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (struct sockaddr *)&sin, sizeof(sin)))
		broken("TCP connect");
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	memcpy(request.key, "MPA ID Req Frame", 16);
	send_all(fd, &request, sizeof(request));
	if (recv(fd, answer, sizeof(request), MSG_WAITALL) != sizeof(request))
		broken("MPA reply");
	return fd;
}

/* STRAY: the one with data names no MR */
static void empty_segment(int stray)
{
	double end = now() + PATIENCE;
	pthread_t thread;
	int fd, count, right;

	open_only();
	fill();
	memset(src, 'W', 4);
	fd = connect_raw(&thread);
	if (stray) {
		send_write(fd, 0, 0, NULL, 0);
		send_write(fd, 0, 0, "WWWW", 1);
	} else {
		send_write(fd, dst_mr->rkey, (uintptr_t)dst, NULL, 0);
		send_write(fd, dst_mr->rkey, (uintptr_t)dst, "WWWW", 1);
	}
	pthread_join(thread, NULL);
	do {
		usleep(1000);
		count = changed(4, &right);
	} while (count < 4 && now() < end && !stray);
	if (stray && !has_error_state(server->qp))
		verdict("the QP is not in the error state");
	if (count != (stray ? 0 : 4) || (!stray && !right))
		verdict("%d bytes moved", count);
	verdict("%s", "");
}

static int stop;

/* WRs of a ULP that has something to hide, one after the other */
static void *keep_posting(void *unused)
{
	struct siw_sqe s = make_sqe(SIW_OP_WRITE);

	s.flags = SIW_WQE_VALID;
	for (unsigned int i = 0; !GET(&stop); i++) {
		if (!GET(&sq[i % WRS].flags))
			post_sqe(i % WRS, &s);
		doorbell(server->qp);
	}
	return unused;
}

/* the TERMINATE that answers a READ, behind what else is sent; 0 if none came */
static int receive_terminate(int fd, struct read_request *about)
{
	static uint8_t frame[65536 + 8];

	for (;;) {
		size_t len;

		if (recv(fd, frame, 4, MSG_WAITALL) != 4)
			return 0;
		len = (2 + (frame[0] << 8 | frame[1]) + 3) & ~3;
		if (recv(fd, frame + 4, len, MSG_WAITALL) != (ssize_t)len)
			return 0;
		if ((frame[3] & 0xf) != 7)
			continue;
		if (len < 24 + sizeof(*about))
			return 0;
		memcpy(about, frame + 24, sizeof(*about));
		return 1;
	}
}

/*
 * A READ of an STag that is none is answered by a TERMINATE with the header of
 * the READ, and with nothing of what the ULP posts meanwhile.
 */
static void terminate_tells(void)
{
	int answers = 0;

	open_only();
	fill();
	for (int i = 0; i < 60; i++) {
		struct read_request about;
		pthread_t thread, poster;
		int fd;

		fd = connect_raw(&thread);
		pthread_join(thread, NULL);
		find_sq(server->qp);
		PUT(&stop, 0);
		if (pthread_create(&poster, NULL, keep_posting, NULL))
			broken("thread");
		usleep(i % 4 * 500);
		send_all(fd, &stray_read, sizeof(stray_read));
		send_all(fd, "\0\0\0", 4);	/* no CRC */
		if (receive_terminate(fd, &about)) {
			answers++;
			if (about.sink_stag != stray_read.sink_stag ||
			    about.size != stray_read.size ||
			    about.source_stag != stray_read.source_stag ||
			    memcmp(about.sink_to, stray_read.sink_to, 8) ||
			    memcmp(about.source_to, stray_read.source_to, 8))
				verdict("the %d. TERMINATE tells of STag %#x at %#x%08x, %#x bytes",
					answers, ntohl(about.source_stag),
					ntohl(about.source_to[0]),
					ntohl(about.source_to[1]),
					ntohl(about.size));
		}
		PUT(&stop, 1);
		pthread_join(poster, NULL);
		close(fd);
		rdma_destroy_qp(server);
		rdma_destroy_id(server);
		rdma_destroy_id(listener);
	}
	if (!answers)
		verdict("no TERMINATE");
	verdict("%s", "");
}

static void empty_segment_good(void)
{
	empty_segment(0);
}

static void empty_segment_stray(void)
{
	empty_segment(1);
}

/*
 * Random changes
 */

static uint64_t state;

static uint64_t any(void)
{
	/* xorshift64*, so that a seed is the same everywhere */
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return state * 0x2545f4914f6cdd1dULL;
}

static uint64_t any_value(void)
{
	static const uint64_t edges[] = {
		0, 1, 7, 8, 63, 64, 65, 80, 81, 0x7f, 0x80, 0xff, PAGE,
		COVERED, COVERED + 1, SIZE, 0x7fffffff, HALF, HALF + LEN,
		0xffffffff, 1ULL << 32, 1ULL << 63, -1ULL, -(uint64_t)LEN,
	};

	switch (any() % 8) {
	case 0:
		return any();
	case 1:
		return (uintptr_t)src + any() % (2 * SIZE);
	case 2:
		return (uintptr_t)dst + any() % (2 * SIZE);
	case 3:
		return src_mr->lkey + any() % 3 - 1;
	case 4:
		return any() % 64;
	default:
		return edges[any() % ARRAY(edges)];
	}
}

static void change(void *entry, const struct field *fields, size_t count)
{
	for (int n = any() % 4; n; n--) {
		const struct field *f = &fields[any() % count];
		uint64_t value = any_value();

		memcpy((uint8_t *)entry + f->where, &value, f->size);
	}
}

static int racing;

/* while the kernel looks */
static void *race(void *unused)
{
	uint64_t seed = state ^ 0x9e3779b97f4a7c15ULL;

	while (!GET(&stop)) {
		uint8_t *at;

		if (!GET(&racing)) {
			usleep(100);
			continue;
		}
		seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
		at = (seed >> 40) & 1 ? (uint8_t *)sq + (seed >> 41) % (WRS * sizeof(*sq)) :
					(uint8_t *)rq + (seed >> 41) % (WRS * sizeof(*rq));
		*at ^= seed >> 32;
	}
	return unused;
}

static const enum siw_opcode sound[] = { SIW_OP_WRITE, SIW_OP_SEND, SIW_OP_READ };

static void check_guards(void)
{
	for (int i = COVERED; i < SIZE; i++)
		if (src[i] != 1 + i % 127 || dst[i] != 0xdd)
			verdict("memory behind an MR has changed");
}

/* one connection, until it has broken or 20 entries have been posted */
static void random_connection(void)
{
	pthread_t racer;
	struct ibv_wc wc;
	int put = 0, race_it;

	with_srq = any() & 1;
	race_it = any() % 4 == 0;
	connect_pair();
	PUT(&stop, 0);
	PUT(&racing, 0);
	if (race_it && pthread_create(&racer, NULL, race, NULL))
		broken("thread");
	for (int i = 0; i < 20; i++) {
		struct siw_rqe r = make_rqe();
		struct siw_sqe s = make_sqe(sound[any() % ARRAY(sound)]);
		int entries = 1 + any() % 3;

		for (int n = 0; n < entries; n++, put++) {
			r = make_rqe();
			if (any() % 3 == 0)
				change(&r, rq_fields, ARRAY(rq_fields));
			post_rqe(put % WRS, &r);
			s = make_sqe(sound[any() % ARRAY(sound)]);
			s.num_sge = 1 + any() % 3;
			for (int k = 1; k < 3; k++) {
				s.sge[k] = s.sge[0];
				s.sge[k].length = any() % PAGE;
			}
			if (any() % 2)
				change(&s, sq_fields, ARRAY(sq_fields));
			post_sqe(put % WRS, &s);
		}
		PUT(&racing, race_it);
		doorbell(client->qp);
		while (wait_wc(scq, &wc, .02) >= 0 || wait_wc(rcq, &wc, 0) >= 0)
			if (wc.status)
				i = 20;
		PUT(&racing, 0);
	}
	PUT(&stop, 1);
	if (race_it)
		pthread_join(racer, NULL);
	check_guards();
	disconnect_pair();
	verdict("%s", "");
}

/*
 * All of it
 */

struct job {
	void (*run)(const struct job *job);
	void (*plain)(void);
	const struct field *field;
	const struct value *value;
	const struct combination *combination;
	const struct iova *iova;
	uint8_t opcode;
	int srq;
};

/* in a process of its own; WHY is empty if all is well */
static void fork_job(const struct job *job, char *why, size_t size)
{
	unsigned long before = taint();
	double end;
	ssize_t len;
	int status;
	pid_t pid;

	*why = 0;
	if (pipe(report))
		ksft_exit_fail_perror("pipe");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		close(report[0]);
		signal(SIGINT, SIG_DFL);
		with_srq = job->srq;
		job->run(job);
		verdict("%s", "");
	}
	close(report[1]);
	end = now() + 6 * PATIENCE;
	while (!waitpid(pid, &status, WNOHANG)) {
		if (now() > end) {
			snprintf(why, size, "hangs");
			kill(pid, SIGKILL);
			end = now() + PATIENCE;
			while (!waitpid(pid, &status, WNOHANG)) {
				if (now() > end) {
					snprintf(why, size, "hangs in the kernel");
					break;
				}
				usleep(1000);
			}
			break;
		}
		usleep(1000);
	}
	if (!*why) {
		len = read(report[0], why, size - 1);
		why[len < 0 ? 0 : len] = 0;
		if (WIFSIGNALED(status))
			snprintf(why, size, "killed by signal %d", WTERMSIG(status));
		else if (WEXITSTATUS(status))
			snprintf(why, size, "exits with %d", WEXITSTATUS(status));
	}
	close(report[0]);
	/* a connection that is torn down behind it, too */
	if (taint() != before)
		snprintf(why + strlen(why), size - strlen(why),
			 "%sthe kernel is tainted", *why ? ", " : "");
}

static void run_sq(const struct job *job)
{
	sq_case(job->field, job->value);
}

static void run_rq(const struct job *job)
{
	rq_case(job->field, job->value);
}

static void run_combination(const struct job *job)
{
	combination_case(job->combination, job->opcode);
}

static void run_iova(const struct job *job)
{
	iova_case(job->iova);
}

static void run_plain(const struct job *job)
{
	job->plain();
}

static const struct {
	const char *name;
	void (*run)(void);
	int srq;
} plains[] = {
	{ "SQ: two pages without a copy", good_zero_copy },
	{ "SQ: two pages without a copy, empty SGE first", empty_zero_copy },
	{ "SQ: 4 GiB and 64 bytes of good SGEs", long_message },
	{ "SQ: READ of 2 GiB into a small MR", long_read },
	{ "RQ: SGEs of 4 GiB together", rq_wraps },
	{ "SRQ: SGEs of 4 GiB together", rq_wraps, 1 },
	{ "SQ: SEND_REMOTE_INV, inline, the longest", inline_inval },
	{ "SQ: WRs after an error", after_error },
	{ "SQ: short messages of memory that is mapped anew", mapped_anew },
	{ "SQ: filled with INVAL_STAGs while it is read", refilled_inval },
	{ "SQ: filled while it is flushed", refilled_sq },
	{ "RQ: filled while it is flushed", refilled_rq },
	{ "CQ: filled while it is destroyed", refilled_cq },
	{ "MR: lengths that cannot be", long_mrs },
	{ "peer: WRITE with an empty first segment", empty_segment_good },
	{ "peer: the same, and without an MR", empty_segment_stray },
	{ "peer: READ without an MR, while the ULP posts", terminate_tells },
};

static const char *only;

static void run_job(const struct job *job, const char *format, ...)
{
	char name[200], why[400];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof(name), format, args);
	va_end(args);
	if (only && !strstr(name, only)) {
		ksft_test_result_skip("%s # not asked for\n", name);
		return;
	}
	fork_job(job, why, sizeof(why));
	if (*why)
		ksft_print_msg("%s: %s\n", name, why);
	ksft_test_result(!*why, "%s\n", name);
}

static void run_fields(const char *ring, void (*run)(const struct job *job),
		       const struct field *fields, size_t count, int srq)
{
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < fields[i].count; k++) {
			const struct value *v = &fields[i].values[k];
			static const char * const bases[] = {
				"", "the buffer + ", "the peer's buffer + ",
				"lkey + ", "rkey + ",
			};
			struct job job = { .run = run, .field = &fields[i],
					   .value = v, .srq = srq };

			run_job(&job, "%s: %s = %s%#llx", ring, fields[i].name,
				bases[v->base], (unsigned long long)v->value);
		}
}

static size_t count_fields(const struct field *fields, size_t count)
{
	size_t sum = 0;

	while (count--)
		sum += fields[count].count;
	return sum;
}

static size_t count_combinations(void)
{
	size_t sum = 0;

	for (size_t i = 0; i < ARRAY(combinations); i++)
		sum += combinations[i].opcode == WRITE_AND_SEND ? 2 : 1;
	return sum;
}

static void all_cases(void)
{
	ksft_set_plan(count_fields(sq_fields, ARRAY(sq_fields)) +
		      2 * count_fields(rq_fields, ARRAY(rq_fields)) +
		      count_combinations() + ARRAY(iovas) + ARRAY(plains));
	run_fields("SQ", run_sq, sq_fields, ARRAY(sq_fields), 0);
	for (size_t i = 0; i < ARRAY(combinations); i++) {
		const struct combination *c = &combinations[i];
		struct job job = { .run = run_combination, .combination = c,
				   .opcode = c->opcode };

		if (c->opcode != WRITE_AND_SEND) {
			run_job(&job, "SQ: %s", c->name);
			continue;
		}
		job.opcode = SIW_OP_WRITE;
		run_job(&job, "SQ: WRITE, %s", c->name);
		job.opcode = SIW_OP_SEND;
		run_job(&job, "SQ: SEND, %s", c->name);
	}
	run_fields("RQ", run_rq, rq_fields, ARRAY(rq_fields), 0);
	run_fields("SRQ", run_rq, rq_fields, ARRAY(rq_fields), 1);
	for (size_t i = 0; i < ARRAY(iovas); i++) {
		struct job job = { .run = run_iova, .iova = &iovas[i] };

		run_job(&job, "MR: iova %s", iovas[i].name);
	}
	for (size_t i = 0; i < ARRAY(plains); i++) {
		struct job job = { .run = run_plain, .plain = plains[i].run,
				   .srq = plains[i].srq };

		run_job(&job, "%s", plains[i].name);
	}
}

static void random_cases(int seconds, uint64_t seed)
{
	struct job job = { .run = run_plain, .plain = random_connection };
	double end = now() + seconds;
	unsigned long count = 0;
	char why[400] = "";

	ksft_set_plan(1);
	ksft_print_msg("seed %llu\n", (unsigned long long)seed);
	while (now() < end && !*why) {
		/* each connection has a seed of its own, to be found again */
		state = seed + count ? seed + count : 1;
		count++;
		fork_job(&job, why, sizeof(why));
	}
	ksft_print_msg("%lu connections\n", count);
	if (*why)
		ksft_print_msg("%s: seed %llu\n", why,
			       (unsigned long long)(seed + count - 1));
	ksft_test_result(!*why, "random changes for %d seconds\n", seconds);
}

static int sh(const char *command)
{
	return system(command);
}

static void remove_device(void)
{
	sh("rdma link delete siw_ring 2>/dev/null");
	sh("ip link delete siw_ring 2>/dev/null");
}

static void make_device(void)
{
	if (geteuid())
		ksft_exit_skip("needs root to make a siw device\n");
	if (sh("modprobe -q siw; rdma link show >/dev/null 2>&1"))
		ksft_exit_skip("no RDMA subsystem, or no rdma(8)\n");
	remove_device();
	sh("modprobe -q dummy");
	if (sh("ip link add siw_ring type dummy") ||
	    sh("ip addr add " OWN_ADDRESS "/24 dev siw_ring") ||
	    sh("ip link set siw_ring up"))
		ksft_exit_skip("no dummy network device\n");
	atexit(remove_device);
	if (sh("rdma link add siw_ring type siw netdev siw_ring"))
		ksft_exit_skip("no siw (CONFIG_RDMA_SIW)\n");
	sh("modprobe -q rdma_ucm; modprobe -q ib_uverbs");
	if (access("/dev/infiniband/rdma_cm", R_OK | W_OK))
		ksft_exit_skip("no /dev/infiniband/rdma_cm\n");
}

int main(int argc, char **argv)
{
	uint64_t seed = time(NULL) ^ (uint64_t)getpid() << 32;
	int seconds = 0;

	ksft_print_header();
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "--random")) {
		seconds = atoi(argv[2]);
		argc -= 2;
		argv += 2;
		if (argc > 1 && !strchr(argv[1], '.')) {
			seed = strtoull(argv[1], NULL, 0);
			argc--;
			argv++;
		}
	} else if (argc > 2 && !strcmp(argv[1], "--only")) {
		only = argv[2];
		argc -= 2;
		argv += 2;
	}
	if (argc > 1)
		address = argv[1];
	else
		make_device();
	if (seconds)
		random_cases(seconds, seed);
	else
		all_cases();
	ksft_finished();
}
