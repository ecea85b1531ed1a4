// SPDX-License-Identifier: GPL-2.0
/*
 * What a peer that writes RoCE packets by hand does to rxe.
 *
 * A QP is connected to an address at which no QP answers: its peer is a raw socket.
 * Requests must change no byte outside of what they may write to, responses must
 * complete no WR that they do not answer, and the kernel has to live without a
 * warning. What is well formed has to be taken: else all of the tests would pass.
 *
 * usage: rxe_peer [--only TEXT] DEVICE ADDRESS PEER
 *        rxe_peer --random SECONDS [SEED] DEVICE ADDRESS PEER
 *
 * ADDRESS is the IPv4 address of DEVICE. What is sent to it from PEER, another
 * address of this machine, has to cross a link: see wire.sh. Each test is a process
 * of its own: one that hangs is a failure.
 */
#include <infiniband/verbs.h>
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include "kselftest.h"
#include "user.h"

#define LIMIT		60		/* seconds for a process */
#define PATIENCE	10		/* seconds for what has to come */
#define QUIET		150		/* milliseconds for what must not come */
#define PORT		4791
#define PEER_QPN	0xbeef		/* there is no such QP */
#define QKEY		0x1111
#define MTU		1024
#define PAGE		4096UL
#define MR_SIZE		(4 * PAGE)
#define BIG		(4 * 1024 * 1024)
#define SLOTS		16
/* what is in the memory around the MRs, and in that for receives */
#define GUARD		0xa7
#define INBOX		0xb6
/* they wrap around soon */
#define RQ_PSN		0xfffffe
#define SQ_PSN		0xfffffd

#define ATOMIC		IBV_ACCESS_REMOTE_ATOMIC
#define REMOTE		(IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | ATOMIC)
#define RIGHTS		(IBV_ACCESS_LOCAL_WRITE | REMOTE | IBV_ACCESS_MW_BIND)

/* of RC; the same of UC is 0x20 further, and a SEND of UD 0x60 */
enum opcode {
	SEND_FIRST, SEND_MIDDLE, SEND_LAST, SEND_LAST_IMM, SEND_ONLY,
	SEND_ONLY_IMM, WRITE_FIRST, WRITE_MIDDLE, WRITE_LAST, WRITE_LAST_IMM,
	WRITE_ONLY, WRITE_ONLY_IMM, READ_REQUEST, READ_FIRST, READ_MIDDLE,
	READ_LAST, READ_ONLY, ACK, ATOMIC_ACK, COMPARE_SWAP, FETCH_ADD,
	SEND_LAST_INV = 0x16, SEND_ONLY_INV, FLUSH = 0x1c, ATOMIC_WRITE,
	UC = 0x20, UD = 0x60,
};

enum syndrome {
	ACKED = 0x1f, RNR = 0x20, RESERVED = 0x40, OUT_OF_SEQ = 0x60,
	INVALID, NO_ACCESS, OP_ERROR,
};

static const char *device;
static struct in_addr local, peer;
static int tx, rx;

static struct ibv_context *ctx;
static struct ibv_pd *pd;
static struct ibv_cq *cq;
static struct ibv_srq *srq;
static struct ibv_qp *qp;
static struct ibv_mr *mr, *read_only, *inbox;
static uint8_t *mem;			/* a page, MR_SIZE bytes of the MR, a page */
static uint8_t *box;			/* of receives and responses, the same way */
static union ibv_gid dgid;
static int gid_index;
static uint32_t next;			/* PSN that the victim expects */
static uint64_t to_add = 1;
/* what connect_qp() gives the QP */
static int rd_atomic = 4;
static int qp_timeout, retries = 7;

/* --- packets --- */

static bool has_reth(uint8_t op)
{
	return op == WRITE_FIRST || op == WRITE_ONLY || op == WRITE_ONLY_IMM ||
	       op == READ_REQUEST || op == FLUSH || op == ATOMIC_WRITE;
}

static bool has_aeth(uint8_t op)
{
	return op >= READ_FIRST && op <= ATOMIC_ACK && op != READ_MIDDLE;
}

static bool has_immediate(uint8_t op)
{
	return op == SEND_ONLY_IMM || op == SEND_LAST_IMM ||
	       op == WRITE_ONLY_IMM || op == WRITE_LAST_IMM;
}

struct packet {
	uint8_t opcode;
	uint8_t flags;			/* solicited, migrated, pad, version */
	bool ack;			/* is asked for */
	uint16_t pkey;
	uint32_t qpn;
	uint32_t psn;
	uint32_t spoil;			/* of the ICRC */
	struct in_addr from;
	size_t size;			/* of what is behind the BTH */
	uint8_t body[8192];
};

static struct packet start(uint8_t opcode, uint32_t psn)
{
	struct packet p = {
		.opcode = opcode, .ack = true, .pkey = 0xffff,
		.qpn = qp->qp_num, .psn = psn, .from = peer,
	};

	return p;
}

static void put(struct packet *p, const void *what, size_t size)
{
	memcpy(p->body + p->size, what, size);
	p->size += size;
}

static void put32(struct packet *p, uint32_t value)
{
	value = htobe32(value);
	put(p, &value, 4);
}

static void put64(struct packet *p, uint64_t value)
{
	value = htobe64(value);
	put(p, &value, 8);
}

static void reth(struct packet *p, uint64_t va, uint32_t rkey, uint32_t len)
{
	put64(p, va);
	put32(p, rkey);
	put32(p, len);
}

static void payload(struct packet *p, int c, size_t size)
{
	int pad = -size & 3;

	memset(p->body + p->size, c, size);
	memset(p->body + p->size + size, 0, pad);
	p->size += size + pad;
	p->flags |= pad << 4;
}

static uint32_t crc32_le(uint32_t crc, const uint8_t *p, size_t size)
{
	static uint32_t table[256];

	if (!table[1])
		for (uint32_t i = 0; i < 256; i++) {
			table[i] = i;
			for (int bit = 0; bit < 8; bit++)
				table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320 : 0);
		}
	while (size--)
		crc = table[(crc ^ *p++) & 0xff] ^ crc >> 8;
	return crc;
}

/* of IP header, UDP header, BTH and what follows, but for what a router may change */
static uint32_t icrc(const uint8_t *packet, size_t size)
{
	static const uint8_t lrh[8] = { [0 ... 7] = 0xff };
	static const uint8_t masked[] = {
		1, 8, 10, 11,			/* TOS, TTL, checksum */
		20 + 6, 20 + 7,			/* checksum */
		28 + 4,				/* FECN, BECN, reserved */
	};
	uint8_t copy[28 + 12];
	uint32_t crc;

	memcpy(copy, packet, sizeof(copy));
	for (size_t i = 0; i < ARRAY_SIZE(masked); i++)
		copy[masked[i]] = 0xff;
	crc = crc32_le(~0U, lrh, sizeof(lrh));
	crc = crc32_le(crc, copy, sizeof(copy));
	crc = crc32_le(crc, packet + sizeof(copy), size - sizeof(copy));
	return ~crc;
}

static void transmit(const struct packet *p)
{
	static uint16_t id;
	uint8_t buf[28 + 12 + sizeof(p->body) + 4];
	size_t size = 28 + 12 + p->size;
	struct iphdr ip = {
		.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
		.tot_len = htobe16(size + 4), .frag_off = htobe16(IP_DF),
		.saddr = p->from.s_addr, .daddr = local.s_addr,
	};
	struct udphdr udp = {
		.source = htobe16(0xc000), .dest = htobe16(PORT),
		.len = htobe16(size + 4 - 20),
	};
	uint32_t bth[3] = {
		htobe32(p->opcode << 24 | p->flags << 16 | p->pkey),
		htobe32(p->qpn),
		htobe32((p->psn & 0xffffff) | (uint32_t)p->ack << 31),
	};
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr = local };
	uint32_t crc;

	/* what is 0 the kernel fills in */
	ip.id = htobe16(++id ?: ++id);
	memcpy(buf, &ip, 20);
	memcpy(buf + 20, &udp, 8);
	memcpy(buf + 28, bth, 12);
	memcpy(buf + 40, p->body, p->size);
	crc = icrc(buf, size) ^ p->spoil;
	memcpy(buf + size, &crc, 4);
	if (sendto(tx, buf, size + 4, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		die("sendto");
}

/* a packet of the victim */
struct answer {
	uint8_t opcode;
	uint8_t syndrome;
	uint32_t psn;
	size_t size;			/* of the payload */
	uint8_t data[8192];
};

static bool receive(struct answer *a, int milliseconds)
{
	double end = now() + milliseconds / 1000.0;
	uint8_t buf[28 + 12 + sizeof(a->data)];
	struct pollfd poll_rx = { .fd = rx, .events = POLLIN };

	for (;;) {
		int left = (end - now()) * 1000;
		uint32_t saddr, bth[3];
		size_t head = 40;
		ssize_t size;

		if (poll(&poll_rx, 1, left > 0 ? left : 0) <= 0)
			return false;
		size = recv(rx, buf, sizeof(buf), 0);
		if (size < 44)
			continue;
		memcpy(&saddr, buf + 12, 4);
		memcpy(bth, buf + 28, 12);
		if (saddr != local.s_addr || buf[22] << 8 != (PORT & 0xff00) ||
		    buf[23] != (PORT & 0xff) ||
		    (be32toh(bth[1]) & 0xffffff) != PEER_QPN)
			continue;
		a->opcode = buf[28];
		a->psn = be32toh(bth[2]) & 0xffffff;
		a->syndrome = ACKED;
		switch (a->opcode) {
		case ATOMIC_ACK:
		case READ_FIRST:
		case READ_LAST:
		case READ_ONLY:
		case ACK:
			a->syndrome = buf[head];
			head += 4;
		}
		a->size = size - head - 4 - (buf[29] >> 4 & 3);
		memcpy(a->data, buf + head, a->size);
		return true;
	}
}

static void open_sockets(void)
{
	struct sockaddr_in here = { .sin_family = AF_INET, .sin_addr = peer };
	int size = 8 << 20;

	tx = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
	rx = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
	if (tx < 0 || rx < 0 ||
	    setsockopt(rx, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) ||
	    bind(rx, (struct sockaddr *)&here, sizeof(here)))
		die("raw socket");
}

/* --- the victim --- */

static void open_device(void)
{
	struct ibv_device **list = ibv_get_device_list(NULL);
	union ibv_gid gid;

	for (; list && *list; list++)
		if (!strcmp(ibv_get_device_name(*list), device))
			ctx = ibv_open_device(*list);
	if (!ctx)
		die("open_device");
	memcpy(dgid.raw, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
	memcpy(dgid.raw + 12, &local, 4);
	for (gid_index = 0; ; gid_index++) {
		if (ibv_query_gid(ctx, 1, gid_index, &gid))
			die("the device does not have that address");
		if (!memcmp(&gid, &dgid, sizeof(gid)))
			break;
	}
	memcpy(dgid.raw + 12, &peer, 4);
}

static uint8_t *pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	return p;
}

static struct ibv_mr *reg(uint8_t *where, size_t size, int access)
{
	struct ibv_mr *m = ibv_reg_mr(pd, where, size, access);

	if (!m)
		die("reg_mr");
	return m;
}

static void fill(void)
{
	memset(mem, GUARD, MR_SIZE + 2 * PAGE);
	memset(mem + PAGE, 'M', MR_SIZE);
	memset(box, GUARD, MR_SIZE + 2 * PAGE);
	memset(box + PAGE, INBOX, MR_SIZE);
}

static int try_connect(void)
{
	enum ibv_qp_type type = qp->qp_type;
	struct ibv_qp_attr a = {
		.qp_state = IBV_QPS_INIT, .port_num = 1, .qkey = QKEY,
		.qp_access_flags = type == IBV_QPT_RC ? RIGHTS : IBV_ACCESS_REMOTE_WRITE,
		.path_mtu = IBV_MTU_1024, .dest_qp_num = PEER_QPN,
		.rq_psn = RQ_PSN, .sq_psn = SQ_PSN,
		.max_dest_rd_atomic = rd_atomic, .max_rd_atomic = 4,
		.min_rnr_timer = 1, .timeout = qp_timeout, .retry_cnt = retries,
		.rnr_retry = retries,
		.ah_attr = { .is_global = 1, .port_num = 1,
			     .grh = { .dgid = dgid, .sgid_index = gid_index,
				      .hop_limit = 64 } },
	};
	int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
		   (type == IBV_QPT_UD ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS);

	if (ibv_modify_qp(qp, &a, mask))
		return -1;
	a.qp_state = IBV_QPS_RTR;
	mask = IBV_QP_STATE;
	if (type != IBV_QPT_UD)
		mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
	if (type == IBV_QPT_RC)
		mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
	if (ibv_modify_qp(qp, &a, mask))
		return -1;
	a.qp_state = IBV_QPS_RTS;
	mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
	if (type == IBV_QPT_RC)
		mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			IBV_QP_MAX_QP_RD_ATOMIC;
	if (ibv_modify_qp(qp, &a, mask))
		return -1;
	next = RQ_PSN;
	return 0;
}

static void connect_qp(void)
{
	if (try_connect())
		die("modify_qp");
}

static void reset_qp(void)
{
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_RESET };

	if (ibv_modify_qp(qp, &a, IBV_QP_STATE))
		die("RESET");
	connect_qp();
}

static void create_qp(enum ibv_qp_type type, bool with_srq)
{
	struct ibv_srq_init_attr s = {
		.attr = { .max_wr = SLOTS, .max_sge = 1 },
	};
	struct ibv_qp_init_attr a = {
		.qp_type = type, .sq_sig_all = 1, .send_cq = cq, .recv_cq = cq,
		.cap = { .max_send_wr = SLOTS, .max_recv_wr = SLOTS,
			 .max_send_sge = 1, .max_recv_sge = 1 },
	};

	if (with_srq) {
		srq = ibv_create_srq(pd, &s);
		if (!srq)
			die("create_srq");
	}
	a.srq = srq;
	qp = ibv_create_qp(pd, &a);
	if (!qp)
		die("create_qp");
}

static void set_up(enum ibv_qp_type type, bool with_srq)
{
	open_sockets();
	open_device();
	pd = ibv_alloc_pd(ctx);
	cq = ibv_create_cq(ctx, 256, NULL, NULL, 0);
	if (!pd || !cq)
		die("pd or cq");
	mem = pages(MR_SIZE + 2 * PAGE);
	box = pages(MR_SIZE + 2 * PAGE);
	fill();
	mr = reg(mem + PAGE, MR_SIZE, RIGHTS);
	read_only = reg(mem + PAGE, MR_SIZE, IBV_ACCESS_REMOTE_READ);
	inbox = reg(box + PAGE, MR_SIZE, IBV_ACCESS_LOCAL_WRITE);
	create_qp(type, with_srq);
	connect_qp();
}

static void post_recv(size_t size)
{
	struct ibv_sge sge = { .addr = (uintptr_t)inbox->addr, .length = size,
			       .lkey = inbox->lkey };
	struct ibv_recv_wr *bad, wr = { .wr_id = 'R', .sg_list = &sge, .num_sge = 1 };

	errno = srq ? ibv_post_srq_recv(srq, &wr, &bad) : ibv_post_recv(qp, &wr, &bad);
	if (errno)
		die("post_recv");
}

/* data comes from and goes to the inbox, or SIZE bytes of another MR */
static void post_send(enum ibv_wr_opcode opcode, struct ibv_mr *of, size_t size)
{
	struct ibv_mr *m = of ?: inbox;
	struct ibv_sge sge = { .addr = (uintptr_t)m->addr, .length = size,
			       .lkey = m->lkey };
	struct ibv_send_wr *bad, wr = { .wr_id = 'S', .sg_list = &sge, .num_sge = 1,
					.opcode = opcode };

	if (opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		wr.wr.atomic.remote_addr = PAGE;
	else
		wr.wr.rdma.remote_addr = PAGE;
	errno = ibv_post_send(qp, &wr, &bad);
	if (errno)
		die("post_send");
}

/* the next completion, or -1 */
static int completion(int milliseconds)
{
	double end = now() + milliseconds / 1000.0;
	struct ibv_wc wc;

	do {
		int n = ibv_poll_cq(cq, 1, &wc);

		if (n < 0)
			die("poll_cq");
		if (n)
			return wc.status;
		usleep(500);
	} while (now() < end);
	return -1;
}

static enum ibv_qp_state qp_state(void)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_RESET };

	if (ibv_query_qp(qp, &attr, IBV_QP_STATE, &init))
		die("query_qp");
	return attr.qp_state;
}

/* --- what has to come of it --- */

static void completes(const char *what, int status)
{
	int got = completion(PATIENCE * 1000);

	if (got != status)
		fail("%s: %s instead of %s", what,
		     got < 0 ? "no completion" : ibv_wc_status_str(got),
		     ibv_wc_status_str(status));
}

static void does_not_complete(const char *what)
{
	int got = completion(QUIET);

	if (got >= 0)
		fail("%s: completes, %s", what, ibv_wc_status_str(got));
}

static void answers(const char *what, uint8_t opcode, uint32_t psn, uint8_t syndrome)
{
	struct answer a;

	if (!receive(&a, PATIENCE * 1000))
		fail("%s: no answer", what);
	else if (a.opcode != opcode || a.psn != (psn & 0xffffff) ||
		 a.syndrome != syndrome)
		fail("%s: opcode %#x, PSN %#x, syndrome %#x instead of %#x, %#x, %#x",
		     what, a.opcode, a.psn, a.syndrome, opcode, psn & 0xffffff,
		     syndrome);
}

static void does_not_answer(const char *what)
{
	struct answer a;

	if (receive(&a, QUIET))
		fail("%s: opcode %#x, PSN %#x, syndrome %#x", what, a.opcode, a.psn,
		     a.syndrome);
}

/* until the victim has sent a request with this PSN */
static void sends(uint32_t psn)
{
	struct answer a;

	while (receive(&a, PATIENCE * 1000))
		if (a.psn == (psn & 0xffffff))
			return;
	fail("PSN %#x is not sent", psn & 0xffffff);
}

static void is_in_state(const char *what, enum ibv_qp_state state)
{
	double end = now() + PATIENCE;

	while (qp_state() != state && now() < end)
		usleep(1000);
	if (qp_state() != state)
		fail("%s: the QP is in state %d", what, qp_state());
}

/* of the MR, LEN bytes at OFF are C, and all others as they were */
static void has_written(const char *what, size_t off, size_t len, int c)
{
	double end = now() + PATIENCE;

	/* nobody tells of a WRITE by UC */
	while (len && now() < end &&
	       __atomic_load_n(mem + PAGE + off + len - 1, __ATOMIC_ACQUIRE) != c)
		usleep(500);
	for (size_t i = 0; i < MR_SIZE + 2 * PAGE; i++) {
		bool in = i >= PAGE + off && i < PAGE + off + len;
		int was = i < PAGE || i >= PAGE + MR_SIZE ? GUARD : 'M';

		if (mem[i] != (in ? c : was)) {
			fail("%s: %#x at %zd of the MR", what, mem[i],
			     (ssize_t)(i - PAGE));
			return;
		}
	}
}

static void has_written_nothing(const char *what)
{
	has_written(what, 0, 0, 0);
}

static void has_received(const char *what, size_t off, size_t len, int c)
{
	for (size_t i = 0; i < MR_SIZE + 2 * PAGE; i++) {
		bool in = i >= PAGE + off && i < PAGE + off + len;
		int was = i < PAGE || i >= PAGE + MR_SIZE ? GUARD : INBOX;

		if (i >= PAGE && i < PAGE + off)
			continue;
		if (box[i] != (in ? c : was)) {
			fail("%s: %#x at %zd of the receive", what, box[i],
			     (ssize_t)(i - PAGE));
			return;
		}
	}
}

static uint8_t base(void)
{
	return qp->qp_type == IBV_QPT_UC ? UC : qp->qp_type == IBV_QPT_UD ? UD : 0;
}

static void write_at(uint32_t psn, size_t off, int c, size_t len)
{
	struct packet p = start(base() + WRITE_ONLY, psn);

	reth(&p, (uintptr_t)mr->addr + off, mr->rkey, len);
	payload(&p, c, len);
	transmit(&p);
}

/* the QP goes on: a WRITE lands */
static void works(const char *what)
{
	struct answer a;

	/* of what came before */
	while (receive(&a, 0))
		;
	fill();
	write_at(next, 64, 'W', 9);
	if (qp->qp_type == IBV_QPT_RC)
		answers(what, ACK, next, ACKED);
	has_written(what, 64, 9, 'W');
	next++;
}

/* --- what is well formed --- */

static void send_packet(uint8_t opcode, uint32_t psn, int c, size_t len)
{
	struct packet p = start(base() + opcode, psn);

	if (qp->qp_type == IBV_QPT_UD) {
		put32(&p, QKEY);
		put32(&p, PEER_QPN);
	}
	if (has_immediate(opcode))
		put32(&p, 0x12345678);
	payload(&p, c, len);
	transmit(&p);
}

/* the headers of an ACK, or of a response with data */
static struct packet respond(uint8_t opcode, uint32_t psn, uint8_t syndrome)
{
	struct packet p = start(opcode, psn);

	p.ack = false;
	if (opcode != READ_MIDDLE)
		put32(&p, (uint32_t)syndrome << 24 | 1);
	return p;
}

static void send_ack(uint32_t psn, uint8_t syndrome)
{
	struct packet p = respond(ACK, psn, syndrome);

	transmit(&p);
}

static void send_response(uint8_t opcode, uint32_t psn, int c, size_t len)
{
	struct packet p = respond(opcode, psn, ACKED);

	payload(&p, c, len);
	transmit(&p);
}

static void send_atomic_ack(uint32_t psn, uint64_t value)
{
	struct packet p = respond(ATOMIC_ACK, psn, ACKED);

	put64(&p, value);
	transmit(&p);
}

static void request_read(uint32_t psn, size_t off, uint32_t rkey, uint32_t len)
{
	struct packet p = start(READ_REQUEST, psn);

	reth(&p, (uintptr_t)mr->addr + off, rkey, len);
	transmit(&p);
}

static void request_add(uint32_t psn, size_t off, uint64_t add)
{
	struct packet p = start(FETCH_ADD, psn);

	put64(&p, (uintptr_t)mr->addr + off);
	put32(&p, mr->rkey);
	put64(&p, add);
	put64(&p, 0);
	transmit(&p);
}

static void request_flush(uint32_t psn)
{
	struct packet p = start(FLUSH, psn);

	/* neither kind, a range */
	put32(&p, 0);
	reth(&p, (uintptr_t)mr->addr, mr->rkey, 64);
	transmit(&p);
}

static void test_write(int type)
{
	struct packet p;

	set_up(type, false);
	works("a WRITE");
	fill();
	p = start(base() + WRITE_FIRST, next);
	reth(&p, (uintptr_t)mr->addr, mr->rkey, 2 * MTU + 3);
	payload(&p, 'W', MTU);
	transmit(&p);
	send_packet(WRITE_MIDDLE, next + 1, 'W', MTU);
	send_packet(WRITE_LAST, next + 2, 'W', 3);
	for (int i = 0; type == IBV_QPT_RC && i < 3; i++)
		answers("of three packets", ACK, next + i, ACKED);
	has_written("of three packets", 0, 2 * MTU + 3, 'W');
}

static void test_send(int arg)
{
	enum ibv_qp_type type = arg >> 1;
	size_t grh = type == IBV_QPT_UD ? 40 : 0;

	set_up(type, arg & 1);
	for (int i = 0; i < 3; i++)
		post_recv(MR_SIZE / 2);
	send_packet(SEND_ONLY, next++, 'a', 77);
	completes("one packet", IBV_WC_SUCCESS);
	has_received("one packet", grh, 77, 'a');
	send_packet(SEND_ONLY_IMM, next++, 'b', MTU);
	completes("immediate data", IBV_WC_SUCCESS);
	has_received("immediate data", grh, MTU, 'b');
	if (type != IBV_QPT_UD) {
		send_packet(SEND_FIRST, next++, 'c', MTU);
		send_packet(SEND_MIDDLE, next++, 'c', MTU);
		send_packet(SEND_LAST, next++, 'c', 1);
		completes("three packets", IBV_WC_SUCCESS);
		has_received("three packets", 0, 2 * MTU + 1, 'c');
	}
	has_written_nothing("SEND");
}

static void test_read(int unused)
{
	static const uint8_t opcodes[] = { READ_FIRST, READ_MIDDLE, READ_LAST };
	struct answer a;

	set_up(IBV_QPT_RC, false);
	request_read(next, 0, mr->rkey, 100);
	if (!receive(&a, PATIENCE * 1000) || a.opcode != READ_ONLY ||
	    a.psn != next || a.size != 100 || memcmp(a.data, mem + PAGE, 100))
		fail("one packet");
	next++;
	request_read(next, 0, mr->rkey, 2 * MTU + 1);
	for (int i = 0; i < 3; i++)
		answers("three packets", opcodes[i], next + i, ACKED);
	next += 3;
	works("WRITE");
}

static void test_atomic(int unused)
{
	uint64_t *at, value;
	struct packet p;
	struct answer a;

	set_up(IBV_QPT_RC, false);
	at = (uint64_t *)(mem + PAGE);
	request_add(next, 0, 1);
	if (!receive(&a, PATIENCE * 1000) || a.opcode != ATOMIC_ACK ||
	    a.psn != next || a.size != 8)
		fail("FETCH_ADD");
	memcpy(&value, a.data, 8);
	if (be64toh(value) != 0x4d4d4d4d4d4d4d4d || *at != 0x4d4d4d4d4d4d4d4e)
		fail("FETCH_ADD: %#llx, and is %#llx", (long long)be64toh(value),
		     (long long)*at);
	next++;
	p = start(ATOMIC_WRITE, next);
	reth(&p, (uintptr_t)mr->addr, mr->rkey, 8);
	payload(&p, 'A', 8);
	transmit(&p);
	answers("ATOMIC_WRITE", READ_ONLY, next, ACKED);
	has_written("ATOMIC_WRITE", 0, 8, 'A');
	next++;
	request_flush(next);
	answers("FLUSH", READ_ONLY, next++, ACKED);
	works("WRITE");
}

static void test_responses(int unused)
{
	uint32_t psn = SQ_PSN;

	set_up(IBV_QPT_RC, false);
	post_send(IBV_WR_RDMA_WRITE, NULL, 2 * MTU);
	sends(psn + 1);
	send_ack(psn, ACKED);
	does_not_complete("ACK of the first packet");
	send_ack(psn + 1, ACKED);
	completes("ACK of the last packet", IBV_WC_SUCCESS);
	psn += 2;

	post_send(IBV_WR_SEND, NULL, 5);
	post_send(IBV_WR_SEND, NULL, 5);
	sends(psn + 1);
	send_ack(psn + 1, ACKED);
	completes("ACK of two SENDs", IBV_WC_SUCCESS);
	completes("ACK of two SENDs", IBV_WC_SUCCESS);
	psn += 2;

	post_send(IBV_WR_RDMA_READ, NULL, 2 * MTU + 9);
	sends(psn);
	send_response(READ_FIRST, psn, 'r', MTU);
	send_response(READ_MIDDLE, psn + 1, 'r', MTU);
	does_not_complete("half of a READ");
	send_response(READ_LAST, psn + 2, 'r', 9);
	completes("READ", IBV_WC_SUCCESS);
	has_received("READ", 0, 2 * MTU + 9, 'r');
	psn += 3;

	fill();
	post_send(IBV_WR_ATOMIC_FETCH_AND_ADD, NULL, 8);
	sends(psn);
	send_atomic_ack(psn, 0x7777777777777777);
	completes("FETCH_ADD", IBV_WC_SUCCESS);
	has_received("FETCH_ADD", 0, 8, 'w');
}

/* --- one bad request --- */

enum key { GOOD_KEY, OTHER_KEY, LOCAL_KEY, READ_KEY };
/* what is wrong with the packet itself */
enum wrong { NOTHING, ICRC, VERSION, PKEY, QPN, SOURCE, CUT, PAD };
enum result { DROPPED = 0, DUPLICATE = 1 };

/* UC has no others */
static bool is_of_uc(uint8_t op)
{
	return op <= WRITE_ONLY_IMM;
}

static const struct {
	const char *name;
	uint8_t opcode;
	long off;			/* from the MR on */
	uint32_t len;			/* that the RETH says */
	uint32_t data;
	uint8_t result;			/* of RC: the syndrome of a NAK, or */
	enum key key;
	enum wrong wrong;
	int ahead;			/* of the PSN that is expected */
} bad[] = {
	{ "WRITE with a bad ICRC", WRITE_ONLY, 0, 8, 8, .wrong = ICRC },
	{ "WRITE of another version", WRITE_ONLY, 0, 8, 8, .wrong = VERSION },
	{ "WRITE with another P_Key", WRITE_ONLY, 0, 8, 8, .wrong = PKEY },
	{ "WRITE to another QP", WRITE_ONLY, 0, 8, 8, .wrong = QPN },
	{ "WRITE from another address", WRITE_ONLY, 0, 8, 8, .wrong = SOURCE },
	{ "WRITE that ends in its RETH", WRITE_ONLY, 0, 8, 8, .wrong = CUT },
	{ "WRITE with more padding than bytes", WRITE_ONLY, 0, 0, 0, .wrong = PAD },
	{ "SEND with more padding than bytes", SEND_ONLY, 0, 0, 0, .wrong = PAD },
	{ "READ that ends in its RETH", READ_REQUEST, 0, 8, .wrong = CUT },
	{ "atomic that ends in its header", FETCH_ADD, .wrong = CUT },
	{ "FLUSH that ends in its RETH", FLUSH, .wrong = CUT },
	{ "ACK that ends in its AETH", ACK, .wrong = CUT },
	{ "opcode that is reserved", 0x1f },
	{ "ACK of nothing", ACK },
	{ "READ response to nothing", READ_ONLY, .data = 64 },
	{ "atomic response to nothing", ATOMIC_ACK, .data = 8 },

	{ "WRITE by an unknown rkey", WRITE_ONLY, 0, 64, 64, NO_ACCESS, OTHER_KEY },
	{ "WRITE by the rkey of a local MR", WRITE_ONLY, 0, 64, 64, NO_ACCESS,
	  LOCAL_KEY },
	{ "WRITE to an MR that is read-only", WRITE_ONLY, 0, 64, 64, NO_ACCESS,
	  READ_KEY },
	{ "WRITE before the MR", WRITE_ONLY, -8, 16, 16, NO_ACCESS },
	{ "WRITE behind the MR", WRITE_ONLY, MR_SIZE, 8, 8, NO_ACCESS },
	{ "WRITE over the end of the MR", WRITE_ONLY, MR_SIZE - 8, 16, 16, NO_ACCESS },
	{ "WRITE over the end, first packet", WRITE_FIRST, MR_SIZE - MTU, MTU + 1, MTU,
	  NO_ACCESS },
	{ "WRITE of 2 GiB, first packet", WRITE_FIRST, 0, 1U << 31, MTU, NO_ACCESS },
	{ "WRITE of 4 GiB, first packet", WRITE_FIRST, 0, -1U, MTU, INVALID },
	{ "WRITE with less than it says", WRITE_ONLY, 0, 64, 60, INVALID },
	{ "WRITE with more than it says", WRITE_ONLY, 0, 60, 64, INVALID },
	{ "WRITE of no bytes that has some", WRITE_ONLY, 0, 0, 64, INVALID },
	{ "WRITE of no bytes that has the MTU", WRITE_FIRST, 0, 0, MTU, INVALID },
	{ "WRITE of more than the MTU", WRITE_ONLY, 0, MTU + 4, MTU + 4, INVALID },
	{ "first packet of a WRITE, too short", WRITE_FIRST, 0, 4 * MTU, 64, INVALID },
	{ "first packet of a WRITE, too long", WRITE_FIRST, 0, 4 * MTU, MTU + 4,
	  INVALID },
	{ "WRITE without its first packet", WRITE_LAST, .data = 64, .result = INVALID },
	{ "WRITE of middle packets", WRITE_MIDDLE, .data = MTU, .result = INVALID },
	{ "SEND without its first packet", SEND_LAST, .data = 64, .result = INVALID },
	{ "SEND without a receive", SEND_ONLY, .data = 64, .result = RNR | 1 },
	{ "WRITE with immediate data without a receive", WRITE_ONLY_IMM, 0, 8, 8,
	  RNR | 1 },

	{ "READ by an unknown rkey", READ_REQUEST, 0, 64, 0, NO_ACCESS, OTHER_KEY },
	{ "READ by the rkey of a local MR", READ_REQUEST, 0, 64, 0, NO_ACCESS,
	  LOCAL_KEY },
	{ "READ before the MR", READ_REQUEST, -8, 16, 0, NO_ACCESS },
	{ "READ over the end of the MR", READ_REQUEST, MR_SIZE - 8, 16, 0, NO_ACCESS },
	{ "READ of 2 GiB", READ_REQUEST, 0, 1U << 31, 0, NO_ACCESS },
	{ "READ of more than 2 GiB", READ_REQUEST, 0, (1U << 31) + 1, 0, INVALID },

	{ "atomic by an unknown rkey", FETCH_ADD, 0, 0, 0, NO_ACCESS, OTHER_KEY },
	{ "atomic on an MR that is read-only", FETCH_ADD, 0, 0, 0, NO_ACCESS, READ_KEY },
	{ "atomic that is not aligned", COMPARE_SWAP, 4, 0, 0, INVALID },
	{ "atomic behind the MR", FETCH_ADD, MR_SIZE, 0, 0, NO_ACCESS },
	{ "ATOMIC_WRITE of 4 bytes", ATOMIC_WRITE, 0, 4, 4, INVALID },
	{ "ATOMIC_WRITE of 8 bytes with 4", ATOMIC_WRITE, 0, 8, 4, INVALID },
	{ "ATOMIC_WRITE of 8 bytes with none", ATOMIC_WRITE, 0, 8, 0, INVALID },
	{ "ATOMIC_WRITE that is not aligned", ATOMIC_WRITE, 4, 8, 8, INVALID },
	{ "ATOMIC_WRITE behind the MR", ATOMIC_WRITE, MR_SIZE, 8, 8, NO_ACCESS },
	{ "FLUSH by an unknown rkey", FLUSH, 0, 8, 0, NO_ACCESS, OTHER_KEY },
	{ "FLUSH over the end of the MR", FLUSH, MR_SIZE - 8, 16, 0, NO_ACCESS },

	{ "WRITE that comes too early", WRITE_ONLY, 0, 8, 8, OUT_OF_SEQ, .ahead = 1 },
	{ "READ that comes much too early", READ_REQUEST, 0, 8, 0, OUT_OF_SEQ,
	  .ahead = 0x700000 },
	{ "WRITE that comes again", WRITE_ONLY, 0, 8, 8, DUPLICATE, .ahead = -1 },
	{ "READ that was never there, again", READ_REQUEST, 0, 8, .ahead = -1 },
	{ "atomic that was never there, again", FETCH_ADD, .ahead = -1 },
	{ "ATOMIC_WRITE that was never there, again", ATOMIC_WRITE, 0, 8, 8,
	  .ahead = -1 },
	{ "FLUSH that was never there, again", FLUSH, 0, 8, .ahead = -1 },
};

/* all that an opcode needs behind the BTH */
static struct packet build(uint8_t op, uint32_t psn, uint64_t va, uint32_t rkey,
			   uint32_t len, uint8_t syndrome)
{
	struct packet p = start(base() + op, psn);

	if (base() == UD) {
		put32(&p, QKEY);
		put32(&p, PEER_QPN);
	}
	if (op == FLUSH)
		put32(&p, 0);
	if (has_reth(op))
		reth(&p, va, rkey, len);
	if (op == COMPARE_SWAP || op == FETCH_ADD) {
		put64(&p, va);
		put32(&p, rkey);
		put64(&p, op == COMPARE_SWAP ? 0x5858585858585858 : to_add);
		put64(&p, 0x4d4d4d4d4d4d4d4d);
	}
	if (has_aeth(op))
		put32(&p, (uint32_t)syndrome << 24);
	if (op == ATOMIC_ACK)
		put64(&p, 0);
	if (has_immediate(op))
		put32(&p, 0x12345678);
	if (op == SEND_ONLY_INV || op == SEND_LAST_INV)
		put32(&p, rkey);
	return p;
}

static void test_bad(int arg)
{
	int row = arg >> 2;
	enum ibv_qp_type type = arg & 1 ? IBV_QPT_UC : IBV_QPT_RC;
	uint8_t result = bad[row].result;
	struct packet p;
	uint32_t rkey;

	set_up(type, arg & 2);
	/* there is something that can come again */
	works("before");
	fill();
	rkey = bad[row].key == OTHER_KEY ? mr->rkey ^ 0x10 :
	       bad[row].key == LOCAL_KEY ? inbox->rkey :
	       bad[row].key == READ_KEY ? read_only->rkey : mr->rkey;
	p = build(bad[row].opcode, next + bad[row].ahead,
		  (uintptr_t)mr->addr + bad[row].off, rkey, bad[row].len, ACKED);
	payload(&p, 'X', bad[row].data);
	switch (bad[row].wrong) {
	case NOTHING:
		break;
	case ICRC:
		p.spoil = 1;
		break;
	case VERSION:
		p.flags |= 1;
		break;
	case PKEY:
		p.pkey = 0x8001;
		break;
	case QPN:
		p.qpn = PEER_QPN;
		break;
	case SOURCE:
		p.from.s_addr ^= htobe32(0x100);
		break;
	case CUT:
		p.size = 2;
		break;
	case PAD:
		p.flags |= 3 << 4;
		break;
	}
	transmit(&p);
	if (type == IBV_QPT_UC || result == DROPPED)
		does_not_answer("bad");
	else if (result == DUPLICATE)
		answers("bad", ACK, next - 1, ACKED);
	else
		answers("bad", ACK, result == OUT_OF_SEQ ? next :
			next + bad[row].ahead, result);
	/* UC knows of no PSN that comes again */
	if (type != IBV_QPT_UC || !bad[row].ahead)
		has_written_nothing("bad");
	if (type == IBV_QPT_UC || result <= DUPLICATE || result == OUT_OF_SEQ ||
	    (result & 0xe0) == RNR)
		works("after");
	else
		is_in_state("after", IBV_QPS_ERR);
}

/* each of the 256, with and without anything behind the BTH */
static void test_opcodes(int type)
{
	set_up(type, false);
	for (int i = 0; i < 512; i++) {
		struct packet p = start(i & 0xff, next);

		if (i & 0x100)
			payload(&p, 0, 64);
		transmit(&p);
		if (qp_state() != IBV_QPS_RTS)
			reset_qp();
	}
	usleep(QUIET * 1000);
	has_written_nothing("opcodes");
}

/* --- requests, one after the other --- */

static void test_duplicates(int unused)
{
	uint64_t *at;

	set_up(IBV_QPT_RC, false);
	at = (uint64_t *)(mem + PAGE);
	write_at(next, 0, 'A', 8);
	answers("WRITE", ACK, next, ACKED);
	write_at(next + 1, 0, 'B', 8);
	answers("second WRITE", ACK, next + 1, ACKED);
	write_at(next, 0, 'A', 8);
	answers("first WRITE, again", ACK, next + 1, ACKED);
	has_written("first WRITE, again", 0, 8, 'B');
	next += 2;
	fill();
	*at = 1;
	request_add(next, 0, 1);
	answers("FETCH_ADD", ATOMIC_ACK, next, ACKED);
	request_add(next, 0, 1);
	answers("FETCH_ADD, again", ATOMIC_ACK, next, ACKED);
	if (*at != 2)
		fail("FETCH_ADD, again: is %llu", (long long)*at);
	next++;
	works("after");
}

/* its response was lost */
static void test_flush_again(int unused)
{
	set_up(IBV_QPT_RC, false);
	request_flush(next);
	answers("FLUSH", READ_ONLY, next, ACKED);
	request_flush(next);
	answers("FLUSH, again", READ_ONLY, next, ACKED);
	next++;
	works("after");
}

/* an atomic or a READ, and another one that says it is the same */
static void test_other_again(int unused)
{
	set_up(IBV_QPT_RC, false);
	request_read(next, 0, mr->rkey, 64);
	answers("READ", READ_ONLY, next, ACKED);
	request_add(next, 0, 1);
	does_not_answer("FETCH_ADD with the PSN of a READ");
	request_flush(next);
	does_not_answer("FLUSH with the PSN of a READ");
	next++;
	request_add(next, 0, 1);
	answers("FETCH_ADD", ATOMIC_ACK, next, ACKED);
	request_read(next, 0, mr->rkey, 64);
	does_not_answer("READ with the PSN of a FETCH_ADD");
	next++;
	works("after");
}

/* the length of the request in between must not matter */
static void test_read_again(int len)
{
	struct answer a;

	set_up(IBV_QPT_RC, false);
	request_read(next, 0, len ? mr->rkey : 0, len);
	answers("READ", READ_ONLY, next, ACKED);
	write_at(next + 1, 0, 'W', len ? 0 : 8);
	answers("WRITE", ACK, next + 1, ACKED);
	request_read(next, 0, len ? mr->rkey : 0, len);
	if (!receive(&a, PATIENCE * 1000) || a.opcode != READ_ONLY ||
	    a.psn != next || a.size != (size_t)len ||
	    memcmp(a.data, mem + PAGE, len))
		fail("READ, again: opcode %#x, syndrome %#x, %zu bytes", a.opcode,
		     a.syndrome, a.size);
	is_in_state("READ, again", IBV_QPS_RTS);
	next += 2;
	works("after");
}

/* the peer does not know where a zero-based window is */
static void test_window_again(int access)
{
	uint64_t base = 0;
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_BIND_MW };
	struct packet p;
	struct answer a;

	set_up(IBV_QPT_RC, false);
	if (!(access & IBV_ACCESS_ZERO_BASED))
		base = (uintptr_t)mr->addr + MTU;
	wr.bind_mw.mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	if (!wr.bind_mw.mw)
		die("alloc_mw");
	wr.bind_mw.rkey = ibv_inc_rkey(wr.bind_mw.mw->rkey);
	wr.bind_mw.bind_info.mr = mr;
	wr.bind_mw.bind_info.addr = (uintptr_t)mr->addr + MTU;
	wr.bind_mw.bind_info.length = 4 * MTU;
	wr.bind_mw.bind_info.mw_access_flags = access;
	errno = ibv_post_send(qp, &wr, &bad);
	if (errno)
		die("post_send");
	completes("bind", IBV_WC_SUCCESS);
	memset(mem + PAGE + 2 * MTU, 'w', MTU);
	for (int i = 0; i < 3; i++) {
		/* the last time, only the end */
		p = start(READ_REQUEST, next + i / 2);
		reth(&p, base + i / 2 * MTU, wr.bind_mw.rkey, (2 - i / 2) * MTU);
		transmit(&p);
		if (i < 2)
			answers("READ", READ_FIRST, next, ACKED);
		if (!receive(&a, PATIENCE * 1000) || a.psn != next + 1 ||
		    a.size != MTU || a.data[0] != 'w')
			fail("READ %d: no answer, or a wrong one", i);
	}
	next += 2;
	p = start(READ_REQUEST, next - 2);
	reth(&p, base + 4 * MTU, wr.bind_mw.rkey, MTU);
	transmit(&p);
	does_not_answer("READ of something else");
}

static void test_flush_no_resources(int unused)
{
	rd_atomic = 0;
	set_up(IBV_QPT_RC, false);
	request_flush(next);
	answers("FLUSH", ACK, next, INVALID);
	is_in_state("FLUSH", IBV_QPS_ERR);
	usleep(QUIET * 1000);
}

static void test_read_no_resources(int unused)
{
	rd_atomic = 0;
	set_up(IBV_QPT_RC, false);
	request_read(next, 0, mr->rkey, 64);
	answers("READ", ACK, next, INVALID);
	is_in_state("READ", IBV_QPS_ERR);
}

static struct ibv_mr *huge_mr(void)
{
	void *where = mmap(NULL, 1UL << 31, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return reg(where, 1UL << 31, RIGHTS | IBV_ACCESS_ON_DEMAND);
}

/* of all that a message may have */
static void test_read_2g(int unused)
{
	struct packet p;
	struct ibv_mr *m;

	set_up(IBV_QPT_RC, false);
	m = huge_mr();
	p = start(READ_REQUEST, next);
	reth(&p, (uintptr_t)m->addr, m->rkey, 1U << 31);
	transmit(&p);
	answers("READ of 2 GiB", READ_FIRST, next, ACKED);
	answers("READ of 2 GiB", READ_MIDDLE, next + 1, ACKED);
}

/* a peer cannot keep a QP by what it asks for */
static void test_destroy(int unused)
{
	struct packet p;
	struct ibv_mr *m;
	double begin;

	set_up(IBV_QPT_RC, false);
	m = huge_mr();
	for (int i = 0; i < 7; i++) {
		p = start(READ_REQUEST, next + (i << 20));
		reth(&p, (uintptr_t)m->addr, m->rkey, 1U << 30);
		transmit(&p);
	}
	answers("READ of 1 GiB", READ_FIRST, next, ACKED);
	begin = now();
	if (ibv_destroy_qp(qp))
		fail("destroy_qp: %s", strerror(errno));
	if (now() - begin > PATIENCE)
		fail("destroy_qp takes %.0f s", now() - begin);
}

/* a packet in the middle of a message does not have the length of the MTU */
static void test_uc_short(int with_srq)
{
	set_up(IBV_QPT_UC, with_srq);
	post_recv(MR_SIZE / 2);
	send_packet(SEND_FIRST, next, 'x', MTU);
	send_packet(SEND_MIDDLE, next + 1, 'x', 100);
	if (with_srq)
		completes("short packet", IBV_WC_REM_INV_REQ_ERR);
	send_packet(SEND_MIDDLE, next + 1, 'x', MTU);
	send_packet(SEND_LAST, next + 2, 'x', 100);
	does_not_complete("the rest of the message");
	fill();
	if (with_srq)
		post_recv(MR_SIZE / 2);
	next += 3;
	/* without an SRQ the first message after that ends the one before */
	for (int i = 0; i < 2; i++)
		send_packet(SEND_ONLY, next++, 'y', 50);
	completes("next message", IBV_WC_SUCCESS);
	has_received("next message", 0, 50, 'y');
}

/* the end of a message is lost: the QP receives what comes then */
static void test_uc_lost(int arg)
{
	bool send = arg & 1;
	struct packet p;

	set_up(IBV_QPT_UC, arg & 2);
	post_recv(MR_SIZE / 2);
	if (send) {
		send_packet(SEND_FIRST, next, 'x', MTU);
	} else {
		p = start(UC + WRITE_FIRST, next);
		reth(&p, (uintptr_t)mr->addr, mr->rkey, 2 * MTU);
		payload(&p, 'x', MTU);
		transmit(&p);
	}
	usleep(QUIET * 1000);
	next += 2;
	/* one of them may have ended the message */
	for (int i = 0; i < 3; i++) {
		write_at(next++, 0, 'x', MTU);
		usleep(QUIET * 1000 / 3);
	}
	works("after");
}

static void test_ud_bad(int with_srq)
{
	struct packet p;

	set_up(IBV_QPT_UD, with_srq);
	post_recv(100);
	send_packet(SEND_ONLY, 0, 'x', 100);
	if (with_srq) {
		completes("too long with its GRH", IBV_WC_REM_INV_REQ_ERR);
		post_recv(100);
	}
	p = start(UD + SEND_ONLY, 0);
	put32(&p, QKEY + 1);
	put32(&p, PEER_QPN);
	transmit(&p);
	p = start(UD + SEND_ONLY, 0);
	put32(&p, QKEY);
	transmit(&p);
	does_not_complete("another Q_Key, and half of a header");
	has_received("another Q_Key", 0, 0, 0);
	send_packet(SEND_ONLY, 0, 'y', 60);
	completes("good", IBV_WC_SUCCESS);
	has_received("good", 40, 60, 'y');
}

static void test_send_long(int with_srq)
{
	set_up(IBV_QPT_RC, with_srq);
	post_recv(MTU + 50);
	send_packet(SEND_FIRST, next, 'x', MTU);
	answers("first packet", ACK, next, ACKED);
	send_packet(SEND_LAST, next + 1, 'x', 51);
	answers("one byte too many", ACK, next + 1, OP_ERROR);
	completes("one byte too many", IBV_WC_LOC_QP_OP_ERR);
	has_received("one byte too many", 0, MTU, 'x');
	is_in_state("after", IBV_QPS_ERR);
}

/* another message in the middle of one */
static void test_interrupt(int opcode)
{
	set_up(IBV_QPT_RC, false);
	post_recv(MR_SIZE / 2);
	send_packet(SEND_FIRST, next, 'x', MTU);
	answers("first packet", ACK, next, ACKED);
	next++;
	switch (opcode) {
	case READ_REQUEST:
		request_read(next, 0, mr->rkey, 8);
		break;
	case FETCH_ADD:
		request_add(next, 0, 1);
		break;
	case FLUSH:
		request_flush(next);
		break;
	default:
		write_at(next, 0, 'x', 8);
	}
	answers("in between", ACK, next, INVALID);
	completes("in between", IBV_WC_REM_INV_REQ_ERR);
	has_written_nothing("in between");
}

/* --- responses --- */

/* two ACKs of a message whose end has not been sent */
static void test_early_ack(int opcode)
{
	uint32_t last = SQ_PSN + BIG / MTU - 1, psn = SQ_PSN;
	struct ibv_mr *big;
	struct answer a;
	int sent = 0;

	set_up(IBV_QPT_RC, false);
	big = reg(pages(BIG), BIG, IBV_ACCESS_LOCAL_WRITE);
	post_send(opcode, big, BIG);
	while (receive(&a, sent ? 500 : PATIENCE * 1000)) {
		psn = a.psn;
		sent++;
	}
	if (!sent || sent >= BIG / MTU)
		fail("%d packets before an ACK", sent);
	for (int i = 0; i < 2; i++)
		send_ack(last, ACKED);
	if (completion(1000) >= 0) {
		int changed = 0;

		/* what an ULP may do now */
		memset(big->addr, 'Z', BIG);
		while (receive(&a, 500))
			changed += a.data[a.size - 1] == 'Z';
		fail("completes before it is sent: %d of %d packets have what came later",
		     changed, BIG / MTU);
		return;
	}
	/* what is right completes it */
	while (psn != (last & 0xffffff)) {
		send_ack(psn, ACKED);
		if (!receive(&a, PATIENCE * 1000)) {
			fail("stops at PSN %#x", psn);
			return;
		}
		psn = a.psn;
		while (receive(&a, 0))
			psn = a.psn;
	}
	does_not_complete("before its last ACK");
	send_ack(last, ACKED);
	completes("last ACK", IBV_WC_SUCCESS);
}

/* PSNs that are far away from what has been sent */
static void test_far_ack(int unused)
{
	static const uint32_t far[] = { 1, 2, 100, 0x7fffff, 0x800000, 0xfffffe };

	set_up(IBV_QPT_RC, false);
	post_send(IBV_WR_SEND, NULL, 8);
	sends(SQ_PSN);
	for (size_t i = 0; i < ARRAY_SIZE(far); i++)
		for (int twice = 0; twice < 2; twice++)
			send_ack(SQ_PSN + far[i], ACKED);
	does_not_complete("ACKs of something else");
	send_ack(SQ_PSN, ACKED);
	completes("ACK", IBV_WC_SUCCESS);
}

/* An ACK is no answer to what asks for data. */
static void test_ack_for_data(int opcode)
{
	bool read = opcode == IBV_WR_RDMA_READ;

	set_up(IBV_QPT_RC, false);
	post_send(opcode, NULL, 8);
	sends(SQ_PSN);
	for (int i = 0; i < 2; i++)
		send_ack(SQ_PSN, ACKED);
	does_not_complete("ACK");
	if (read)
		send_response(READ_ONLY, SQ_PSN, 'w', 8);
	else
		send_atomic_ack(SQ_PSN, 0x7777777777777777);
	completes("response", IBV_WC_SUCCESS);
	has_received("response", 0, 8, 'w');
}

/* Responses that do not belong to the WR, which fails. */
static const struct {
	const char *name;
	enum ibv_wr_opcode wr;
	uint32_t size;
	enum ibv_wc_status status;
	struct {
		uint8_t opcode;
		uint8_t psn;		/* from the first one on */
		uint16_t data;		/* of a READ response */
		uint8_t syndrome;	/* 0 is an ACK */
	} r[3];
} misfits[] = {
	{ "last response of a READ without the first", IBV_WR_RDMA_READ, 2 * MTU,
	  IBV_WC_BAD_RESP_ERR, { { READ_LAST, 0, MTU } } },
	{ "middle response of a READ without the first", IBV_WR_RDMA_READ, 3 * MTU,
	  IBV_WC_BAD_RESP_ERR, { { READ_MIDDLE, 0, MTU } } },
	{ "READ that begins twice", IBV_WR_RDMA_READ, 3 * MTU, IBV_WC_BAD_RESP_ERR,
	  { { READ_FIRST, 0, MTU }, { READ_FIRST, 1, MTU } } },
	{ "last response of a READ with too little, twice", IBV_WR_RDMA_READ, 2 * MTU,
	  IBV_WC_BAD_RESP_ERR,
	  { { READ_FIRST, 0, MTU }, { READ_LAST, 1, 8 }, { READ_LAST, 1, 8 } } },
	{ "only response of a READ with too little, twice", IBV_WR_RDMA_READ, MTU,
	  IBV_WC_BAD_RESP_ERR, { { READ_ONLY, 0, 8 }, { READ_ONLY, 0, 8 } } },
	{ "READ that does not end with its last PSN", IBV_WR_RDMA_READ, 2 * MTU,
	  IBV_WC_BAD_RESP_ERR,
	  { { READ_FIRST, 0, MTU }, { READ_MIDDLE, 1, MTU }, { READ_LAST, 1, 8 } } },
	{ "READ with too much", IBV_WR_RDMA_READ, 8, IBV_WC_LOC_PROT_ERR,
	  { { READ_ONLY, 0, 16 } } },
	{ "READ that is refused by a response", IBV_WR_RDMA_READ, 8,
	  IBV_WC_BAD_RESP_ERR, { { READ_ONLY, 0, 8, NO_ACCESS } } },
	{ "atomic response to a READ", IBV_WR_RDMA_READ, 8, IBV_WC_BAD_RESP_ERR,
	  { { ATOMIC_ACK } } },
	{ "atomic response to a SEND", IBV_WR_SEND, 8, IBV_WC_BAD_RESP_ERR,
	  { { ATOMIC_ACK } } },
	{ "atomic that is refused by a response", IBV_WR_ATOMIC_FETCH_AND_ADD, 8,
	  IBV_WC_BAD_RESP_ERR, { { ATOMIC_ACK, .syndrome = NO_ACCESS } } },
	{ "READ response to an atomic", IBV_WR_ATOMIC_FETCH_AND_ADD, 8,
	  IBV_WC_FATAL_ERR, { { READ_ONLY, 0, 8 } } },
	{ "READ response to a WRITE", IBV_WR_RDMA_WRITE, 8, IBV_WC_FATAL_ERR,
	  { { READ_ONLY, 0, 8 } } },
	{ "middle response of a READ to a SEND", IBV_WR_SEND, 8, IBV_WC_BAD_RESP_ERR,
	  { { READ_MIDDLE, 0, MTU } } },
	{ "reserved kind of ACK to a SEND", IBV_WR_SEND, 8, IBV_WC_BAD_RESP_ERR,
	  { { ACK, .syndrome = RESERVED } } },
	{ "reserved kind of ACK to a READ", IBV_WR_RDMA_READ, 8, IBV_WC_BAD_RESP_ERR,
	  { { ACK, .syndrome = RESERVED } } },
	{ "NAK that does not exist", IBV_WR_SEND, 8, IBV_WC_REM_OP_ERR,
	  { { ACK, .syndrome = 0x7f } } },
	{ "NAK: no access", IBV_WR_RDMA_WRITE, 8, IBV_WC_REM_ACCESS_ERR,
	  { { ACK, .syndrome = NO_ACCESS } } },
	{ "NAK: invalid request", IBV_WR_RDMA_READ, 8, IBV_WC_REM_INV_REQ_ERR,
	  { { ACK, .syndrome = INVALID } } },
};

static void test_misfit(int row)
{
	set_up(IBV_QPT_RC, false);
	post_send(misfits[row].wr, NULL, misfits[row].size);
	sends(SQ_PSN);
	for (size_t i = 0; i < ARRAY_SIZE(misfits[row].r); i++) {
		uint8_t opcode = misfits[row].r[i].opcode;
		struct packet p = respond(opcode, SQ_PSN + misfits[row].r[i].psn,
					  misfits[row].r[i].syndrome ?: ACKED);

		if (!opcode)
			break;
		payload(&p, 'x', opcode == ATOMIC_ACK ? 8 : misfits[row].r[i].data);
		transmit(&p);
	}
	completes("misfit", misfits[row].status);
	is_in_state("misfit", IBV_QPS_ERR);
	has_received("misfit", misfits[row].size, 0, 0);
	has_written_nothing("misfit");
}

/* a QP that is reset in the middle of a READ has forgotten it */
static void test_reset_in_read(int unused)
{
	set_up(IBV_QPT_RC, false);
	post_send(IBV_WR_RDMA_READ, NULL, 3 * MTU);
	sends(SQ_PSN);
	send_response(READ_FIRST, SQ_PSN, 'r', MTU);
	does_not_complete("first response");
	reset_qp();
	fill();
	post_send(IBV_WR_ATOMIC_FETCH_AND_ADD, NULL, 8);
	sends(SQ_PSN);
	send_atomic_ack(SQ_PSN, 0x7777777777777777);
	completes("atomic after the reset", IBV_WC_SUCCESS);
	has_received("atomic after the reset", 0, 8, 'w');
}

/* NAKs that ask for what was not sent, or for all of it again and again */
static void test_retry(int syndrome)
{
	retries = 3;
	set_up(IBV_QPT_RC, false);
	post_send(IBV_WR_RDMA_WRITE, NULL, 3 * MTU);
	sends(SQ_PSN + 2);
	send_ack(SQ_PSN + 50, syndrome);
	does_not_answer("NAK of what was not sent");
	/* from the middle */
	send_ack(SQ_PSN + 1, syndrome);
	sends(SQ_PSN + 2);
	send_ack(SQ_PSN + 2, ACKED);
	completes("ACK", IBV_WC_SUCCESS);
	post_send(IBV_WR_SEND, NULL, 8);
	sends(SQ_PSN + 3);
	send_ack(SQ_PSN + 3, syndrome);
	sends(SQ_PSN + 3);
	if (syndrome == OUT_OF_SEQ) {
		/* until there is progress, only once */
		send_ack(SQ_PSN + 3, syndrome);
		does_not_answer("the same NAK");
		send_ack(SQ_PSN + 3, ACKED);
		completes("ACK", IBV_WC_SUCCESS);
		return;
	}
	for (int i = 1; i < 3; i++) {
		send_ack(SQ_PSN + 3, syndrome);
		sends(SQ_PSN + 3);
	}
	send_ack(SQ_PSN + 3, syndrome);
	completes("too many NAKs", IBV_WC_RNR_RETRY_EXC_ERR);
}

/* --- a random walk --- */

#define SHOWN		'V'		/* of memory that may be read only */
/* a message of the walk has no more packets */
#define MOST		4

static uint64_t state;
static struct ibv_mr *shown;
static struct ibv_mw *mw;
static uint32_t mw_rkey;

static uint32_t any(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (state >> 16) % below;
}

static uint32_t any_of(const uint32_t *values, size_t count)
{
	return values[any(count)];
}

static uint32_t any_length(void)
{
	static const uint32_t lengths[] = {
		0, 1, 3, 4, 8, 16, MTU - 1, MTU, MTU + 1, 2 * MTU, 3 * MTU, MR_SIZE,
		MR_SIZE + 1, 1U << 31, (1U << 31) + 1, 0x80000100, -1U,
	};

	return any_of(lengths, ARRAY_SIZE(lengths));
}

static uint32_t any_rkey(void)
{
	const uint32_t rkeys[] = {
		mr->rkey, mr->rkey, mr->rkey, mr->rkey, mw_rkey, mw_rkey, shown->rkey,
		inbox->rkey, mr->rkey + 1, 0, any(-1U),
	};

	return any_of(rkeys, ARRAY_SIZE(rkeys));
}

static uint64_t any_address(uint32_t rkey)
{
	static const long offsets[] = {
		-8, -1, 1, 4, MR_SIZE - 8, MR_SIZE - 1, MR_SIZE, MR_SIZE - MTU,
	};
	uint64_t start = (uintptr_t)(rkey == shown->rkey ? shown->addr :
				     rkey == inbox->rkey ? inbox->addr : mr->addr);

	switch (any(8)) {
	case 0:
		return start + offsets[any(ARRAY_SIZE(offsets))];
	case 1:
		return any(2) ? 0 : -8ULL;
	default:
		return start + 8 * any(MR_SIZE / 16);
	}
}

/* one thing of a packet is not as it should be */
static void spoil(struct packet *p)
{
	switch (any(10)) {
	case 0:
		p->opcode = any(256);
		break;
	case 1:
		p->opcode = base() + any(ATOMIC_WRITE + 1);
		break;
	case 2:
		p->psn += any(2) ? any(9) - 4 : 1U << any(24);
		break;
	case 3:
		p->flags ^= 1 << any(8);
		break;
	case 4:
		p->size = any(p->size + 1);
		break;
	case 5:
		payload(p, 'X', any(MTU));
		break;
	case 6:
		p->qpn = any(2) ? any(32) : 1U << any(24);
		break;
	case 7:
		if (p->size)
			p->body[any(p->size < 28 ? p->size : 28)] ^= 1 << any(8);
		break;
	case 8:
		p->ack = !p->ack;
		p->pkey ^= any(2) << 15;
		break;
	case 9:
		p->spoil = any(2);
		break;
	}
}

static void wander_packet(struct packet *p)
{
	if (!any(5))
		spoil(p);
	/* one is lost, or comes twice */
	if (any(20))
		transmit(p);
	if (!any(20))
		transmit(p);
}

/* a message of SEND or WRITE, or another request */
static void wander_request(uint32_t psn)
{
	static const uint8_t others[] = {
		READ_REQUEST, READ_REQUEST, READ_REQUEST, COMPARE_SWAP, FETCH_ADD,
		ATOMIC_WRITE, FLUSH, SEND_ONLY_INV,
	};
	uint32_t rkey = any_rkey(), len = any_length();
	uint64_t va = any_address(rkey);
	int count = 1 + any(MOST), kind = any(base() == UD ? 1 : base() ? 2 : 4);
	uint8_t first = kind ? WRITE_FIRST : SEND_FIRST;
	struct packet p;

	if (any(3))
		len = 1 + any(count * MTU);
	if (kind > 1) {
		uint8_t op = others[any(ARRAY_SIZE(others))];

		p = build(op, psn, va, op == SEND_ONLY_INV && any(4) ? mw_rkey : rkey,
			  op == ATOMIC_WRITE ? 8 : len, ACKED);
		if (op == ATOMIC_WRITE)
			payload(&p, 'X', 8);
		wander_packet(&p);
		return;
	}
	if (len < MOST * MTU)
		count = (len + MTU - 1) / MTU ?: 1;
	if (base() == UD)
		count = 1;
	for (int i = 0; i < count; i++) {
		uint8_t op = count == 1 ? SEND_ONLY : i == 0 ? SEND_FIRST :
			     i == count - 1 ? SEND_LAST : SEND_MIDDLE;
		uint32_t rest = len - i * MTU;

		/* with immediate data, which is the next one in each case */
		if ((op == SEND_ONLY || op == SEND_LAST) && !any(4))
			op++;
		p = build(first + op, psn + i, va, rkey, len, ACKED);
		payload(&p, kind ? 'X' : 'S', rest < MTU ? rest : MTU);
		wander_packet(&p);
	}
}

/* Some ACK, or a READ's responses. PSN is behind the last one that was sent. */
static void wander_response(uint32_t psn)
{
	static const uint8_t syndromes[] = {
		ACKED, ACKED, ACKED, RNR, RNR | 1, RESERVED, OUT_OF_SEQ, OUT_OF_SEQ,
		INVALID, NO_ACCESS, OP_ERROR, 0x7f, 0xff,
	};
	uint8_t syndrome = syndromes[any(ARRAY_SIZE(syndromes))];
	int count = 1 + any(MOST);
	struct packet p;

	psn -= 1 + any(MOST);
	if (any(2)) {
		p = build(any(4) ? ACK : ATOMIC_ACK, psn, 0, 0, 0, syndrome);
		wander_packet(&p);
		return;
	}
	for (int i = 0; i < count; i++) {
		uint8_t op = count == 1 ? READ_ONLY : i == 0 ? READ_FIRST :
			     i == count - 1 ? READ_LAST : READ_MIDDLE;

		p = build(op, psn + i, 0, 0, 0, any(8) ? ACKED : syndrome);
		payload(&p, 'R', op == READ_ONLY || op == READ_LAST ? 1 + any(MTU) : MTU);
		wander_packet(&p);
	}
}

/* what there is no room for is not posted */
static void wander_post(void)
{
	static const enum ibv_wr_opcode opcodes[] = {
		IBV_WR_SEND, IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_RDMA_READ,
		IBV_WR_ATOMIC_FETCH_AND_ADD, IBV_WR_BIND_MW,
	};
	struct ibv_sge sge = { .addr = (uintptr_t)inbox->addr, .lkey = inbox->lkey,
			       .length = 1 + any(any(2) ? MOST * MTU : 64) };
	struct ibv_send_wr *bad, wr = { .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad_recv, recv = { .sg_list = &sge, .num_sge = 1 };

	if (any(2)) {
		if (srq)
			ibv_post_srq_recv(srq, &recv, &bad_recv);
		else
			ibv_post_recv(qp, &recv, &bad_recv);
		return;
	}
	/* nobody knows the AH of a peer that is not there */
	if (base() == UD)
		return;
	wr.opcode = opcodes[any(base() == UC ? 2 : ARRAY_SIZE(opcodes))];
	switch (wr.opcode) {
	case IBV_WR_ATOMIC_FETCH_AND_ADD:
		sge.length = 8;
		wr.wr.atomic.remote_addr = PAGE;
		break;
	case IBV_WR_BIND_MW:
		wr.num_sge = 0;
		mw_rkey = ibv_inc_rkey(mw_rkey);
		wr.bind_mw.mw = mw;
		wr.bind_mw.rkey = mw_rkey;
		wr.bind_mw.bind_info.mr = mr;
		wr.bind_mw.bind_info.addr = (uintptr_t)mr->addr + PAGE / 2;
		wr.bind_mw.bind_info.length = PAGE;
		wr.bind_mw.bind_info.mw_access_flags = REMOTE |
			(any(2) ? IBV_ACCESS_ZERO_BASED : 0);
		break;
	default:
		wr.wr.rdma.remote_addr = PAGE;
	}
	ibv_post_send(qp, &wr, &bad);
}

/* nothing that the peer has no right to is written to, or shown to it */
static void wander_check(uint64_t seed)
{
	static struct answer a;

	while (receive(&a, 0)) {
		size_t run = 0;

		/* A few bytes may be those of a header that was written. */
		for (size_t i = 0; i < a.size && run < 16; i++)
			run = a.data[i] == GUARD || a.data[i] == INBOX ? run + 1 : 0;
		if (run == 16 && a.opcode >= READ_FIRST && a.opcode <= READ_ONLY)
			fail("seed %llu: other memory is read", (long long)seed);
	}
	for (size_t i = 0; i < MR_SIZE + 2 * PAGE && !failed; i++) {
		bool in = i >= PAGE && i < PAGE + MR_SIZE;

		if (!in && (mem[i] != GUARD || box[i] != GUARD))
			fail("seed %llu: %zd of an MR is written to",
			     (long long)seed, (ssize_t)(i - PAGE));
	}
	for (size_t i = 0; i < PAGE && !failed; i++)
		if (((uint8_t *)shown->addr)[i] != SHOWN)
			fail("seed %llu: an MR to be read is written to",
			     (long long)seed);
}

/* one process of the walk */
static void wander(uint64_t seed)
{
	static const enum ibv_qp_type types[] = {
		IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_RC, IBV_QPT_UC, IBV_QPT_UD,
	};
	unsigned long before = taint();
	struct ibv_wc wc[16];
	uint8_t *memory;

	state = seed | 1;
	for (int i = 0; i < 8; i++)
		any(2);
	to_add = 0;
	retries = any(8);
	qp_timeout = any(2) ? 8 : 0;
	rd_atomic = any(5);
	set_up(types[any(ARRAY_SIZE(types))], any(2));
	if (any(2)) {
		ibv_dereg_mr(mr);
		mr = reg(mem + PAGE, MR_SIZE, RIGHTS | IBV_ACCESS_ON_DEMAND);
	}
	memory = pages(PAGE);
	memset(memory, SHOWN, PAGE);
	shown = reg(memory, PAGE, IBV_ACCESS_REMOTE_READ);
	mw = ibv_alloc_mw(pd, IBV_MW_TYPE_2);
	if (!mw)
		die("alloc_mw");
	mw_rkey = mw->rkey;
	for (int round = 0; round < 60 && !failed; round++) {
		struct ibv_qp_init_attr init;
		struct ibv_qp_attr a;

		for (int i = any(4); i; i--)
			wander_post();
		if (ibv_query_qp(qp, &a, IBV_QP_STATE, &init))
			die("query_qp");
		for (int i = any(4); i; i--)
			if (base() == 0 && !any(3))
				wander_response(a.sq_psn);
			else
				wander_request(a.rq_psn);
		if (any(2))
			usleep(any(3000));
		while (ibv_poll_cq(cq, ARRAY_SIZE(wc), wc) > 0)
			;
		wander_check(seed);
		if (qp_state() == IBV_QPS_RTS && any(20))
			continue;
		a.qp_state = IBV_QPS_ERR;
		if (any(2) && ibv_modify_qp(qp, &a, IBV_QP_STATE))
			die("ERR");
		a.qp_state = IBV_QPS_RESET;
		if (ibv_modify_qp(qp, &a, IBV_QP_STATE))
			die("RESET");
		/* a packet may bring it to the error state right then */
		try_connect();
	}
	if (any(2))
		ibv_dealloc_mw(mw);
	if (ibv_destroy_qp(qp))
		fail("seed %llu: destroy_qp: %s", (long long)seed, strerror(errno));
	wander_check(seed);
	if (taint() != before)
		fail("seed %llu: the kernel is tainted", (long long)seed);
}

static int walk(int seconds, uint64_t seed)
{
	double end = now() + seconds;
	unsigned long count = 0;
	int bad = 0;

	printf("# seed %llu\n", (long long)seed);
	while (now() < end && bad < 10) {
		char what[60];

		snprintf(what, sizeof(what), "seed %llu", (long long)(seed + count));
		bad += FORKED(what, wander(seed + count));
		count++;
	}
	printf("# %lu processes\n", count);
	return bad;
}

/* --- all of the tests --- */

static const char *only = "";
static bool listing;
static int tests;

static void run(void (*test)(int), int arg, const char *format, ...)
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
	bad = FORKED(name, test(arg));
	if (taint() & ~before) {
		ksft_print_msg("the kernel complains\n");
		bad = 1;
	}
	ksft_test_result(!bad, "%s\n", name);
}

static void run_all(void)
{
	static const char * const srqs[] = { "", ", SRQ" };
	static const struct {
		enum ibv_qp_type type;
		const char *name;
	} types[] = {
		{ IBV_QPT_RC, "RC" }, { IBV_QPT_UC, "UC" }, { IBV_QPT_UD, "UD" },
	};
	static const struct {
		int opcode;
		const char *name;
	} between[] = {
		{ READ_REQUEST, "READ" }, { FETCH_ADD, "atomic" }, { FLUSH, "FLUSH" },
		{ WRITE_ONLY, "WRITE" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		if (types[i].type != IBV_QPT_UD)
			run(test_write, types[i].type, "good: %s WRITE", types[i].name);
		for (int s = 0; s < 2; s++)
			run(test_send, types[i].type << 1 | s, "good: %s SEND%s",
			    types[i].name, srqs[s]);
	}
	run(test_read, 0, "good: READ");
	run(test_atomic, 0, "good: atomics and FLUSH");
	run(test_responses, 0, "good: responses");

	run(test_early_ack, IBV_WR_RDMA_WRITE, "response: early ACK of a WRITE");
	run(test_early_ack, IBV_WR_SEND, "response: early ACK of a SEND");
	run(test_far_ack, 0, "response: ACK of what was not sent");
	run(test_ack_for_data, IBV_WR_RDMA_READ, "response: ACK for a READ");
	run(test_ack_for_data, IBV_WR_ATOMIC_FETCH_AND_ADD,
	    "response: ACK for an atomic");
	for (size_t i = 0; i < ARRAY_SIZE(misfits); i++)
		run(test_misfit, i, "response: %s", misfits[i].name);
	run(test_reset_in_read, 0, "response: reset in the middle of a READ");
	run(test_retry, OUT_OF_SEQ, "response: NAK, out of sequence");
	run(test_retry, RNR | 1, "response: NAK, receiver not ready");

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		for (int uc = 0; uc <= is_of_uc(bad[i].opcode); uc++)
			for (int s = 0; s < 2; s++)
				run(test_bad, i << 2 | s << 1 | uc, "request: %s %s%s",
				    types[uc].name, bad[i].name, srqs[s]);
	for (size_t i = 0; i < 2; i++)
		run(test_opcodes, types[i].type, "request: all opcodes of %s",
		    types[i].name);
	run(test_duplicates, 0, "again: WRITE and FETCH_ADD");
	run(test_read_again, 64, "again: READ, after a WRITE of no bytes");
	run(test_read_again, 0, "again: READ of no bytes, after a WRITE");
	run(test_window_again, REMOTE, "again: READ by a window");
	run(test_window_again, REMOTE | IBV_ACCESS_ZERO_BASED,
	    "again: READ by a zero-based window");
	run(test_flush_again, 0, "again: FLUSH");
	run(test_other_again, 0, "again: another request with the same PSN");
	run(test_flush_no_resources, 0, "request: FLUSH of a QP without resources");
	run(test_read_no_resources, 0, "request: READ of a QP without resources");
	run(test_read_2g, 0, "request: READ of 2 GiB that are there");
	run(test_destroy, 0, "request: READs of 7 GiB, and the QP is destroyed");
	for (int s = 0; s < 2; s++) {
		run(test_send_long, s, "message: SEND that is too long%s", srqs[s]);
		run(test_uc_short, s, "message: UC SEND with a short packet%s", srqs[s]);
		run(test_uc_lost, s << 1, "message: UC WRITE without its end%s", srqs[s]);
		run(test_uc_lost, s << 1 | 1, "message: UC SEND without its end%s",
		    srqs[s]);
		run(test_ud_bad, s, "message: UD SENDs that are bad%s", srqs[s]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(between); i++)
		run(test_interrupt, between[i].opcode, "message: %s in a SEND",
		    between[i].name);
}

int main(int argc, char **argv)
{
	uint64_t seed = time(NULL) * 1000003ULL;
	int seconds = 0, i = 1;

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "--only")) {
		only = argv[2];
		i = 3;
	} else if (argc > 2 && !strcmp(argv[1], "--random")) {
		seconds = atoi(argv[2]);
		i = 3;
		if (argc > 6)
			seed = strtoull(argv[i++], NULL, 10);
	}
	ksft_print_header();
	if (argc != i + 3)
		ksft_exit_skip("usage: %s [OPTION...] DEVICE ADDRESS PEER\n", argv[0]);
	device = argv[i];
	if (inet_pton(AF_INET, argv[i + 1], &local) != 1 ||
	    inet_pton(AF_INET, argv[i + 2], &peer) != 1)
		ksft_exit_fail_msg("no IPv4 addresses\n");
	if (seconds) {
		ksft_set_plan(1);
		ksft_test_result(!walk(seconds, seed), "random walk\n");
		ksft_finished();
	}
	listing = true;
	run_all();
	listing = false;
	ksft_set_plan(tests);
	run_all();
	ksft_finished();
}
