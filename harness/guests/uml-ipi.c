// SPDX-License-Identifier: GPL-2.0
/*
 * Preloaded to UML, to have it do fewer system calls: its kernel blocks the signal
 * that is an IPI at each local_irq_disable(), and lockdep does that twice for each
 * lock. Here this only sets a flag, and the signal is blocked when one comes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

/* IPI_SIGNAL of arch/um */
#define IPI SIGRTMIN
#define STACK (64 << 10)

/* of this thread, which is a CPU: IPIs are unwanted; the signal may be blocked */
static __thread volatile sig_atomic_t masked, blocked = 1;

static struct sigaction handlers[_NSIG];
static int (*real_sigprocmask)(int, const sigset_t *, sigset_t *);
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_sigaltstack)(const stack_t *, stack_t *);

__attribute__((constructor)) static void init(void)
{
	real_sigprocmask = dlsym(RTLD_NEXT, "sigprocmask");
	real_sigaction = dlsym(RTLD_NEXT, "sigaction");
	real_sigaltstack = dlsym(RTLD_NEXT, "sigaltstack");
}

static int only_ipi(const sigset_t *set)
{
	sigset_t others = *set;

	sigdelset(&others, IPI);
	return sigismember(set, IPI) && sigisemptyset(&others);
}

int sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	if (how == SIG_SETMASK || !set || old || !only_ipi(set))
		return real_sigprocmask(how, set, old);
	masked = how == SIG_BLOCK;
	if (masked || !blocked)
		return 0;
	blocked = 0;
	return real_sigprocmask(how, set, old);
}

static void handle(int sig, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;
	int before = masked;

	if (sig == IPI) {
		/* it is while this runs, and stays so if it was unwanted */
		blocked = 1;
		if (before) {
			sigaddset(&interrupted->uc_sigmask, IPI);
			pthread_sigqueue(pthread_self(), IPI, info->si_value);
			return;
		}
	}
	handlers[sig].sa_sigaction(sig, info, context);
	/* the end of a handler restores what was before */
	masked = before;
	if (sigismember(&interrupted->uc_sigmask, IPI))
		blocked = 1;
}

int sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction before = handlers[sig], ours;
	int ret;

	if (new && new->sa_flags & SA_SIGINFO) {
		handlers[sig] = ours = *new;
		ours.sa_sigaction = handle;
		new = &ours;
	}
	ret = real_sigaction(sig, new, old);
	if (!ret && old && old->sa_sigaction == handle)
		old->sa_sigaction = before.sa_sigaction;
	return ret;
}

/* An IPI may now come on top of any other signal: there has to be room for it. */
int sigaltstack(const stack_t *new, stack_t *old)
{
	stack_t ours = { .ss_size = STACK };

	/* that of a page is shared with a process of the guest */
	if (!new || new->ss_size <= 4096)
		return real_sigaltstack(new, old);
	ours.ss_sp = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return ours.ss_sp == MAP_FAILED ? -1 : real_sigaltstack(&ours, old);
}
