/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create and destroy: several steps, and whole in each case.
 *
 * create may be killed at any point and leaves nothing behind.  Before the attach the marker has
 * our pid in it, by which the next list sees that its maker is dead.  The tapdisk holds a socket to
 * us: when that closes, it closes its disk, removes its marker and exits.  A disk counts as made
 * when its name has been printed: then we release the tapdisk from the socket.
 */
#include "control/tap-ctl/tap-ctl.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/ctl-dir.h"

#define GRACE_MS 2000 /* for a tapdisk that has lost its last disk to end */

/* Takes back the steps that create has done.  What it was told of the failure stands in the
 * caller's error. */
static void create_undo(pid_t pid, int minor, bool attached)
{
	if (attached) {
		struct td_err e = {};
		struct tc_closed is;
		const struct tc_args a = {.pid = pid, .minor = minor, .timeout = 1, .force = true};

		/* 16: it is open; and one whose open took too long may be, by now */
		if (tc_detach(pid, minor, true, NULL, &e) == -EBUSY &&
		    !tc_close(&a, true, false, &is, NULL) && !is.detached)
			tc_detach(pid, minor, true, NULL, NULL);
	}
	if (pid > 0)
		tc_reap(pid, attached ? GRACE_MS : 0);
	if (minor >= 0)
		tc_free(minor, false, NULL);
}

static int create_steps(const struct tc_args *a, struct td_err *err)
{
	char *path = NULL;
	int minor = -1, leash = -1, ret;
	bool attached = false;
	pid_t pid = -1;

	ret = tc_allocate(true, &minor, &path, err);
	if (!ret) {
		ret = tc_spawn(&pid, &leash, err);
		if (ret)
			pid = -1; /* tc_spawn has seen to its child */
	}
	if (!ret) {
		ret = tc_attach(pid, minor, err);
		attached = !ret;
	}
	if (!ret)
		ret = tc_open(a, pid, minor, err);
	if (!ret)
		ret = tc_put_line(path, err);
	if (!ret)
		ret = tc_release(leash, err);
	if (ret)
		create_undo(pid, minor, attached);
	if (leash >= 0)
		close(leash);
	free(path);
	return ret;
}

int tc_cmd_create(const struct tc_args *a, struct td_err *err)
{
	char *spec;
	sigset_t stop, old;
	int ret = tc_spec(a->args, &spec, err); /* before anything is made */

	if (ret)
		return ret;
	free(spec);
	/* An interrupt between two steps would leave half a disk behind; each step has a time
	 * limit. */
	sigemptyset(&stop);
	sigaddset(&stop, SIGINT);
	sigaddset(&stop, SIGTERM);
	sigaddset(&stop, SIGHUP);
	sigprocmask(SIG_BLOCK, &stop, &old);
	ret = create_steps(a, err);
	sigprocmask(SIG_SETMASK, &old, NULL);
	return ret;
}

/* Waits a little for the process behind pidfd to end, so that after `destroy' there is none. */
static void destroy_wait(int pidfd)
{
	struct pollfd p = {.fd = pidfd, .events = POLLIN};

	if (pidfd >= 0)
		poll(&p, 1, GRACE_MS);
}

/* Nothing is there for a disk of a dead tapdisk but its marker, if that.  A live tapdisk's is not
 * ours to take. */
static int destroy_dead(int minor, bool give_up, struct td_err *err)
{
	struct td_err mine = {};
	int ret = tc_free(minor, give_up, &mine);

	return ret && ret != -ENODEV ? td_fail(err, -ret, "%s", mine.text) : 0;
}

int tc_cmd_destroy(const struct tc_args *a, struct td_err *err)
{
	int pidfd = (int)syscall(SYS_pidfd_open, a->pid, 0), ret;
	struct td_err mine = {};
	struct tc_closed is;
	bool last;

	/* in one question: else one that is answered when we have gone would leave a disk that is
	 * closed, and not detached */
	ret = tc_close(a, true, a->force, &is, &mine);
	last = is.last;
	/* 19: it is not open, or not there at all, and then detach says so as well */
	if ((!ret && !is.gone && !is.detached) || ret == -ENODEV) {
		mine.code = 0;
		ret = tc_detach(a->pid, a->minor, true, &last, &mine);
	}
	if (last)
		destroy_wait(pidfd);
	if (pidfd >= 0)
		close(pidfd);
	if (ret && is.detached)
		tc_free(a->minor, a->force, NULL);
	if (ret && (!is.gone || ret == -EIO)) /* of a dead one: freed, but a flush had failed */
		return td_fail(err, -ret, "%s", mine.text);
	return destroy_dead(a->minor, a->force, err);
}
