/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/qcow/qcow-format.h"

#include <errno.h>
#include <stdio.h>

enum {
	EXT_END = 0,
	EXT_BACKING_FORMAT = 0xe2792aca,
	EXT_FEATURES = 0x6803f857,
	EXT_BITMAPS = 0x23852875,
	EXT_LUKS = 0x0537be77,
	EXT_DATA_FILE = 0x44415441,
};

#define FEATURE_SIZE 48

static const struct {
	uint8_t type, bit; /* type 0: incompatible, 1: compatible, 2: autoclear */
	const char *name;
} features[] = {
	{0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
	{0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},          {2, 1, "raw external data"},
};

static bool aligned(const struct qcow_header *h, uint64_t off)
{
	return !(off & (qcow_cluster(h) - 1));
}

static int decode_v3(const uint8_t *p, size_t len, const char *name, struct qcow_header *h,
		     struct td_err *err)
{
	if (len < 104)
		return td_fail(err, EINVAL, "%s ends within its qcow2 header", name);
	h->incompat = td_get_be64(p + 72);
	h->compat = td_get_be64(p + 80);
	h->autoclear = td_get_be64(p + 88);
	h->ref_order = td_get_be32(p + 96);
	h->length = td_get_be32(p + 100);
	if (h->length < 104 || h->length % 8 || h->length > qcow_cluster(h))
		return td_fail(err, EINVAL,
			       "%s: a qcow2 header of %u bytes: it is 104 or more, a multiple of "
			       "8, in one cluster",
			       name, h->length);
	if (h->length > 104 && len > 104)
		h->compression = p[104];
	if (h->ref_order > 6)
		return td_fail(err, EINVAL, "%s: refcounts of 2^%u bits: at most 64 are possible",
			       name, h->ref_order);
	return 0;
}

static int check_features(const struct qcow_header *h, const char *name, struct td_err *err)
{
	if (!(h->incompat & QCOW_INCOMPAT_ZIP) != !h->compression)
		return td_fail(
			err, EINVAL,
			"%s: its compression type %u and its feature bits contradict each other",
			name, h->compression);
	if (h->compression > QCOW_ZSTD)
		return td_fail(
			err, ENOTSUP,
			"%s: compression type %u is unknown here: zlib (0) and zstd (1) are known",
			name, h->compression);
	if (qcow_extl2(h) && h->cluster_bits < 14)
		return td_fail(err, EINVAL,
			       "%s: extended L2 entries need clusters of 16 KiB or more, these "
			       "have %llu bytes",
			       name, (unsigned long long)qcow_cluster(h));
	if ((h->autoclear & QCOW_AUTOCLEAR_RAW) && !(h->incompat & QCOW_INCOMPAT_DATA))
		return td_fail(err, EINVAL,
			       "%s says that its data file is raw, but it has no data file", name);
	if ((h->autoclear & QCOW_AUTOCLEAR_RAW) && h->backing_off)
		return td_fail(err, EINVAL,
			       "%s has a raw data file and a backing file: one excludes the other",
			       name);
	if ((h->incompat & QCOW_INCOMPAT_DATA) && h->nsnapshots)
		return td_fail(err, EINVAL,
			       "%s has a data file and internal snapshots: one excludes the other",
			       name);
	return 0;
}

static int check_limits(const struct qcow_header *h, const char *name, struct td_err *err)
{
	if (h->crypt > QCOW_LUKS)
		return td_fail(err, EINVAL, "%s: encryption method %u is unknown", name, h->crypt);
	if (h->l1_size > QCOW_L1_MAX / 8)
		return td_fail(err, EFBIG, "%s: an L1 table of %u entries: at most %u are opened",
			       name, h->l1_size, QCOW_L1_MAX / 8);
	if (h->size > (uint64_t)INT64_MAX || qcow_l1_needed(h, h->size) > h->l1_size)
		return td_fail(
			err, EINVAL,
			"%s: its L1 table of %u entries is too small for a disk of %llu bytes",
			name, h->l1_size, (unsigned long long)h->size);
	if (h->ref_clusters > QCOW_REFTABLE_MAX >> h->cluster_bits)
		return td_fail(err, EFBIG,
			       "%s: a refcount table of %u clusters: at most %u are opened", name,
			       h->ref_clusters, QCOW_REFTABLE_MAX >> h->cluster_bits);
	if (!h->ref_clusters)
		return td_fail(err, EINVAL, "%s has no refcount table", name);
	if (h->nsnapshots > QCOW_SNAPSHOTS_MAX)
		return td_fail(err, EFBIG, "%s: %u internal snapshots: at most %u are opened", name,
			       h->nsnapshots, QCOW_SNAPSHOTS_MAX);
	if (!aligned(h, h->l1_off) || !aligned(h, h->ref_off) || !aligned(h, h->snapshots_off))
		return td_fail(err, EINVAL,
			       "%s: a table that does not start at a cluster (L1 at %#llx, "
			       "refcounts at %#llx, snapshots at %#llx)",
			       name, (unsigned long long)h->l1_off, (unsigned long long)h->ref_off,
			       (unsigned long long)h->snapshots_off);
	if (h->backing_off && h->backing_len > QCOW_NAME_MAX)
		return td_fail(err, EINVAL,
			       "%s: a backing file's name of %u bytes: at most %d are possible",
			       name, h->backing_len, QCOW_NAME_MAX);
	return 0;
}

int qcow_header_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
		       struct td_err *err)
{
	const uint8_t *p = buf;
	int rc = 0;

	memset(h, 0, sizeof *h);
	if (len < QCOW_HEADER_MIN || td_get_be32(p) != QCOW_MAGIC)
		return td_fail(err, EINVAL, "%s is not a qcow2 image", name);
	h->version = td_get_be32(p + 4);
	if (h->version == 1)
		return td_fail(
			err, EINVAL,
			"%s is a qcow image of version 1, not a qcow2: open it as qcow:", name);
	if (h->version != 2 && h->version != 3)
		return td_fail(err, ENOTSUP, "%s is a qcow2 image of version %u: 2 and 3 are known",
			       name, h->version);
	h->cluster_bits = td_get_be32(p + 20);
	if (h->cluster_bits < 9 || h->cluster_bits > 21)
		return td_fail(err, EINVAL,
			       "%s: clusters of 2^%u bytes: 512 bytes to 2 MiB are possible", name,
			       h->cluster_bits);
	h->backing_off = td_get_be64(p + 8);
	h->backing_len = td_get_be32(p + 16);
	h->size = td_get_be64(p + QCOW_H_SIZE);
	h->crypt = td_get_be32(p + 32);
	h->l1_size = td_get_be32(p + QCOW_H_L1_SIZE);
	h->l1_off = td_get_be64(p + QCOW_H_L1_OFF);
	h->ref_off = td_get_be64(p + QCOW_H_REF_OFF);
	h->ref_clusters = td_get_be32(p + QCOW_H_REF_CLUSTERS);
	h->nsnapshots = td_get_be32(p + 60);
	h->snapshots_off = td_get_be64(p + 64);
	h->ref_order = 4;
	h->length = 72;
	if (h->version == 3)
		rc = decode_v3(p, len, name, h, err);
	/* the name of an unknown one stands in the extensions */
	if (!rc && !(h->incompat & ~QCOW_INCOMPAT_KNOWN))
		rc = check_features(h, name, err);
	return rc ? rc : check_limits(h, name, err);
}

static int text(char *to, size_t room, const uint8_t *p, size_t len, const char *what,
		const char *name, struct td_err *err)
{
	if (len >= room)
		return td_fail(err, EINVAL, "%s: %s of %zu bytes is too long", name, what, len);
	if (memchr(p, 0, len))
		return td_fail(err, EINVAL, "%s: %s with a zero byte in it", name, what);
	memcpy(to, p, len);
	to[len] = 0;
	return 0;
}

/* --- version 1 --- */

int qcow1_header_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
			struct td_err *err)
{
	const uint8_t *p = buf;
	uint64_t l1;

	memset(h, 0, sizeof *h);
	if (len < 48 || td_get_be32(p) != QCOW_MAGIC || td_get_be32(p + 4) != 1)
		return td_fail(err, EINVAL, "%s is not a qcow image of version 1%s", name,
			       len >= 8 && td_get_be32(p) == QCOW_MAGIC ? ": open it as qcow2:"
									: "");
	h->version = 1;
	h->backing_off = td_get_be64(p + 8);
	h->backing_len = td_get_be32(p + 16);
	h->size = td_get_be64(p + 24);
	h->cluster_bits = p[32];
	h->l2_entry_bits = p[33];
	h->crypt = td_get_be32(p + 36);
	h->l1_off = td_get_be64(p + 40);
	if (h->cluster_bits < 9 || h->cluster_bits > 16 || h->l2_entry_bits < 6 ||
	    h->l2_entry_bits > 13)
		return td_fail(err, EINVAL,
			       "%s: clusters of 2^%u bytes and L2 tables of 2^%u entries: 9 to 16 "
			       "and 6 to 13 are possible",
			       name, h->cluster_bits, h->l2_entry_bits);
	if (h->crypt > QCOW_AES)
		return td_fail(err, EINVAL, "%s: encryption method %u is unknown", name, h->crypt);
	l1 = h->size > (uint64_t)INT64_MAX ? UINT64_MAX : qcow_l1_needed(h, h->size);
	if (l1 > QCOW_L1_MAX / 8)
		return td_fail(err, EFBIG,
			       "%s: a disk of %llu bytes: with its tables at most %llu are opened",
			       name, (unsigned long long)h->size,
			       (unsigned long long)(QCOW_L1_MAX / 8) << qcow_l2_bits(h));
	h->l1_size = (uint32_t)l1;
	if (h->l1_off < 48 || h->l1_off % 8)
		return td_fail(err, EINVAL, "%s: its L1 table is at %#llx, where it cannot be",
			       name, (unsigned long long)h->l1_off);
	if (!h->backing_off)
		return 0;
	if (h->backing_len > QCOW_NAME_MAX || h->backing_off > len ||
	    h->backing_len > len - h->backing_off)
		return td_fail(err, EINVAL,
			       "%s: its backing file's name (%u bytes at %#llx) cannot be", name,
			       h->backing_len, (unsigned long long)h->backing_off);
	return text(h->backing, sizeof h->backing, p + h->backing_off, h->backing_len,
		    "the backing file's name", name, err);
}

/* --- extensions --- */

static int bitmaps(const uint8_t *p, size_t len, const char *name, struct qcow_header *h,
		   struct td_err *err)
{
	if (!(h->autoclear & QCOW_AUTOCLEAR_BITMAPS))
		return 0; /* stale: somebody who does not know bitmaps wrote to the image */
	if (len != 24)
		return td_fail(err, EINVAL, "%s: a bitmaps extension of %zu bytes", name, len);
	h->nbitmaps = td_get_be32(p);
	h->bitmaps_size = td_get_be64(p + 8);
	h->bitmaps_off = td_get_be64(p + 16);
	if (!h->nbitmaps || h->nbitmaps > QCOW_BITMAPS_MAX || !aligned(h, h->bitmaps_off) ||
	    h->bitmaps_size < 24 * (uint64_t)h->nbitmaps ||
	    h->bitmaps_size > 1152 * (uint64_t)h->nbitmaps)
		return td_fail(err, EINVAL, "%s: its directory of %u bitmaps is malformed", name,
			       h->nbitmaps);
	return 0;
}

static int extension(uint32_t type, const uint8_t *p, size_t len, const char *name,
		     struct qcow_header *h, struct td_err *err)
{
	switch (type) {
	case EXT_BACKING_FORMAT:
		return text(h->backing_format, sizeof h->backing_format, p, len,
			    "the backing file's format", name, err);
	case EXT_DATA_FILE:
		return text(h->data_file, sizeof h->data_file, p, len, "the data file's name", name,
			    err);
	case EXT_BITMAPS:
		return bitmaps(p, len, name, h, err);
	case EXT_LUKS:
		if (len != 16)
			return td_fail(err, EINVAL, "%s: an encryption extension of %zu bytes",
				       name, len);
		h->luks_off = td_get_be64(p);
		h->luks_len = td_get_be64(p + 8);
		if (!h->luks_off || !aligned(h, h->luks_off))
			return td_fail(err, EINVAL,
				       "%s: its encryption header does not start at a cluster",
				       name);
		return 0;
	default:
		return 0;
	}
}

/* What the image itself calls an incompatible feature that is unknown here. */
static int unknown_feature(const uint8_t *table, size_t len, const char *name,
			   const struct qcow_header *h, struct td_err *err)
{
	uint64_t unknown = h->incompat & ~QCOW_INCOMPAT_KNOWN;

	for (size_t i = 0; i + FEATURE_SIZE <= len; i += FEATURE_SIZE)
		if (table[i] == 0 && table[i + 1] < 64 && (unknown >> table[i + 1] & 1))
			return td_fail(err, ENOTSUP,
				       "%s needs a feature that is unknown here: '%.46s'", name,
				       (const char *)table + i + 2);
	return td_fail(err, ENOTSUP, "%s needs features that are unknown here: bits %#llx", name,
		       (unsigned long long)unknown);
}

int qcow_extensions_decode(const void *buf, size_t len, const char *name, struct qcow_header *h,
			   struct td_err *err)
{
	const uint8_t *p = buf, *table = NULL;
	size_t table_len = 0, at = h->length, end = len;
	int rc;

	if (h->backing_off) {
		if (h->backing_off < h->length || h->backing_off > len ||
		    h->backing_len > len - h->backing_off)
			return td_fail(err, EINVAL,
				       "%s: its backing file's name lies outside the first cluster",
				       name);
		end = h->backing_off;
		rc = text(h->backing, sizeof h->backing, p + h->backing_off, h->backing_len,
			  "the backing file's name", name, err);
		if (rc < 0)
			return rc;
	}
	while (at + 8 <= end) {
		uint32_t type = td_get_be32(p + at), n = td_get_be32(p + at + 4);

		if (type == EXT_END)
			break;
		at += 8;
		if (n > end - at)
			return td_fail(
				err, EINVAL,
				"%s: a header extension (%#x) of %u bytes goes beyond the header",
				name, type, n);
		if (type == EXT_FEATURES) {
			table = p + at;
			table_len = n;
		}
		rc = extension(type, p + at, n, name, h, err);
		if (rc < 0)
			return rc;
		at += ((size_t)n + 7) & ~(size_t)7;
	}
	if (h->incompat & ~QCOW_INCOMPAT_KNOWN)
		return unknown_feature(table, table_len, name, h, err);
	if (h->crypt == QCOW_LUKS && !h->luks_off)
		return td_fail(err, EINVAL,
			       "%s is encrypted (LUKS), but its encryption header is missing",
			       name);
	return 0;
}

int qcow_extensions_find(const void *buf, size_t len, const struct qcow_header *h,
			 struct qcow_extensions_at *out)
{
	const uint8_t *p = buf;
	uint64_t at = h->length,
		 end = h->backing_off && h->backing_off < len ? h->backing_off : len;

	*out = (struct qcow_extensions_at){0};
	while (at + 8 <= end) {
		uint32_t type = td_get_be32(p + at), n = td_get_be32(p + at + 4);

		at += 8;
		if (type == EXT_END) {
			out->end = at;
			return 0;
		}
		if (n > end - at)
			return -EINVAL;
		if (type == EXT_BACKING_FORMAT) {
			out->format = at;
			out->format_len = n;
		}
		at += td_round_up(n, 8);
	}
	return -EINVAL;
}

/* --- tables --- */

struct area {
	const char *what;
	uint64_t off, len;
};

int qcow_tables_check(const struct qcow_header *h, uint64_t file_size, const char *name,
		      struct td_err *err)
{
	uint64_t mask = qcow_cluster(h) - 1;
	struct area a[] = {
		{"the header", 0, qcow_cluster(h)},
		{"the L1 table", h->l1_off, (uint64_t)h->l1_size * 8},
		{"the refcount table", h->ref_off, (uint64_t)h->ref_clusters << h->cluster_bits},
		{"the snapshot table", h->snapshots_off, h->nsnapshots * UINT64_C(40)},
		{"the bitmap directory", h->bitmaps_off, h->nbitmaps ? h->bitmaps_size : 0},
		{"the encryption header", h->luks_off, h->luks_off ? h->luks_len : 0},
	};
	size_t n = sizeof a / sizeof *a;

	for (size_t i = 0; i < n; i++) {
		/* the header's cluster, and that of the refcount table, may be cut off at the
		 * file's end; what counts is there */
		uint64_t least = i == 0 ? h->length : i == 2 ? 8 : a[i].len;

		if (!a[i].len)
			continue;
		if (a[i].off > file_size || least > file_size - a[i].off)
			return td_fail(err, EINVAL,
				       "%s: %s (%llu bytes at %#llx) goes beyond the end of the "
				       "file (%llu bytes)",
				       name, a[i].what, (unsigned long long)a[i].len,
				       (unsigned long long)a[i].off, (unsigned long long)file_size);
	}
	for (size_t i = 0; i < n; i++)
		for (size_t j = i + 1; j < n; j++)
			if (a[i].len && a[j].len &&
			    a[i].off < ((a[j].off + a[j].len + mask) & ~mask) &&
			    a[j].off < ((a[i].off + a[i].len + mask) & ~mask))
				return td_fail(err, EINVAL, "%s: %s and %s overlap", name,
					       a[i].what, a[j].what);
	return 0;
}

/* --- encoding --- */

struct out {
	uint8_t *p;
	size_t at, room;
	bool full;
};

static void put_extension(struct out *o, uint32_t type, const void *data, size_t len)
{
	size_t padded = (len + 7) & ~(size_t)7;

	if (o->full || padded + 8 > o->room - o->at) {
		o->full = true;
		return;
	}
	td_put_be32(o->p + o->at, type);
	td_put_be32(o->p + o->at + 4, (uint32_t)len);
	if (len)
		memcpy(o->p + o->at + 8, data, len);
	o->at += 8 + padded;
}

static void put_features(struct out *o)
{
	uint8_t table[sizeof features / sizeof *features * FEATURE_SIZE];

	memset(table, 0, sizeof table);
	for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
		table[i * FEATURE_SIZE] = features[i].type;
		table[i * FEATURE_SIZE + 1] = features[i].bit;
		memcpy(table + i * FEATURE_SIZE + 2, features[i].name, strlen(features[i].name));
	}
	put_extension(o, EXT_FEATURES, table, sizeof table);
}

int qcow_header_encode(const struct qcow_header *h, void *buf, size_t len)
{
	struct out o = {buf, h->version == 3 ? 112 : 72, len, len < 120};
	uint8_t *p = buf, luks[16];
	size_t name_len = strlen(h->backing);

	if (o.full)
		return -ENOSPC;
	td_put_be32(p, QCOW_MAGIC);
	td_put_be32(p + 4, h->version);
	td_put_be32(p + 20, h->cluster_bits);
	td_put_be64(p + QCOW_H_SIZE, h->size);
	td_put_be32(p + 32, h->crypt);
	td_put_be32(p + QCOW_H_L1_SIZE, h->l1_size);
	td_put_be64(p + QCOW_H_L1_OFF, h->l1_off);
	td_put_be64(p + QCOW_H_REF_OFF, h->ref_off);
	td_put_be32(p + QCOW_H_REF_CLUSTERS, h->ref_clusters);
	td_put_be32(p + 60, h->nsnapshots);
	td_put_be64(p + 64, h->snapshots_off);
	if (h->version == 3) {
		td_put_be64(p + QCOW_H_INCOMPAT, h->incompat);
		td_put_be64(p + 80, h->compat);
		td_put_be64(p + QCOW_H_AUTOCLEAR, h->autoclear);
		td_put_be32(p + 96, h->ref_order);
		td_put_be32(p + 100, 112);
		p[104] = (uint8_t)h->compression;
	}
	if (h->backing_format[0])
		put_extension(&o, EXT_BACKING_FORMAT, h->backing_format, strlen(h->backing_format));
	if (h->data_file[0])
		put_extension(&o, EXT_DATA_FILE, h->data_file, strlen(h->data_file));
	if (h->crypt == QCOW_LUKS) {
		td_put_be64(luks, h->luks_off);
		td_put_be64(luks + 8, h->luks_len);
		put_extension(&o, EXT_LUKS, luks, sizeof luks);
	}
	if (h->version == 3 && len >= 1024) /* no room for names in the smallest clusters */
		put_features(&o);
	put_extension(&o, EXT_END, NULL, 0);
	if (o.full || name_len > o.room - o.at)
		return -ENOSPC;
	if (name_len) {
		td_put_be64(p + 8, o.at);
		td_put_be32(p + 16, (uint32_t)name_len);
		memcpy(p + o.at, h->backing, name_len);
	}
	return 0;
}

/* --- refcounts --- */

uint64_t qcow_ref_get(const void *p, unsigned order, uint64_t i)
{
	const uint8_t *b = p;

	switch (order) {
	case 3:
		return b[i];
	case 4:
		return td_get_be16(b + 2 * i);
	case 5:
		return td_get_be32(b + 4 * i);
	case 6:
		return td_get_be64(b + 8 * i);
	default: /* 1, 2 or 4 bits, the lowest bits first */
		return b[i >> (3 - order)] >> ((i & ((1u << (3 - order)) - 1)) << order) &
		       qcow_ref_max(order);
	}
}

void qcow_ref_set(void *p, unsigned order, uint64_t i, uint64_t value)
{
	uint8_t *b = p;
	unsigned shift;

	switch (order) {
	case 3:
		b[i] = (uint8_t)value;
		break;
	case 4:
		td_put_be16(b + 2 * i, (uint16_t)value);
		break;
	case 5:
		td_put_be32(b + 4 * i, (uint32_t)value);
		break;
	case 6:
		td_put_be64(b + 8 * i, value);
		break;
	default:
		shift = (unsigned)(i & ((1u << (3 - order)) - 1)) << order;
		b += i >> (3 - order);
		*b = (uint8_t)((*b & ~(qcow_ref_max(order) << shift)) | value << shift);
	}
}
