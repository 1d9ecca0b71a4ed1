/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/ends.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/time.h>

static void (*to_report)(void), (*to_do)(void);

#ifdef TD_SANITIZED
/* UBSan's runtime is another than ASan's, and knows of no callback: it aborts. */
const char *__ubsan_default_options(void);
const char *__ubsan_default_options(void)
{
	return "abort_on_error=1:print_stacktrace=1";
}

/* an input of 64 KiB is no reason to take so much at once */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "max_allocation_size_mb=512:detect_leaks=1";
}

void __sanitizer_set_death_callback(void (*fn)(void));
int __lsan_do_recoverable_leak_check(void) __attribute__((weak));
#endif

bool ends_leaks(void)
{
#ifdef TD_SANITIZED
	return __lsan_do_recoverable_leak_check && __lsan_do_recoverable_leak_check();
#else
	return false;
#endif
}

static void on_signal(int sig)
{
	to_report();
	signal(sig, SIG_DFL);
	raise(sig);
}

static void on_second(int sig)
{
	to_do();
}

void ends_watch(void (*report)(void))
{
	to_report = report;
	signal(SIGABRT, on_signal);
	signal(SIGPIPE, SIG_IGN);
#ifdef TD_SANITIZED
	__sanitizer_set_death_callback(report); /* which has the other signals */
#else
	signal(SIGSEGV, on_signal);
	signal(SIGBUS, on_signal);
	signal(SIGFPE, on_signal);
#endif
	atexit(report); /* a test's helper that failed ends by exit() */
}

void ends_each_second(void (*fn)(void))
{
	struct itimerval second = {{1, 0}, {1, 0}};
	struct sigaction sa = {.sa_handler = on_second, .sa_flags = SA_RESTART};

	to_do = fn;
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &second, NULL);
}

void ends_check_size(const char *name)
{
	struct rusage u;

	if (getrusage(RUSAGE_SELF, &u) || u.ru_maxrss <= ENDS_MEMORY)
		return;
	fprintf(stderr, "%s: the process has %ld MiB\n", name, u.ru_maxrss >> 10);
	abort();
}
