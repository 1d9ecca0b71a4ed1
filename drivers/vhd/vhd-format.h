/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of a VHD file: buffers in, structures out, and back.  No I/O here, no state, any
 * thread; for the driver and for the offline tools.  Every limit is checked before anybody takes
 * memory by it.
 *
 * Facts from Microsoft's Virtual Hard Disk Image Format Specification 1.0, and from the files that
 * tapdisks write (creator 'tap': hidden, batmap, marker and key hash are theirs).  In the file all
 * numbers are big endian.  A fixed disk is its data and a footer; the others, where only the first
 * has its place fixed:
 *
 *     copy of the footer | header | BAT | batmap header, batmap | parent locators |
 *     blocks: bitmap, data | footer
 *
 * Functions that check return 0 or -errno, with a text in err that begins with `path'.
 */
#ifndef TD_DRIVERS_VHD_FORMAT_H
#define TD_DRIVERS_VHD_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "td/log.h"

#define VHD_SECTOR     512u
#define VHD_FOOTER     512u  /* bytes of a footer, and of its copy at 0 */
#define VHD_FOOTER_OLD 511u  /* bytes of the one at the end, as Virtual PC wrote it before 2004 */
#define VHD_HEADER     1024u /* bytes of a header */
/* bytes of a disk: 2040 GiB, so that a sector number of the file fits in a BAT entry */
#define VHD_SIZE_MAX (0xff000000ull * 512)
/* bytes of a fixed disk, which has no BAT: others make them of many TiB */
#define VHD_FIXED_MAX  (1ull << 50)
#define VHD_BLOCK_MIN  512u
#define VHD_BLOCK_MAX  (1u << 30)
#define VHD_BLOCK      (2u << 20)           /* bytes: what we create */
#define VHD_BLOCKS_MAX (1u << 22)           /* blocks of a disk: 2040 GiB in blocks of 512 KiB */
#define VHD_BATMAP_MAX (VHD_BLOCKS_MAX / 8) /* bytes of a batmap */
#define VHD_UNUSED     0xffffffffu          /* BAT entry of a block that is not there */
#define VHD_LOCATORS   8
#define VHD_PATH_MAX   4096   /* bytes of a parent's name, with the NUL */
#define VHD_LOC_MAX    16384u /* bytes of a locator's data that are looked at */

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFF = 4 };

enum { VHD_TAP_VERSION = 0x00010003 };

struct vhd_footer {
	uint32_t features, version;
	uint64_t data_offset; /* bytes: the header's place; UINT64_MAX of a fixed disk */
	uint32_t timestamp; /* seconds since 2000-01-01 UTC; of a snapshot's parent, as of its last
			       change before */
	char app[4];        /* creator */
	uint32_t app_version, os;
	uint64_t orig_size;
	uint64_t size;     /* bytes of the disk, whatever the geometry says */
	uint32_t geometry; /* cylinders << 16 | heads << 8 | sectors a track */
	uint32_t type;     /* enum vhd_type */
	uint8_t uuid[16];
	uint8_t saved;
	uint8_t hidden;
	uint8_t rest[426]; /* kept as found */
};

struct vhd_locator {
	uint32_t code;  /* VHD_LOC_*; 0: none */
	uint32_t space; /* as found: under 512 sectors, else bytes; see vhd_locator_space */
	uint32_t len;   /* bytes in use */
	uint32_t reserved;
	uint64_t off; /* bytes */
};

#define VHD_LOC_W2RU 0x57327275u /* UTF-16LE, relative, Windows' slashes */
#define VHD_LOC_W2KU 0x57326b75u /* UTF-16LE, absolute */
#define VHD_LOC_MACX 0x4d616358u /* UTF-8, a file: URL */
#define VHD_LOC_WI2R 0x57693272u /* deprecated: bytes, relative */
#define VHD_LOC_WI2K 0x5769326bu /* deprecated: bytes, absolute */
#define VHD_LOC_MAC  0x4d616320u /* an alias record: not decoded */

#define VHD_H_RESERVED 60 /* where `reserved' stands in its bytes */

struct vhd_header {
	uint64_t data_offset; /* UINT64_MAX */
	uint64_t table_off;   /* bytes */
	uint32_t version;
	uint32_t entries;        /* of the BAT; at least as many as the disk has blocks */
	uint32_t block_size;     /* bytes, a power of two */
	uint8_t parent_uuid[16]; /* all zero: a raw parent, which has none */
	uint32_t parent_timestamp;
	uint32_t reserved;
	uint8_t parent_name[512]; /* UTF-16BE */
	struct vhd_locator loc[VHD_LOCATORS];
	uint8_t rest[256]; /* kept as found */
};

/* The batmap: a bit a block, set when all of the block's sectors are in this file.  Its header
 * stands behind the BAT. */
struct vhd_batmap {
	uint64_t off;     /* bytes: the map's place */
	uint32_t sectors; /* of the map */
	uint32_t version; /* 0x00010001: its checksum adds signed bytes; 0x00010002 */
	uint32_t checksum;
	uint8_t marker;
	uint8_t has_key; /* the disk is encrypted, and hash == SHA-256(nonce, key) */
	uint8_t nonce[32], hash[32];
	uint8_t rest[418]; /* kept as found */
};

/* Something in the file that is no block: bytes from..to-1. */
struct vhd_extent {
	uint64_t from, to;
	const char *what;
};

/* Where everything is, with all limits checked. */
struct vhd_layout {
	uint64_t size;                    /* bytes of the disk */
	uint32_t block_size, block_shift; /* bytes; log2 of it */
	uint32_t block_sectors;
	uint32_t bitmap_bytes;  /* of a block's bitmap in the file: a multiple of 512 */
	uint32_t blocks;        /* BAT entries that the disk uses */
	uint32_t entries;       /* BAT entries that there are */
	uint64_t table_off;     /* bytes */
	uint64_t table_bytes;   /* of all entries, up to a multiple of 512 */
	uint64_t batmap_header; /* bytes: where the batmap's header is, if there is one */
	struct vhd_extent meta[5 + VHD_LOCATORS];
	unsigned metas;
	uint64_t meta_end; /* bytes: no metadata lies beyond */
};

/* --- footer, header --- */

/* Does it begin like a footer?  Its checksum may be wrong. */
bool vhd_footer_seen(const uint8_t b[VHD_FOOTER]);
/* The same for the footer of a disk in the middle of a journalled resize (its checksum leaves the
 * mark out). */
bool vhd_footer_poisoned(const uint8_t b[VHD_FOOTER]);

/*
 * Which footer is the file's?  first, last: the file's first and last 512 bytes.  The copy at 0 is
 * written before and the one at the end after everything else, so that of a disk with blocks the
 * copy counts; a fixed disk has only the one at the end, and its sector 0 is the guest's, who may
 * write anything there: a file that could be taken for both is refused.  *state: VHD_FOOTERS_*.
 */
enum vhd_footers {
	VHD_FOOTERS_GOOD,       /* as they should be */
	VHD_FOOTERS_LAST_LOST,  /* the one at the end is missing or stale: not closed, or cut off.
				   Repairable */
	VHD_FOOTERS_FIRST_LOST, /* the copy at 0 is bad, and *f the one at the end.  Repairable */
};
int vhd_footer_pick(const uint8_t first[VHD_FOOTER], const uint8_t last[VHD_FOOTER],
		    uint64_t file_size, struct vhd_footer *f, enum vhd_footers *state,
		    const char *path, struct td_err *err);

/* Does a file of file_size bytes end with a footer of 511 bytes?  last: its last 512 bytes. */
bool vhd_footer_old(const uint8_t last[VHD_FOOTER], uint64_t file_size);
/*
 * Where the file's end is for all but the footer there, in bytes: blocks, bitmaps and tables lie
 * below it.  f: what vhd_footer_pick picked.  Where the last bytes are no footer of this disk (it
 * was not closed, or was cut off), it is the end of the file itself.
 */
uint64_t vhd_limit(const struct vhd_footer *f, const uint8_t last[VHD_FOOTER], uint64_t file_size);

int vhd_footer_decode(const uint8_t b[VHD_FOOTER], struct vhd_footer *f, const char *path,
		      struct td_err *err);
void vhd_footer_encode(const struct vhd_footer *f, uint8_t b[VHD_FOOTER]); /* with the checksum */
int vhd_header_decode(const uint8_t b[VHD_HEADER], struct vhd_header *h, const char *path,
		      struct td_err *err);
void vhd_header_encode(const struct vhd_header *h, uint8_t b[VHD_HEADER]);

/* The geometry that the specification gives a disk of so many bytes. */
uint32_t vhd_geometry(uint64_t size);
/* Seconds since 1970 to a footer's and back. */
uint32_t vhd_time(int64_t unix_time);
int64_t vhd_unix_time(uint32_t timestamp);

/* --- layout --- */

/* file_size, here and below: bytes of the file or device; of an image's own, what vhd_limit says.
 */
int vhd_layout(const struct vhd_footer *f, const struct vhd_header *h, uint64_t file_size,
	       struct vhd_layout *l, const char *path, struct td_err *err);

/* Can a file of this creator have a batmap?  Then the sector at l->batmap_header says whether. */
bool vhd_batmap_possible(const struct vhd_footer *f);
/* 0; -ENOENT without text: there is none; -EINVAL: there is one that must not be used (a hint is
 * lost, and no data). */
int vhd_batmap_decode(const uint8_t b[VHD_SECTOR], const struct vhd_layout *l, uint64_t file_size,
		      struct vhd_batmap *m, const char *path, struct td_err *err);
void vhd_batmap_encode(const struct vhd_batmap *m, uint8_t b[VHD_SECTOR]);
/* Of m->sectors * 512 bytes of map, to be compared with m->checksum. */
uint32_t vhd_batmap_checksum(const struct vhd_batmap *m, const uint8_t *map);
/* Puts the header and the map among l->meta. */
void vhd_layout_batmap(struct vhd_layout *l, const struct vhd_batmap *m);

/* One used BAT entry: within the file, off all metadata. */
int vhd_entry_check(const struct vhd_layout *l, uint32_t block, uint32_t entry, uint64_t file_size,
		    const char *path, struct td_err *err);
/* All of l->blocks entries, as numbers of this machine; and that no two blocks meet.  Takes 4 bytes
 * a used block while it runs. */
int vhd_bat_check(const struct vhd_layout *l, const uint32_t *bat, uint64_t file_size,
		  const char *path, struct td_err *err);

/*
 * A block may be short: its bitmap is in the file, and not all of its data.  Blocks do not meet, so
 * there is one at most, the last in the file.  Where no bit stands for what is missing, nothing is
 * lost: it was being appended when the power went.  Else the file was cut off.
 */
/* VHD_UNUSED: none is */
uint32_t vhd_short_block(const struct vhd_layout *l, const uint32_t *bat, uint64_t limit);
/* The block's sectors whose bits are set and that are not below `limit', but for those beyond the
 * disk's end: how many, *first: the first. */
uint32_t vhd_lost(const struct vhd_layout *l, uint32_t block, uint32_t entry, uint64_t limit,
		  const uint8_t *bitmap, uint32_t *first);
/* Says of them that they are lost; -EIO. */
int vhd_lost_text(const struct vhd_layout *l, uint32_t block, uint32_t n, uint32_t first,
		  uint64_t limit, const char *path, struct td_err *err);

/* --- bits: of bitmaps and batmaps; the first is the most significant of the first byte --- */

static inline bool vhd_bit(const uint8_t *map, uint64_t n)
{
	return map[n / 8] & 0x80 >> n % 8;
}

void vhd_bits_set(uint8_t *map, uint64_t from, uint64_t to); /* from..to-1 */
void vhd_bits_clear(uint8_t *map, uint64_t from, uint64_t to);
/* How many bits from `from' on, and below `to', are like the first, which goes to *set.  from < to.
 */
uint64_t vhd_bits_run(const uint8_t *map, uint64_t from, uint64_t to, bool *set);

/* --- the parent's name --- */

/* Bytes of the file that a locator takes; 0 when there is none.  Under 512 `space' counts sectors,
 * else bytes. */
uint64_t vhd_locator_space(const struct vhd_locator *loc);

/*
 * A locator's data as a Unix path (UTF-8, slashes, without a drive letter or file:// in front;
 * relative to the child's directory unless it begins with a slash).  literal: a file URL has no %XX
 * in it (creator 'tap').  0, -EOPNOTSUPP for a code that names no file, -EILSEQ, -ENAMETOOLONG.
 */
int vhd_locator_decode(uint32_t code, const uint8_t *data, size_t len, bool literal,
		       char out[VHD_PATH_MAX]);
/* The other way round: the bytes used of out[VHD_LOC_MAX], or -errno. */
int vhd_locator_encode(uint32_t code, const char *path, uint8_t out[VHD_LOC_MAX]);
/* The header's parent_name; -ENAMETOOLONG when it does not fit (256 units).  Some makers write it
 * little-endian: it is told by its zeroes. */
int vhd_name_decode(const uint8_t name[512], char out[VHD_PATH_MAX]);
int vhd_name_encode(const char *path, uint8_t name[512]);

/* --- uuid --- */
bool vhd_uuid_nil(const uint8_t uuid[16]);
void vhd_uuid_text(const uint8_t uuid[16], char out[37]);

#endif
