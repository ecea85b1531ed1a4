/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of user space's side of rxe and siw have in common. */
#ifndef RDMA_TEST_USER_H
#define RDMA_TEST_USER_H

#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* bit 7: there was an oops; bit 9: a warning; bit 14: a CPU that hung */
static inline unsigned long taint(void)
{
	unsigned long value = 0;
	FILE *f = fopen("/proc/sys/kernel/tainted", "r");

	if (f && fscanf(f, "%lu", &value) != 1)
		value = 0;
	if (f)
		fclose(f);
	return value & (1 << 7 | 1 << 9 | 1 << 14);
}

/* An rxe device; node_desc tells the driver, and not the name. */
static inline const char *find_device(void)
{
	static char name[256];
	struct dirent *entry;
	DIR *dir = opendir("/sys/class/infiniband");

	while (dir && (entry = readdir(dir))) {
		char path[600], desc[64] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/infiniband/%s/node_desc",
			 entry->d_name);
		file = fopen(path, "r");
		if (!file)
			continue;
		if (fgets(desc, sizeof(desc), file) && !strcmp(desc, "rxe\n"))
			strcpy(name, entry->d_name);
		fclose(file);
	}
	if (dir)
		closedir(dir);
	return *name ? name : NULL;
}

/* 0, or -1 if the kernel says no: what becomes of the WRs tells their completion */
static inline int doorbell(struct ibv_qp *qp)
{
	uint32_t answer;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_post_send arg;
	} cmd = {
		.hdr = { .command = IB_USER_VERBS_CMD_POST_SEND,
			 .in_words = sizeof(cmd) / 4, .out_words = 1 },
		.arg = { .response = (uintptr_t)&answer,
			 .qp_handle = qp->handle,
			 .wqe_size = sizeof(struct ib_uverbs_send_wr) },
	};

	return write(qp->context->cmd_fd, &cmd, sizeof(cmd)) < 0 ? -1 : 0;
}

#endif
