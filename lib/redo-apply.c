/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A log is applied after a death, if it is of the image's state. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/fiber/fiber.h"
#include "lib/io/file.h"
#include "lib/redo-inside.h"
#include "lib/syncmark.h"
#include "td/block.h"

#define SECTOR 512u

/* A sector of the file as it is to be. */
struct sector {
	uint64_t off;
	struct sector *next;
	bool touched; /* in this wave */
	uint8_t data[SECTOR] __attribute__((aligned(8)));
	uint8_t was[SECTOR];  /* in the file */
	uint8_t bits[SECTOR]; /* 1: that byte is of a bitmap (G3) */
};

#define BUCKETS 1024

struct applied {
	struct td_file *f;
	struct sector *bucket[BUCKETS];
};

static int sector_get(struct applied *a, uint64_t off, struct sector **out)
{
	struct sector **b = &a->bucket[off / SECTOR % BUCKETS], *s;
	int rc;

	for (s = *b; s; s = s->next)
		if (s->off == off) {
			*out = s;
			return 0;
		}
	s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	rc = td_file_rw(a->f, TD_IO_READ, s->data, off, SECTOR, TD_IO_EOF_ZERO);
	if (rc < 0) {
		free(s);
		return rc;
	}
	memcpy(s->was, s->data, SECTOR);
	s->off = off;
	s->next = *b;
	*b = *out = s;
	return 0;
}

static int apply_record(struct applied *a, const struct redo_record *rec, const uint8_t *data)
{
	uint64_t off = rec->off;
	uint32_t len = rec->len;

	while (len) {
		uint32_t skip = (uint32_t)(off % SECTOR),
			 n = len < SECTOR - skip ? len : SECTOR - skip;
		struct sector *s;
		int rc = sector_get(a, off - skip, &s);

		if (rc < 0)
			return rc;
		memcpy(s->data + skip, data, n);
		if (rec->wave & TD_REDO_BITS)
			memset(s->bits + skip, 1, n);
		s->touched = true;
		off += n;
		data += n;
		len -= n;
	}
	return 0;
}

/* The records of one wave, of the older half first (E3). */
static int read_wave(struct applied *a, const struct td_redo *r, unsigned wave)
{
	const uint8_t *data;
	struct redo_record rec;
	int rc = 0;

	for (unsigned i = 0; i < 2; i++) {
		unsigned half = i ? r->head->now : !r->head->now;

		for (uint32_t at = 0; (rc = redo_next(r, half, &at, &rec, &data)) > 0;)
			if (rec.wave != REDO_SUM && (rec.wave & ~(unsigned)TD_REDO_BITS) == wave &&
			    (rc = apply_record(a, &rec, data)) < 0)
				return rc;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static bool has_foreign_bits(const struct applied *a)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		for (const struct sector *s = a->bucket[b]; s; s = s->next)
			for (unsigned i = 0; i < SECTOR; i++)
				if (s->bits[i] && (s->was[i] & ~s->data[i]))
					return true;
	return false;
}

static int write_wave(struct applied *a, const struct td_redo *r, unsigned wave, struct td_err *err)
{
	int rc = read_wave(a, r, wave);
	bool any = false;

	if (!rc && r->head->summed && has_foreign_bits(a))
		return td_redo_stale(r, a->f, err);
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct sector *s = a->bucket[b]; !rc && s; s = s->next) {
			if (!s->touched)
				continue;
			s->touched = false;
			any = true;
			rc = td_file_rw(a->f, TD_IO_WRITE, s->data, s->off, SECTOR, 0);
		}
	return !rc && any ? td_file_rw(a->f, TD_IO_SYNC, NULL, 0, 0, 0) : rc;
}

static void free_sectors(struct applied *a)
{
	for (unsigned b = 0; b < BUCKETS; b++)
		for (struct sector *s = a->bucket[b], *next; s; s = next) {
			next = s->next;
			free(s);
		}
}

static int apply(struct td_redo *r, struct td_file *f, struct td_err *err)
{
	struct applied *a = calloc(1, sizeof *a);
	int rc = a ? 0 : -ENOMEM;

	if (a)
		a->f = f;
	for (unsigned wave = TD_REDO_FIRST; !rc && wave <= TD_REDO_SECOND; wave++)
		rc = write_wave(a, r, wave, err);
	if (a)
		free_sectors(a);
	free(a);
	return rc;
}

/* --- not applied, but shown (G9) --- */

struct shown {
	struct td_file_over over;
	struct applied a;
};

/* What n bytes of the file from off on are with the log, where that changes them, to `to'. */
static void show_piece(const struct applied *a, uint8_t *to, uint64_t off, size_t n)
{
	while (n) {
		uint64_t at = off / SECTOR * SECTOR;
		size_t skip = (size_t)(off - at), m = n < SECTOR - skip ? n : SECTOR - skip;
		const struct sector *s = a->bucket[at / SECTOR % BUCKETS];

		while (s && s->off != at)
			s = s->next;
		if (s)
			memcpy(to, s->data + skip, m);
		to += m;
		off += m;
		n -= m;
	}
}

static void show_in(const struct td_file_over *o, struct td_iop *read)
{
	const struct shown *shown = td_entry(o, struct shown, over);
	uint64_t off = read->off;

	for (int i = 0; i < read->iovcnt; i++) {
		show_piece(&shown->a, read->iov[i].iov_base, off, read->iov[i].iov_len);
		off += read->iov[i].iov_len;
	}
}

static void shown_free(struct td_file_over *o)
{
	struct shown *shown = td_entry(o, struct shown, over);

	free_sectors(&shown->a);
	free(shown);
}

static int show_log(const struct td_redo *r, struct td_file *f, struct td_err *err)
{
	struct shown *shown = calloc(1, sizeof *shown);
	int rc = 0;

	if (!shown)
		return td_fail(err, ENOMEM, "out of memory: cannot read %s through %s", f->path,
			       r->path);
	shown->over = (struct td_file_over){show_in, shown_free};
	shown->a.f = f;
	for (unsigned wave = TD_REDO_FIRST; !rc && wave <= TD_REDO_SECOND; wave++) {
		rc = read_wave(&shown->a, r, wave);
		if (!rc && r->head->summed && has_foreign_bits(&shown->a))
			rc = td_redo_stale(r, f, err);
	}
	if (rc < 0) {
		shown_free(&shown->over);
		return rc == -ESTALE ? rc
				     : td_fail(err, -rc, "cannot read %s through %s: %s", f->path,
					       r->path, strerror(-rc));
	}
	if (f->over)
		f->over->free(f->over);
	f->over = &shown->over;
	td_log(LOG_ERR,
	       "%s: a sync of it has failed, so that what the last tapdisk had not written yet is "
	       "not put into it; it is read as though it "
	       "were there, and nothing is written: copy what is needed, and close it",
	       f->path);
	return 0;
}

/* Was there a sync that failed, be it this one? */
static bool has_failed(struct td_redo *r, struct td_file *f, const struct td_image *image)
{
	int rc;

	if (r->head->failed || (image->lost && *image->lost))
		return true;
	rc = td_file_rw(f, TD_IO_SYNC, NULL, 0, 0, 0); /* the data */
	if (rc < 0 && image->lost)
		*image->lost = rc;
	return rc < 0;
}

int td_redo_apply(struct td_redo *r, struct td_file *f, struct td_image *image, struct td_err *err)
{
	struct redo_head *h = r ? r->head : NULL;
	int rc;

	if (!td_redo_pending(r))
		return 0;
	redo_drop_held(h);
	if (has_failed(r, f, image)) {
		td_redo_fail(r);
		if (!image->lost)
			return td_fail(err, EIO,
				       "%s: a sync of it has failed, so that some of what its last "
				       "tapdisk had answered may be lost, and what that "
				       "had not written yet (%s) is not put into it",
				       f->path, r->path);
		if (!*image->lost)
			*image->lost = -EIO;
		return show_log(r, f, err);
	}
	rc = apply(r, f, err);
	if (rc == -ESTALE)
		return rc;
	if (rc < 0)
		return td_fail(err, -rc,
			       "%s: what the last tapdisk knew of it and had not written yet "
			       "cannot be put into it: %s",
			       f->path, strerror(-rc));
	td_log(LOG_NOTICE, "%s: what the last tapdisk had not written yet is in it now", f->path);
	redo_empty(h, !h->now); /* as in td_redo_done() */
	redo_empty(h, h->now);
	return 0;
}

/* --- what it builds on --- */

bool td_redo_sum(const struct td_redo *r, uint64_t *sum)
{
	const uint8_t *data;
	struct redo_record rec;

	if (!r || !r->head || !r->head->summed)
		return false;
	*sum = r->head->sum;
	for (unsigned i = 0; i < 2; i++)
		for (uint32_t at = 0;
		     redo_next(r, i ? r->head->now : !r->head->now, &at, &rec, &data) > 0;)
			if (rec.wave == REDO_SUM)
				memcpy(sum, data, sizeof *sum);
	return true;
}

/* The part of a record that lies in the len bytes at off. */
static void overlay(uint8_t *buf, uint64_t off, uint32_t len, const struct redo_record *rec,
		    const uint8_t *data)
{
	uint64_t from = rec->off > off ? rec->off : off,
		 to = rec->off + rec->len < off + len ? rec->off + rec->len : off + len;

	if (from < to)
		memcpy(buf + (from - off), data + (from - rec->off), to - from);
}

int td_redo_read(const struct td_redo *r, struct td_file *f, void *buf, uint64_t off, uint32_t len)
{
	const uint8_t *data;
	struct redo_record rec;
	int rc = td_file_rw(f, TD_IO_READ, buf, off, len, TD_IO_EOF_ZERO);

	for (unsigned i = 0; !rc && r && r->head && i < 2; i++)
		for (uint32_t at = 0;
		     (rc = redo_next(r, i ? r->head->now : !r->head->now, &at, &rec, &data)) > 0;)
			if (rec.wave != REDO_SUM)
				overlay(buf, off, len, &rec, data);
	return rc;
}

int td_redo_stale(const struct td_redo *r, const struct td_file *f, struct td_err *err)
{
	return td_fail(err, ESTALE,
		       "%s is not as the last tapdisk left it: another program has written to it, "
		       "or it was replaced.  What that tapdisk had "
		       "answered and not written yet (%s) cannot be put into it any more; `tap-ctl "
		       "free -f' gives it up",
		       f->path, r->path);
}

struct look {
	struct td_redo *own;
	struct td_file *f;
	uint32_t mark;
	struct td_redo *found;
	int minor;
	char path[4096];
};

static bool reads_alone(const struct td_file *f)
{
	return f->flags & (TD_FILE_RDONLY | TD_FILE_PARENT);
}

static void identify_file(const struct td_file *f, struct redo_id *id)
{
	struct stat st;

	memset(id, 0, sizeof *id);
	if (!fstat(f->fd, &st))
		redo_identify(&st, id);
}

static long look_in_worker(void *arg)
{
	struct look *l = arg;
	struct redo_id id;
	int rc;

	identify_file(l->f, &id);
	if (l->own)
		l->own->id = id;
	l->minor = -ENOENT;
	if (!l->mark || td_redo_pending(l->own))
		return 0;
	l->minor = redo_find(l->mark, &id, l->f->path, reads_alone(l->f), l->path);
	if (l->minor < 0)
		return l->minor == -ENOENT ? 0 : l->minor;
	if (reads_alone(l->f))
		return 0;
	rc = redo_take(l->path, &l->found);
	if (!rc && syncmark_past(l->minor) < 0)
		td_redo_fail(l->found);
	return rc;
}

int td_redo_look(struct td_redo *own, struct td_file *f, uint32_t mark, struct td_redo **out,
		 struct td_err *err)
{
	struct look l = {.own = own, .f = f, .mark = mark};
	int rc;

	*out = NULL;
	if (!own && !mark)
		return 0;
	rc = (int)td_await_call(f->io, look_in_worker, &l);
	if (rc < 0)
		return redo_unread(f->path, l.path, rc, err);
	if (l.minor >= 0 && reads_alone(f))
		return td_fail(err, EBUSY,
			       "%s lacks what a dead tapdisk had not written to it yet: `tap-ctl "
			       "settle -m %d' writes it",
			       f->path, l.minor);
	if (td_redo_pending(own) &&
	    (own->head->mark != mark || !redo_same(own->head, &own->id, f->path)))
		return td_redo_stale(own, f, err);
	*out = td_redo_pending(own) ? own : l.found;
	return 0;
}

static long fail_of(void *arg)
{
	const struct td_file *f = arg;
	struct redo_id id;

	identify_file(f, &id);
	redo_fail_of(&id, f->path);
	return 0;
}

void td_redo_fail_of(const struct td_file *f)
{
	td_await_call(f->io, fail_of, (void *)f);
}

void td_redo_leave(struct td_redo *own, struct td_redo *out)
{
	if (out != own)
		td_redo_free(out);
}
