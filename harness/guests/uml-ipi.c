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
#include <stdint.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

/* IPI_SIGNAL of arch/um */
#define IPI SIGRTMIN
/* at least, and a power of two */
#define STACK (64 << 10)

/* of this thread, which is a CPU: IPIs are unwanted; the signal may be blocked */
static __thread volatile sig_atomic_t masked, blocked = 1;

/* what is told otherwise may share this memory, but is no CPU */
static pid_t self;

static struct sigaction handlers[_NSIG];
static int (*real_sigprocmask)(int, const sigset_t *, sigset_t *);
static int (*real_sigaction)(int, const struct sigaction *, struct sigaction *);
static int (*real_sigaltstack)(const stack_t *, stack_t *);

__attribute__((constructor)) static void init(void)
{
	self = getpid();
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

	if (new && new->sa_flags & SA_SIGINFO && getpid() == self) {
		handlers[sig] = ours = *new;
		ours.sa_sigaction = handle;
		new = &ours;
	}
	ret = real_sigaction(sig, new, old);
	if (!ret && old && old->sa_sigaction == handle)
		old->sa_sigaction = before.sa_sigaction;
	return ret;
}

/*
 * An IPI may now come on top of any other signal: there has to be room for it. The
 * stack is aligned to its size, because UML walks one up to the next multiple of what
 * it asks for here. On both sides lies what faults, on every machine.
 */
int sigaltstack(const stack_t *new, stack_t *old)
{
	static __thread stack_t ours;
	size_t size = STACK;
	char *area;

	/* that of another process is in a page that UML reads, and small */
	if (!new || new->ss_flags & SS_DISABLE || getpid() != self)
		return real_sigaltstack(new, old);
	/* how much is saved for a signal depends on the CPU */
	while (size < 2 * (new->ss_size + getauxval(AT_MINSIGSTKSZ)))
		size *= 2;
	if (ours.ss_size < size) {
		area = mmap(NULL, 3 * size, PROT_NONE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (area == MAP_FAILED)
			return -1;
		area = (char *)(((uintptr_t)area | (size - 1)) + 1);
		if (mprotect(area, size, PROT_READ | PROT_WRITE))
			return -1;
		ours.ss_sp = area;
		ours.ss_size = size;
	}
	ours.ss_flags = new->ss_flags;
	return real_sigaltstack(&ours, old);
}
