/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a connection leaves to the next (K5 to K7): counts in a page of a file that outlives the
 * process, or of our own memory. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/nbd/nbd.h"
#include "lib/keep.h"

#define MAGIC 0x6e626c31u

_Static_assert(sizeof(struct nbdc_left) <= 8192, "of the file");

/* One with the magic and the name is whole: the magic comes last. */
static struct nbdc_left *map_file(int fd)
{
	struct stat st;
	void *p;

	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (size_t)st.st_size != sizeof(struct nbdc_left))
		return NULL;
	p = mmap(NULL, sizeof(struct nbdc_left), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static struct nbdc_left *adopt(const char *path, const char *name)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct nbdc_left *l = fd < 0 ? NULL : map_file(fd);

	if (fd >= 0)
		close(fd);
	if (!l || (l->magic == MAGIC && !strncmp(l->name, name, sizeof l->name)))
		return l;
	munmap(l, sizeof *l);
	return NULL;
}

static int make_left(const char *path, const char *name, struct nbdc_left **out)
{
	struct nbdc_left *l = NULL;
	int fd = td_keep_new(path, sizeof *l);

	if (fd < 0)
		return fd;
	l = map_file(fd);
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

int nbdc_left_open(struct nbdc_client *n, const struct td_image *image, bool again,
		   struct nbdc_left *was, struct td_err *err)
{
	int rc;

	*was = (struct nbdc_left){0};
	n->left = &n->own;
	if (!image->left || (image->file_flags & (TD_FILE_RDONLY | TD_FILE_PARENT)))
		return 0;
	n->left = again ? adopt(image->left, image->path) : NULL;
	if (n->left) {
		*was = *n->left;
		return 0;
	}
	if (again && image->died) /* it should be there */
		was->sent = was->changed = 1;
	rc = make_left(image->left, image->path, &n->left);
	if (rc < 0) {
		n->left = &n->own;
		return td_fail(err, -rc,
			       "nbd:%s: cannot make %s: %s: it is what a successor of this tapdisk "
			       "would need",
			       image->path, image->left, strerror(-rc));
	}
	n->left->sent = was->sent; /* until the open has dealt with it */
	n->left->changed = was->changed;
	return 0;
}

void nbdc_left_close(struct nbdc_client *n)
{
	if (n->left && n->left != &n->own)
		munmap(n->left, sizeof *n->left);
	n->left = &n->own;
}

bool nbdc_left_doubt(const struct nbdc_left *was, bool blind, bool multi)
{
	return was->failed || (blind && was->sent != was->answered) ||
	       (!multi && was->changed != was->covered);
}

static void set_count(uint64_t *count, uint64_t to)
{
	__atomic_store_n(count, to, __ATOMIC_RELEASE);
}

void nbdc_left_settled(struct nbdc_client *n, bool durable)
{
	set_count(&n->left->answered, n->left->sent);
	n->left->failed = 0; /* whoever opened it has been told */
	if (durable)
		set_count(&n->left->covered, n->left->changed);
}

void nbdc_left_away(struct nbdc_client *n, bool away)
{
	if (away)
		__atomic_fetch_or(&n->left->failed, NBD_LEFT_AWAY, __ATOMIC_RELEASE);
	else
		__atomic_fetch_and(&n->left->failed, ~(uint32_t)NBD_LEFT_AWAY, __ATOMIC_RELEASE);
}

static bool changes(const struct nbdc_cmd *cmd)
{
	return cmd->type == NBD_CMD_WRITE || cmd->type == NBD_CMD_TRIM ||
	       cmd->type == NBD_CMD_WRITE_ZEROES;
}

void nbdc_left_sent(struct nbdc_client *n, struct nbdc_cmd *cmd)
{
	cmd->covers = n->left->changed;
	if (changes(cmd))
		set_count(&n->left->sent, n->left->sent + 1);
}

void nbdc_left_answered(struct nbdc_client *n, const struct nbdc_cmd *cmd, bool durable, int err)
{
	struct nbdc_left *l = n->left;

	if (err && err != -ENOSPC && err != -EOPNOTSUPP && (durable || cmd->type == NBD_CMD_FLUSH))
		/* before anybody hears of it: F2 in lib/syncmark.h */
		__atomic_fetch_or(&l->failed, NBD_LEFT_FLUSH, __ATOMIC_RELEASE);
	if (changes(cmd)) {
		if (!err && !durable)
			set_count(&l->changed, l->changed + 1); /* before it is no more in flight */
		set_count(&l->answered, l->answered + 1);
	} else if (cmd->type == NBD_CMD_FLUSH && !err && cmd->covers > l->covered) {
		set_count(&l->covered, cmd->covers);
	}
}
