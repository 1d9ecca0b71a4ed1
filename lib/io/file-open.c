/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The blocking half of the engines' table on real files: open with its refusals and limits; close;
 * size; truncate. Runs in a worker thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "lib/io/reach.h"

#define DRBD_MAJOR 147 /* Documentation/admin-guide/devices.txt of Linux */

/*
 * A Secondary's device refuses writers with EROFS and readers with EMEDIUMTYPE, neither of which
 * says why.  The device numbers are DRBD's own (its major is assigned), so that this needs neither
 * its tools nor its module.
 */
static int drbd_is_secondary(int e, const char *path, unsigned device, bool reads,
			     struct td_err *err)
{
	return td_fail(err, e,
		       "cannot open %s for %s (%s): it is DRBD's device %u, which is Secondary on "
		       "this host, and only a Primary can be "
		       "used: `drbdadm status', or /proc/drbd, shows who is; `drbdadm primary "
		       "RESOURCE' makes it Primary here, once it is "
		       "Secondary on the other host",
		       path, reads ? "reading" : "writing", strerror(e), device);
}

static int read_only(const char *path, const struct stat *s, struct td_err *err)
{
	if (S_ISBLK(s->st_mode))
		return td_fail(err, EROFS,
			       "cannot open %s for writing: the device is read-only on this host "
			       "(`blockdev --getro %s'): make it "
			       "writable where it comes from, or open it read-only",
			       path, path);
	return td_fail(err, EROFS,
		       "cannot open %s for writing: its file system is mounted read-only: open it "
		       "read-only, or remount it",
		       path);
}

static int open_failed(int e, const char *path, unsigned flags, struct td_err *err)
{
	bool reads = flags & (TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_LOOK);
	struct stat s = {0};

	if ((e == EROFS || e == EMEDIUMTYPE) && !stat(path, &s) && S_ISBLK(s.st_mode) &&
	    major(s.st_rdev) == DRBD_MAJOR)
		return drbd_is_secondary(e, path, minor(s.st_rdev), reads, err);
	if (e == EINVAL && (flags & TD_FILE_DIRECT))
		return td_fail(err, EINVAL,
			       "%s: its file system does not support O_DIRECT, which cache=none "
			       "and cache=directsync need: "
			       "ask for cache=writethrough (safe) or cache=writeback instead",
			       path);
	if (e == ENOMEDIUM)
		return td_fail(err, e, "%s: there is no medium in the drive", path);
	if (e == EISDIR)
		return td_fail(err, EISDIR,
			       "%s is a directory: name an image file or a block device", path);
	if (e == EROFS && !reads)
		return read_only(path, &s, err);
	if (e == EACCES || e == EPERM)
		return td_fail(err, e, "cannot open %s for %s: %s; check its owner and mode%s",
			       path, reads ? "reading" : "writing", strerror(e),
			       reads ? "" : ", or open it read-only");
	return td_fail(err, e, "cannot open %s: %s", path, strerror(e));
}

static unsigned sysfs_number(dev_t dev, const char *what)
{
	char path[128];
	unsigned v = 0;
	FILE *f;

	/* a partition has no queue of its own: its disk's stands one level up */
	for (int up = 0; up < 2; up++) {
		snprintf(path, sizeof path, "/sys/dev/block/%u:%u/%squeue/%s", major(dev),
			 minor(dev), up ? "../" : "", what);
		f = fopen(path, "re");
		if (!f)
			continue;
		if (fscanf(f, "%u", &v) != 1)
			v = 0;
		fclose(f);
		break;
	}
	return v;
}

/* The smallest transfer that direct I/O takes, by trying; for kernels and file systems whose statx
 * does not say. */
static int try_alignment(int fd, struct td_stat *st)
{
	void *buf;
	ssize_t n = -1;

	if (posix_memalign(&buf, 4096, 4096))
		return -ENOMEM;
	for (uint32_t a = 512; a <= 4096; a *= 2) {
		n = pread(fd, buf, a, st->size >= 2 * a ? a : 0);
		if (n >= 0) {
			st->off_align = a;
			st->mem_align = a;
			break;
		}
	}
	free(buf);
	return n < 0 ? -errno : 0;
}

static int probe_direct(int fd, struct td_stat *st)
{
	struct statx x;

	memset(&x, 0, sizeof x);
	if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &x) == 0 &&
	    (x.stx_mask & STATX_DIOALIGN)) {
		if (!x.stx_dio_mem_align || !x.stx_dio_offset_align)
			return -EINVAL; /* open took O_DIRECT, but the file cannot do it */
		st->mem_align = x.stx_dio_mem_align < 512 ? 512 : x.stx_dio_mem_align;
		st->off_align = x.stx_dio_offset_align < 512 ? 512 : x.stx_dio_offset_align;
		return 0;
	}
	if (st->blockdev) {
		st->mem_align = st->off_align = st->logical;
		return 0;
	}
	return try_alignment(fd, st);
}

static int check_kind(const struct stat *s, const char *path, unsigned flags, struct td_err *err)
{
	if (S_ISDIR(s->st_mode))
		return open_failed(EISDIR, path, flags, err);
	if (!S_ISREG(s->st_mode) && !S_ISBLK(s->st_mode))
		return td_fail(err, EINVAL, "%s is neither a file nor a block device", path);
	return 0;
}

static int probe(int fd, const char *path, unsigned flags, struct td_stat *st, struct td_err *err)
{
	struct stat s;
	unsigned pbs = 0;
	int rc, bs = 0;

	memset(st, 0, sizeof *st);
	if (fstat(fd, &s) < 0)
		return td_fail(err, errno, "cannot stat %s: %s", path, strerror(errno));
	rc = check_kind(&s, path, flags, err);
	if (rc < 0)
		return rc;
	st->blockdev = S_ISBLK(s.st_mode);
	st->mem_align = st->off_align = st->logical = 1;
	if (st->blockdev) {
		if (ioctl(fd, BLKGETSIZE64, &st->size) < 0)
			return td_fail(err, errno, "cannot read the size of %s: %s", path,
				       strerror(errno));
		st->logical = ioctl(fd, BLKSSZGET, &bs) == 0 && bs >= 512 ? (uint32_t)bs : 512;
		st->physical = ioctl(fd, BLKPBSZGET, &pbs) == 0 && pbs ? pbs : 512;
		st->discard_gran = sysfs_number(s.st_rdev, "discard_granularity");
	} else {
		st->size = (uint64_t)s.st_size;
		st->physical = st->discard_gran = s.st_blksize >= 512 && s.st_blksize <= 65536
							  ? (uint32_t)s.st_blksize
							  : 4096;
	}
	if (flags & TD_FILE_DIRECT) {
		rc = probe_direct(fd, st);
		if (rc < 0)
			return open_failed(-rc, path, flags, err);
		if (st->physical < st->off_align)
			st->physical = st->off_align;
	}
	return 0;
}

/* via: the name by which it is opened, while path is how the host knows it. */
static int open_via(const char *via, const char *path, unsigned flags, int *out, struct td_stat *st,
		    struct td_err *err)
{
	/* O_NONBLOCK: a FIFO must not hold us up; files and devices do not mind */
	int how = O_CLOEXEC | O_NOCTTY | O_NONBLOCK |
		  (flags & (TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_LOOK) ? O_RDONLY : O_RDWR);
	char who[128] = "";
	struct timespec start;
	struct stat s;
	int fd, rc;

	if (flags & TD_FILE_DIRECT)
		how |= O_DIRECT;
	/* looked at before the open too: that of a directory or a FIFO with O_DIRECT fails as if
	 * the file system could not do it */
	if (stat(via, &s) == 0) {
		rc = check_kind(&s, path, flags, err);
		if (rc < 0)
			return rc;
		/* an exclusive open of a device also keeps off what the kernel itself uses: mounts,
		 * device mapper, md */
		if (!(flags & (TD_FILE_RDONLY | TD_FILE_PARENT | TD_FILE_SHARED | TD_FILE_BENEATH |
			       TD_FILE_LOOK)) &&
		    S_ISBLK(s.st_mode))
			how |= O_EXCL;
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	fd = td_file_open_wait(via, how, &start);
	if (fd < 0 && errno == EBUSY)
		return td_fail(err, EBUSY,
			       "%s is in use: mounted, or claimed by another user of the device",
			       path);
	if (fd < 0)
		return open_failed(errno, path, flags, err);
	rc = td_file_lock(fd, path, flags, &start, who, sizeof who);
	if (rc == -EAGAIN)
		rc = td_file_busy(who, path, flags, err);
	else if (rc < 0)
		td_fail(err, -rc, "cannot lock %s: %s", path, strerror(-rc));
	else
		/* what a dead one's writes may have changed, after they are over */
		rc = probe(fd, path, flags, st, err);
	/* for the open alone: io_uring would take it as asked to answer EAGAIN for what has to
	 * wait, where a device (LVM, say) cannot tell before */
	if (!rc && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK) < 0)
		rc = td_fail(err, errno, "cannot prepare %s: %s", path, strerror(errno));
	if (rc < 0)
		goto fail;
	*out = fd;
	return 0;
fail:
	close(fd);
	return rc;
}

int td_kernel_open(struct td_io *io, const char *path, unsigned flags, int *out, struct td_stat *st,
		   struct td_err *err)
{
	return open_via(path, path, flags, out, st, err);
}

/* The file that was found is opened by its descriptor: whatever its name has come to mean in
 * between. */
int td_kernel_open_in(struct td_io *io, const char *path, unsigned flags,
		      const struct td_reach *reach, int *out, struct td_stat *st,
		      struct td_err *err)
{
	bool write = flags & TD_FILE_BENEATH;
	int found = td_reach_find ? td_reach_find(path, reach->uuid, write, err)
				  : td_reach_open(reach, path, err);
	char via[40];
	int rc;

	if (found < 0)
		return found;
	rc = flags & (TD_FILE_PARENT | TD_FILE_BENEATH) && !td_reach_find
		     ? td_reach_may(reach, found, path, err)
		     : 0;
	snprintf(via, sizeof via, "/proc/self/fd/%d", found);
	if (!rc)
		rc = open_via(via, path, flags, out, st, err);
	close(found);
	return rc;
}

void td_kernel_close(struct td_io *io, int fd)
{
	int fl = fcntl(fd, F_GETFL);

	/* what another host wrote in the meantime must not be hidden by our cached pages at the
	 * next open */
	if (fl >= 0 && !(fl & O_DIRECT))
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
}

int td_kernel_size(struct td_io *io, int fd, uint64_t *size)
{
	struct stat s;

	if (fstat(fd, &s) < 0)
		return -errno;
	if (S_ISBLK(s.st_mode))
		return ioctl(fd, BLKGETSIZE64, size) < 0 ? -errno : 0;
	*size = (uint64_t)s.st_size;
	return 0;
}

int td_kernel_truncate(struct td_io *io, int fd, uint64_t size)
{
	int rc = ftruncate(fd, (off_t)size) < 0 ? -errno : 0;

	return td_root_truncate && td_file_refused(rc) ? td_root_truncate(fd, size) : rc;
}

/* A block device has no holes to be asked for: its lseek knows neither SEEK_DATA nor SEEK_HOLE.  An
 * NFS server may refuse it to this user. */
static int seek(int fd, uint64_t off, uint64_t end, int whence, uint64_t *at)
{
	int64_t r = lseek(fd, (off_t)off, whence);

	if (r < 0)
		r = -errno;
	if (td_root_seek && td_file_refused((int)r))
		r = td_root_seek(fd, off, whence);
	if (r < 0 && r != -ENXIO)
		return r == -EINVAL || td_file_refused((int)r) ? -EOPNOTSUPP : (int)r;
	/* ENXIO: nothing but a hole from off on */
	*at = r < 0 || (uint64_t)r > end ? end : (uint64_t)r;
	return 0;
}

int td_kernel_extents(struct td_io *io, int fd, uint64_t off, uint64_t len, struct td_extent *out,
		      int max)
{
	uint64_t end = off + len, data = 0, hole = 0;
	int n = 0, rc;

	while (off < end && n < max) {
		rc = seek(fd, off, end, SEEK_DATA, &data);
		if (rc < 0)
			return n ? n : rc;
		if (data > off) {
			out[n++] = (struct td_extent){off, data - off,
						      TD_EXTENT_HOLE | TD_EXTENT_ZERO};
			off = data;
			continue;
		}
		rc = seek(fd, off, end, SEEK_HOLE, &hole);
		if (rc < 0)
			return n ? n : rc;
		if (hole == off)
			continue; /* punched in between */
		out[n++] = (struct td_extent){off, hole - off, 0};
		off = hole;
	}
	return n;
}
