/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The bytes of qcow2, versions 2 and 3: buffers in, structures out, and every limit that a hostile
 * image could break checked on the way, before memory is taken.  No I/O.  Pure functions: any
 * thread.
 *
 * Facts: QEMU's docs/interop/qcow2.txt, and what qemu-img 7.2 writes.  All numbers on disk are
 * big-endian.  Offsets and lengths are bytes, a "cluster" is the unit of allocation
 * (header.cluster_bits).
 */
#ifndef DRIVERS_QCOW_FORMAT_H
#define DRIVERS_QCOW_FORMAT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "lib/bytes.h"
#include "td/log.h"

#define QCOW_MAGIC 0x514649fbu
/* bytes: version 2's header, and all that tells how long a header is but for 104 of version 3 */
#define QCOW_HEADER_MIN 72
#define QCOW_NAME_MAX   1023
#define QCOW_SECTOR     512

/* What we open at most, as QEMU does: a table larger than that is a mistake, or an attack. */
#define QCOW_L1_MAX        (32u << 20) /* bytes */
#define QCOW_REFTABLE_MAX  (8u << 20)  /* bytes */
#define QCOW_SNAPSHOTS_MAX 65536u
#define QCOW_BITMAPS_MAX   65535u

/* incompatible features */
#define QCOW_INCOMPAT_DIRTY    (UINT64_C(1) << 0)
#define QCOW_INCOMPAT_CORRUPT  (UINT64_C(1) << 1)
#define QCOW_INCOMPAT_DATA     (UINT64_C(1) << 2) /* external data file */
#define QCOW_INCOMPAT_ZIP      (UINT64_C(1) << 3) /* a compression other than zlib */
#define QCOW_INCOMPAT_EXTL2    (UINT64_C(1) << 4) /* subclusters */
#define QCOW_INCOMPAT_KNOWN    UINT64_C(0x1f)
#define QCOW_COMPAT_LAZY       (UINT64_C(1) << 0)
#define QCOW_AUTOCLEAR_BITMAPS (UINT64_C(1) << 0)
#define QCOW_AUTOCLEAR_RAW     (UINT64_C(1) << 1) /* the external data file alone is the disk */
#define QCOW_AUTOCLEAR_KNOWN   UINT64_C(3)
/* of whoever has it open (G1, G3 of lib/redo.h): others clear what they do not know */
#define QCOW_MARK(autoclear) ((uint32_t)((autoclear) >> 32))

/* offsets of header fields that are rewritten in place; all lie in the header's first sector, so
 * that each change is atomic */
enum {
	QCOW_H_BACKING_OFF = 8,
	QCOW_H_BACKING_LEN = 16,
	QCOW_H_SIZE = 24,
	QCOW_H_L1_SIZE = 36,
	QCOW_H_L1_OFF = 40,
	QCOW_H_REF_OFF = 48,
	QCOW_H_REF_CLUSTERS = 56,
	QCOW_H_INCOMPAT = 72,
	QCOW_H_AUTOCLEAR = 88,
};

enum { QCOW_ZLIB, QCOW_ZSTD };
enum { QCOW_PLAIN, QCOW_AES, QCOW_LUKS };

struct qcow_header {
	uint32_t version;       /* 2 or 3; 1: see qcow1_header_decode */
	unsigned cluster_bits;  /* 9..21 */
	unsigned l2_entry_bits; /* version 1: an L2 table has 1 << this entries; else 0 */
	uint64_t size;          /* of the disk */
	uint32_t crypt;         /* QCOW_PLAIN, QCOW_AES, QCOW_LUKS */
	uint32_t l1_size;       /* entries */
	uint64_t l1_off;
	uint64_t ref_off;
	uint32_t ref_clusters;
	uint32_t nsnapshots;
	uint64_t snapshots_off;
	uint64_t incompat, compat, autoclear;
	unsigned ref_order;   /* a refcount has 1 << ref_order bits; 0..6 */
	uint32_t length;      /* of the header, where the extensions begin */
	unsigned compression; /* QCOW_ZLIB, QCOW_ZSTD */
	uint64_t backing_off;
	uint32_t backing_len;
	/* from the extensions */
	char backing[QCOW_NAME_MAX + 1];   /* "": none */
	char backing_format[64];           /* "": not recorded */
	char data_file[QCOW_NAME_MAX + 1]; /* "": not recorded */
	uint32_t nbitmaps;
	uint64_t bitmaps_off, bitmaps_size; /* of the directory */
	uint64_t luks_off, luks_len;
};

/*
 * The fixed fields, from the file's first len bytes (>= QCOW_HEADER_MIN; 512 is always enough), and
 * all limits that need nothing else.  0 or -errno: EINVAL not a qcow2, or not a sane one; ENOTSUP a
 * feature that we do not have.  name: the file's, for errors.
 */
int qcow_header_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
		       struct td_err *err);

/*
 * The same of version 1: fixed fields, backing file's name and all limits; buf: the file's first
 * len bytes, 2,048 or all.  Of h only version, cluster_bits, l2_entry_bits, size, crypt, l1_size,
 * l1_off and backing mean anything.
 */
int qcow1_header_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
			struct td_err *err);

/* The extensions and names, from the file's first cluster (len bytes, cut off where the file ends).
 */
int qcow_extensions_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
			   struct td_err *err);

/* Where some of them are, in the same bytes. */
struct qcow_extensions_at {
	uint64_t end;                /* behind the mark that ends them */
	uint64_t format, format_len; /* the text of the backing file's format; 0: there is none */
};

/* -EINVAL where no mark ends them, or they go beyond the bytes. */
int qcow_extensions_find(const void *buf, size_t len, const struct qcow_header *h,
			 struct qcow_extensions_at *out);

/* Do all tables lie within a file of that size, apart from each other?  To be asked before memory
 * is taken for any. */
int qcow_tables_check(const struct qcow_header *h, uint64_t file_size, const char *name,
		      struct td_err *err);

/*
 * The header's first cluster, into buf (zeroed, len bytes: a cluster): fields, extensions with the
 * table of feature names, backing name behind them.  -ENOSPC where it does not fit.
 */
int qcow_header_encode(const struct qcow_header *h, void *buf, size_t len);

/* --- geometry --- */

static inline uint64_t qcow_cluster(const struct qcow_header *h)
{
	return UINT64_C(1) << h->cluster_bits;
}

static inline bool qcow_extl2(const struct qcow_header *h)
{
	return h->incompat & QCOW_INCOMPAT_EXTL2;
}

/* bits of a guest offset that one L2 table covers */
static inline unsigned qcow_l2_bits(const struct qcow_header *h)
{
	return h->cluster_bits +
	       (h->version == 1 ? h->l2_entry_bits : h->cluster_bits - (qcow_extl2(h) ? 4 : 3));
}

static inline uint64_t qcow_l1_needed(const struct qcow_header *h, uint64_t size)
{
	unsigned bits = qcow_l2_bits(h);

	return (size >> bits) + ((size & ((UINT64_C(1) << bits) - 1)) != 0);
}

/* clusters that one refcount block counts */
static inline uint64_t qcow_refs_per_block(const struct qcow_header *h)
{
	return (qcow_cluster(h) * 8) >> h->ref_order;
}

/* --- entries --- */

#define QCOW_COPIED       (UINT64_C(1) << 63) /* refcount is one: may be changed in place */
#define QCOW_ZIPPED       (UINT64_C(1) << 62)
#define QCOW_ZERO         (UINT64_C(1) << 0)
#define QCOW_OFFSET       UINT64_C(0x00fffffffffffe00)
#define QCOW_L1_RESERVED  UINT64_C(0x7f000000000001ff)
#define QCOW_L2_RESERVED  UINT64_C(0x3f000000000001fe) /* of a standard cluster */
#define QCOW_REF_RESERVED UINT64_C(0x1ff)

/* A compressed cluster: where its bytes start, and how many they can be at most. */
static inline void qcow_zip_range(unsigned cluster_bits, uint64_t entry, uint64_t *off,
				  uint64_t *len)
{
	unsigned x = 62 - (cluster_bits - 8);
	uint64_t sectors = ((entry & ~(QCOW_COPIED | QCOW_ZIPPED)) >> x) + 1;

	*off = entry & ((UINT64_C(1) << x) - 1);
	*len = sectors * QCOW_SECTOR - (*off & (QCOW_SECTOR - 1));
}

/* version 1; it has neither refcounts nor any other flag */
#define QCOW1_ZIPPED (UINT64_C(1) << 63)

static inline void qcow1_zip_range(unsigned cluster_bits, uint64_t entry, uint64_t *off,
				   uint64_t *len)
{
	*len = (entry & ~QCOW1_ZIPPED) >> (63 - cluster_bits);
	*off = entry & ((UINT64_C(1) << (63 - cluster_bits)) - 1);
}

/* One refcount of a block (or of a part of one that starts at a whole byte); i counts from p. */
uint64_t qcow_ref_get(const void *p, unsigned order, uint64_t i);
void qcow_ref_set(void *p, unsigned order, uint64_t i, uint64_t value);
static inline uint64_t qcow_ref_max(unsigned order)
{
	return order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << order)) - 1;
}

#endif
