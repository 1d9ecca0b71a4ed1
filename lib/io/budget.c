/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/io/budget.h"

#define LOOK(x)   __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define ADD(x, n) __atomic_add_fetch(&(x), (n), __ATOMIC_RELAXED)
#define SUB(x, n) __atomic_sub_fetch(&(x), (n), __ATOMIC_RELAXED)

/* What all have together beside their reserves. */
static size_t common(const struct td_budget *b)
{
	size_t limit = LOOK(b->limit), reserved = LOOK(b->reserved);

	return limit > reserved ? limit - reserved : 0;
}

static size_t share(const struct td_budget *b)
{
	unsigned n = LOOK(b->accounts);

	return common(b) / (n ? n : 1);
}

static size_t beyond(const struct td_account *a, size_t used)
{
	return used > a->reserve ? used - a->reserve : 0;
}

void td_account_open(struct td_account *a, struct td_budget *b, size_t reserve)
{
	*a = (struct td_account){.budget = b, .reserve = reserve};
	ADD(b->reserved, reserve);
	ADD(b->accounts, 1);
}

void td_account_close(struct td_account *a)
{
	if (!a->budget)
		return;
	td_account_rest(a);
	SUB(a->budget->reserved, a->reserve);
	SUB(a->budget->accounts, 1);
	a->budget = NULL;
}

void td_account_rest(struct td_account *a)
{
	if (a->waits)
		SUB(a->budget->waiting, 1);
	a->waits = false;
}

static bool refuse_more(struct td_account *a, size_t then)
{
	ADD(a->budget->waits, 1);
	if (!a->waits && then <= share(a->budget)) {
		a->waits = true;
		ADD(a->budget->waiting, 1);
	}
	return false;
}

bool td_account_take(struct td_account *a, size_t bytes, bool must)
{
	struct td_budget *b = a->budget;
	size_t then = beyond(a, a->used + bytes), more = then - beyond(a, a->used);

	if (more && !must && !a->waits && LOOK(b->waiting) && then > share(b)) /* BU3 */
		return refuse_more(a, then);
	if (more && ADD(b->beyond, more) > common(b) && !must) { /* BU2 */
		SUB(b->beyond, more);
		return refuse_more(a, then);
	}
	ADD(b->used, bytes);
	a->used += bytes;
	td_account_rest(a);
	return true;
}

void td_account_give(struct td_account *a, size_t bytes)
{
	SUB(a->budget->beyond, beyond(a, a->used) - beyond(a, a->used - bytes));
	SUB(a->budget->used, bytes);
	a->used -= bytes;
}

bool td_account_pressed(const struct td_account *a)
{
	return LOOK(a->budget->waiting) && !a->waits && beyond(a, a->used) > share(a->budget);
}
