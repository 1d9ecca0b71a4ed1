/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Memory that several rings share, with one limit for all; each ring has an account.  Accounts
 * belong to threads; the budget is counted with atomics, and touched only when an account grows or
 * shrinks.
 *
 * BU1 Everybody makes progress: an account always gets what it asks for within its reserve.  So one
 *     that waits has something of its own under way, or needs no more than its reserve.
 * BU2 All accounts together take at most the limit, or their reserves if these are more.
 * BU3 Nobody starves: as long as an account that has less than its share (of what remains beside
 *     the reserves) waits, those that have more get nothing, and give back what they let go.
 */
#ifndef TD_LIB_BUDGET_H
#define TD_LIB_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In bytes; all of it atomic. */
struct td_budget {
	size_t limit;
	size_t used;     /* by all */
	size_t beyond;   /* of that, what is beyond the reserves */
	size_t reserved; /* the reserves, taken or not */
	unsigned accounts;
	unsigned waiting; /* accounts with less than their share that were refused */
	uint64_t waits;   /* refusals */
};

struct td_account {
	struct td_budget *budget;
	size_t used, reserve;
	bool waits; /* counted in budget->waiting */
};

void td_account_open(struct td_account *a, struct td_budget *b, size_t reserve);
void td_account_close(struct td_account *a); /* with nothing used; one that is not open is fine */

/* False: not now.  must: whatever the limit says. */
bool td_account_take(struct td_account *a, size_t bytes, bool must);
void td_account_give(struct td_account *a, size_t bytes);
void td_account_rest(struct td_account *a); /* it does not wait any more */

/* BU3: must it give back what it lets go? */
bool td_account_pressed(const struct td_account *a);

#endif
