/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two ends of one RDMA CM connection in one process, over rxe or siw, for tests of
 * what a process writes to the rings that it shares with the kernel. The client's
 * QP may be used before the connection stands: see connect_pair().
 */
#ifndef CM_PAIR_H
#define CM_PAIR_H

#include <rdma/rdma_cma.h>
#include <arpa/inet.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "user.h"

#define RIGHTS (IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | \
		IBV_ACCESS_REMOTE_READ)

static struct rdma_cm_id *client, *server, *listener;
static struct ibv_cq *client_cq;

static inline void *pages(size_t count)
{
	void *p = NULL;

	if (posix_memalign(&p, 4096, count * 4096))
		die("posix_memalign");
	memset(p, 0, count * 4096);
	return p;
}

static struct ibv_cq *create_qp(struct rdma_cm_id *id)
{
	struct ibv_qp_init_attr a = {
		.qp_type = IBV_QPT_RC, .sq_sig_all = 1,
		.cap = { .max_send_wr = 8, .max_recv_wr = 8,
			 .max_send_sge = 3, .max_recv_sge = 1 },
	};

	if (!id->pd)
		id->pd = ibv_alloc_pd(id->verbs);
	a.send_cq = ibv_create_cq(id->verbs, 16, NULL, NULL, 0);
	a.recv_cq = a.send_cq;
	if (!id->pd || !a.send_cq || rdma_create_qp(id, id->pd, &a))
		die("create_qp");
	return a.send_cq;
}

static void *serve(void *unused)
{
	struct rdma_conn_param param = { .responder_resources = 1,
					 .initiator_depth = 1 };

	if (rdma_get_request(listener, &server))
		die("get_request");
	create_qp(server);
	if (rdma_accept(server, &param))
		die("accept");
	return unused;
}

/* connect ADDRESS with itself; BEFORE runs when the client's QP is in INIT */
static inline void connect_pair(const char *address, void (*before)(void))
{
	struct rdma_conn_param param = { .responder_resources = 1,
					 .initiator_depth = 1,
					 .retry_count = 5,
					 .rnr_retry_count = 7 };
	static uint16_t port = 7500;
	struct sockaddr_in sin = { .sin_family = AF_INET };
	pthread_t thread;

	sin.sin_port = htons(port);
	if (inet_pton(AF_INET, address, &sin.sin_addr) != 1)
		die(address);
	if (rdma_create_id(NULL, &listener, NULL, RDMA_PS_TCP) ||
	    rdma_bind_addr(listener, (struct sockaddr *)&sin) ||
	    rdma_listen(listener, 1))
		die("listen");
	if (pthread_create(&thread, NULL, serve, NULL))
		die("thread");
	if (rdma_create_id(NULL, &client, NULL, RDMA_PS_TCP) ||
	    rdma_resolve_addr(client, NULL, (struct sockaddr *)&sin, 2000) ||
	    rdma_resolve_route(client, 2000))
		die("resolve");
	client_cq = create_qp(client);
	if (before)
		before();
	if (rdma_connect(client, &param))
		die("connect");
	pthread_join(thread, NULL);
	port++;
}

static inline void disconnect_pair(void)
{
	/* no rdma_disconnect(): it would wait for the other end, which is us */
	rdma_destroy_qp(client);
	rdma_destroy_qp(server);
	rdma_destroy_id(client);
	rdma_destroy_id(server);
	rdma_destroy_id(listener);
}

/* The next completion's status, or -1 when none comes in five seconds. */
static inline int wait_wc(struct ibv_wc *wc)
{
	time_t end = time(NULL) + 5;

	while (time(NULL) < end) {
		int n = ibv_poll_cq(client_cq, 1, wc);

		if (n < 0)
			die("poll_cq");
		if (n)
			return wc->status;
		usleep(1000);
	}
	return -1;
}

#endif
