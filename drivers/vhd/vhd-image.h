/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A VHD offline: what vhd-util does to files and devices that no tapdisk writes.  It makes plain
 * blocking reads and writes, in one thread; it takes the same lock as a tapdisk
 * (lib/io/file-lock.c), so that both never write one image at a time.
 *
 * Every function that can fail returns 0 or -errno with a text in err.  Bytes everywhere, multiples
 * of 512.
 */
#ifndef TD_DRIVERS_VHD_IMAGE_H
#define TD_DRIVERS_VHD_IMAGE_H

#include "drivers/vhd/vhd-format.h"
#include "td/io.h"

#define VHD_CHAIN_MAX  30  /* images of a chain that a snapshot may make */
#define VHD_CHAIN_OPEN 256 /* images of a chain that can be opened */

enum {
	VHD_LOOK = 0,          /* read, without a lock */
	VHD_READ = 1u << 0,    /* read, and nobody writes in the meantime */
	VHD_WRITE = 1u << 1,   /* alone */
	VHD_BENEATH = 1u << 2, /* write what no child of it sees */
	VHD_HOW = VHD_READ | VHD_WRITE | VHD_BENEATH,
	VHD_FAST = 1u << 3,  /* footer and header, not the block table */
	VHD_CHAIN = 1u << 4, /* and its parents, locked as VHD_READ does unless this one is only
				looked at */
	/* a bad block table is left unchecked: for vhd-util check */
	VHD_LENIENT = 1u << 5,
	VHD_ANY_PARENT = 1u << 6, /* a parent with another uuid will do */
	VHD_MEND = 1u << 7,      /* to be written although its copy of the footer at 0 is bad, which
				    others have repaired first */
	VHD_AS_IS = 1u << 8,     /* what waits for it in a log does not matter (vhd-image-log.c) */
	VHD_KEEP_MARK = 1u << 9, /* to be written, and yet the mark of a log that is not on this
				    host stays (RL4 of vhd-relink-plan.c) */
};

struct vhd_image {
	int fd;
	char *path;
	unsigned flags;
	bool raw; /* a raw parent: only fd, file_size and size count */
	bool blockdev;
	uint64_t file_size;       /* bytes of the file or device now */
	uint64_t size;            /* bytes of the disk */
	struct vhd_footer footer; /* as in the file; vhd_image_footer() writes it */
	enum vhd_footers state;
	bool old_footer;      /* the one at the end has 511 bytes */
	uint64_t limit;       /* bytes: at open, where the footer at the end was, or the file's end
				 (vhd_limit) */
	uint32_t short_block; /* a block that reaches beyond it (vhd_short_block), or VHD_UNUSED */
	uint32_t lost, lost_from; /* of its sectors so many are lost, from this one on; then only
				     VHD_LOOK opens it */
	struct vhd_header header; /* the last three: not of a fixed disk */
	struct vhd_layout layout;
	/* entries as numbers; bat_room of them: the used ones up to a whole sector */
	uint32_t *bat;
	uint32_t bat_room;
	bool has_batmap; /* batmap is what the file has */
	bool map_good;   /* map can be believed */
	struct vhd_batmap batmap;
	uint8_t *map;
	uint8_t *bitmap; /* of one block, bitmap_block; VHD_UNUSED: of none */
	uint32_t bitmap_block;
	struct vhd_image *parent; /* with VHD_CHAIN */
	/* of a parent: the image at the top of the chain; NULL: itself */
	const struct vhd_image *leaf;
	struct vhd_pending *pending; /* vhd-image-write.c */
	unsigned pendings;
	uint64_t next; /* bytes: no block lies beyond; 0: not known */
	bool changed;
};

/* --- vhd-image.c, vhd-image-parent.c --- */
int vhd_image_open(const char *path, unsigned flags, struct vhd_image **out, struct td_err *err);
/* A raw image as a parent. */
int vhd_image_open_raw(const char *path, unsigned flags, struct vhd_image **out,
		       struct td_err *err);
void vhd_image_close(struct vhd_image *v); /* what was not flushed is lost; NULL is fine */

/* Reads through the chain, as a guest would: what is nowhere is zero, also beyond the end. */
int vhd_image_read(struct vhd_image *v, uint8_t *buf, uint64_t off, uint64_t len,
		   struct td_err *err);
/* v->bitmap becomes that of the block: all clear when it is not there. */
int vhd_image_bitmap(struct vhd_image *v, uint32_t block, struct td_err *err);
/* Bytes of the file that are in use, without the footer at the end. */
uint64_t vhd_image_data_end(const struct vhd_image *v);
uint32_t vhd_image_allocated(const struct vhd_image *v); /* blocks */

/* The parent's path, from the locator that leads to an existing file; -ENOENT with a text that
 * lists what was tried. */
int vhd_image_parent_path(const struct vhd_image *v, char out[VHD_PATH_MAX], struct td_err *err);
/* What the locators say, existing or not: the first that can be read. */
int vhd_image_parent_name(const struct vhd_image *v, char out[VHD_PATH_MAX], struct td_err *err);
/*
 * Opens the parent by its path and looks at its uuid; flags as of vhd_image_open.  An image names
 * its parent itself, and may come from a stranger: unless only its headers are wanted (VHD_FAST),
 * it must be in the leaf's directory or below, or in one of the directories that vhd_parent_dirs()
 * was given: absolute, colons between; kept by reference.
 */
void vhd_parent_dirs(const char *dirs);
int vhd_image_open_parent(const struct vhd_image *v, unsigned flags, struct vhd_image **out,
			  struct td_err *err);

/* An absolute name that stays: of a device mapper's device that in /dev/mapper.  The last component
 * need not exist. */
int vhd_canonical(const char *path, char out[VHD_PATH_MAX], struct td_err *err);

/* Is what it shows encrypted?  The first image of the chain, from v on, that has a key's hash; or
 * NULL. */
const struct vhd_image *vhd_image_encrypted(const struct vhd_image *v);

/* Whole reads and writes; a read beyond the end of the file is an error, EIO. */
int vhd_pread(const struct vhd_image *v, void *buf, uint64_t len, uint64_t off, struct td_err *err);
int vhd_pwrite(struct vhd_image *v, const void *buf, uint64_t len, uint64_t off,
	       struct td_err *err);
int vhd_sync(struct vhd_image *v, struct td_err *err);

/* --- vhd-image-write.c: see the invariants there --- */
int vhd_image_write(struct vhd_image *v, const uint8_t *buf, uint64_t off, uint64_t len,
		    struct td_err *err);
/* All that was written is durable and reachable, and the batmap and the footer at the end are right
 * again. */
int vhd_image_flush(struct vhd_image *v, struct td_err *err);
/* What was not flushed. */
void vhd_image_drop(struct vhd_image *v);
/* v->footer to its place or places, durable. */
int vhd_image_put_footer(struct vhd_image *v, struct td_err *err);
/* The one at the end alone: at the end of a device, behind the data of a file, which is cut there.
 */
int vhd_image_put_last(struct vhd_image *v, struct td_err *err);
/* W7: a short block gets its whole length; nothing where there is none. */
int vhd_image_whole(struct vhd_image *v, struct td_err *err);
/* The batmap made new from the bitmaps, durable; nothing where there is none. */
int vhd_image_put_batmap(struct vhd_image *v, struct td_err *err);
/* The BAT's sectors that hold the entries from..to-1. */
int vhd_image_put_bat(struct vhd_image *v, uint32_t from, uint32_t to, struct td_err *err);

/* --- vhd-image-log.c: S5 of lib/redo.h; vhd_image_open does both --- */
/* -EBUSY with text when a log waits for it. */
int vhd_image_mind_log(const struct vhd_image *v, struct td_err *err);
/* A mark without a log goes when the image is written. */
int vhd_image_unmark(struct vhd_image *v, struct td_err *err);

/* --- vhd-create.c --- */
struct vhd_new {
	const char *path;
	uint64_t size;       /* bytes; 0 for a snapshot: the parent's */
	uint64_t table_size; /* bytes of disk that the block table has room for; 0: as many as size
			      */
	uint32_t block_size; /* bytes, a power of two; 0: 2 MiB */
	bool fixed;
	const char *parent; /* of a snapshot */
	bool parent_raw;
	bool parent_in_use; /* the caller knows that its writer changes nothing of what it shows */
	bool parent_as_named; /* do not look for the first ancestor that has data */
	unsigned limit;       /* of the chain's depth; 0: VHD_CHAIN_MAX */
	bool replace;         /* an existing file may be overwritten */
};
/* A snapshot of what is encrypted is encrypted with the same key: it takes the key's hash along. */
int vhd_create(const struct vhd_new *n, struct td_err *err);
/* The new name of a file is durable. */
int vhd_sync_name(const char *path, struct td_err *err);

/* --- vhd-reparent.c --- */
/* How to get from the child's file to the parent's, both canonical. */
int vhd_relative_path(const char *child, const char *parent, char out[VHD_PATH_MAX],
		      struct td_err *err);
/* What the header says of its parent, except the locators. */
int vhd_name_parent(struct vhd_header *h, const struct vhd_image *parent, struct td_err *err);
/* The locators: bytes that each of the three takes for this path; and written, to `at' and into h.
 */
int vhd_locators_need(const char *relative, uint32_t *space, struct td_err *err);
int vhd_write_locators(struct vhd_image *v, struct vhd_header *h, uint64_t at, uint32_t space,
		       const char *relative, struct td_err *err);
/* Names another parent in v's header and locators. */
int vhd_reparent(struct vhd_image *v, const char *parent, bool raw, struct td_err *err);

/* --- vhd-resize.c --- */
/* To `size' bytes.  journal: a file to be made, from which vhd_revert restores; NULL: only what is
 * safe without one. */
int vhd_resize(const char *path, uint64_t size, const char *journal, struct td_err *err);

/* --- vhd-journal.c --- */
/* Durable, under its name, before this returns; and removed as durably. */
int vhd_journal_make(const struct vhd_image *v, const char *path, struct td_err *err);
int vhd_journal_remove(const char *path, struct td_err *err);
int vhd_revert(const char *path, const char *journal, struct td_err *err);

/* --- vhd-beneath.c --- */
/*
 * Before v's data go into `to', beneath it: -EBUSY when another image stands on `to' too; force:
 * unless that one is open.  v was opened with VHD_READ.
 */
int vhd_alone_beneath(const struct vhd_image *v, const struct vhd_image *to, bool force,
		      struct td_err *err);

/* --- vhd-move.c --- */
/* on: called with what is done of the whole, now and then; may be NULL. */
typedef void vhd_progress(uint64_t done, uint64_t all);
/* v's own sectors into `to', which is flushed; *sectors: how many. */
int vhd_coalesce(struct vhd_image *v, struct vhd_image *to, vhd_progress *on, uint64_t *sectors,
		 struct td_err *err);
/* All that v shows and is not zero into `to'. */
int vhd_copy(struct vhd_image *v, struct vhd_image *to, vhd_progress *on, uint64_t *sectors,
	     struct td_err *err);
/* Every block of v made its own, with what it shows. */
int vhd_fill(struct vhd_image *v, vhd_progress *on, struct td_err *err);
/* Footers, batmap: all that can be made right without a guess. */
int vhd_repair(const char *path, struct td_err *err);
/* Forgets all data. */
int vhd_kill_data(struct vhd_image *v, struct td_err *err);

#endif
