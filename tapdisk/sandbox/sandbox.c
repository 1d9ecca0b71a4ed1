/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/sandbox/sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/conf.h"
#include "lib/dial.h"
#include "lib/io/file.h"
#include "lib/io/io-uring.h"
#include "tapdisk/namespaces.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox/sandbox-inside.h"

static char state[320] = "no";
static bool filters; /* B3 is in force */
/* a build without such disks has no use for a network */
#ifdef HAVE_RBD
enum { REMOTE_DISKS = true };
#else
enum { REMOTE_DISKS = false };
#endif
static enum { UNDECIDED, EXPECTED, KEPT, LEFT } network; /* B5 */

const char *sandbox_state(void)
{
	if (opener_is_dead())
		return "partly: its opener of files has died; kill the tapdisk, and `tap-ctl "
		       "revive' or tapback starts one with another";
	return state;
}

static void misses(const char *what)
{
	size_t n;

	if (strncmp(state, "partly", 6))
		strcpy(state, "partly:");
	n = strlen(state);
	snprintf(state + n, sizeof state - n, "%s no %s", state[n - 1] == ':' ? "" : ",", what);
}

/* --- B1 --- */

enum {
	TO_OPEN = 1u << CAP_DAC_OVERRIDE | 1u << CAP_SYS_PTRACE,
	/* processes of other users: a successor (take_back() in handover.c), and those that the
	 * opener makes to connect (opener-dial.c) */
	TO_END_OTHERS = 1u << CAP_KILL,
	TO_MAKE_USERS = 1u << CAP_SETUID | 1u << CAP_SETGID,
	OF_OPENER = TO_OPEN | TO_END_OTHERS | TO_MAKE_USERS,
	WITHOUT_OPENER = TO_OPEN | TO_END_OTHERS
};

/* --- B8 --- */

static void have_own_user(uint32_t first)
{
	if (!sandbox_user(first + (uint32_t)getpid())) {
		misses("user id of its own");
		return;
	}
	td_root_allocate = opener_allocate;
	td_root_truncate = opener_truncate;
	td_root_seek = opener_seek;
}

/* --- B6, B7 --- */

static void leave_host(void)
{
	if (!opener_isolates())
		misses("network of its own for datagrams");
	if (!namespaces_ipc())
		misses("IPC namespace");
	if (namespaces_root())
		return;
	misses(sandbox_empty_root() ? "mounts of its own"
				    : "empty root (it was not started by root)");
}

static bool restrict_opener(void)
{
	sandbox_bound(OF_OPENER);
	return !prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) && sandbox_drop(OF_OPENER) &&
	       sandbox_filter(false, true);
}

/* Sockets that this process may not make, and nobody makes for it. */
static int refuse_to_dial(const char *path, int cancel, struct td_err *err)
{
	return td_fail(err, EPERM,
		       "%s is on another host, and this tapdisk has no opener that may connect to "
		       "it: the log says why, or say sandbox=no in tapdisk.conf",
		       path);
}

/* --- whether --- */

enum setting { NOT_SAID, SAID_YES, SAID_NETWORK, SAID_NO };

struct choice {
	enum setting on;
	uint32_t users; /* B8: the first of their ids; 0: none */
};

enum {
	PIDS = 1u << 22, /* how many the kernel has at most */
	FIRST_USERS = 0x7f000000,
	LEAST_USERS = 100000 /* those below are the host's */
};

static int set_users(const char *value, uint32_t *users, struct td_err *err)
{
	char *end;
	unsigned long long n = strtoull(value, &end, 10);

	if (!strcmp(value, "no")) {
		*users = 0;
		return 0;
	}
	if (!*value || *end || n < LEAST_USERS || n > UINT32_MAX - 1ull - PIDS)
		return td_fail(err, EINVAL,
			       "sandbox-uids=%.100s: say no, or the first of %u user ids that "
			       "nobody else has, from %u on",
			       value, PIDS, LEAST_USERS);
	*users = (uint32_t)n;
	return 0;
}

static int set_key(const char *key, const char *value, void *arg, struct td_err *err)
{
	struct choice *c = arg;
	enum setting *on = &c->on;

	if (!strcmp(key, "sandbox-uids"))
		return set_users(value, &c->users, err);
	if (strcmp(key, "sandbox"))
		return 0; /* a disk's options say what they know */
	if (strcmp(value, "yes") && strcmp(value, "no") && strcmp(value, "network"))
		return td_fail(err, EINVAL, "sandbox=%.100s: say yes or no, or network", value);
	*on = *value == 'y' ? SAID_YES : !strcmp(value, "no") ? SAID_NO : SAID_NETWORK;
	return 0;
}

int sandbox_enter(unsigned rings, struct td_err *err)
{
	struct rlimit none = {0, 0};
	struct choice c = {NOT_SAID, FIRST_USERS};
	int rc = td_conf_read(set_key, &c, err), opener;

	if (rc < 0 || c.on == SAID_NO)
		return rc;
#ifdef TD_SANITIZED
	if (c.on == NOT_SAID) {
		strcpy(state, "no: a build with sanitizers");
		td_log(LOG_INFO, "the sandbox is off: a build with sanitizers makes system calls "
				 "that it forbids");
		return 0;
	}
#endif
	if (c.on == SAID_NETWORK)
		sandbox_expect_network();
	strcpy(state, "yes");
	setrlimit(RLIMIT_CORE, &none);
	opener_dials_as(c.users);
	/* before there are rings, which it would have mapped, too */
	opener = opener_start(restrict_opener, namespaces_network);
	if (opener < 0)
		misses("opener of files");
	/* where there are none, other engines do; a ring that is not restricted is never used */
	rc = td_uring_reserve(rings);
	if (rc < 0)
		td_log(LOG_INFO, "no io_uring in the sandbox (%s)", strerror(-rc));
	if (!opener)
		leave_host();
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		misses("no_new_privs");
	sandbox_bound(opener ? WITHOUT_OPENER : 0);
	if (!opener && c.users)
		have_own_user(c.users);
	if (!sandbox_drop(opener ? WITHOUT_OPENER : 0))
		misses("dropping of capabilities");
	filters = sandbox_filter(!opener, false);
	if (filters && opener < 0)
		td_dial = refuse_to_dial;
	td_log_socket(NULL); /* B7: not by one that was made before */
	if (!filters)
		misses("system call filter (a kernel or an architecture without it, or a build "
		       "with sanitizers)");
	if (strcmp(state, "yes"))
		td_log(LOG_WARNING, "the sandbox is not whole: %s", state);
	return 0;
}

/* --- B5 --- */

void sandbox_expect_network(void)
{
	if (network == UNDECIDED)
		network = EXPECTED;
}

bool sandbox_has_network(void)
{
	return network == KEPT;
}

int sandbox_network(const char *spec, bool needed, struct td_err *err)
{
	if (needed && network == LEFT)
		return td_fail(
			err, EPERM,
			"%s is on other hosts, and this tapdisk has given up the network when "
			"it opened its first disk, which was not: serve it by a tapdisk of its "
			"own (tap-ctl create), or say sandbox=network in tapdisk.conf, and "
			"`tap-ctl upgrade'",
			spec);
	if (needed)
		network = KEPT;
	if (network != UNDECIDED)
		return 0;
	network = filters ? LEFT : KEPT;
	if (REMOTE_DISKS && filters && !sandbox_filter_network()) {
		misses("giving up of the network");
		td_log(LOG_WARNING, "the sandbox is not whole: %s", state);
		network = KEPT;
	}
	return 0;
}
