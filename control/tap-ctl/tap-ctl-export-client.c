/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* One client of an export: its process, which the client's bytes and the keys are left to. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "control/tap-ctl/tap-ctl-export.h"

/* A process that ends closes them in this order: the tapdisk knows of its end before the client
 * does (N6 of tapdisk/nbd/nbd-cmd.c). */
enum { TALK = 3, SERVER, WIRE, BEHIND };

int export_drop_rights(struct td_err *err)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[2] = {{0}};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || syscall(SYS_capset, &h, none))
		return td_fail(err, errno, "export: cannot give up capabilities: %s",
			       strerror(errno));
	return 0;
}

/* Descriptors of other clients, and of the control directory, are not this one's. */
static bool keep_only(int talk, int server, int wire)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int from[] = {talk, server, wire};

	for (int i = 0; i < 3; i++)
		if ((from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, BEHIND)) < 0)
			return false;
	for (int i = 0; i < 3; i++)
		if (null < 0 || dup2(null, i) < 0 || dup3(from[i], TALK + i, O_CLOEXEC) < 0)
			return false;
	return !close_range(BEHIND, ~0u, 0);
}

static int let_in(const struct exported *e, struct td_tls_server *s, const char *peer,
		  struct td_err *err)
{
	struct ssl_ctx_st *ctx = e->tls ? td_tls_context(&e->keys, true, err) : NULL;

	if (e->tls && !ctx)
		return -err->code;
	td_tls_jail(); /* or less, on a kernel without filters */
	return td_tls_server_start(s, WIRE, ctx, TALK, peer, err);
}

void export_client(const struct exported *e, int wire, int talk, int server, const char *peer)
{
	static struct td_tls_server s;
	static struct td_err err;
	pid_t front = getppid();

	prctl(PR_SET_NAME, "td-export");
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	signal(SIGPIPE, SIG_IGN);
	if (getppid() != front || !keep_only(talk, server, wire))
		_exit(1);
	if (let_in(e, &s, peer, &err) < 0) {
		send(TALK, err.text, strlen(err.text), MSG_NOSIGNAL);
		_exit(1);
	}
	send(TALK, EXPORT_VERIFIED, strlen(EXPORT_VERIFIED), MSG_NOSIGNAL);
	td_tls_server_run(&s, SERVER);
	_exit(0);
}
