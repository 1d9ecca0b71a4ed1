/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a process leaves to its successor (RB6, RB7): a page of a file that outlives the process, or
 * of our own memory. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "drivers/rbd/rbd.h"
#include "lib/keep.h"

static const struct td_keep_kind kind = TD_KEEP_KIND(struct rbdc_left, 0x72626432);

_Static_assert(sizeof(struct rbdc_left) <= 8192, "of the file");
_Static_assert(RBDC_DEAD <= 32, "bits of rbdc_left.whole");

static bool client_counts(const struct rbdc_left *l, int i)
{
	return __atomic_load_n(&l->whole, __ATOMIC_ACQUIRE) >> i & 1;
}

int rbdc_left_open(struct rbdc_left **left, struct rbdc_left *own, const struct td_image *image,
		   bool again, struct rbdc_left *was, struct td_err *err)
{
	void *at;
	int rc = td_keep_left(image, &kind, again, own, &at, err);

	*was = (struct rbdc_left){0};
	*left = at;
	if (rc == TD_KEEP_FOUND) {
		*was = **left;
		for (int i = 0; i < RBDC_DEAD; i++) {
			was->clients[i][RBDC_ADDR - 1] = 0;
			if (!client_counts(was, i))
				was->clients[i][0] = 0;
		}
	}
	if (rc != TD_KEEP_NEW)
		return rc < 0 ? rc : 0;
	if (again && image->died) /* it should be there */
		was->changed = 1;
	(*left)->changed = was->changed; /* until the open has dealt with it */
	return 0;
}

void rbdc_left_close(struct rbdc_left **left, struct rbdc_left *own)
{
	if (*left && *left != own)
		munmap(*left, sizeof **left);
	*left = own;
}

/* The bit comes last: an address that a death has cut short may be another client's. */
int rbdc_left_client(struct rbdc_left *l, const char *addr)
{
	int at = -1;

	for (int i = RBDC_DEAD; i-- > 0;) {
		if (client_counts(l, i) && !strcmp(l->clients[i], addr))
			return 0;
		if (!client_counts(l, i))
			at = i;
	}
	if (at < 0)
		return -EMFILE;
	strcpy(l->clients[at], addr);
	__atomic_fetch_or(&l->whole, 1u << at, __ATOMIC_SEQ_CST);
	return 0;
}

void rbdc_left_fenced(struct rbdc_left *l, const char *addr)
{
	for (int i = 0; i < RBDC_DEAD; i++)
		if (!addr || strcmp(l->clients[i], addr))
			__atomic_fetch_and(&l->whole, ~(1u << i), __ATOMIC_SEQ_CST);
}

bool rbdc_left_doubt(const struct rbdc_left *was)
{
	return was->failed || was->changed != was->covered;
}

static void set_count(uint64_t *count, uint64_t to)
{
	__atomic_store_n(count, to, __ATOMIC_RELEASE);
}

void rbdc_left_settled(struct rbdc_left *l)
{
	l->failed = 0;
	set_count(&l->covered, l->changed);
}

void rbdc_left_changed(struct rbdc_left *l)
{
	set_count(&l->changed, l->changed + 1);
}

void rbdc_left_covered(struct rbdc_left *l, uint64_t changed)
{
	if (changed > l->covered)
		set_count(&l->covered, changed);
}

void rbdc_left_failed(struct rbdc_left *l)
{
	__atomic_store_n(&l->failed, 1, __ATOMIC_RELEASE);
}
