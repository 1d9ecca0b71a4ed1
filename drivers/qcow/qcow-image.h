/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Makes, shows, checks, resizes and merges qcow2 images while no guest uses them.  All functions
 * run on a fiber, through an engine.  Each takes the image's lock, and returns -EBUSY when a
 * tapdisk (or QEMU) has the image open.
 */
#ifndef DRIVERS_QCOW_IMAGE_H
#define DRIVERS_QCOW_IMAGE_H

#include "drivers/qcow/qcow-check.h"
#include "drivers/qcow/qcow-format.h"
#include "drivers/qcow/qcow-luks.h"
#include "td/block.h"

enum qcow_prealloc {
	QCOW_PREALLOC_OFF,
	QCOW_PREALLOC_METADATA,
	QCOW_PREALLOC_FALLOC,
	QCOW_PREALLOC_FULL
};

struct qcow_create {
	uint64_t size;    /* bytes; 0: as large as the backing file */
	unsigned version; /* 2 or 3 */
	unsigned cluster_bits, refcount_order;
	bool lazy, extended_l2, data_raw;
	unsigned compression;                 /* QCOW_ZLIB, QCOW_ZSTD */
	const char *backing, *backing_format; /* NULL: none.  The name as the image is to hold it;
						 the format as qemu-img calls it */
	const char *data_file;                /* NULL: none */
	enum qcow_prealloc prealloc;
	const struct luks_make *luks; /* NULL: in the clear */
	const struct td_key *key;     /* luks: the passphrase */
};

/* Into the file or device at path, which is there and empty (or a device).  A file is empty again
 * after a failure. */
int qcow_image_create(const char *path, const struct qcow_create *o, struct td_io *io,
		      struct td_err *err);

struct qcow_info {
	struct qcow_header h;
	uint64_t file_size; /* bytes: its length */
	bool has_luks;      /* luks: it has such a header, of a kind that is known */
	struct luks luks;
	struct qcow_snapshot *snapshots; /* h.nsnapshots; the caller frees them */
};
/* Takes no lock: the image may be in use. */
int qcow_image_info(const char *path, struct qcow_info *info, struct td_io *io, struct td_err *err);

/* Where backing files may be, besides the image's own directory: absolute, colons between; kept by
 * reference. */
void qcow_parent_dirs(const char *dirs);

/*
 * Looks at what a new image is to stand on: `path', of a format as qemu-img calls it.  *size: bytes
 * of its disk; *encrypted: it is, or what it stands on, and key opens it, as it must: -ENOKEY else.
 * -EBUSY while somebody writes to it.
 */
int qcow_image_below(const char *path, const char *format, const struct td_key *key, uint64_t *size,
		     bool *encrypted, struct td_io *io, struct td_err *err);

int qcow_image_check(const char *path, struct qcow_check *c, struct td_io *io, struct td_err *err);

/* Below, key: of what is encrypted in the chain, or NULL.  shrink: what lies beyond the new end is
 * lost, and that is meant. */
int qcow_image_resize(const char *path, uint64_t size, bool shrink, const struct td_key *key,
		      struct td_io *io, struct td_err *err);

/* What the image holds goes into its backing file; then the image is emptied, unless keep.
 * progress: bytes done and in all; or NULL. */
int qcow_image_commit(const char *path, bool keep, const struct td_key *key,
		      void (*progress)(void *data, uint64_t done, uint64_t all), void *data,
		      struct td_io *io, struct td_err *err);

/* A range of the disk, as the chain shows it. */
struct qcow_extent {
	uint64_t off, len;
	unsigned depth;           /* 0: the image itself */
	bool present, zero, data; /* as qemu-img map says it: in some image; reads as zeroes; has
				     bytes in a file */
	bool zipped;              /* data: compressed */
	bool has_host;            /* host: where in `file' it stands as it is */
	uint64_t host;
	const char *file;
};
/* In order; and NULL after the last.  What an extent points to stands until then. */
int qcow_image_map(const char *path, int (*each)(void *data, const struct qcow_extent *e),
		   void *data, const struct td_key *key, struct td_io *io, struct td_err *err);

#endif
