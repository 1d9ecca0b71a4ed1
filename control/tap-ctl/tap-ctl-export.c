/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tap-ctl export: the front.  See tap-ctl-export.h. */
#include "control/tap-ctl/tap-ctl-export.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/log-out.h"

#define AGAIN 200 /* ms until a tapdisk that did not answer is tried again */

enum phase { NOBODY, SHAKES, WAITS, SERVED };

struct client {
	enum phase phase;
	pid_t pid;
	int talk, disk; /* -1: the tapdisk has it */
	unsigned long number;
	bool said; /* that it waits */
	char peer[EXPORT_PEER];
};

static struct client all[EXPORT_MOST + EXPORT_SHAKING];
enum { ALL = sizeof all / sizeof *all };
static struct td_log_limit strangers, clients, waiting;

static int count_in(enum phase phase)
{
	int n = 0;

	for (int i = 0; i < ALL; i++)
		n += all[i].phase == phase;
	return n;
}

static void end_client(struct client *c)
{
	kill(c->pid, SIGKILL);
	while (waitpid(c->pid, NULL, 0) < 0 && errno == EINTR)
		;
	close(c->talk);
	if (c->disk >= 0)
		close(c->disk);
	c->phase = NOBODY;
}

/* A place for one more; X3. */
static struct client *make_room(void)
{
	struct client *oldest = NULL, *room = NULL;

	for (int i = 0; i < ALL; i++) {
		struct client *c = &all[i];

		if (c->phase == NOBODY)
			room = c;
		else if (c->phase == SHAKES && (!oldest || c->number < oldest->number))
			oldest = c;
	}
	if (oldest && (!room || count_in(SHAKES) >= EXPORT_SHAKING)) {
		td_log_limited(&strangers, LOG_WARNING,
			       "%s is turned away before it is verified: there are too many",
			       oldest->peer);
		end_client(oldest);
		room = oldest;
	}
	return room;
}

static int start_client(const struct exported *e, struct client *c, int wire)
{
	int talk[2], disk[2], rc;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, talk) < 0)
		return -errno;
	rc = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, disk) < 0 ? -errno
											  : 0;
	if (!rc) {
		c->pid = fork();
		if (!c->pid)
			export_client(e, wire, talk[1], disk[1], c->peer);
		rc = c->pid < 0 ? -errno : 0;
		close(disk[1]);
	}
	close(talk[1]);
	if (rc < 0) {
		close(talk[0]);
		return rc;
	}
	c->talk = talk[0];
	c->disk = disk[0];
	c->phase = SHAKES;
	c->said = false;
	return 0;
}

static void on_client(const struct exported *e)
{
	static unsigned long numbers;
	char peer[EXPORT_PEER];
	int wire = export_accept(e->listener, peer), rc;
	struct client *c = wire < 0 ? NULL : make_room();

	if (wire < 0) {
		if (wire != -EAGAIN && wire != -ECONNABORTED && wire != -EINTR)
			poll(NULL, 0, AGAIN); /* no descriptors, say: do not spin */
		return;
	}
	rc = -EBUSY;
	if (c) {
		strcpy(c->peer, peer);
		c->number = ++numbers;
		rc = start_client(e, c, wire);
	}
	if (rc < 0)
		td_log_limited(&strangers, LOG_WARNING, "%s cannot be served: %s", peer,
			       strerror(-rc));
	close(wire);
}

/* Has it left, while it waited? */
static bool has_left(const struct client *c)
{
	struct pollfd p = {.fd = c->disk, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP));
}

/* X5 */
static void give(const struct exported *e, struct client *c)
{
	int rc = export_disk_give(e, c->disk);

	if (!rc) {
		td_log_limited(&clients, LOG_INFO, "%s is served", c->peer);
		c->phase = SERVED;
		close(c->disk);
		c->disk = -1;
	} else if (has_left(c)) {
		end_client(c);
	} else if (!c->said) {
		td_log_limited(&waiting, LOG_NOTICE, "%s waits: no tapdisk takes it: %s", c->peer,
			       strerror(-rc));
		c->said = true;
	}
}

static void on_talk(const struct exported *e, struct client *c)
{
	char text[300];
	ssize_t n = recv(c->talk, text, sizeof text - 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		if (c->phase == SERVED)
			td_log_limited(&clients, LOG_INFO, "%s is no longer served", c->peer);
		end_client(c);
		return;
	}
	text[n] = 0;
	if (c->phase != SHAKES) {
		end_client(c);
	} else if (strcmp(text, EXPORT_VERIFIED)) {
		td_log_limited(&strangers, LOG_WARNING, "%s", text);
		end_client(c);
	} else if (count_in(SERVED) + count_in(WAITS) >= e->clients) {
		td_log_limited(&clients, LOG_WARNING,
			       "%s is turned away: there are %d clients, and may be no more",
			       c->peer, e->clients);
		end_client(c);
	} else {
		c->phase = WAITS;
		give(e, c);
	}
}

static int serve_clients(const struct exported *e, int changes, struct td_err *err)
{
	struct pollfd p[2 + ALL];
	char events[4096];

	while (!export_disk_gone(e)) {
		p[0] = (struct pollfd){.fd = e->listener, .events = POLLIN};
		p[1] = (struct pollfd){.fd = changes, .events = POLLIN};
		for (int i = 0; i < ALL; i++)
			p[2 + i] = (struct pollfd){.fd = all[i].phase == NOBODY ? -1 : all[i].talk,
						   .events = POLLIN};
		if (poll(p, 2 + ALL, count_in(WAITS) ? AGAIN : -1) < 0 && errno != EINTR)
			return td_fail(err, errno, "export: %s", strerror(errno));
		while (read(changes, events, sizeof events) > 0)
			;
		for (int i = 0; i < ALL; i++) {
			if (p[2 + i].fd >= 0 && p[2 + i].revents)
				on_talk(e, &all[i]);
			else if (all[i].phase == WAITS)
				give(e, &all[i]);
		}
		if (p[0].revents)
			on_client(e);
	}
	return td_fail(err, ENODEV, "export: minor %d's disk has been taken away", e->minor);
}

/* X2 */
static int watch_marker(const struct exported *e, struct td_err *err)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	char path[64];

	snprintf(path, sizeof path, "/proc/self/fd/%d", e->marker);
	if (fd < 0 || inotify_add_watch(fd, path, IN_ATTRIB) < 0)
		return td_fail(err, errno, "export: cannot watch minor %d's marker: %s", e->minor,
			       strerror(errno));
	return fd;
}

static int check_words(const struct tc_args *a, struct td_err *err)
{
	if (a->certificates && a->psk_file)
		return td_fail(err, EINVAL,
			       "export: clients show a certificate, or have a pre-shared key: give "
			       "--tls-certificates or --tls-psk-file, not both");
	if (a->plain && (a->certificates || a->psk_file))
		return td_fail(err, EINVAL, "export: --plain is without TLS: leave out its keys");
	if (a->count > EXPORT_MOST)
		return td_fail(err, EINVAL, "export: -c takes a number from 1 to %d, not %d",
			       EXPORT_MOST, a->count);
	return 0;
}

int tc_cmd_export(const struct tc_args *a, struct td_err *err)
{
	struct exported e = {.minor = a->minor,
			     .keys = {.dir = a->certificates, .psk_file = a->psk_file},
			     .tls = a->certificates || a->psk_file,
			     .read_only = a->read_only,
			     .clients = a->count ?: EXPORT_CLIENTS};
	char uri[200];
	int rc = check_words(a, err) ?: export_disk_open(&e, err), changes;

	if (rc < 0)
		return rc;
	e.listener = rc = export_listen(a->listen, e.tls, a->plain, uri, sizeof uri, err);
	if (rc >= 0)
		rc = export_drop_rights(err);
	if (!rc && e.tls)
		rc = td_tls_check(&e.keys, true, err); /* with the rights of a client's process */
	if (rc < 0)
		return rc;
	changes = watch_marker(&e, err);
	if (changes < 0)
		return changes;
	td_log_open("td-export", TD_LOG_STDERR_NOWAIT);
	rc = tc_put_line(uri, err);
	return rc ? rc : serve_clients(&e, changes, err);
}
