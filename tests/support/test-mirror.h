/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk and its copy, each of which answers when the test says so; for tests of mirrors. */
#ifndef TESTS_TEST_MIRROR_H
#define TESTS_TEST_MIRROR_H

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tapdisk/mirror/mirror.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"
#include "tests/support/wall-clock.h"

#define SIZE (8u << 20)
#define NREQ 64

static struct ev_loop *loop;
static struct td_io io;
static struct td_err err;

/* One end. */
static struct side {
	struct td_image *image;
	struct td_list pending; /* td_req.link */
	unsigned npending, seen[TD_WRITE_ZEROES + 1], fua;
	int zeroes_err; /* what WRITE_ZEROES ends with */
	bool abandoned;
	unsigned char data[SIZE];
} leaf, copy;

static struct mirror *m;
static unsigned nfailed;
static struct td_req reqs[NREQ];
static struct iovec iov[NREQ][2];
static unsigned char buf[NREQ][1 << 16];
static int done[NREQ], errs[NREQ];

/* --- an end --- */

static inline int side_open(struct td_image *image, struct td_err *e)
{
	image->info = (struct td_image_info){.size = SIZE, .physical = 512, .discard = true};
	return 0;
}

static inline void side_close(struct td_image *image)
{
}

static inline struct side *side_of(const struct td_image *image)
{
	return image == leaf.image ? &leaf : &copy;
}

static inline void side_submit(struct td_image *image, struct td_req *req)
{
	struct side *s = side_of(image);

	ck_assert(!s->abandoned || s == &leaf);
	s->seen[req->op]++;
	s->fua += (req->flags & TD_FUA) != 0;
	s->npending++;
	td_list_add(&s->pending, &req->link);
}

static inline void carry_out(struct side *s, const struct td_req *req)
{
	uint64_t at = req->off;

	if (req->op == TD_WRITE_ZEROES || req->op == TD_DISCARD)
		memset(s->data + req->off, 0, req->len);
	for (int i = 0; req->op == TD_WRITE && i < req->iovcnt; at += req->iov[i++].iov_len)
		memcpy(s->data + at, req->iov[i].iov_base, req->iov[i].iov_len);
}

/* The i-th of those that are pending there. */
static inline void complete(struct side *s, unsigned i, int e)
{
	struct td_list *l = s->pending.next;
	struct td_req *req;

	while (i--)
		l = l->next;
	ck_assert(l != &s->pending);
	req = td_entry(l, struct td_req, link);
	td_list_del(l);
	s->npending--;
	if (req->op == TD_WRITE_ZEROES && !e)
		e = s->zeroes_err;
	if (!e)
		carry_out(s, req);
	td_req_done(req, e);
}

/* as an NBD client does it */
static inline void side_abandon(struct td_image *image, const char *why)
{
	struct side *s = side_of(image);

	s->abandoned = true;
	while (s->npending)
		complete(s, 0, -EIO);
}

static const struct td_driver by_hand = {
	.name = "test",
	.type = 101,
	.open = side_open,
	.close = side_close,
	.submit = side_submit,
	.abandon = side_abandon,
};
/* one in the kernel, which cannot be given up */
static const struct td_driver in_kernel = {
	.name = "test",
	.type = 101,
	.open = side_open,
	.close = side_close,
	.submit = side_submit,
};

/* --- the whole --- */

static inline void on_failed(void *owner)
{
	ck_assert_ptr_eq(owner, &m);
	nfailed++;
}

static inline void open_side(struct side *s, const struct td_driver *d)
{
	memset(s, 0, sizeof *s);
	td_list_init(&s->pending);
	ck_assert_int_eq(td_image_open_how(d, s == &leaf ? "leaf" : "copy", &(struct td_how){0},
					   &io, &s->image, &err),
			 0);
}

static inline void begin_with(const struct td_driver *d, int patience)
{
	loop = ev_loop_new(EVFLAG_AUTO);
	io = (struct td_io){.loop = loop};
	open_side(&leaf, &by_hand);
	open_side(&copy, d);
	memset(done, 0, sizeof done);
	memset(reqs, 0, sizeof reqs);
	nfailed = 0;
	ck_assert_int_eq(mirror_open(leaf.image, copy.image, patience, on_failed, &m, &m, &err), 0);
}

static inline void begin(void)
{
	begin_with(&by_hand, 0);
}

static inline void end(void)
{
	mirror_close(m);
	td_image_close(leaf.image);
	td_image_close(copy.image);
	ev_loop_destroy(loop);
}

static inline void on_done(struct td_req *r, int e)
{
	done[r - reqs]++;
	errs[r - reqs] = e;
}

static inline void ask(unsigned i, enum td_op op, uint64_t off, uint64_t len)
{
	bool data = op == TD_READ || op == TD_WRITE;
	uint64_t half = data ? len / 1024 * 512 : 0;

	ck_assert(i < NREQ && (!data || len <= sizeof buf[i]));
	memset(buf[i], (int)(rand() % 255 + 1), sizeof buf[i]);
	iov[i][0] = (struct iovec){buf[i], half ? half : data ? len : 0};
	iov[i][1] = (struct iovec){buf[i] + half, data ? len - half : 0};
	reqs[i] = (struct td_req){.op = op,
				  .off = off,
				  .len = len,
				  .iov = iov[i],
				  .iovcnt = half ? 2 : 1,
				  .done = on_done,
				  .io = &io};
	done[i] = 0;
	td_submit(mirror_image(m), &reqs[i]);
}

static inline void drain(void)
{
	while (leaf.npending || copy.npending)
		complete(leaf.npending ? &leaf : &copy, 0, 0);
}

static inline void answered(unsigned i, int e)
{
	ck_assert_int_eq(done[i], 1);
	ck_assert_int_eq(errs[i], e);
}

#endif
