/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/keep.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/fiber/call.h"
#include "td/block.h"

struct new_file {
	const char *path;
	size_t bytes;
};

static long make_new(void *arg)
{
	const struct new_file *f = arg;
	int fd, rc;

	unlink(f->path);
	fd = open(f->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	rc = -posix_fallocate(fd, 0, (off_t)f->bytes);
	if (!rc)
		return fd;
	unlink(f->path);
	close(fd);
	return rc;
}

int td_keep_new(const char *path, size_t bytes)
{
	return (int)td_call(make_new, &(struct new_file){path, bytes});
}

/* --- what is left to the next open --- */

static void *map_left(int fd, const struct td_keep_kind *k)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (size_t)st.st_size != k->bytes)
		return NULL;
	p = mmap(NULL, k->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void *adopt(const char *path, const struct td_keep_kind *k, const char *name)
{
	int fd = td_call_open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0);
	char *p = fd < 0 ? NULL : map_left(fd, k);

	if (fd >= 0)
		close(fd);
	if (!p || (*(uint32_t *)p == k->magic && !strncmp(p + k->name_at, name, k->name_len)))
		return p;
	munmap(p, k->bytes);
	return NULL;
}

static int make(const char *path, const struct td_keep_kind *k, const char *name, void **out)
{
	int fd = td_keep_new(path, k->bytes);
	char *p;

	if (fd < 0)
		return fd;
	p = map_left(fd, k);
	close(fd);
	if (!p) {
		td_call_unlink(path);
		return -ENOMEM;
	}
	strncpy(p + k->name_at, name, k->name_len - 1);
	__atomic_store_n((uint32_t *)p, k->magic, __ATOMIC_RELEASE);
	*out = p;
	return 0;
}

int td_keep_left(const struct td_image *image, const struct td_keep_kind *k, bool again, void *own,
		 void **out, struct td_err *err)
{
	void *found;
	int rc;

	*out = own;
	if (!image->left || (image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT)))
		return TD_KEEP_OWN;
	found = again ? adopt(image->left, k, image->path) : NULL;
	if (found) {
		*out = found;
		return TD_KEEP_FOUND;
	}
	rc = make(image->left, k, image->path, out);
	return rc < 0 ? td_fail(err, -rc,
				"%s: cannot make %s: %s: it is what a successor of this tapdisk "
				"would need",
				image->path, image->left, strerror(-rc))
		      : TD_KEEP_NEW;
}
