/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a process leaves to its successor (RB6, RB7): a page of a file that outlives the process, or
 * of our own memory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/rbd/rbd.h"
#include "lib/keep.h"

#define MAGIC 0x72626431u

_Static_assert(sizeof(struct rbdc_left) <= 8192, "of the file");

/* One with the magic and the name is whole: the magic comes last. */
static struct rbdc_left *map_left(int fd)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (size_t)st.st_size != sizeof(struct rbdc_left))
		return NULL;
	p = mmap(NULL, sizeof(struct rbdc_left), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static struct rbdc_left *adopt_left(const char *path, const char *name)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct rbdc_left *l = fd < 0 ? NULL : map_left(fd);

	if (fd >= 0)
		close(fd);
	if (!l || (l->magic == MAGIC && !strncmp(l->name, name, sizeof l->name)))
		return l;
	munmap(l, sizeof *l);
	return NULL;
}

static int make_left(const char *path, const char *name, struct rbdc_left **out)
{
	struct rbdc_left *l = NULL;
	int fd = td_keep_new(path, sizeof *l);

	if (fd < 0)
		return fd;
	l = map_left(fd);
	close(fd);
	if (!l) {
		unlink(path);
		return -ENOMEM;
	}
	strncpy(l->name, name, sizeof l->name - 1);
	__atomic_store_n(&l->magic, MAGIC, __ATOMIC_RELEASE);
	*out = l;
	return 0;
}

int rbdc_left_open(struct rbdc_left **left, struct rbdc_left *own, const struct td_image *image,
		   bool again, struct rbdc_left *was, struct td_err *err)
{
	int rc;

	*was = (struct rbdc_left){0};
	*left = own;
	if (!image->left || (image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT)))
		return 0;
	*left = again ? adopt_left(image->left, image->path) : NULL;
	if (*left) {
		*was = **left;
		for (int i = 0; i < RBDC_DEAD; i++)
			was->clients[i][RBDC_ADDR - 1] = 0;
		return 0;
	}
	if (again && image->died) /* it should be there */
		was->changed = 1;
	rc = make_left(image->left, image->path, left);
	if (rc < 0) {
		*left = own;
		return td_fail(err, -rc,
			       "rbd:%s: cannot make %s: %s: it is what a successor of this tapdisk "
			       "would need",
			       image->path, image->left, strerror(-rc));
	}
	(*left)->changed = was->changed; /* until the open has dealt with it */
	return 0;
}

void rbdc_left_close(struct rbdc_left **left, struct rbdc_left *own)
{
	if (*left && *left != own)
		munmap(*left, sizeof **left);
	*left = own;
}

int rbdc_left_client(struct rbdc_left *l, const char *addr)
{
	for (int i = 0; i < RBDC_DEAD; i++)
		if (!l->clients[i][0] || !strcmp(l->clients[i], addr)) {
			strcpy(l->clients[i], addr);
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
			return 0;
		}
	return -EMFILE;
}

void rbdc_left_fenced(struct rbdc_left *l, const char *addr)
{
	for (int i = 0; i < RBDC_DEAD; i++)
		if (!addr || strcmp(l->clients[i], addr))
			memset(l->clients[i], 0, sizeof l->clients[i]);
}

bool rbdc_left_doubt(const struct rbdc_left *was)
{
	return was->failed || was->changed != was->covered;
}

static void set_count(uint64_t *count, uint64_t to)
{
	__atomic_store_n(count, to, __ATOMIC_RELEASE);
}

void rbdc_left_settled(struct rbdc_left *l)
{
	l->failed = 0;
	set_count(&l->covered, l->changed);
}

void rbdc_left_changed(struct rbdc_left *l)
{
	set_count(&l->changed, l->changed + 1);
}

void rbdc_left_covered(struct rbdc_left *l, uint64_t changed)
{
	if (changed > l->covered)
		set_count(&l->covered, changed);
}

void rbdc_left_failed(struct rbdc_left *l)
{
	__atomic_store_n(&l->failed, 1, __ATOMIC_RELEASE);
}
