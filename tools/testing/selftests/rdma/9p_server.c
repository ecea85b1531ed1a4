// SPDX-License-Identifier: GPL-2.0
/*
 * A 9P server for RDMA, by way of one for TCP on this machine: each message is a
 * SEND on one side, and goes through a socket on the other. No server that people
 * have speaks RDMA, and the kernel's client is to be tested. With messages of up to
 * 1 MiB: reads and writes that the TCP server has no room for go to it in parts.
 *
 * usage: 9p_server ADDRESS PORT TCP_PORT
 */
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <arpa/inet.h>
#include <endian.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MSIZE 0x100000		/* the client's largest */
/* The client has 32 requests under way by default, and may send the next one when
 * it has an answer, which can be before what was received is posted again.
 */
#define RECEIVES 40

/* 9P2000.L: size[4] type[1] tag[2], and what follows these */
#define HEADER 7
#define RLERROR 7
#define RLOPEN 13		/* qid[13] iounit[4] */
#define RLCREATE 15		/* likewise */
#define TREADDIR 40		/* fid[4] offset[8] count[4] */
#define TVERSION 100		/* msize[4] version[s] */
#define RVERSION 101		/* likewise */
#define TFLUSH 108		/* oldtag[2] */
#define TREAD 116		/* fid[4] offset[8] count[4] */
#define RREAD 117		/* count[4] data[count] */
#define TWRITE 118		/* fid[4] offset[8] count[4] data[count] */
#define RWRITE 119		/* count[4] */
#define IOUNIT (HEADER + 13)
#define OFFSET (HEADER + 4)
#define COUNT (HEADER + 12)
#define TDATA (HEADER + 16)
#define RDATA (HEADER + 4)
#define OVERHEAD 24		/* what a message is larger than its data, at most */

/* a read or a write in parts */
struct transfer {
	char request[TDATA];
	uint32_t count, done;
	uint32_t part;		/* what is under way of it */
	int stop;		/* behind that part */
	char data[];
};

struct connection {
	struct rdma_cm_id *id;
	int tcp;
	char *received, *sent;
	struct ibv_mr *received_mr, *sent_mr;
	uint32_t msize;		/* the client's */
	uint32_t largest;	/* data of one message to the TCP server */
	pthread_mutex_t lock;	/* of what both threads use: */
	struct transfer *transfers[1 << 16];	/* by tag */
};

static struct sockaddr_in server;

static int write_all(int fd, const char *data, size_t len)
{
	while (len) {
		ssize_t n = write(fd, data, len);

		if (n <= 0)
			return -1;
		data += n;
		len -= n;
	}
	return 0;
}

static int read_all(int fd, char *data, size_t len)
{
	while (len) {
		ssize_t n = read(fd, data, len);

		if (n <= 0)
			return -1;
		data += n;
		len -= n;
	}
	return 0;
}

static int post_receive(struct connection *c, uintptr_t i)
{
	return rdma_post_recv(c->id, (void *)i, c->received + i * MSIZE, MSIZE,
			      c->received_mr);
}

static uint16_t get16(const char *p)
{
	uint16_t n;

	memcpy(&n, p, sizeof(n));
	return le16toh(n);
}

static uint32_t get32(const char *p)
{
	uint32_t n;

	memcpy(&n, p, sizeof(n));
	return le32toh(n);
}

static void put32(char *p, uint32_t n)
{
	n = htole32(n);
	memcpy(p, &n, sizeof(n));
}

static void add64(char *p, uint32_t more)
{
	uint64_t n;

	memcpy(&n, p, sizeof(n));
	n = htole64(le64toh(n) + more);
	memcpy(p, &n, sizeof(n));
}

static uint8_t type_of(const char *message)
{
	return message[4];
}

static uint16_t tag_of(const char *message)
{
	return get16(message + 5);
}

static int write_part(struct connection *c, struct transfer *t)
{
	uint32_t left = t->count - t->done;
	uint32_t data = 0;
	char head[TDATA];

	t->part = left < c->largest ? left : c->largest;
	memcpy(head, t->request, TDATA);
	if (type_of(head) == TWRITE)
		data = t->part;
	put32(head, TDATA + data);
	add64(head + OFFSET, t->done);
	put32(head + COUNT, t->part);
	return write_all(c->tcp, head, TDATA) ||
	       write_all(c->tcp, t->data + t->done, data);
}

static int write_in_parts(struct connection *c, const char *request, uint32_t len)
{
	uint16_t tag = tag_of(request);
	uint32_t count = get32(request + COUNT);
	struct transfer *t;

	if (count > MSIZE - RDATA || c->transfers[tag] ||
	    (type_of(request) == TWRITE && len != TDATA + count))
		return -1;
	t = calloc(1, sizeof(*t) + count);
	if (!t)
		return -1;
	t->count = count;
	memcpy(t->request, request, TDATA);
	memcpy(t->data, request + TDATA, len - TDATA);
	c->transfers[tag] = t;
	return write_part(c, t);
}

static int write_request(struct connection *c, char *request, uint32_t len)
{
	uint8_t type = type_of(request);
	struct transfer *t;

	if (len < HEADER)
		return -1;
	if (type == TVERSION && len >= HEADER + 4) {
		c->msize = get32(request + HEADER);
	} else if (type == TFLUSH && len >= HEADER + 2) {
		/* no reply to it may come behind that to the flush */
		t = c->transfers[get16(request + HEADER)];
		if (t)
			t->stop = 1;
	} else if ((type == TREAD || type == TWRITE || type == TREADDIR) &&
		   len >= TDATA && get32(request + COUNT) > c->largest) {
		if (type != TREADDIR)
			return write_in_parts(c, request, len);
		put32(request + COUNT, c->largest);
	}
	return write_all(c->tcp, request, len);
}

/* the requests, until the QP is in the error state */
static void *requests(void *arg)
{
	struct connection *c = arg;
	struct ibv_wc wc;

	while (rdma_get_recv_comp(c->id, &wc) == 1 && wc.status == IBV_WC_SUCCESS) {
		int failed;

		pthread_mutex_lock(&c->lock);
		failed = write_request(c, c->received + wc.wr_id * MSIZE, wc.byte_len);
		pthread_mutex_unlock(&c->lock);
		if (failed || post_receive(c, wc.wr_id))
			break;
	}
	/* no more replies, either */
	shutdown(c->tcp, SHUT_RDWR);
	return NULL;
}

/* The reply to a part. Returns the length of that to all of it, 0 if there is more to
 * come, or -1.
 */
static int part_done(struct connection *c, struct transfer *t, uint32_t len)
{
	uint16_t tag = tag_of(c->sent);
	uint32_t n = 0;

	if (type_of(c->sent) != RLERROR) {
		n = get32(c->sent + HEADER);
		if (n > t->part)
			n = t->part;
		if (type_of(c->sent) == RREAD)
			memcpy(t->data + t->done, c->sent + RDATA, n);
		t->done += n;
		if (n == t->part && t->done < t->count && !t->stop)
			return write_part(c, t);
	}
	/* an error is not told if there is something else to tell */
	if (t->done) {
		c->sent[4] = type_of(t->request) + 1;
		put32(c->sent + HEADER, t->done);
		len = RDATA;
		if (type_of(t->request) == TREAD) {
			memcpy(c->sent + RDATA, t->data, t->done);
			len += t->done;
		}
		put32(c->sent, len);
	}
	c->transfers[tag] = NULL;
	free(t);
	return len;
}

/* Likewise, of any message of the TCP server. */
static int reply(struct connection *c, uint32_t len)
{
	struct transfer *t = c->transfers[tag_of(c->sent)];

	if (t)
		return part_done(c, t, len);
	switch (type_of(c->sent)) {
	case RVERSION:
		c->largest = get32(c->sent + HEADER) - OVERHEAD;
		put32(c->sent + HEADER, c->msize < MSIZE ? c->msize : MSIZE);
		break;
	case RLOPEN:
	case RLCREATE:
		/* the block size of a file system would limit messages to that */
		put32(c->sent + IOUNIT, 0);
		break;
	}
	return len;
}

static void *replies(void *arg)
{
	struct connection *c = arg;
	struct ibv_wc wc;

	while (!read_all(c->tcp, c->sent, HEADER)) {
		uint32_t size = get32(c->sent);
		int len;

		if (size < HEADER || size > MSIZE ||
		    read_all(c->tcp, c->sent + HEADER, size - HEADER))
			break;
		pthread_mutex_lock(&c->lock);
		len = reply(c, size);
		pthread_mutex_unlock(&c->lock);
		if (!len)
			continue;
		if (len < 0 || rdma_post_send(c->id, NULL, c->sent, len, c->sent_mr, 0) ||
		    rdma_get_send_comp(c->id, &wc) != 1 || wc.status != IBV_WC_SUCCESS)
			break;
	}
	/* the client is to see it, if it has not begun it */
	rdma_disconnect(c->id);
	return NULL;
}

static int accept_connection(struct connection *c)
{
	struct rdma_conn_param param = { .rnr_retry_count = 7, .retry_count = 7 };
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC, .sq_sig_all = 1,
		.cap = { .max_send_wr = 1, .max_recv_wr = RECEIVES,
			 .max_send_sge = 1, .max_recv_sge = 1 },
	};
	uintptr_t i;

	if (connect(c->tcp, (struct sockaddr *)&server, sizeof(server)) ||
	    rdma_create_qp(c->id, NULL, &attr))
		return -1;
	c->received_mr = rdma_reg_msgs(c->id, c->received, RECEIVES * MSIZE);
	c->sent_mr = rdma_reg_msgs(c->id, c->sent, MSIZE);
	if (!c->received_mr || !c->sent_mr)
		return -1;
	for (i = 0; i < RECEIVES; i++) {
		if (post_receive(c, i))
			return -1;
	}
	return rdma_accept(c->id, &param);
}

static void wait_for_end(struct rdma_cm_id *id)
{
	struct rdma_cm_event *event;
	int established = 1;

	while (established && !rdma_get_cm_event(id->channel, &event)) {
		established = event->event == RDMA_CM_EVENT_ESTABLISHED;
		rdma_ack_cm_event(event);
	}
}

static void *serve(void *id)
{
	struct rdma_event_channel *channel = rdma_create_event_channel();
	struct connection *c = calloc(1, sizeof(*c));
	pthread_t in, out;
	size_t i;

	/* with a channel of its own, rdma_disconnect() does not wait for the event */
	if (!c || !channel || rdma_migrate_id(id, channel)) {
		perror("connection");
		exit(1);
	}
	c->id = id;
	c->tcp = socket(AF_INET, SOCK_STREAM, 0);
	c->received = malloc(RECEIVES * MSIZE);
	c->sent = malloc(MSIZE);
	pthread_mutex_init(&c->lock, NULL);
	if (c->tcp < 0 || !c->received || !c->sent || accept_connection(c)) {
		perror("accept");
		rdma_reject(id, NULL, 0);
	} else if (pthread_create(&in, NULL, requests, c) ||
		   pthread_create(&out, NULL, replies, c)) {
		perror("thread");
		exit(1);
	} else {
		wait_for_end(id);
		/* flushes the receives, which ends one thread after the other */
		rdma_disconnect(id);
		pthread_join(in, NULL);
		pthread_join(out, NULL);
	}
	if (c->id->qp)
		rdma_destroy_qp(id);
	if (c->received_mr)
		rdma_dereg_mr(c->received_mr);
	if (c->sent_mr)
		rdma_dereg_mr(c->sent_mr);
	rdma_destroy_id(id);
	rdma_destroy_event_channel(channel);
	if (c->tcp >= 0)
		close(c->tcp);
	for (i = 0; i < sizeof(c->transfers) / sizeof(*c->transfers); i++)
		free(c->transfers[i]);
	free(c->received);
	free(c->sent);
	free(c);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	struct rdma_cm_id *listener, *id;
	pthread_t thread;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
		fprintf(stderr, "usage: %s ADDRESS PORT TCP_PORT\n", argv[0]);
		return 2;
	}
	address.sin_port = htons(atoi(argv[2]));
	server.sin_family = AF_INET;
	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.sin_port = htons(atoi(argv[3]));
	/* of a TCP server that has gone */
	signal(SIGPIPE, SIG_IGN);

	if (rdma_create_id(NULL, &listener, NULL, RDMA_PS_TCP) ||
	    rdma_bind_addr(listener, (struct sockaddr *)&address) ||
	    rdma_listen(listener, 4)) {
		perror("listen");
		return 1;
	}
	while (!rdma_get_request(listener, &id)) {
		if (pthread_create(&thread, NULL, serve, id) || pthread_detach(thread)) {
			perror("thread");
			return 1;
		}
	}
	perror("listener");
	return 1;
}
