/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* K15: a server's host that does not answer any more.  Its kernel's acknowledgements tell it from a
 * server that is slow; they come at least every 5 s (lib/dial.c). */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>

#include "drivers/nbd/nbd.h"

#define LOOK_EVERY 5.0 /* s */

double nbdc_silent_after = 25.0; /* s */

/* s since something came; 0 where that is not known. */
static double quiet_for(int fd)
{
	struct tcp_info i = {0};
	socklen_t len = sizeof i;

	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &i, &len) < 0)
		return 0;
	return (i.tcpi_last_ack_recv < i.tcpi_last_data_recv ? i.tcpi_last_ack_recv
							     : i.tcpi_last_data_recv) /
	       1000.0;
}

static void hears_nothing(struct nbdc_client *n, double quiet)
{
	unsigned long long unanswered = n->left->sent - n->left->answered;
	char why[120];

	if (!n->reconnect || n->closing || !unanswered) {
		snprintf(why, sizeof why, "the server's host has not answered for %.0f s", quiet);
		nbdc_again(n, why, false);
		return;
	}
	snprintf(why, sizeof why,
		 "its host does not answer, and %llu changes are with it: the connection is kept",
		 unanswered);
	if (!n->silent)
		nbdc_again_silent(n, why, quiet);
}

/* One of the further connections may be cut alone.  Nothing is lost with it, so that it is not
 * waited for as long. */
static void look_at_more(struct nbdc_client *n)
{
	for (unsigned i = 0; i < n->more.wanted; i++) {
		struct nbdc_conn *c = &n->more.conns[i];

		if (c->fd >= 0 && quiet_for(nbdc_under(c->fd, c->under)) >= nbdc_silent_after / 2)
			nbdc_more_end(c, "nothing comes from the server's host");
	}
}

static void on_silence_check(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nbdc_client *n = w->data;
	double quiet = n->phase == NBD_AWAY || n->lost || n->first.fd < 0
			       ? -1
			       : quiet_for(nbdc_under(n->first.fd, n->first.under));

	look_at_more(n);
	if (quiet >= nbdc_silent_after) {
		hears_nothing(n, quiet);
	} else if (quiet >= 0 && n->silent) {
		n->silent = false;
		if (!n->behind)
			nbdc_again_over(n);
	}
}

void nbdc_silent_start(struct nbdc_client *n)
{
	double every = nbdc_silent_after < LOOK_EVERY ? nbdc_silent_after : LOOK_EVERY;

	if (n->uri.way != NBD_TCP)
		return;
	ev_timer_init(&n->look, on_silence_check, every, every);
	n->look.data = n;
	ev_timer_start(n->loop, &n->look);
}

void nbdc_silent_stop(struct nbdc_client *n)
{
	if (n->uri.way == NBD_TCP)
		ev_timer_stop(n->loop, &n->look);
}
