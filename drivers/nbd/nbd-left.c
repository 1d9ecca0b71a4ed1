/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a connection leaves to the next (K5 to K7): counts in a page of a file that outlives the
 * process, or of our own memory. */
#include <errno.h>
#include <sys/mman.h>

#include "drivers/nbd/nbd.h"
#include "lib/keep.h"

/* what an older tapdisk has left has zeroes where the server is now: not known */
static const struct td_keep_kind kind = TD_KEEP_KIND(struct nbdc_left, 0x6e626c31);

_Static_assert(sizeof(struct nbdc_left) == 4240, "what an older tapdisk has left is as long");

int nbdc_left_open(struct nbdc_client *n, const struct td_image *image, bool again,
		   struct nbdc_left *was, struct td_err *err)
{
	void *at;
	int rc = td_keep_left(image, &kind, again, &n->own, &at, err);

	*was = (struct nbdc_left){0};
	n->left = at;
	if (rc == TD_KEEP_FOUND)
		*was = *n->left;
	if (rc != TD_KEEP_NEW)
		return rc < 0 ? rc : 0;
	if (again && image->died) /* it should be there */
		was->sent = was->changed = 1;
	n->left->sent = was->sent; /* until the open has dealt with it */
	n->left->changed = was->changed;
	return 0;
}

void nbdc_left_close(struct nbdc_client *n)
{
	if (n->left && n->left != &n->own)
		munmap(n->left, sizeof *n->left);
	n->left = &n->own;
}

bool nbdc_left_doubt(const struct nbdc_left *was, bool blind, bool multi)
{
	return was->failed || (blind && was->sent != was->answered) ||
	       (!multi && was->changed != was->covered);
}

static void set_count(uint64_t *count, uint64_t to)
{
	__atomic_store_n(count, to, __ATOMIC_RELEASE);
}

void nbdc_left_settled(struct nbdc_client *n, bool durable)
{
	set_count(&n->left->answered, n->left->sent);
	n->left->failed = 0; /* whoever opened it has been told */
	if (durable)
		set_count(&n->left->covered, n->left->changed);
}

void nbdc_left_server(struct nbdc_client *n)
{
	n->left->server = n->server;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void nbdc_left_away(struct nbdc_client *n, bool away)
{
	if (away)
		__atomic_fetch_or(&n->left->failed, NBD_LEFT_AWAY, __ATOMIC_RELEASE);
	else
		__atomic_fetch_and(&n->left->failed, ~(uint32_t)NBD_LEFT_AWAY, __ATOMIC_RELEASE);
}

void nbdc_left_sent(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	cmd->covers = n->left->changed;
	if (nbdc_is_change(cmd->type))
		set_count(&n->left->sent, n->left->sent + 1);
}

void nbdc_left_answered(struct nbdc_client *n, const struct nbdc_cmd *cmd, bool durable, int err)
{
	struct nbdc_left *l = n->left;

	if (err && err != -ENOSPC && err != -EOPNOTSUPP && (durable || cmd->type == NBD_CMD_FLUSH))
		/* before anybody hears of it: F2 in lib/syncmark.h */
		__atomic_fetch_or(&l->failed, NBD_LEFT_FLUSH, __ATOMIC_RELEASE);
	if (nbdc_is_change(cmd->type)) {
		if (!err && !durable)
			set_count(&l->changed, l->changed + 1); /* before it is no more in flight */
		set_count(&l->answered, l->answered + 1);
	} else if (cmd->type == NBD_CMD_FLUSH && !err && cmd->covers > l->covered) {
		set_count(&l->covered, cmd->covers);
	}
}
