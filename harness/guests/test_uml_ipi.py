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


class Preload(unittest.TestCase):
    def test_program(self):
        with tempfile.TemporaryDirectory() as folder:
            library, program = f"{folder}/uml-ipi.so", f"{folder}/program"
            subprocess.run(["gcc", "-O2", "-shared", "-fPIC", "-ftls-model=initial-exec", "-o",
                            library, SOURCE], check=True)
            subprocess.run(["gcc", "-O2", "-x", "c", "-o", program, "-"],
                           input=PROGRAM, text=True, check=True)
            done = subprocess.run([program], env={"LD_PRELOAD": library}, text=True,
                                  capture_output=True, timeout=60)
            self.assertEqual((done.returncode, done.stdout), (0, ""))
            # without, the signal is blocked at once
            done = subprocess.run([program], text=True, capture_output=True, timeout=60)
            self.assertIn("!really_blocked()", done.stdout)


if __name__ == "__main__":
    unittest.main()
