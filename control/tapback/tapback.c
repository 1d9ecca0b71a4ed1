/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tapback: introduces guests' block frontends to tapdisks, through xenstore.  It moves no data: a
 * guest does not notice when it is away.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <unistd.h>

#include "control/tapback/frontend.h"
#include "control/tapback/devices.h"
#include "lib/ctl-dir.h"
#include "lib/output.h"

#define HOLD_S 60 /* from one try for a successor of a lost tapdisk to the next */

struct options {
	struct devices_options devices;
	bool foreground, verbose;
	const char *pidfile;
};

static const char usage_text[] =
	"usage: tapback [-dvb] [-n NAME] [-p PIDFILE] [-x DOMID] [--queues=N] [--order=ORDER] "
	"[--timeout=S] [--shutdown-request]\n"
	"  -d, --foreground      stay in the foreground, log to stderr too\n"
	"  -v, --verbose         log every step\n"
	"  -n, --name=NAME       backend type to serve: backend/NAME in xenstore (vbd3)\n"
	"  -p, --pidfile=FILE    write the daemon's pid to FILE, and run only once\n"
	"  -x, --domain=DOMID    serve this domain only\n"
	"  -b, --no-barrier      do not offer feature-barrier\n"
	"      --queues=N        offer a guest N rings for a disk, 1 to 8 (4)\n"
	"      --order=ORDER     libxl: wait for the guest before the hotplug script has run;\n"
	"                        xenopsd: after it, and remove the node in the end;\n"
	"                        auto: libxl's for disks with a script, else xenopsd's (auto)\n"
	"      --timeout=S       seconds to wait for a tapdisk's answer (10)\n"
	"      --when-lost W     fail, or hold or hold:SECONDS, the guest's requests when no new "
	"tapdisk can be started; fail by default\n"
	"      --no-revive       a disk whose tapdisk dies fails; no new tapdisk is started\n"
	"      --shutdown-request  tell xenopsd that backends here answer shutdown-request\n"
	"  -h, --help            this text;  -V, --version\n";

static int bad_argument(const char *what, const char *arg)
{
	fprintf(stderr, "tapback: %s '%s'; see tapback --help\n", what, arg);
	return -EINVAL;
}

/* fail, hold or hold:SECONDS */
static int read_when_lost(const char *word, unsigned *hold_s)
{
	uint64_t v = HOLD_S;

	if (!strcmp(word, "fail")) {
		*hold_s = 0;
		return 0;
	}
	if (strcmp(word, "hold") &&
	    (strncmp(word, "hold:", 5) || !store_decimal(word + 5, 3600, &v) || !v)) {
		fprintf(stderr,
			"tapback: --when-lost takes fail, hold or hold:SECONDS (1 to 3600), not "
			"'%s'\n",
			word);
		return -EINVAL;
	}
	*hold_s = (unsigned)v;
	return 0;
}

static int parse_value(struct options *o, int c, const char *arg)
{
	static const char *const orders[] = {
		[ORDER_AUTO] = "auto", [ORDER_LIBXL] = "libxl", [ORDER_XENOPSD] = "xenopsd"};
	uint64_t v;

	switch (c) {
	case 'x':
		if (!store_decimal(arg, 0x7fef, &v))
			return bad_argument("not a domain id:", arg);
		o->devices.only_domid = (int)v;
		return 0;
	case 'T':
		if (!store_decimal(arg, 3600, &v) || !v)
			return bad_argument("not a number of seconds from 1 to 3600:", arg);
		o->devices.timeout_s = (double)v;
		return 0;
	case 'Q':
		if (!store_decimal(arg, FRONTEND_MAX_QUEUES, &v) || !v)
			return bad_argument("not a number of queues from 1 to 8:", arg);
		o->devices.max_queues = (unsigned)v;
		return 0;
	default:
		for (unsigned i = 0; i < sizeof orders / sizeof *orders; i++)
			if (!strcmp(arg, orders[i])) {
				o->devices.order = (enum order)i;
				return 0;
			}
		return bad_argument("not an order (libxl, xenopsd, auto):", arg);
	}
}

/* 0 go on, 1 done, -EINVAL. */
static int parse_options(struct options *o, int argc, char **argv)
{
	static const struct option longs[] = {
		{"foreground", no_argument, NULL, 'd'},
		{"debug", no_argument, NULL, 'd'},
		{"verbose", no_argument, NULL, 'v'},
		{"name", required_argument, NULL, 'n'},
		{"pidfile", required_argument, NULL, 'p'},
		{"domain", required_argument, NULL, 'x'},
		{"no-barrier", no_argument, NULL, 'b'},
		{"nobarrier", no_argument, NULL, 'b'},
		{"order", required_argument, NULL, 'O'},
		{"timeout", required_argument, NULL, 'T'},
		{"shutdown-request", no_argument, NULL, 'S'},
		{"no-revive", no_argument, NULL, 'N'},
		{"when-lost", required_argument, NULL, 'L'},
		{"queues", required_argument, NULL, 'Q'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{},
	};
	int c, rc;

	while ((c = getopt_long(argc, argv, "dvn:p:x:bhV", longs, NULL)) != -1) {
		switch (c) {
		case 'd':
			o->foreground = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'n':
			o->devices.name = optarg;
			break;
		case 'p':
			o->pidfile = optarg;
			break;
		case 'b':
			o->devices.no_barrier = true;
			break;
		case 'N':
			o->devices.no_revive = true;
			break;
		case 'L':
			if (read_when_lost(optarg, &o->devices.hold_s) < 0)
				return -EINVAL;
			break;
		case 'S':
			o->devices.shutdown_request = true;
			break;
		case 'h':
			fputs(usage_text, stdout);
			return 1;
		case 'V':
			printf("tapback %s\n", PACKAGE_VERSION);
			return 1;
		case 'x':
		case 'O':
		case 'T':
		case 'Q':
			rc = parse_value(o, c, optarg);
			if (rc)
				return rc;
			break;
		default:
			fputs(usage_text, stderr);
			return -EINVAL;
		}
	}
	return optind < argc ? bad_argument("takes no argument:", argv[optind]) : 0;
}

/* Two daemons on the same disks would connect each other's rings.  The lock goes with the process.
 */
static int lock_file(const char *path, const char *text, struct td_err *err)
{
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return td_fail(err, errno, "cannot make %s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB)) {
		int e = errno == EWOULDBLOCK ? EBUSY : errno;

		close(fd);
		return td_fail(err, e, "%s is locked: another tapback serves these disks", path);
	}
	if (ftruncate(fd, 0) || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		int e = errno;

		close(fd);
		return td_fail(err, e, "cannot write %s: %s", path, strerror(e));
	}
	return 0;
}

static int lock_all(const struct options *o, struct td_err *err)
{
	char path[4096], text[16], only[16] = "";
	int rc = td_ctl_mkdirs(err);

	if (rc)
		return rc;
	snprintf(text, sizeof text, "%d\n", (int)getpid());
	if (o->devices.only_domid >= 0)
		snprintf(only, sizeof only, ".%d", o->devices.only_domid);
	snprintf(path, sizeof path, "%s/tapback-%.60s%s.lock", td_ctl_dir(), o->devices.name, only);
	rc = lock_file(path, text, err);
	return rc || !o->pidfile ? rc : lock_file(o->pidfile, text, err);
}

/* Forks; the parent leaves with the status that the child reports once it serves.  Returns in the
 * child: the fd to report to. */
static int into_background(struct td_err *err)
{
	unsigned char status = 1;
	int p[2], null;
	pid_t pid;

	if (pipe2(p, O_CLOEXEC) || (pid = fork()) < 0)
		return td_fail(err, errno, "cannot fork: %s", strerror(errno));
	if (pid) {
		close(p[1]);
		if (read(p[0], &status, 1) != 1)
			status = 1;
		_exit(status);
	}
	close(p[0]);
	setsid();
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* stderr stays until the child serves, for what goes wrong before */
	if (null >= 0) {
		dup2(null, 0);
		dup2(null, 1);
		close(null);
	}
	return p[1];
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	ev_break(loop, EVBREAK_ALL);
}

static void report_ready(int fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (write(fd, "", 1) != 1)
		td_log(LOG_DEBUG, "the starting process has gone");
	close(fd);
	if (null >= 0) {
		dup2(null, 2);
		close(null);
	}
}

/* Two descriptors a disk: the usual soft limit would end it at some 500 disks. */
static void raise_limit(void)
{
	struct rlimit r;

	if (!getrlimit(RLIMIT_NOFILE, &r)) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_NOFILE, &r);
	}
}

static int serve(const struct options *o, struct td_err *err)
{
	struct ev_loop *loop;
	ev_signal term, intr;
	struct devices m;
	int report = -1, rc;

	if (!o->foreground) {
		report = into_background(err);
		if (report < 0)
			return report;
	}
	rc = lock_all(o, err);
	if (rc)
		return rc;
	raise_limit();
	loop = ev_default_loop(EVFLAG_AUTO);
	if (!loop)
		return td_fail(err, ENOMEM, "cannot make an event loop");
	ev_signal_init(&term, on_signal, SIGTERM);
	ev_signal_init(&intr, on_signal, SIGINT);
	ev_signal_start(loop, &term);
	ev_signal_start(loop, &intr);
	rc = devices_open(&m, loop, &o->devices, err);
	if (rc)
		return rc;
	td_log(LOG_NOTICE, "serving %s", m.root);
	if (report >= 0)
		report_ready(report);
	ev_run(loop, 0);
	rc = m.lost ? td_fail(err, EIO, "the connection to xenstored is lost") : 0;
	devices_close(&m);
	if (o->pidfile)
		unlink(o->pidfile);
	td_log(LOG_NOTICE, "leaving; the guests' disks go on");
	return rc;
}

int main(int argc, char **argv)
{
	struct options o = {.devices = {.name = "vbd3",
					.only_domid = -1,
					.timeout_s = TD_CTL_TIMEOUT,
					.max_queues = 4}};
	struct td_err err = {};
	int rc = parse_options(&o, argc, argv);

	if (rc < 0)
		return -rc;
	if (rc > 0) {
		rc = td_output_end(&err);
		if (rc)
			td_output_fault("tapback", &err);
		return -rc;
	}
	signal(SIGPIPE, SIG_IGN);
	td_log_open("tapback", o.foreground ? TD_LOG_STDERR_NOWAIT : TD_LOG_NO_STDERR);
	td_log_level(o.verbose ? LOG_DEBUG : LOG_INFO);
	rc = serve(&o, &err);
	if (rc) {
		td_log(LOG_ERR, "%s", err.text);
		if (!o.foreground)
			td_output_fault("tapback", &err);
	}
	return -rc;
}
