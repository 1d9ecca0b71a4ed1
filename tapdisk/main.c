/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/clock.h"
#include "lib/ctl-dir.h"
#include "lib/dial.h"
#include "lib/fiber/call.h"
#include "lib/output.h"
#include "lib/redo.h"
#include "lib/tls/tls.h"
#include "tapdisk/blkif/blkif-poll.h"
#include "tapdisk/ctl/ctl-report.h"
#include "tapdisk/ctl/ctl.h"
#include "tapdisk/opener/opener.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/server.h"

static const char usage[] =
	"usage: tapdisk [--foreground] [--debug]\n"
	"       tapdisk --spawn-fd N [--leash] [--orphan SECONDS]   (as tap-ctl starts it)\n"
	"Serves guest disks; tap-ctl(8) tells it which.\n"
	"  -f, --foreground  log to stderr too\n"
	"  -v, --debug       log more\n"
	"      --spawn-fd N  report on socket N when ready\n"
	"      --leash       close the disk and end if that socket is closed before it has sent "
	"release\n"
	"      --orphan S    end when no disk was attached within S seconds (600)\n"
	"  -h, --help  -V, --version\n";

#define ORPHAN 600 /* s: who starts a tapdisk attaches a disk soon, or is dead */

static int spawn_fd = -1, orphan = ORPHAN;
static bool leash;

static void __attribute__((noreturn)) printed(void)
{
	static struct td_err err;

	if (td_output_end(&err) < 0)
		td_output_fault("tapdisk", &err);
	exit(err.code);
}

static int parse_options(int argc, char **argv)
{
	static const struct option longs[] = {{"foreground", no_argument, NULL, 'f'},
					      {"debug", no_argument, NULL, 'v'},
					      {"spawn-fd", required_argument, NULL, 's'},
					      {"help", no_argument, NULL, 'h'},
					      {"leash", no_argument, NULL, 'l'},
					      {"orphan", required_argument, NULL, 'o'},
					      {"version", no_argument, NULL, 'V'},
					      {0}};
	int c, foreground = 0;

	while ((c = getopt_long(argc, argv, "fvhV", longs, NULL)) != -1)
		switch (c) {
		case 'f':
			foreground = 1;
			break;
		case 'v':
			td_log_level(LOG_DEBUG);
			break;
		case 's':
			spawn_fd = atoi(optarg);
			break;
		case 'l':
			leash = true;
			break;
		case 'o':
			orphan = atoi(optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			printed();
		case 'V':
			printf("tapdisk %s\n", PACKAGE_VERSION);
			printed();
		default:
			fputs(usage, stderr);
			return -EINVAL;
		}
	if (optind < argc) {
		fprintf(stderr, "tapdisk: what is '%s'?  Disks are opened with tap-ctl.\n%s",
			argv[optind], usage);
		return -EINVAL;
	}
	td_log_open("tapdisk", foreground ? TD_LOG_STDERR_NOWAIT : TD_LOG_NO_STDERR);
	return 0;
}

/* Tells tap-ctl that we are ready, or why not. */
static void report_start(const struct td_err *err)
{
	json_t *msg;

	if (err && err->code)
		td_output_fault("tapdisk", err);
	if (spawn_fd < 0)
		return;
	msg = err && err->code ? json_pack("{s:i, s:s}", "err", err->code, "text", err->text)
			       : json_pack("{s:i, s:i}", "err", 0, "pid", (int)getpid());
	if (msg)
		td_msg_send(spawn_fd, msg, NULL, 0);
	json_decref(msg);
	if (!leash)
		close(spawn_fd);
}

/* Core dumps would hold guests' data; descriptors: a disk takes a few, and one process may have
 * many. */
static void limits(void)
{
	struct rlimit rl;

	prctl(PR_SET_DUMPABLE, 0);
	if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* the terminal that started us may go */
	/* until ctl_report_start(): a status report may come at any moment */
	signal(SIGUSR1, SIG_IGN);
	signal(SIGUSR2, SIG_IGN);
}

/* Its end; it sends nothing by itself. */
static void on_opener(struct ev_loop *loop, ev_io *w, int revents)
{
	ev_io_stop(loop, w);
	opener_lost();
	td_log(LOG_ERR,
	       "the opener of files has died: what is open is served, and nothing more "
	       "can be opened: kill this tapdisk, and tapback or `tap-ctl revive' starts a "
	       "successor, for which its guests wait");
}

int main(int argc, char **argv)
{
	static ev_io opener;
	static struct td_err err;
	struct ev_loop *loop;
	int rc = parse_options(argc, argv);

	if (rc < 0)
		return -rc;
	limits();
	blkif_idle_open();
	/* a ring for each engine of each thread */
	td_dial_tls = td_tls_client_here; /* unless an opener dials */
	td_redo_boot((char[40]){});       /* it is kept, for records that are written in a hurry */
	rc = sandbox_enter(2 * queue_threads(), &err);
	if (rc < 0) {
		report_start(&err);
		return -rc;
	}
	loop = ev_default_loop(0);
	if (!loop) {
		td_fail(&err, ENOSYS, "cannot make an event loop");
		report_start(&err);
		return err.code;
	}
	td_clock_probe();
	td_clock_attach(loop);
	if (td_calls_start(loop, &err) < 0) {
		report_start(&err);
		return err.code;
	}
	server_init(loop);
	ctl_report_start(loop);
	rc = ctl_start(loop, &err);
	report_start(&err);
	if (rc < 0)
		return -rc;
	if (nbd_passed_start(loop, &err) < 0)
		td_log(LOG_ERR, "%s", err.text);
	td_log(LOG_INFO, "tapdisk %s is ready", PACKAGE_VERSION);
	if (spawn_fd >= 0)
		server_orphan(orphan);
	if (spawn_fd >= 0 && leash)
		server_leash(spawn_fd);
	if (opener_channel() >= 0) {
		ev_io_init(&opener, on_opener, opener_channel(), EV_READ);
		ev_io_start(loop, &opener);
		td_log_apart();
		tzset(); /* gmtime_r() reads the time zone's file the first time */
	}
	opener_serving();
	server_run();
	td_clock_detach(loop);
	nbd_passed_stop();
	ctl_stop();
	queue_fini(&server.queue);
	td_calls_stop();
	td_log(LOG_INFO, "tapdisk ends");
	return 0;
}
