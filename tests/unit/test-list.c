/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* include/td/list.h and lib/io/pool.c: the two small things that everything else holds its requests
 * and buffers with. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/pool.h"
#include "td/list.h"
#include "tests/support/suite.h"

struct thing {
	int n;
	struct td_list link;
};

static struct thing t[6];

static void expect(struct td_list *head, const char *numbers)
{
	char got[32] = "", back[32] = "";
	size_t n = 0;

	td_list_each (l, head)
		got[n++] = (char)('0' + td_entry(l, struct thing, link)->n);
	ck_assert_str_eq(got, numbers);
	for (struct td_list *l = head->prev; l != head; l = l->prev)
		back[--n] = (char)('0' + td_entry(l, struct thing, link)->n);
	ck_assert_str_eq(back, numbers);
	ck_assert_int_eq(td_list_empty(head), !*numbers);
}

static void fill(struct td_list *head)
{
	td_list_init(head);
	for (int i = 0; i < 6; i++) {
		t[i].n = i;
		td_list_init(&t[i].link);
	}
}

START_TEST(lists_keep_their_order)
{
	struct td_list head, other = TD_LIST_INIT(other);

	fill(&head);
	expect(&head, "");
	ck_assert_ptr_null(td_list_pop(&head));
	td_list_add(&head, &t[1].link);
	td_list_add(&head, &t[2].link);
	td_list_add_front(&head, &t[0].link);
	expect(&head, "012");
	td_list_del(&t[1].link);
	ck_assert(td_list_empty(&t[1].link));
	td_list_del(&t[1].link); /* off it already: nothing happens */
	expect(&head, "02");
	td_list_add(&other, &t[4].link);
	td_list_add(&other, &t[5].link);
	td_list_splice(&head, &other);
	expect(&head, "0245");
	expect(&other, "");
	td_list_splice(&head, &other);
	expect(&head, "0245");
	td_list_splice(&other, &head);
	expect(&other, "0245");
	ck_assert_ptr_eq(td_list_pop(&other), &t[0].link);
	ck_assert(td_list_empty(&t[0].link));
	expect(&other, "245");
}
END_TEST

START_TEST(a_walk_may_remove_what_it_stands_on)
{
	struct td_list head;

	fill(&head);
	for (int i = 0; i < 6; i++)
		td_list_add(&head, &t[i].link);
	td_list_each_safe (l, tmp, &head)
		if (td_entry(l, struct thing, link)->n % 2)
			td_list_del(l);
	expect(&head, "024");
	td_list_each_safe (l, tmp, &head)
		td_list_del(l);
	expect(&head, "");
}
END_TEST

START_TEST(a_pool_gives_each_buffer_once)
{
	struct td_pool *p = td_pool_new(8192, 16, NULL);
	void *buf[16];
	int wrong = 0;

	for (int i = 0; i < 16; i++) {
		buf[i] = td_pool_get(p);
		ck_assert_ptr_nonnull(buf[i]);
		ck_assert_uint_eq((uintptr_t)buf[i] % 4096, 0);
		for (int k = 0; k < i; k++)
			ck_assert_ptr_ne(buf[i], buf[k]);
		memset(buf[i], i + 1, 8192);
	}
	ck_assert_ptr_null(td_pool_get(p));
	for (int i = 0; i < 16; i++)
		for (int k = 0; k < 8192; k++)
			wrong += ((char *)buf[i])[k] != i + 1; /* none overlaps another */
	ck_assert_int_eq(wrong, 0);
	td_pool_put(p, buf[3]);
	td_pool_put(p, buf[7]);
	ck_assert_ptr_eq(td_pool_get(p), buf[7]); /* last in, first out: the warm one */
	ck_assert_ptr_eq(td_pool_get(p), buf[3]);
	ck_assert_ptr_null(td_pool_get(p));
	td_pool_free(p);
	td_pool_free(NULL);
}
END_TEST

START_TEST(a_trim_gives_back_what_nobody_has)
{
	struct td_pool *p = td_pool_new(4096, 4, NULL);
	char *a = td_pool_get(p), *b = td_pool_get(p);

	*a = *b = 7;
	td_pool_put(p, b);
	td_pool_trim(p);
	ck_assert(*a == 7); /* it is out */
	td_pool_put(p, a);
	td_pool_trim(p);
	ck_assert_ptr_eq(td_pool_get(p), a);
	ck_assert(*a == 0 && *b == 0); /* fresh pages */
	td_pool_free(p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("list and pool");

	SUITE_ADD(s, lists_keep_their_order);
	SUITE_ADD(s, a_walk_may_remove_what_it_stands_on);
	SUITE_ADD(s, a_pool_gives_each_buffer_once);
	SUITE_ADD(s, a_trim_gives_back_what_nobody_has);
	return suite_run(s);
}
