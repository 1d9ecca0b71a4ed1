/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An intrusive doubly linked list with a head, so that a thing can leave the list that it is on
 * without knowing which. A link is either on exactly one list or points at itself;
 * td_list_empty(&thing->link) tells.  Not thread safe.
 */
#ifndef TD_LIST_H
#define TD_LIST_H

#include <stddef.h>

struct td_list {
	struct td_list *next, *prev;
};

#define TD_LIST_INIT(head)                                                                         \
	{                                                                                          \
		&(head), &(head)                                                                   \
	}

/* The structure that holds a link: td_entry(p, struct td_req, link). */
#define td_entry(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

#define td_list_each(pos, head)                                                                    \
	for (struct td_list *pos = (head)->next; pos != (head); pos = pos->next)

/* As td_list_each, but pos may be removed (and freed) in the body. */
#define td_list_each_safe(pos, tmp, head)                                                          \
	for (struct td_list *pos = (head)->next, *tmp = pos->next; pos != (head);                  \
	     pos = tmp, tmp = pos->next)

static inline void td_list_init(struct td_list *l)
{
	l->next = l->prev = l;
}

static inline int td_list_empty(const struct td_list *l)
{
	return l->next == l;
}

/* Puts `link' at the end of the list `head'. */
static inline void td_list_add(struct td_list *head, struct td_list *link)
{
	link->prev = head->prev;
	link->next = head;
	head->prev->next = link;
	head->prev = link;
}

/* Puts `link' at the front of the list `head'. */
static inline void td_list_add_front(struct td_list *head, struct td_list *link)
{
	td_list_add(head->next, link);
}

static inline void td_list_del(struct td_list *link)
{
	link->prev->next = link->next;
	link->next->prev = link->prev;
	td_list_init(link);
}

/* Takes the first link off the list; NULL when it is empty. */
static inline struct td_list *td_list_pop(struct td_list *head)
{
	struct td_list *l = head->next;

	if (l == head)
		return NULL;
	td_list_del(l);
	return l;
}

/* Moves all of `from' to the end of `to'. */
static inline void td_list_splice(struct td_list *to, struct td_list *from)
{
	if (td_list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	td_list_init(from);
}

#endif
