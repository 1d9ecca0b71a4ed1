/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Parents: by the rules of lib/io/reach.h, which the opener applies (OR2, OR6). */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "lib/conf.h"
#include "lib/io/reach.h"
#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-rights.h"

static bool is_at(int fd, off_t at, const unsigned char *uuid)
{
	enum { UUID = 68 }; /* in a VHD's footer */
	unsigned char b[512];

	return at >= 0 && pread(fd, b, sizeof b, at) == sizeof b && !memcmp(b, "conectix", 8) &&
	       !memcmp(b + UUID, uuid, 16);
}

/* Does the tapdisk tell the file's uuid, or guess it? */
static bool is_known(int found, const unsigned char *uuid)
{
	char path[64];
	off_t end;
	bool is;
	int fd;

	snprintf(path, sizeof path, "/proc/self/fd/%d", found);
	fd = uuid ? open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
	if (fd < 0)
		return false;
	/* what another host has written is not to be hidden by pages of ours */
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	end = lseek(fd, 0, SEEK_END);
	is = is_at(fd, 0, uuid) || is_at(fd, end - 512, uuid) || is_at(fd, end - 511, uuid);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	return is;
}

struct words {
	char dirs[1024], parents[1024];
};

static int set_word(const char *key, const char *value, void *arg, struct td_err *err)
{
	struct words *w = arg;

	if (!strcmp(key, "parent-dirs"))
		snprintf(w->dirs, sizeof w->dirs, "%s", value);
	if (!strcmp(key, "parents"))
		snprintf(w->parents, sizeof w->parents, "%s", value);
	return 0;
}

static int parent_of(const char *image, const struct words *w, const char *path,
		     const unsigned char *uuid, struct td_err *err)
{
	struct td_err why = {0};
	struct td_reach r;
	struct stat st;
	int fd, rc = td_reach_init(&r, image, w->dirs, w->parents);

	fd = rc < 0 ? rc : td_reach_open(&r, path, err);
	/* opening another kind of file may do something */
	if (fd >= 0 && (fstat(fd, &st) < 0 || !(S_ISREG(st.st_mode) || S_ISBLK(st.st_mode)))) {
		close(fd);
		fd = td_fail(err, EACCES, "%s is neither a file nor a block device", path);
	}
	if (fd >= 0) {
		r.known = seen_has(&st) || is_known(fd, uuid);
		rc = td_reach_may(&r, fd, path, &why);
		if (rc < 0 && uuid && !r.known)
			rc = td_fail(err, ESTALE,
				     "%s is not the parent of %s: its uuid is not the one that the "
				     "child remembers",
				     path, image);
		else if (rc < 0)
			td_fail(err, -rc, "%s", why.text);
		if (rc < 0) {
			close(fd);
			fd = rc;
		}
	}
	td_reach_fini(&r);
	return fd;
}

int rights_parent(const char *path, const unsigned char *uuid, bool write, struct td_err *err)
{
	struct words w = {"", ""};
	int fd = -EACCES, rc = td_conf_read(set_word, &w, err);

	if (rc < 0)
		return rc;
	if (write && !named_commits())
		return td_fail(err, EACCES, "%s is not written: no live commit was asked for",
			       path);
	for (const struct named *f = named_first(); f && fd < 0; f = f->next)
		if (f->image) {
			struct td_err why = {0};

			fd = parent_of(f->path, &w, path, uuid, &why);
			if (fd < 0)
				td_fail(err, why.code ? why.code : -fd, "%s", why.text);
		}
	if (fd >= 0)
		seen_add(fd, path);
	return fd >= 0 ? fd : td_fail(err, -fd, "cannot open %s: %s", path, strerror(-fd));
}

int rights_beneath(const char *driver, const char *child, const char *parent, struct td_err *err)
{
	const struct td_driver *d = td_driver_find(driver, err);

	if (!d || !d->beneath)
		return 0;
	if (!named_commits() || !(named_has(child) || seen_is_path(child)) ||
	    !(named_has(parent) || seen_is_path(parent)))
		return td_fail(err, EACCES, "%s: no live commit was asked for", child);
	return d->beneath(child, parent, err);
}
