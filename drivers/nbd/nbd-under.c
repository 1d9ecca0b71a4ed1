/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* K18: the connection beneath TLS.  Its relay reads and writes it; here it is looked at, and when
 * the relay has ended, it is read to its end. */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"

enum { DRAIN = 256 /* reads: the rest is read at the next attempt */ };

int nbdc_under(int fd, int under)
{
	return under >= 0 ? under : fd;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* What the relay has not sent yet never comes: a server that works on this must not hear more when
 * its requests are sent again. */
void nbdc_under_leave(struct nbdc_client *n)
{
	if (n->first.under < 0)
		return;
	close_one(&n->past);
	n->past = n->first.under;
	n->first.under = -1;
	shutdown(n->past, SHUT_WR);
}

/* Nobody can decrypt what comes; the end counts. */
static bool has_ended(int fd)
{
	char away[16384];

	for (int i = 0; i < DRAIN; i++) {
		ssize_t got = recv(fd, away, sizeof away, MSG_DONTWAIT);

		if (!got || (got < 0 && errno == ECONNRESET))
			return true;
		if (got < 0 && errno != EINTR)
			return false;
	}
	return false;
}

bool nbdc_under_over(struct nbdc_client *n)
{
	if (n->past < 0)
		return true;
	if (n->left->sent != n->left->answered && !has_ended(n->past))
		return false;
	close_one(&n->past);
	return true;
}

void nbdc_under_close(struct nbdc_client *n)
{
	close_one(&n->first.under);
	close_one(&n->past);
}
