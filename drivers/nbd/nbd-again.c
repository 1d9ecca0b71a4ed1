/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Another connection after the first has ended: attempts on a fiber, farther and farther apart,
 * until one does well or the limit of the disk is reached.  Nothing here holds up the loop. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/fiber/fiber.h"
#include "lib/io/clock.h"

#define FIRST 0.1 /* s before the second attempt; the first is made at once */
#define LAST  5.0 /* s between attempts */
#define LASTS 30  /* s: a connection that has lasted so long was a good one */

/* For those who look at the list. */
static void tell_away(struct nbdc_client *n)
{
	char text[320], when[32] = "?";
	time_t t = n->since_date;
	struct tm tm;

	if (gmtime_r(&t, &tm))
		strftime(when, sizeof when, "%F %TZ", &tm);
	snprintf(text, sizeof text, "reconnecting since %s: %s", when, n->why);
	td_image_away(n->image, text);
}

static bool given_up(const struct nbdc_client *n)
{
	return n->lost || n->closing;
}

static void attempt_failed(struct nbdc_client *n, const struct td_err *err)
{
	n->delay = n->delay < FIRST ? FIRST : n->delay * 2 < LAST ? n->delay * 2 : LAST;
	if (!strncmp(n->why, err->text, sizeof n->why - 1))
		return;
	snprintf(n->why, sizeof n->why, "%.*s", (int)sizeof n->why - 1, err->text);
	td_log(LOG_INFO, "%s: %s", n->name, n->why);
	tell_away(n);
}

static void make_attempts(void *arg)
{
	struct nbdc_client *n = arg;
	int fd = -1, under = -1;

	while (fd < 0) {
		struct td_err err = {0};
		bool ended = false;

		n->sleeper = td_fiber_self();
		td_fiber_wait_for(n->delay);
		n->sleeper = NULL;
		if (given_up(n))
			break;
		fd = nbdc_connect_again(n, &under, &ended, &err);
		if (given_up(n))
			break;
		if (fd < 0 && ended) {
			nbdc_wire_lose(n, err.text); /* K12 */
			break;
		}
		if (fd < 0)
			attempt_failed(n, &err);
	}
	n->attempts = false;
	if (given_up(n) && fd >= 0) {
		close(fd);
		if (under >= 0)
			close(under);
	} else if (fd >= 0) {
		n->made = td_clock_s();
		nbdc_wire_resume(n, fd, under);
	}
	if (n->closer)
		td_fiber_wake(n->closer);
}

static void on_away_limit(struct ev_loop *loop, ev_timer *w, int revents)
{
	struct nbdc_client *n = w->data;
	char text[100];

	snprintf(text, sizeof text, "the server was away for more than %d s (reconnect-limit)",
		 n->reconnect);
	nbdc_wire_lose(n, text);
}

/* The limit counts from `ago' s before now. */
static void begin_away(struct nbdc_client *n, double ago)
{
	n->since = td_clock_s() - ago;
	n->since_date = time(NULL) - (time_t)ago;
	n->image->reconnects++;
	if (n->reconnect > 0) {
		ev_timer_set(&n->limit, n->reconnect > ago ? n->reconnect - ago : 0, 0);
		ev_timer_start(n->loop, &n->limit);
	}
}

void nbdc_again_silent(struct nbdc_client *n, const char *why, double quiet)
{
	n->silent = true;
	if (!n->since)
		begin_away(n, quiet);
	td_log(LOG_WARNING, "%s: %s; requests wait", n->name, why);
	snprintf(n->why, sizeof n->why, "%s", why);
	tell_away(n);
}

void nbdc_again(struct nbdc_client *n, const char *why, bool clear)
{
	bool unanswered = n->left->sent != n->left->answered;

	if (n->lost)
		return;
	if (!n->reconnect || n->closing) {
		nbdc_wire_lose(n, why);
		return;
	}
	if (!clear && unanswered && n->first.under < 0) { /* K11 */
		nbdc_wire_lose(n, "the connection broke, and the server may still carry out "
				  "writes that it has not answered, over newer ones");
		return;
	}
	if (n->keep.first != n->keep.end)
		nbdc_left_away(n, true); /* K13 */
	n->silent = false;
	nbdc_wire_hold(n);
	nbdc_under_leave(n);
	close(n->first.fd);
	n->first.fd = -1;
	if (n->made && td_clock_s() - n->made < LASTS)
		n->delay = n->delay < FIRST ? FIRST : n->delay * 2 < LAST ? n->delay * 2 : LAST;
	else
		n->delay = 0;
	if (!n->since)
		begin_away(n, 0);
	td_log(LOG_WARNING,
	       "%s: %s: reconnecting; requests wait, and %llu changes that are not flushed are "
	       "kept",
	       n->name, why, (unsigned long long)(n->keep.end - n->keep.first));
	snprintf(n->why, sizeof n->why, "%s", why);
	tell_away(n);
	n->attempts = true;
	if (td_fiber_start(n->loop, make_attempts, n) < 0) {
		n->attempts = false;
		nbdc_wire_lose(n, "no memory to reconnect");
	}
}

void nbdc_again_over(struct nbdc_client *n)
{
	if (!n->since)
		return;
	ev_timer_stop(n->loop, &n->limit);
	if (n->trying >= 0)
		shutdown(n->trying, SHUT_RDWR);
	if (!n->lost)
		td_log(LOG_NOTICE, "%s: connected again, after %.0f s", n->name,
		       td_clock_s() - n->since);
	n->since = 0;
	n->silent = false;
	td_image_away(n->image, NULL);
	nbdc_more_go(n);
}

void nbdc_again_start(struct nbdc_client *n)
{
	ev_init(&n->limit, on_away_limit);
	n->limit.data = n;
	nbdc_silent_start(n);
}

void nbdc_again_stop(struct nbdc_client *n)
{
	n->closing = true;
	nbdc_silent_stop(n);
	n->closer = td_fiber_self();
	if (n->trying >= 0)
		shutdown(n->trying, SHUT_RDWR);
	if (n->sleeper)
		td_fiber_wake(n->sleeper);
	while (n->attempts)
		td_fiber_wait();
	n->closer = NULL;
	nbdc_again_over(n);
}
