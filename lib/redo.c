/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/redo.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "lib/io/file.h"
#include "lib/keep.h"
#include "lib/redo-inside.h"

/* Once that could be read, it stays so. */
void td_redo_boot(char boot[40])
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char known[40];
	ssize_t n;
	int fd;

	pthread_mutex_lock(&lock);
	memcpy(boot, known, 40);
	pthread_mutex_unlock(&lock);
	if (*boot)
		return;
	fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	n = read(fd, boot, 36);
	close(fd);
	if (n < 36) {
		memset(boot, 0, 40);
		return;
	}
	pthread_mutex_lock(&lock);
	memcpy(known, boot, 40);
	pthread_mutex_unlock(&lock);
}

void redo_empty(struct redo_head *h, unsigned i)
{
	__atomic_store_n(&h->h[i].used, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&h->h[i].from, 0, __ATOMIC_RELEASE);
}

int redo_next(const struct td_redo *r, unsigned i, uint32_t *at, struct redo_record *rec,
	      const uint8_t **data)
{
	uint32_t used = r->head->h[i].used;

	if (*at < r->head->h[i].from)
		*at = r->head->h[i].from;
	if (*at >= used)
		return 0;
	if (used - *at < sizeof *rec)
		return -EBADMSG;
	memcpy(rec, redo_half(r, i) + *at, sizeof *rec);
	if (rec->len > used - *at - sizeof *rec)
		return -EBADMSG;
	if (rec->wave == REDO_SUM ? rec->len != sizeof(uint64_t)
				  : (rec->wave & ~(unsigned)TD_REDO_BITS) > TD_REDO_SECOND)
		return -EBADMSG;
	*data = redo_half(r, i) + *at + sizeof *rec;
	*at += redo_size(rec->len);
	return 1;
}

/* --- made, and found --- */

static int map_fd(int fd, const char *path, struct td_redo **out)
{
	struct td_redo *r = calloc(1, sizeof *r);
	void *p =
		r ? mmap(NULL, REDO_WHOLE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;

	if (p == MAP_FAILED || !(r->path = strdup(path))) {
		if (p != MAP_FAILED)
			munmap(p, REDO_WHOLE);
		free(r);
		return -ENOMEM;
	}
	r->head = p;
	*out = r;
	return 0;
}

/* A half whose `used' is 0 is empty, whatever `from' is: a death may have come while it was being
 * emptied. */
static bool half_sane(const struct redo_head *h, unsigned i)
{
	return !h->h[i].used || (h->h[i].from <= h->h[i].used && h->h[i].used <= h->half);
}

static bool sane(const struct redo_head *h)
{
	return h->half == TD_REDO_BYTES && h->now <= 1 && half_sane(h, 0) && half_sane(h, 1) &&
	       h->held <= h->h[h->now].used + 1;
}

static bool holds(const struct redo_head *h)
{
	return (h->h[0].used && h->h[0].from != h->h[0].used) ||
	       (h->h[1].used && h->h[1].from != h->h[1].used);
}

int redo_map(const char *path, struct td_redo **out)
{
	int rc, fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	char boot[40];
	struct stat st;

	if (fd < 0)
		return -errno;
	rc = fstat(fd, &st) < 0                                         ? -errno
	     : !S_ISREG(st.st_mode) || (size_t)st.st_size != REDO_WHOLE ? -EPROTO
									: 0;
	if (!rc)
		rc = map_fd(fd, path, out);
	close(fd);
	if (rc < 0)
		return rc;
	td_redo_boot(boot);
	if ((*out)->head->magic == REDO_MAGIC_1)
		rc = sane((*out)->head) && !holds((*out)->head) ? -ENODATA : -EPROTO;
	else if ((*out)->head->magic != REDO_MAGIC)
		rc = -EPROTO;
	else if (memcmp((*out)->head->boot, boot, sizeof boot))
		rc = -ENODATA; /* G7 */
	else
		rc = sane((*out)->head) ? 0 : -EBADMSG;
	if (rc < 0) {
		td_redo_free(*out);
		*out = NULL;
	}
	return rc;
}

static int records(const struct td_redo *r)
{
	const uint8_t *data;
	struct redo_record rec;
	int n = 0, rc = 0;

	for (unsigned i = 0; i < 2; i++)
		for (uint32_t at = 0; (rc = redo_next(r, i, &at, &rec, &data)) > 0;)
			n += rec.wave != REDO_SUM;
	return rc < 0 ? rc : n;
}

int td_redo_waits(const char *path)
{
	struct td_redo *r = NULL;
	int rc = redo_map(path, &r);

	if (!rc && td_redo_pending(r))
		rc = records(r);
	td_redo_free(r);
	return rc == -ENOENT || rc == -ENODATA ? 0 : rc;
}

/* Nobody knows whether it is of any worth: it gets a second name, under which it is found when
 * another takes its place (G5, G6). */
static bool name_aside(const char *path)
{
	char aside[PATH_MAX];

	if (!td_redo_waits(path) ||
	    snprintf(aside, sizeof aside, "%s.%08x", path, td_redo_mark()) >= (int)sizeof aside)
		return false;
	if (link(path, aside) < 0 && rename(path, aside) < 0)
		return false;
	td_log(LOG_WARNING, "%s holds changes of another image, and is %s now", path, aside);
	return true;
}

static struct td_redo *new_log(const char *path)
{
	struct td_redo *r = NULL;
	char making[PATH_MAX];
	int fd, rc;

	/* It gets its name when it is whole: a death on the way leaves what was there (G6). */
	if (snprintf(making, sizeof making, "%s.new", path) >= (int)sizeof making)
		return calloc(1, sizeof *r);
	fd = td_keep_new(making, REDO_WHOLE);
	rc = fd < 0 ? fd : map_fd(fd, path, &r);
	if (fd >= 0)
		close(fd);
	if (!rc) {
		r->head->half = TD_REDO_BYTES;
		td_redo_boot(r->head->boot);
		__atomic_store_n(&r->head->magic, REDO_MAGIC, __ATOMIC_RELEASE);
		name_aside(path);
		if (!rename(making, path))
			return r;
		rc = -errno;
		td_redo_free(r);
	}
	unlink(making);
	if (name_aside(path)) /* or this disk's successor would take it for its own */
		unlink(path);
	td_log(LOG_WARNING,
	       "cannot make %s: %s: writes that need new metadata are answered only when that is "
	       "in the image, which takes longer",
	       path, strerror(-rc));
	return calloc(1, sizeof *r);
}

/* What does not count was never answered, or is in the file: a death may have come between the last
 * stores of td_redo_done(). */
void redo_drop_held(struct redo_head *h)
{
	uint32_t from = h->h[h->now].from, counts = h->held ? h->held - 1 : 0;

	if (h->held)
		__atomic_store_n(&h->h[h->now].used, counts < from ? from : counts,
				 __ATOMIC_RELEASE);
	__atomic_store_n(&h->held, 0, __ATOMIC_RELEASE);
}

int redo_take(const char *path, struct td_redo **out)
{
	int rc = redo_map(path, out);

	if (rc < 0)
		return rc;
	redo_drop_held((*out)->head);
	for (unsigned i = 0; i < 2; i++)
		if (!(*out)->head->h[i].used)
			redo_empty((*out)->head, i);
	return 0;
}

static int adopt_log(const char *path, bool must, struct td_redo **out, struct td_err *err)
{
	int rc = redo_take(path, out);

	if (!rc)
		return 0;
	if (rc != -ENOENT && rc != -ENODATA)
		return td_fail(err, -rc,
			       "%s, where the last tapdisk kept changes of the image that were not "
			       "in it yet, cannot be read (%s): another version "
			       "may be able to, or `tap-ctl free -f' discards them",
			       path, rc == -EPROTO ? "it is of another version" : strerror(-rc));
	if (must)
		return td_fail(err, ENODATA,
			       "%s is missing, where the last tapdisk kept changes of the image "
			       "that were not in it yet: what guests had "
			       "written may be lost; `tap-ctl free -f' gives it up",
			       path);
	*out = new_log(path);
	return *out ? 0 : td_fail(err, ENOMEM, "out of memory for %s", path);
}

struct wanted {
	const char *path;
	bool must;
	struct td_redo *log;
	struct td_err *err;
};

static long new_run(void *arg)
{
	struct wanted *w = arg;

	w->log = new_log(w->path);
	return 0;
}

static long adopt_run(void *arg)
{
	struct wanted *w = arg;

	return adopt_log(w->path, w->must, &w->log, w->err);
}

struct td_redo *td_redo_new(const char *path)
{
	struct wanted w = {.path = path};

	td_call(new_run, &w);
	return w.log;
}

int td_redo_adopt(const char *path, bool must, struct td_redo **out, struct td_err *err)
{
	struct wanted w = {path, must, *out, err};
	int rc = (int)td_call(adopt_run, &w);

	*out = w.log;
	return rc;
}

void td_redo_free(struct td_redo *r)
{
	if (!r)
		return;
	if (r->head)
		munmap(r->head, REDO_WHOLE);
	free(r->path);
	free(r);
}

bool td_redo_pending(const struct td_redo *r)
{
	return r && r->head && holds(r->head);
}

bool td_redo_takes(const struct td_redo *r)
{
	return r && r->head;
}

void td_redo_fail(struct td_redo *r)
{
	if (r && r->head)
		__atomic_store_n(&r->head->failed, 1, __ATOMIC_RELEASE);
}

/* --- whose it is --- */

uint32_t td_redo_mark(void)
{
	uint32_t mark = 0;

	while (!mark && getrandom(&mark, sizeof mark, 0) < 0 && errno == EINTR)
		;
	return mark ? mark : 1;
}

bool redo_same(const struct redo_head *h, const struct redo_id *id, const char *path)
{
	if (h->id.rdev || id->rdev)
		return h->id.rdev && id->rdev &&
		       (h->id.rdev == id->rdev || !strncmp(h->path, path, sizeof h->path));
	return h->id.dev == id->dev && h->id.ino == id->ino;
}

void td_redo_begin(struct td_redo *r, const struct td_file *f, uint32_t mark, uint64_t mark_at,
		   uint64_t sum)
{
	struct redo_head *h = r ? r->head : NULL;

	if (!h || td_redo_pending(r))
		return;
	h->summed = h->sum = 0;
	h->id = r->id;
	memset(h->path, 0, sizeof h->path);
	if (strlen(f->path) < sizeof h->path)
		strcpy(h->path, f->path);
	h->mark = mark;
	h->mark_at = mark_at;
	r->sum = h->sum = sum;
	r->summed = true;
	__atomic_store_n(&h->summed, 1, __ATOMIC_RELEASE);
}

void td_redo_decline(struct td_redo *r)
{
	if (!r || !r->head || td_redo_pending(r))
		return;
	munmap(r->head, REDO_WHOLE); /* its file stays, empty: the last disk's record may still say
					that there is one (G6) */
	r->head = NULL;
}

/* --- while the image is open --- */

static void write_record(uint8_t *at, unsigned wave, uint64_t off, const void *data, uint32_t len)
{
	struct redo_record rec = {off, len, wave};

	memcpy(at, &rec, sizeof rec);
	memcpy(at + sizeof rec, data, len);
}

static bool record(struct td_redo *r, unsigned wave, uint64_t off, const void *data, uint32_t len,
		   const uint64_t *sum)
{
	uint32_t need = redo_size(len), more = sum ? redo_size(sizeof *sum) : 0, used, now;

	if (!r)
		return true;
	now = r->head ? r->head->now : 0;
	used = r->head ? r->head->h[now].used : 0;
	/* E4: after one that is missed, none until a commit takes it in */
	if (!r->head || r->missed || used + need + more > TD_REDO_BYTES) {
		r->missed = true;
		return false;
	}
	write_record(redo_half(r, now) + used, wave, off, data, len);
	if (sum)
		write_record(redo_half(r, now) + used + need, REDO_SUM, 0, sum, sizeof *sum);
	__atomic_store_n(&r->head->h[now].used, used + need + more, __ATOMIC_RELEASE); /* E1, G3 */
	return true;
}

bool td_redo_put(struct td_redo *r, unsigned wave, uint64_t off, const void *data, uint32_t len)
{
	return record(r, wave, off, data, len, NULL);
}

bool td_redo_put_sum(struct td_redo *r, unsigned wave, uint64_t off, const void *data, uint32_t len,
		     uint64_t sum)
{
	if (r)
		r->sum = sum;
	return record(r, wave, off, data, len, &sum);
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
	r->sum_frozen = r->sum;
	if (!r->head)
		return;
	other = !r->head->now;
	r->covered = 0;
	if (r->missing) /* what the file gets now is in no record */
		__atomic_store_n(&r->head->summed, 0, __ATOMIC_RELEASE);
	if (r->head->h[other].used) /* an earlier commit has failed */
		r->covered = r->head->h[r->head->now].used;
	else
		__atomic_store_n(&r->head->now, other, __ATOMIC_RELEASE);
	if (r->missing && !r->head->held)
		__atomic_store_n(&r->head->held, r->head->h[r->head->now].used + 1,
				 __ATOMIC_RELEASE); /* E4 */
}

void td_redo_done(struct td_redo *r, int err)
{
	struct redo_head *h = r ? r->head : NULL;

	if (!r || !r->frozen)
		return;
	r->frozen = false;
	if (err)
		return;
	r->missing = false;
	if (!h)
		return;
	h->sum = r->sum_frozen; /* the same as that of the last record that goes now, if it has one
				 */
	redo_empty(h, !h->now); /* the older first: alone it would bring back what the newer has
				   changed since */
	if (r->covered)
		__atomic_store_n(&h->h[h->now].from, r->covered, __ATOMIC_RELEASE);
	__atomic_store_n(&h->held, 0, __ATOMIC_RELEASE); /* what was missed is in the file */
	if (r->summed)
		__atomic_store_n(&h->summed, 1, __ATOMIC_RELEASE);
}
