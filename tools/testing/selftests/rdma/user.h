/* SPDX-License-Identifier: GPL-2.0 */
/* What the tests of user space's side of rxe and siw have in common. */
#ifndef RDMA_TEST_USER_H
#define RDMA_TEST_USER_H

#include <infiniband/verbs.h>
#include <rdma/ib_user_verbs.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))
#endif

static int failed;

static inline void fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	printf("# ");
	vprintf(format, args);
	printf("\n");
	va_end(args);
	fflush(stdout);
	failed = 1;
}

static inline void die(const char *what)
{
	fail("BROKEN %s: %s", what, strerror(errno));
	exit(2);
}

static inline double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1000000000.0;
}

/* so that a splat can be told from one of another test */
static inline void announce(const char *name)
{
	FILE *log = fopen("/dev/kmsg", "w");

	if (log) {
		fprintf(log, "selftest: %s\n", name);
		fclose(log);
	}
}

static inline int wait_child(pid_t child, const char *what, int seconds)
{
	double end = now() + seconds;
	int status;

	while (now() < end) {
		if (waitpid(child, &status, WNOHANG) == child) {
			if (WIFSIGNALED(status))
				printf("# %s: signal %d\n", what,
				       WTERMSIG(status));
			return !WIFEXITED(status) || WEXITSTATUS(status);
		}
		usleep(2000);
	}
	printf("# %s: hangs\n", what);
	kill(child, SIGKILL);
	/* or does so in the kernel for ever */
	usleep(500000);
	waitpid(child, &status, WNOHANG);
	return 1;
}

/* 0 if CALL, in a process of its own, has nothing to complain about */
#define FORKED(what, call) ({						\
	pid_t _child;							\
									\
	fflush(stdout);							\
	_child = fork();						\
	if (_child < 0)							\
		die("fork");						\
	if (!_child) {							\
		call;							\
		fflush(stdout);						\
		_exit(failed);						\
	}								\
	wait_child(_child, what, LIMIT);				\
})

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
