/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A new image: header, refcount table, refcount blocks, L1 table, the encryption header where there
 * is one, and with preallocation L2 tables and all clusters of the disk, in this order and without
 * gaps.  The header is written last, when all else is durable: half an image is no image.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "drivers/qcow/qcow-image.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"
#include "lib/sibling.h"
#include "lib/zeroes.h"

/* In clusters; each area begins where the last one ends. */
struct layout {
	uint64_t table, blocks, l1, luks, l2, data; /* how many of each */
	uint64_t table_at, blocks_at, l1_at, luks_at, l2_at, data_at, end;
};

static uint64_t clusters(const struct qcow_header *h, uint64_t bytes)
{
	return (bytes + qcow_cluster(h) - 1) >> h->cluster_bits;
}

static void plan(const struct qcow_header *h, bool prealloc, bool external, struct layout *l)
{
	uint64_t per = qcow_refs_per_block(h), fixed;

	*l = (struct layout){.table = 1, .blocks = 1};
	l->l1 = clusters(h, (uint64_t)h->l1_size * 8);
	l->luks = clusters(h, h->luks_len);
	l->l2 = prealloc ? qcow_l1_needed(h, h->size) : 0;
	l->data = prealloc && !external ? clusters(h, h->size) : 0;
	fixed = 1 + l->l1 + l->luks + l->l2 + l->data;
	for (;;) { /* what counts has to be counted too */
		uint64_t blocks = (fixed + l->table + l->blocks + per - 1) / per,
			 table = clusters(h, blocks * 8);

		if (blocks <= l->blocks && table <= l->table)
			break;
		l->blocks = blocks > l->blocks ? blocks : l->blocks;
		l->table = table > l->table ? table : l->table;
	}
	l->table_at = 1;
	l->blocks_at = l->table_at + l->table;
	l->l1_at = l->blocks_at + l->blocks;
	l->luks_at = l->l1_at + l->l1;
	l->l2_at = l->luks_at + l->luks;
	l->data_at = l->l2_at + l->l2;
	l->end = l->data_at + l->data;
}

struct make {
	struct td_file *file, *data;
	struct qcow_header h;
	struct layout l;
	uint8_t *buf;  /* a cluster */
	uint8_t *luks; /* h.luks_len bytes, or NULL */
};

static int put_cluster(struct make *m, uint64_t cluster)
{
	return td_file_rw(m->file, TD_IO_WRITE, m->buf, cluster << m->h.cluster_bits,
			  qcow_cluster(&m->h), 0);
}

/* A table of `space' clusters from `at' on: n offsets, of `what' and the clusters behind it. */
static int put_offsets(struct make *m, uint64_t at, uint64_t space, uint64_t n, uint64_t what,
		       uint64_t flag)
{
	uint64_t per = qcow_cluster(&m->h) / 8;
	int rc = 0;

	for (uint64_t c = 0; !rc && c < space; c++) {
		memset(m->buf, 0, qcow_cluster(&m->h));
		for (uint64_t i = 0; i < per && c * per + i < n; i++)
			td_put_be64(m->buf + 8 * i,
				    (what + c * per + i) << m->h.cluster_bits | flag);
		rc = put_cluster(m, at + c);
	}
	return rc;
}

static int put_blocks(struct make *m)
{
	uint64_t per = qcow_refs_per_block(&m->h);
	int rc = 0;

	for (uint64_t b = 0; !rc && b < m->l.blocks; b++) {
		memset(m->buf, 0, qcow_cluster(&m->h));
		for (uint64_t i = 0; i < per && b * per + i < m->l.end; i++)
			qcow_ref_set(m->buf, m->h.ref_order, i, 1);
		rc = put_cluster(m, m->l.blocks_at + b);
	}
	return rc;
}

static int put_l2(struct make *m)
{
	bool ext = qcow_extl2(&m->h), external = m->h.incompat & QCOW_INCOMPAT_DATA;
	uint64_t per = qcow_cluster(&m->h) / (ext ? 16 : 8), all = clusters(&m->h, m->h.size);
	int rc = 0;

	for (uint64_t t = 0; !rc && t < m->l.l2; t++) {
		memset(m->buf, 0, qcow_cluster(&m->h));
		for (uint64_t i = 0; i < per && t * per + i < all; i++) {
			uint64_t guest = t * per + i;

			td_put_be64(
				m->buf + i * (ext ? 16 : 8),
				((external ? guest : m->l.data_at + guest) << m->h.cluster_bits) |
					QCOW_COPIED);
			if (ext)
				td_put_be64(m->buf + i * 16 + 8, UINT32_MAX);
		}
		rc = put_cluster(m, m->l.l2_at + t);
	}
	return rc;
}

/* The space of [off, off + len): as holes, as blocks of the file system, or as zeroes that were
 * written. */
static int put_data(struct td_file *f, uint64_t off, uint64_t len, enum qcow_prealloc how)
{
	struct td_iop op = {.op = TD_IO_ZERO, .file = f, .off = off, .len = len};
	int rc;

	if (how == QCOW_PREALLOC_METADATA && !f->st.blockdev)
		return qcow_set_length(f, off + len);
	rc = how == QCOW_PREALLOC_FALLOC ? td_await_file(f->io, &op) : -EOPNOTSUPP;
	if (rc != -EOPNOTSUPP)
		return rc ? rc : qcow_set_length(f, off + len);
	rc = 0;
	for (uint64_t at = off, n; !rc && at < off + len; at += n) {
		struct iovec iov = td_zeroes_iov(off + len - at);

		n = iov.iov_len;
		rc = td_file_rw(f, TD_IO_WRITE, iov.iov_base, at, n, 0);
	}
	return rc;
}

static int put_all(struct make *m, enum qcow_prealloc how)
{
	uint64_t size = td_round_up(m->h.size, qcow_cluster(&m->h));
	int rc = put_offsets(m, m->l.table_at, m->l.table, m->l.blocks, m->l.blocks_at, 0);

	if (!rc)
		rc = put_blocks(m);
	if (!rc)
		rc = put_offsets(m, m->l.l1_at, m->l.l1, m->l.l2, m->l.l2_at, QCOW_COPIED);
	if (!rc && m->luks)
		rc = td_file_rw(m->file, TD_IO_WRITE, m->luks, m->h.luks_off, m->h.luks_len, 0);
	if (!rc)
		rc = put_l2(m);
	if (!rc && m->l.data)
		rc = put_data(m->file, m->l.data_at << m->h.cluster_bits,
			      m->l.data << m->h.cluster_bits, how);
	if (!rc && m->data)
		rc = how > QCOW_PREALLOC_METADATA ? put_data(m->data, 0, size, how)
						  : qcow_set_length(m->data, m->h.size);
	if (!rc)
		rc = qcow_sync(m->file);
	if (!rc && m->data)
		rc = qcow_sync(m->data);
	memset(m->buf, 0, qcow_cluster(&m->h));
	if (!rc)
		rc = qcow_header_encode(&m->h, m->buf, qcow_cluster(&m->h));
	if (!rc)
		rc = put_cluster(m, 0);
	return rc ? rc : qcow_sync(m->file);
}

static int fill_header(const char *path, const struct qcow_create *o, struct qcow_header *h,
		       struct td_err *err)
{
	*h = (struct qcow_header){.version = o->version,
				  .cluster_bits = o->cluster_bits,
				  .size = o->size,
				  .ref_order = o->refcount_order,
				  .compression = o->compression};
	h->compat = o->lazy ? QCOW_COMPAT_LAZY : 0;
	h->incompat = (o->compression ? QCOW_INCOMPAT_ZIP : 0) |
		      (o->extended_l2 ? QCOW_INCOMPAT_EXTL2 : 0) |
		      (o->data_file ? QCOW_INCOMPAT_DATA : 0);
	h->autoclear = o->data_raw ? QCOW_AUTOCLEAR_RAW : 0;
	h->crypt = o->luks ? QCOW_LUKS : QCOW_PLAIN;
	h->luks_len = o->luks ? luks_size(o->luks) : 0;
	if (h->version == 2 && (h->compat | h->incompat | h->autoclear || h->ref_order != 4))
		return td_fail(err, EINVAL,
			       "%s: version 2 (compat=0.10) has none of the newer features: "
			       "refcounts of another width, lazy refcounts, "
			       "zstd, extended L2 entries, data files",
			       path);
	if (o->extended_l2 && o->cluster_bits < 14)
		return td_fail(err, EINVAL,
			       "%s: extended L2 entries need clusters of 16 KiB or more", path);
	if (o->data_raw && (!o->data_file || o->backing))
		return td_fail(err, EINVAL,
			       "%s: data_file_raw needs a data_file, and no backing file", path);
	if (o->luks && (o->prealloc || o->data_raw))
		return td_fail(err, EINVAL,
			       "%s: an encrypted image can have nothing preallocated, and no raw "
			       "data file: zeroes would read as noise",
			       path);
	if (o->luks && !(o->key && o->key->len))
		return td_fail(
			err, ENOKEY,
			"%s is to be encrypted: give its passphrase on standard input, with -E",
			path);
	if (o->prealloc && o->backing)
		return td_fail(
			err, EINVAL,
			"%s: with a backing file nothing can be preallocated: it would be hidden",
			path);
	if (!o->size || o->size % QCOW_SECTOR || o->size > (UINT64_C(1) << 56) ||
	    qcow_l1_needed(h, o->size) > QCOW_L1_MAX / 8)
		return td_fail(err, EINVAL,
			       "%s: %llu bytes cannot be: a disk's size is a multiple of 512, and "
			       "of at most %llu bytes with this cluster size",
			       path, (unsigned long long)o->size,
			       (unsigned long long)(QCOW_L1_MAX / 8) << qcow_l2_bits(h));
	h->l1_size = (uint32_t)qcow_l1_needed(h, o->size);
	if (o->backing && strlen(o->backing) > QCOW_NAME_MAX)
		return td_fail(err, ENAMETOOLONG, "%s: a backing file's name has at most %d bytes",
			       path, QCOW_NAME_MAX);
	snprintf(h->backing, sizeof h->backing, "%s", o->backing ? o->backing : "");
	snprintf(h->backing_format, sizeof h->backing_format, "%s",
		 o->backing ? o->backing_format : "");
	snprintf(h->data_file, sizeof h->data_file, "%s", o->data_file ? o->data_file : "");
	return 0;
}

struct luks_call {
	const struct luks_make *how;
	const struct td_key *key;
	uint8_t *area;
};

static long luks_run(void *arg)
{
	struct luks_call *c = arg;

	return luks_create(c->how, c->key->bytes, c->key->len, c->area);
}

static int make_luks(struct make *m, const struct qcow_create *o)
{
	struct luks_call c = {o->luks, o->key, NULL};

	if (posix_memalign((void **)&c.area, 4096, m->h.luks_len))
		return -ENOMEM;
	memset(c.area, 0, m->h.luks_len);
	m->luks = c.area;
	return (int)td_await_call(m->file->io, luks_run, &c); /* which takes seconds */
}

/* A file becomes empty; what a device holds is no image from now on. */
static int wipe(struct make *m)
{
	if (!m->file->st.blockdev)
		return qcow_set_length(m->file, 0);
	memset(m->buf, 0, qcow_cluster(&m->h));
	return put_cluster(m, 0);
}

/* From here on what was there is gone; and nothing is left of half an image. */
static int write_over(struct make *m, enum qcow_prealloc how)
{
	int rc = wipe(m);

	if (!rc)
		rc = put_all(m, how);
	if (rc)
		wipe(m);
	return rc;
}

static int create_at(struct make *m, const char *path, const struct qcow_create *o,
		     struct td_err *err)
{
	int rc;

	plan(&m->h, o->prealloc || o->data_raw, o->data_file, &m->l);
	m->h.l1_off = m->l.l1_at << m->h.cluster_bits;
	m->h.ref_off = m->l.table_at << m->h.cluster_bits;
	m->h.ref_clusters = (uint32_t)m->l.table;
	m->h.luks_off = m->l.luks ? m->l.luks_at << m->h.cluster_bits : 0;
	if ((uint64_t)m->h.ref_clusters << m->h.cluster_bits > QCOW_REFTABLE_MAX)
		return td_fail(
			err, EFBIG,
			"%s: its refcount table would have more than 8 MiB: use larger clusters",
			path);
	if (posix_memalign((void **)&m->buf, 4096, qcow_cluster(&m->h)))
		return -ENOMEM;
	/* once before the image that was there is gone */
	if (qcow_header_encode(&m->h, m->buf, qcow_cluster(&m->h)) == -ENOSPC) {
		free(m->buf);
		return td_fail(err, ENAMETOOLONG,
			       "%s: its names do not fit into the first cluster, of %llu bytes",
			       path, (unsigned long long)qcow_cluster(&m->h));
	}
	rc = o->luks ? make_luks(m, o) : 0;
	if (!rc)
		rc = write_over(m, o->prealloc);
	free(m->buf);
	free(m->luks);
	return rc ? td_fail(err, -rc, "cannot create %s: %s", path, strerror(-rc)) : 0;
}

int qcow_image_create(const char *path, const struct qcow_create *o, struct td_io *io,
		      struct td_err *err)
{
	struct make m = {0};
	char data[TD_PATH_MAX];
	int rc = fill_header(path, o, &m.h, err);

	if (!rc && o->data_file)
		rc = td_sibling(path, o->data_file, "data file", NULL, data, err);
	if (!rc)
		rc = td_file_open(io, path, 0, &m.file, err);
	if (!rc && o->data_file)
		rc = td_file_open(io, data, 0, &m.data, err);
	if (!rc)
		rc = create_at(&m, path, o, err);
	td_file_close(m.data);
	td_file_close(m.file);
	return rc;
}
