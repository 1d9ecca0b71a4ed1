/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/redo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/file.h"

#define MAGIC  0x7264316fu
#define SECTOR 512u

struct head {
	uint32_t magic, half; /* bytes of one */
	uint32_t now;         /* which half is written to */
	struct {
		uint32_t from, used; /* bytes: those before `from' are in the file */
	} h[2];
	uint32_t held; /* only so many bytes, less one, of the half that is written to count (E4); 0: all */
};

struct record {
	uint64_t off;
	uint32_t len;
	uint32_t wave;
	uint8_t data[]; /* padded to 8 bytes */
};

struct td_redo {
	struct head *head;   /* NULL: it takes no record */
	bool missed;         /* a record, since the last freeze */
	bool missing;        /* one that the commit under way has taken in */
	bool frozen;         /* a commit is under way */
	uint32_t covered;    /* and it has taken in so much of the half that is written to, where it could not freeze */
};

static size_t whole(void)
{
	return 4096 + 2 * (size_t)TD_REDO_BYTES;
}

static uint8_t *half(const struct td_redo *r, unsigned i)
{
	return (uint8_t *)r->head + 4096 + (size_t)i * TD_REDO_BYTES;
}

static struct td_redo *map(int fd)
{
	struct td_redo *r = calloc(1, sizeof *r);
	void *p = r ? mmap(NULL, whole(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (p != MAP_FAILED)
		r->head = p;
	return r;
}

/* A half without records.  `used' goes first: what stands before `from' is in the file, with what came after it, and never counts again. */
static void empty(struct head *h, unsigned i)
{
	__atomic_store_n(&h->h[i].used, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&h->h[i].from, 0, __ATOMIC_RELEASE);
}

struct td_redo *td_redo_new(const char *path)
{
	struct td_redo *r = NULL;
	int fd, rc;

	unlink(path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	rc = fd < 0 ? -errno : -posix_fallocate(fd, 0, (off_t)whole()); /* a store to a page that there is no room for would be a SIGBUS */
	if (!rc)
		r = map(fd);
	if (fd >= 0)
		close(fd);
	if (r && r->head) {
		r->head->half = TD_REDO_BYTES;
		__atomic_store_n(&r->head->magic, MAGIC, __ATOMIC_RELEASE);
		return r;
	}
	unlink(path);
	td_log(LOG_WARNING, "cannot make %s: %s: writes that need new metadata are answered only when that is in the image, which takes longer", path,
	       strerror(rc ? -rc : ENOMEM));
	return r ? r : calloc(1, sizeof *r);
}

static bool sane(const struct td_redo *r)
{
	struct head *h = r->head;

	if (h->magic != MAGIC || h->half != TD_REDO_BYTES || h->now > 1)
		return false;
	for (unsigned i = 0; i < 2; i++) {
		if (!h->h[i].used)
			empty(h, i); /* the death came while it was being emptied */
		if (h->h[i].from > h->h[i].used || h->h[i].used > h->half)
			return false;
	}
	return h->held <= h->h[h->now].used + 1;
}

/* What does not count was never answered. */
static void drop_held(struct head *h)
{
	if (h->held)
		__atomic_store_n(&h->h[h->now].used, h->held - 1, __ATOMIC_RELEASE);
	__atomic_store_n(&h->held, 0, __ATOMIC_RELEASE);
}

struct td_redo *td_redo_adopt(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct td_redo *r = NULL;
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && (size_t)st.st_size == whole())
		r = map(fd);
	if (fd >= 0)
		close(fd);
	if (r && r->head && sane(r)) {
		drop_held(r->head);
		return r;
	}
	td_redo_free(r);
	return td_redo_new(path);
}

void td_redo_free(struct td_redo *r)
{
	if (r && r->head)
		munmap(r->head, whole());
	free(r);
}

/* --- while the image is open ---------------------------------------------------------------------------------------- */

bool td_redo_put(struct td_redo *r, enum td_redo_wave wave, uint64_t off, const void *data, uint32_t len)
{
	struct record rec = {off, len, wave};
	uint32_t need = (uint32_t)(sizeof rec + (len + 7) / 8 * 8), used, now;
	uint8_t *at;

	if (!r)
		return true;
	now = r->head ? r->head->now : 0;
	used = r->head ? r->head->h[now].used : 0;
	if (!r->head || r->missed || used + need > TD_REDO_BYTES) { /* E4: after one that is missed, none until a commit takes it in */
		r->missed = true;
		return false;
	}
	at = half(r, now) + used;
	memcpy(at, &rec, sizeof rec);
	memcpy(at + sizeof rec, data, len);
	__atomic_store_n(&r->head->h[now].used, used + need, __ATOMIC_RELEASE); /* E1 */
	return true;
}

bool td_redo_missed(const struct td_redo *r)
{
	return r && (r->missed || r->missing);
}

bool td_redo_crowded(const struct td_redo *r)
{
	return r && r->head && r->head->h[r->head->now].used > TD_REDO_BYTES / 2;
}

void td_redo_freeze(struct td_redo *r)
{
	unsigned other;

	if (!r)
		return;
	r->missing = r->missing || r->missed;
	r->missed = false;
	r->frozen = true;
	if (!r->head)
		return;
	other = !r->head->now;
	r->covered = 0;
	if (r->head->h[other].used) /* an earlier commit has failed */
		r->covered = r->head->h[r->head->now].used;
	else
		__atomic_store_n(&r->head->now, other, __ATOMIC_RELEASE);
	if (r->missing && !r->head->held)
		__atomic_store_n(&r->head->held, r->head->h[r->head->now].used + 1, __ATOMIC_RELEASE); /* E4 */
}

void td_redo_done(struct td_redo *r, int err)
{
	struct head *h = r ? r->head : NULL;

	if (!r || !r->frozen)
		return;
	r->frozen = false;
	if (err)
		return;
	r->missing = false;
	if (!h)
		return;
	empty(h, !h->now); /* the older first: alone it would bring back what the newer has changed since */
	if (r->covered)
		__atomic_store_n(&h->h[h->now].from, r->covered, __ATOMIC_RELEASE);
	__atomic_store_n(&h->held, 0, __ATOMIC_RELEASE); /* what was missed is in the file */
}

/* --- after a death -------------------------------------------------------------------------------------------------- */

/* A sector of the file as it is to be. */
struct sector {
	uint64_t off;
	struct sector *next;
	bool touched; /* in this wave */
	uint8_t data[SECTOR] __attribute__((aligned(8)));
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
	s->off = off;
	s->next = *b;
	*b = *out = s;
	return 0;
}

static int change(struct applied *a, uint64_t off, const uint8_t *data, uint32_t len)
{
	while (len) {
		uint32_t skip = (uint32_t)(off % SECTOR), n = len < SECTOR - skip ? len : SECTOR - skip;
		struct sector *s;
		int rc = sector_get(a, off - skip, &s);

		if (rc < 0)
			return rc;
		memcpy(s->data + skip, data, n);
		s->touched = true;
		off += n;
		data += n;
		len -= n;
	}
	return 0;
}

/* The records of one wave in one half. */
static int read_half(struct applied *a, const struct td_redo *r, unsigned i, uint32_t wave)
{
	uint32_t at = r->head->h[i].from, used = r->head->h[i].used;
	int rc = 0;

	while (!rc && at < used) {
		struct record rec;

		if (used - at < sizeof rec)
			return -EBADMSG;
		memcpy(&rec, half(r, i) + at, sizeof rec);
		if (rec.len > used - at - sizeof rec || rec.wave > TD_REDO_SECOND)
			return -EBADMSG;
		if (rec.wave == wave)
			rc = change(a, rec.off, half(r, i) + at + sizeof rec, rec.len);
		at += (uint32_t)(sizeof rec + (rec.len + 7) / 8 * 8);
	}
	return rc;
}

static int write_wave(struct applied *a, const struct td_redo *r, uint32_t wave)
{
	int rc = read_half(a, r, !r->head->now, wave); /* the older one (E3) */
	bool any = false;

	if (!rc)
		rc = read_half(a, r, r->head->now, wave);
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

static int apply(struct td_redo *r, struct td_file *f)
{
	struct applied *a = calloc(1, sizeof *a);
	int rc = a ? 0 : -ENOMEM;

	if (a)
		a->f = f;
	if (!rc)
		rc = td_file_rw(f, TD_IO_SYNC, NULL, 0, 0, 0); /* the data */
	for (uint32_t wave = TD_REDO_FIRST; !rc && wave <= TD_REDO_SECOND; wave++)
		rc = write_wave(a, r, wave);
	for (unsigned b = 0; a && b < BUCKETS; b++)
		for (struct sector *s = a->bucket[b], *next; s; s = next) {
			next = s->next;
			free(s);
		}
	free(a);
	return rc;
}

bool td_redo_pending(const struct td_redo *r)
{
	struct head *h = r ? r->head : NULL;

	return h && (h->h[0].from != h->h[0].used || h->h[1].from != h->h[1].used);
}

int td_redo_apply(struct td_redo *r, struct td_file *f, struct td_err *err)
{
	struct head *h = r ? r->head : NULL;
	int rc;

	if (!td_redo_pending(r))
		return 0;
	rc = apply(r, f);
	if (rc < 0)
		return td_fail(err, -rc, "%s: what the last tapdisk knew of it and had not written yet cannot be put into it: %s", f->path, strerror(-rc));
	td_log(LOG_NOTICE, "%s: what the last tapdisk had not written yet is in it now", f->path);
	empty(h, !h->now); /* as in td_redo_done() */
	empty(h, h->now);
	return 0;
}
