// SPDX-License-Identifier: GPL-2.0
/*
 * A 9P server for RDMA, by way of one for TCP on this machine: each message is a
 * SEND on one side, and goes through a socket on the other. No server that people
 * have speaks RDMA, and the kernel's client is to be tested.
 *
 * usage: 9p_server ADDRESS PORT TCP_PORT
 */
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MSIZE (1 << 20)		/* the client's largest */
/* The client has 32 requests under way by default, and may send the next one when
 * it has an answer, which can be before what was received is posted again.
 */
#define RECEIVES 40
#define HEADER 7		/* size[4] type[1] tag[2] */
/* Rlopen and Rlcreate are a header, qid[13] and iounit[4] */
#define RLOPEN 13
#define RLCREATE 15
#define IOUNIT (HEADER + 13)

struct connection {
	struct rdma_cm_id *id;
	int tcp;
	char *received, *sent;
	struct ibv_mr *received_mr, *sent_mr;
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

/* the requests, until the QP is in the error state */
static void *requests(void *arg)
{
	struct connection *c = arg;
	struct ibv_wc wc;

	while (rdma_get_recv_comp(c->id, &wc) == 1 && wc.status == IBV_WC_SUCCESS) {
		if (write_all(c->tcp, c->received + wc.wr_id * MSIZE, wc.byte_len) ||
		    post_receive(c, wc.wr_id))
			break;
	}
	/* no more replies, either */
	shutdown(c->tcp, SHUT_RDWR);
	return NULL;
}

/* reads a message of the TCP server; its length, or 0 if there is none */
static uint32_t read_reply(struct connection *c)
{
	uint32_t len;

	if (read_all(c->tcp, c->sent, HEADER))
		return 0;
	memcpy(&len, c->sent, sizeof(len));
	len = le32toh(len);
	if (len < HEADER || len > MSIZE ||
	    read_all(c->tcp, c->sent + HEADER, len - HEADER))
		return 0;
	/* the block size of the server's file system would limit messages to that */
	if ((c->sent[4] == RLOPEN || c->sent[4] == RLCREATE) && len >= IOUNIT + 4)
		memset(c->sent + IOUNIT, 0, 4);
	return len;
}

static void *replies(void *arg)
{
	struct connection *c = arg;
	struct ibv_wc wc;
	uint32_t len;

	while ((len = read_reply(c))) {
		if (rdma_post_send(c->id, NULL, c->sent, len, c->sent_mr, 0) ||
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
	int ended = 0;

	while (!ended && !rdma_get_cm_event(id->channel, &event)) {
		ended = event->event == RDMA_CM_EVENT_DISCONNECTED ||
			event->event == RDMA_CM_EVENT_DEVICE_REMOVAL;
		rdma_ack_cm_event(event);
	}
}

static void *serve(void *id)
{
	struct connection c = {
		.id = id,
		.tcp = socket(AF_INET, SOCK_STREAM, 0),
		.received = malloc(RECEIVES * MSIZE),
		.sent = malloc(MSIZE),
	};
	pthread_t in, out;

	if (c.tcp < 0 || !c.received || !c.sent || accept_connection(&c)) {
		perror("accept");
		rdma_reject(id, NULL, 0);
	} else if (pthread_create(&in, NULL, requests, &c) ||
		   pthread_create(&out, NULL, replies, &c)) {
		perror("thread");
		exit(1);
	} else {
		wait_for_end(id);
		/* flushes the receives, which ends one thread after the other */
		rdma_disconnect(id);
		pthread_join(in, NULL);
		pthread_join(out, NULL);
	}
	if (c.id->qp)
		rdma_destroy_qp(id);
	if (c.received_mr)
		rdma_dereg_mr(c.received_mr);
	if (c.sent_mr)
		rdma_dereg_mr(c.sent_mr);
	rdma_destroy_id(id);
	if (c.tcp >= 0)
		close(c.tcp);
	free(c.received);
	free(c.sent);
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
