/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * All that is told is in memory, and the log is never waited for: a store that hangs holds up no
 * report of it.
 */
#include "tapdisk/ctl/ctl-report.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>

#include "tapdisk/ctl/ctl-stats.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tapdisk/server.h"

static ev_signal usr1, usr2;

static void report_ring(const struct vbd *v, const struct blkif *b)
{
	const struct blkif_params *p = blkif_params(b);
	struct blkif_stats n = blkif_stats(b);

	td_log(LOG_NOTICE,
	       "minor %d: domain %u, device %u, queue %u: %llu requests taken, %u not answered%s%s",
	       v->minor, p->domid, p->devid, p->queue, (unsigned long long)n.taken,
	       blkif_inflight(b), blkif_is_broken(b) ? "; broken: " : "",
	       blkif_is_broken(b) ? blkif_why(b) : "");
}

static void report_stats(const struct vbd *v)
{
	json_t *stats = ctl_stats_json(v, false);
	char *text = stats ? json_dumps(stats, JSON_COMPACT) : NULL;

	if (text)
		td_log(LOG_NOTICE, "minor %d: stats %s", v->minor, text);
	free(text);
	json_decref(stats);
}

static void report_disk(const struct vbd *v)
{
	const char *reason = vbd_reason(v);

	if (!v->spec) {
		td_log(LOG_NOTICE, "minor %d: closed", v->minor);
		return;
	}
	td_log(LOG_NOTICE,
	       "minor %d: %s: state %#x, cache=%s%s, %llu sectors, %u requests not answered, %u "
	       "NBD "
	       "clients%s%s%s",
	       v->minor, v->spec, vbd_state(v), v->opt.mode->name,
	       v->opt.read_only ? ", read-only" : "", (unsigned long long)v->disk.sectors,
	       stats_under_way(&v->stats), v->nbd ? nbd_clients(v->nbd) : 0,
	       v->stall.stalled ? "; its store does not answer" : "", reason ? "; " : "",
	       reason ? reason : "");
	td_list_each (l, &v->rings)
		report_ring(v, td_entry(l, struct vbd_ring, link)->blkif);
	report_stats(v);
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int revents)
{
	unsigned n = 0;

	td_list_each (l, &server.disks)
		n++;
	td_log(LOG_NOTICE, "state, as asked by signal %d: tapdisk %s, disks: %u, sandbox: %s",
	       w->signum, PACKAGE_VERSION, n, sandbox_state());
	td_list_each (l, &server.disks)
		report_disk(td_entry(l, struct vbd, link));
	td_log(LOG_NOTICE, "end of the state");
}

void ctl_report_start(struct ev_loop *loop)
{
	ev_signal_init(&usr1, on_signal, SIGUSR1);
	ev_signal_init(&usr2, on_signal, SIGUSR2);
	ev_signal_start(loop, &usr1);
	ev_signal_start(loop, &usr2);
}
