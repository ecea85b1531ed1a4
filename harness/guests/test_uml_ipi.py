#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""uml-ipi.c: a program that blocks IPIs as UML does sees no difference."""
import pathlib
import subprocess
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent / "uml-ipi.c"
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IPI SIGRTMIN
#define CHECK(what) do { if (!(what)) { puts(#what); exit(1); } } while (0)

static volatile int got, last;
static void (*in_alarm)(void);

static void on_ipi(int sig, siginfo_t *info, void *context)
{
	got++;
	last = info->si_value.sival_int;
}

static void on_alarm(int sig, siginfo_t *info, void *context)
{
	in_alarm();
}

static void set(int how)
{
	sigset_t ipi;

	sigemptyset(&ipi);
	sigaddset(&ipi, IPI);
	CHECK(!sigprocmask(how, &ipi, NULL));
}

static int really_blocked(void)
{
	unsigned long mask;

	CHECK(!syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &mask, 8));
	return !!(mask & 1UL << (IPI - 1));
}

static void send(int value)
{
	CHECK(!pthread_sigqueue(pthread_self(), IPI, (union sigval){ .sival_int = value }));
}

static void blocks_and_sends(void)
{
	set(SIG_BLOCK);
	send(20);
	CHECK(got == 3);
}

static void unblocks(void)
{
	set(SIG_UNBLOCK);
}

int main(void)
{
	struct sigaction ipi = { .sa_sigaction = on_ipi, .sa_flags = SA_SIGINFO };
	struct sigaction alarm = { .sa_sigaction = on_alarm, .sa_flags = SA_SIGINFO }, old;

	sigfillset(&ipi.sa_mask);
	CHECK(!sigaction(IPI, &ipi, NULL));
	CHECK(!sigaction(SIGALRM, &alarm, NULL));
	CHECK(!sigaction(SIGALRM, NULL, &old) && old.sa_sigaction == on_alarm);
	CHECK(!sigaction(SIGALRM, &old, &old) && old.sa_sigaction == on_alarm);
	set(SIG_UNBLOCK);
	CHECK(!really_blocked());

	set(SIG_BLOCK);
	CHECK(!really_blocked());
	send(10);
	CHECK(got == 0 && really_blocked());
	send(11);
	CHECK(got == 0);
	set(SIG_UNBLOCK);
	CHECK(got == 2 && !really_blocked());
	send(12);
	CHECK(got == 3 && last == 12);

	in_alarm = blocks_and_sends;
	raise(SIGALRM);
	CHECK(got == 4 && last == 20);

	set(SIG_BLOCK);
	in_alarm = unblocks;
	raise(SIGALRM);
	send(30);
	CHECK(got == 4);
	set(SIG_UNBLOCK);
	CHECK(got == 5 && last == 30);
	return 0;
}
"""


# UML's stack, which dump_trace() of arch/um walks to a multiple of the size it asked for
STACK = r"""
#define _GNU_SOURCE
#include <alloca.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) do { if (!(what)) { puts(#what); exit(1); } } while (0)

static size_t asked;
static volatile int depth;
static int to[2];

static int readable(const void *at)
{
	return write(to[1], at, 1) == 1;
}

/* each handler may take what UML's stack would have had for all of them */
static void handler(int sig, siginfo_t *info, void *context)
{
	char *used = alloca(asked - 1024), *at = (char *)&used;

	memset(used, 1, asked - 1024);
	for (; (uintptr_t)at % asked; at++)
		CHECK((uintptr_t)at % 4096 || readable(at));
	if (!depth++)
		CHECK(!pthread_sigqueue(pthread_self(), SIGRTMIN, (union sigval){}));
}

/* the kernel puts the next mapping where a stack of one size would not be aligned */
static void crowd(void)
{
	char *at;

	for (;;) {
		at = mmap(NULL, 64 << 10, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		CHECK(at != MAP_FAILED);
		if ((uintptr_t)at % (16 << 10) == 4096)
			break;
		munmap(at, 64 << 10);
		mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	}
	munmap(at, 64 << 10);
}

static int mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	int c, n = 0;

	while ((c = getc(maps)) != EOF)
		n += c == '\n';
	fclose(maps);
	return n;
}

static int shares_memory(void *page)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	stack_t wanted = { .ss_sp = page, .ss_size = 4096 }, got;
	void *really[4];

	CHECK(!sigaltstack(&wanted, NULL) && !sigaltstack(NULL, &got));
	CHECK(got.ss_sp == page && got.ss_size == 4096);
	CHECK(!sigaction(SIGSYS, &action, NULL));
	CHECK(!syscall(SYS_rt_sigaction, SIGSYS, NULL, really, 8) && really[0] == handler);
	_exit(0);
}

static void *cpu(void *own)
{
	stack_t wanted = { .ss_sp = own, .ss_size = asked }, got;
	int status, before;
	char *page;

	crowd();
	CHECK(!sigaltstack(&wanted, NULL) && !sigaltstack(NULL, &got));
	CHECK((uintptr_t)got.ss_sp % asked == 0 && got.ss_size % asked == 0);
	CHECK(got.ss_size >= 2 * (asked + getauxval(AT_MINSIGSTKSZ)));
	CHECK(readable(got.ss_sp) && readable(got.ss_sp + got.ss_size - 1));
	CHECK(!readable(got.ss_sp - 1) && !readable(got.ss_sp + got.ss_size));
	depth = 0;
	raise(SIGALRM);
	CHECK(depth == 2);

	before = mappings();
	for (int i = 0; i < 100; i++)
		CHECK(!sigaltstack(&wanted, NULL));
	CHECK(mappings() == before);

	page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	CHECK(waitpid(clone(shares_memory, page + 4096, CLONE_VM | CLONE_VFORK | SIGCHLD,
			    page + 4096), &status, 0) > 0 && !status);

	wanted.ss_flags = SS_DISABLE;
	CHECK(!sigaltstack(&wanted, NULL) && !sigaltstack(NULL, &got));
	CHECK(got.ss_flags == SS_DISABLE);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK };
	pthread_t other;
	char *own;

	asked = atol(argv[1]);
	own = malloc(asked);
	CHECK(own && !pipe(to));
	CHECK(!sigaction(SIGALRM, &action, NULL) && !sigaction(SIGRTMIN, &action, NULL));
	cpu(own);
	CHECK(!pthread_create(&other, NULL, cpu, own) && !pthread_join(other, NULL));
	return 0;
}
"""


class Preload(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.library, self.program = f"{folder.name}/uml-ipi.so", f"{folder.name}/program"
        subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-ftls-model=initial-exec", "-o",
                        self.library, SOURCE], check=True)

    def compile(self, source):
        subprocess.run(["gcc", "-O2", "-x", "c", "-o", self.program, "-"], input=source,
                       text=True, check=True)

    def run_it(self, *args, **env):
        done = subprocess.run([self.program, *args], env=env, text=True, capture_output=True,
                              timeout=60)
        return done.returncode, done.stdout

    def test_program(self):
        self.compile(PROGRAM)
        self.assertEqual(self.run_it(LD_PRELOAD=self.library), (0, ""))
        # without, the signal is blocked at once
        self.assertIn("!really_blocked()", self.run_it()[1])

    def test_stack(self):
        """Of UML's default size, and of the largest that its Kconfig allows."""
        self.compile(STACK)
        for size in (16 << 10, 4096 << 10):
            self.assertEqual(self.run_it(str(size), LD_PRELOAD=self.library), (0, ""))


if __name__ == "__main__":
    unittest.main()
