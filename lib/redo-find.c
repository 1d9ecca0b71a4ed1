/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The logs of this host: is there one of an image that somebody wants to open? */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/ctl-dir.h"
#include "lib/redo-inside.h"

/* One in the directory; fn ends the walk with anything but 0. */
struct seen {
	const char *path;
	int minor;
	bool aside;              /* moved aside: no disk has it any more */
	const struct td_redo *r; /* NULL: it cannot be read, and rc says why */
	int rc;
};

static bool is_log(const char *name, struct seen *s)
{
	const char *dot = strchr(name, '.');

	if (sscanf(name, "redo%d", &s->minor) != 1 || s->minor < 0)
		return false;
	s->aside = dot;
	return !dot || strcmp(dot, ".new"); /* one that is being made holds nothing */
}

static int see(struct seen *s, int (*fn)(const struct seen *s, void *arg), void *arg)
{
	struct td_redo *r = NULL;
	int rc;

	s->rc = redo_map(s->path, &r);
	if (s->rc == -ENOENT || s->rc == -ENODATA)
		return 0;
	s->r = r;
	rc = !r || td_redo_pending(r) ? fn(s, arg) : 0;
	td_redo_free(r);
	return rc;
}

static int each(int (*fn)(const struct seen *s, void *arg), void *arg)
{
	DIR *dir = opendir(td_ctl_dir());
	struct dirent *e;
	char path[PATH_MAX];
	int rc = 0;

	while (dir && !rc && (e = readdir(dir))) {
		struct seen s = {.path = path};

		if (is_log(e->d_name, &s) && snprintf(path, sizeof path, "%s/%s", td_ctl_dir(),
						      e->d_name) < (int)sizeof path)
			rc = see(&s, fn, arg);
	}
	if (dir)
		closedir(dir);
	return rc;
}

static bool lives(const struct seen *s)
{
	return !s->aside && td_ctl_marker(s->minor, NULL) == TD_MARKER_HELD;
}

struct find {
	uint32_t mark;
	const struct redo_id *id;
	const char *image;
	bool dead;
	char *path;
	int found; /* as redo_find() gives it */
};

/* One that cannot be read may be of this image.  A living tapdisk's is not: whoever asks has the
 * image's lock, or may look at it. */
static int find_one(const struct seen *s, void *arg)
{
	struct find *f = arg;

	if (s->r ? s->r->head->mark != f->mark || !redo_same(s->r->head, f->id, f->image)
		 : f->found != -ENOENT)
		return 0;
	if ((f->dead || !s->r) && lives(s))
		return 0;
	strcpy(f->path, s->path);
	f->found = s->r ? s->minor : s->rc;
	return s->r != NULL;
}

int redo_find(uint32_t mark, const struct redo_id *id, const char *image, bool dead, char *path)
{
	struct find f = {mark, id, image, dead, path, -ENOENT};

	each(find_one, &f);
	return f.found;
}

int redo_unread(const char *image, const char *log, int rc, struct td_err *err)
{
	return td_fail(err, -rc,
		       "%s was not closed by its last tapdisk: what that had answered and not "
		       "written to it yet may be in %s, which "
		       "cannot be read (%s). The version that wrote it may be able to; if it is "
		       "given up, remove that file",
		       image, log,
		       rc == -EPROTO ? "it is of another version, or was cut off" : strerror(-rc));
}

void redo_identify(const struct stat *st, struct redo_id *id)
{
	memset(id, 0, sizeof *id);
	id->dev = st->st_dev;
	id->ino = st->st_ino;
	if (S_ISBLK(st->st_mode))
		id->rdev = st->st_rdev;
}

struct fail {
	const struct redo_id *id;
	const char *image;
};

static int fail_one(const struct seen *s, void *arg)
{
	const struct fail *f = arg;

	if (s->r && redo_same(s->r->head, f->id, f->image))
		__atomic_store_n(&s->r->head->failed, 1, __ATOMIC_RELEASE);
	return 0;
}

void redo_fail_of(const struct redo_id *id, const char *image)
{
	struct fail f = {id, image};

	each(fail_one, &f);
}

/* --- whoever does not know its format --- */

struct mind {
	const char *image;
	struct redo_id id;
	int fd;
	bool dead;
	struct td_err *err;
};

/* Another file may have got the inode's number since: it has the log's mark in its place, or the
 * log is not of it. */
static bool bears_mark(int fd, const struct redo_head *h)
{
	uint8_t b[4];

	return !h->mark_at ||
	       (pread(fd, b, sizeof b, (off_t)h->mark_at) == sizeof b && td_get_be32(b) == h->mark);
}

static int mind_one(const struct seen *s, void *arg)
{
	struct mind *m = arg;

	if (!s->r || !redo_same(s->r->head, &m->id, m->image) || !bears_mark(m->fd, s->r->head) ||
	    (m->dead && lives(s)))
		return 0;
	if (s->aside)
		return td_fail(m->err, EBUSY,
			       "%s lacks what a tapdisk that died had answered and not written to "
			       "it yet, which waits in %s: "
			       "opening it in its own format puts it there; if it is given up, "
			       "remove that file",
			       m->image, s->path);
	return td_fail(m->err, EBUSY,
		       "%s lacks what a tapdisk that died had answered and not written to it yet: "
		       "`tap-ctl settle -m %d' puts "
		       "it there, and `tap-ctl free -f -m %d' gives it up",
		       m->image, s->minor, s->minor);
}

int td_redo_mind(const char *path, bool dead, struct td_err *err)
{
	struct mind m = {.image = path, .dead = dead, .err = err};
	struct stat st;
	int rc;

	if (stat(path, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))
		return 0;
	m.fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (m.fd < 0)
		return 0; /* an open for writing says why */
	redo_identify(&st, &m.id);
	rc = each(mind_one, &m);
	close(m.fd);
	return rc;
}
