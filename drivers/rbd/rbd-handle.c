/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* An open image of librbd's, and questions to it: it stays open as long as one is under way, also
 * when nobody waits for that any more (RB1). */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/rbd/rbd.h"

void rbdc_handle_get(struct rbdc_handle *h)
{
	__atomic_add_fetch(&h->users, 1, __ATOMIC_ACQ_REL);
}

void rbdc_handle_put(struct rbdc_handle *h)
{
	int rc;

	if (!h || __atomic_sub_fetch(&h->users, 1, __ATOMIC_ACQ_REL))
		return;
	if (h->watched)
		rbdc_lib->rbd_update_unwatch(h->rbd, h->watch);
	rc = h->rbd ? rbdc_lib->rbd_close(h->rbd) : 0;
	if (rc < 0)
		td_log(LOG_ERR, "rbd: closing an image: %s", strerror(-rc));
	if (h->pool)
		rbdc_lib->rados_ioctx_destroy(h->pool);
	if (h->cluster)
		rbdc_cluster_put(h->cluster);
	if (h->events >= 0)
		close(h->events);
	free(h);
}

struct rbdc_question *rbdc_question_new(struct rbdc_handle *h)
{
	struct rbdc_question *q = malloc(sizeof *q);

	if (!q)
		return NULL;
	*q = (struct rbdc_question){.h = h};
	rbdc_handle_get(h);
	return q;
}

void rbdc_question_free(void *arg)
{
	struct rbdc_question *q = arg;

	rbdc_handle_put(q->h);
	free(q);
}
