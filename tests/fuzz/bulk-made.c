/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/bulk-made.h"

#include <zlib.h>

#include "drivers/qcow/qcow-image.h"
#include "drivers/vhd/vhd-format.h"
#include "lib/bytes.h"
#include "lib/fiber/await.h"
#include "tapdisk/chain.h"
#include "tests/support/on-fiber.h"
#include "tests/support/vhd-make.h"

enum { DISK = 128 << 10 };

struct made made_all[MADE_MAX];
static unsigned n;
static struct fault_io *store;
static struct td_err err;

static const struct made_field vhd_fields[] = {
	{12, 4},  {16, 8},  {40, 8},  {48, 8},   {60, 4},   {520, 8},  {528, 8},
	{536, 4}, {540, 4}, {544, 4}, {1088, 4}, {1092, 4}, {1096, 4}, {1104, 8},
};
static const struct made_field qcow2_fields[] = {
	{4, 4},  {8, 8},  {16, 4}, {20, 4}, {24, 8}, {32, 4}, {36, 4}, {40, 8},  {48, 8},
	{56, 4}, {60, 4}, {64, 8}, {72, 8}, {80, 8}, {88, 8}, {96, 4}, {100, 4}, {104, 4},
};
static const struct made_field qcow_fields[] = {{8, 8},  {16, 4}, {24, 8}, {32, 1},
						{33, 1}, {36, 4}, {40, 8}};

/* --- what an image is made of --- */

static void keep(struct made_file *to, const struct fault_file *f)
{
	snprintf(to->name, sizeof to->name, "%s", f->name);
	FUZZ_ASSERT(f->size <= 4 << 20);
	to->size = f->size;
	to->bytes = calloc(1, f->size ? f->size : 1);
	FUZZ_ASSERT(to->bytes);
	memcpy(to->bytes, f->data, f->held);
}

/* Takes what is in the store: the first file is the image. */
static void done(const char *what, const char *type)
{
	struct made *m = &made_all[n++];

	FUZZ_ASSERT(n < MADE_MAX);
	m->what = what;
	m->type = type;
	for (int i = 0; i < FAULT_FILES; i++) {
		struct fault_file *f = &store->file[i];

		if (!f->data)
			continue;
		keep(strcmp(f->name, "/a.img") ? &m->other[m->nothers++] : &m->image, f);
		free(f->data);
		f->data = NULL;
	}
	for (uint64_t at = 0; at + 8 <= m->image.size && m->nwords < MADE_WORDS; at += 8)
		if (td_get_be64(m->image.bytes + at))
			m->word[m->nwords++] = (uint32_t)at;
	FUZZ_ASSERT(m->nwords);
	m->offline = !strcmp(type, "qcow2");
	if (m->offline)
		m->field = qcow2_fields, m->nfields = sizeof qcow2_fields / sizeof *qcow2_fields;
	else if (!strcmp(type, "vhd"))
		m->field = vhd_fields, m->nfields = sizeof vhd_fields / sizeof *vhd_fields;
	else if (!strcmp(type, "qcow"))
		m->field = qcow_fields, m->nfields = sizeof qcow_fields / sizeof *qcow_fields;
}

/* Writes here and there, as a guest would. */
static void write_some(const char *spec, const struct td_key *key, const char *data)
{
	static uint8_t bytes[8192] __attribute__((aligned(4096)));
	struct td_how how = {.key = key, .data = data, .trusted = true};
	struct td_image *image;
	struct iovec iov = {bytes, sizeof bytes};

	memset(bytes, 0x5a, sizeof bytes);
	if (chain_open(spec, &how, store->io, &image, &err))
		fprintf(stderr, "%s: %s\n", spec, err.text);
	FUZZ_ASSERT(!err.code);
	for (uint64_t off = 0; off < image->info.size; off += DISK / 3 & ~511) {
		uint64_t left = image->info.size - off;
		int rc;

		iov.iov_len = left < sizeof bytes ? left : sizeof bytes;
		rc = td_await_request(image, store->io, TD_WRITE, 0, off, iov.iov_len, &iov, 1);
		if (rc)
			fprintf(stderr, "%s: %s\n", spec, strerror(-rc));
		FUZZ_ASSERT(!rc);
	}
	chain_close(image);
}

/* --- VHD --- */

static void vhd(const char *what, struct vhd_make m, const struct td_key *key)
{
	m.name = "/a.img";
	m.uuid = 1;
	if (key)
		m.key = (const char *)key->bytes, m.key_len = key->len;
	vhd_make(store, &m);
	if (m.type == VHD_DIFF && m.parent_uuid)
		vhd_make(store, &(struct vhd_make){.name = "/p.img",
						   .size = m.size,
						   .block_size = 4096,
						   .type = VHD_DYNAMIC,
						   .uuid = m.parent_uuid});
	else if (m.type == VHD_DIFF)
		fault_io_file(store, "/p.img", m.size);
	write_some("vhd:/a.img", key, NULL);
	done(what, "vhd");
	if (key)
		made_all[n - 1].key = *key;
}

static void make_vhds(void)
{
	struct td_key key = {.len = 32};
	struct vhd_make m = {.size = DISK, .block_size = 4096, .type = VHD_DYNAMIC};

	for (unsigned i = 0; i < key.len; i++)
		key.bytes[i] = (uint8_t)(i * 7);
	vhd("VHD, dynamic", m, NULL);
	m.block_size = 64 << 10;
	m.no_batmap = true;
	vhd("VHD, dynamic, no batmap", m, NULL);
	m.no_batmap = false;
	m.type = VHD_DIFF;
	m.parent = "p.img";
	vhd("VHD, differencing, on raw", m, NULL);
	m.parent_uuid = 2;
	m.locators = 3;
	m.block_size = 4096;
	vhd("VHD, differencing, on a VHD", m, NULL);
	vhd("VHD, encrypted",
	    (struct vhd_make){.size = DISK, .block_size = 8192, .type = VHD_DYNAMIC}, &key);
	vhd("VHD, fixed", (struct vhd_make){.size = DISK, .type = VHD_FIXED}, NULL);
}

/* --- qcow2 --- */

static struct fault_file *file_named(const char *name)
{
	for (int i = 0; i < FAULT_FILES; i++)
		if (store->file[i].data && !strcmp(store->file[i].name, name))
			return &store->file[i];
	FUZZ_ASSERT(!"there is such a file");
	return NULL;
}

static void create(const char *path, const struct qcow_create *o)
{
	struct qcow_create c = *o;

	c.size = DISK;
	fault_io_file(store, path, 0);
	if (qcow_image_create(path, &c, store->io, &err))
		fprintf(stderr, "%s: %s\n", path, err.text);
	FUZZ_ASSERT(!err.code);
}

static void qcow2(const char *what, struct qcow_create o)
{
	const struct qcow_create plain = {.version = 3, .cluster_bits = 9, .refcount_order = 4};

	if (o.backing && !strcmp(o.backing_format, "qcow2"))
		create("/p.img", &plain);
	else if (o.backing)
		fault_io_file(store, "/p.img", DISK);
	if (o.data_file)
		fault_io_file(store, "/d.img", 0);
	create("/a.img", &o);
	write_some("qcow2:/a.img", o.key, o.data_file ? "/d.img" : NULL);
	done(what, "qcow2");
	made_all[n - 1].data = o.data_file ? "/d.img" : NULL;
	if (o.key)
		made_all[n - 1].key = *o.key;
}

/* Its first cluster as a compressed one. */
static void compress_first(void)
{
	struct fault_file *f = file_named("/a.img");
	unsigned bits = (unsigned)td_get_be32(f->data + 20);
	uint64_t l2 = td_get_be64(f->data + td_get_be64(f->data + 40)) & 0xfffffffffffe00;
	uint64_t at = td_get_be64(f->data + l2) & 0xfffffffffffe00, len = UINT64_C(1) << bits;
	uint8_t out[4096];
	z_stream z = {.next_in = f->data + at,
		      .avail_in = (unsigned)len,
		      .next_out = out,
		      .avail_out = sizeof out};

	FUZZ_ASSERT(at && len <= sizeof out);
	FUZZ_ASSERT(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY) == Z_OK);
	FUZZ_ASSERT(deflate(&z, Z_FINISH) == Z_STREAM_END);
	FUZZ_ASSERT(deflateEnd(&z) == Z_OK && z.total_out <= 512);
	memcpy(f->data + at, out, z.total_out);
	td_put_be64(f->data + l2, UINT64_C(1) << 62 | at);
}

/* A copy of the L1 table, and a directory that names it. */
static void add_snapshot(void)
{
	struct fault_file *f = file_named("/a.img");
	uint64_t cluster = UINT64_C(1) << td_get_be32(f->data + 20), end = f->size;
	uint32_t l1 = td_get_be32(f->data + 36);
	uint8_t *d;

	end = (end + cluster - 1) & ~(cluster - 1);
	f->data = realloc(f->data, end + 2 * cluster);
	FUZZ_ASSERT(f->data);
	memset(f->data + f->held, 0, end + 2 * cluster - f->held);
	f->size = f->held = f->room = end + 2 * cluster;
	memcpy(f->data + end, f->data + td_get_be64(f->data + 40), l1 * 8ull);
	td_put_be32(f->data + 60, 1);
	td_put_be64(f->data + 64, end + cluster);
	d = f->data + end + cluster;
	td_put_be64(d, end);
	td_put_be32(d + 8, l1);
	td_put_be32(d + 12, 1u << 16 | 1); /* bytes of id and name */
	td_put_be32(d + 36, 16);           /* and of what follows them */
	td_put_be64(d + 48, DISK);
	memcpy(d + 56, "1s", 2);
}

/* A bitmap of one cluster, whose table and directory follow the image. */
static void add_bitmap(void)
{
	struct fault_file *f = file_named("/a.img");
	uint64_t cluster = UINT64_C(1) << td_get_be32(f->data + 20), end;
	uint8_t *e;

	end = (f->size + cluster - 1) & ~(cluster - 1);
	f->data = realloc(f->data, end + 3 * cluster);
	FUZZ_ASSERT(f->data);
	memset(f->data + f->held, 0, end + 3 * cluster - f->held);
	f->size = f->held = f->room = end + 3 * cluster;
	for (e = f->data + td_get_be32(f->data + 100); td_get_be32(e);)
		e += 8 + ((td_get_be32(e + 4) + 7) & ~7u);
	td_put_be32(e, 0x23852875);
	td_put_be32(e + 4, 24);
	td_put_be32(e + 8, 1);        /* bitmaps */
	td_put_be64(e + 16, 32);      /* bytes of the directory */
	td_put_be64(e + 24, end);     /* which is here */
	td_put_be64(f->data + 88, 1); /* they are consistent */
	e = f->data + end;
	td_put_be64(e, end + cluster); /* its table, */
	td_put_be32(e + 8, 1);         /* of one entry */
	td_put_be32(e + 12, 2);        /* enabled */
	e[16] = 1;                     /* dirty tracking */
	e[17] = 9;                     /* of 512 bytes a bit */
	e[19] = 1;                     /* bytes of its name */
	e[24] = 'b';
	td_put_be64(f->data + end + cluster, end + 2 * cluster);
	f->data[end + 2 * cluster] = 0x81;
}

static void by_hand(const char *what, void (*fn)(void))
{
	const struct qcow_create o = {.version = 3, .cluster_bits = 12, .refcount_order = 4};

	create("/a.img", &o);
	write_some("qcow2:/a.img", NULL, NULL);
	fn();
	done(what, "qcow2");
}

static void make_qcow2s(void)
{
	struct qcow_create o = {.version = 3, .cluster_bits = 9, .refcount_order = 4};
	struct luks_make luks = {
		.mode = TD_CIPHER_XTS, .iv = TD_IV_PLAIN64, .aes = 256, .hash = "sha256", .ms = 1};
	struct td_key key = {.bytes = "secret", .len = 6};

	qcow2("qcow2", o);
	o.version = 2;
	qcow2("qcow2, version 2", o);
	o.version = 3;
	o.refcount_order = 0;
	qcow2("qcow2, refcounts of a bit", o);
	o.refcount_order = 6;
	o.lazy = true;
	qcow2("qcow2, lazy refcounts of 64 bits", o);
	o.lazy = false;
	o.refcount_order = 4;
	o.prealloc = QCOW_PREALLOC_METADATA;
	qcow2("qcow2, metadata preallocated", o);
	o.prealloc = QCOW_PREALLOC_OFF;
	o.backing = "p.img";
	o.backing_format = "raw";
	qcow2("qcow2 on raw", o);
	o.backing_format = "qcow2";
	qcow2("qcow2 on qcow2", o);
	o.backing = o.backing_format = NULL;
	o.data_file = "d.img";
	qcow2("qcow2, external data file", o);
	o.data_raw = true;
	qcow2("qcow2, external raw data file", o);
	o.data_file = NULL;
	o.data_raw = false;
	o.cluster_bits = 14;
	o.extended_l2 = true;
	qcow2("qcow2, extended L2", o);
	o.extended_l2 = false;
	o.cluster_bits = 9;
	o.luks = &luks;
	o.key = &key;
	qcow2("qcow2, LUKS", o);
	by_hand("qcow2, a compressed cluster", compress_first);
	by_hand("qcow2, a snapshot", add_snapshot);
	by_hand("qcow2, a bitmap", add_bitmap);
}

/* --- qcow, and raw --- */

static void make_others(void)
{
	for (int backing = 0; backing < 2; backing++) {
		uint8_t *b = fault_io_file(store, "/a.img", 8192)->data;

		memcpy(b, "QFI\xfb", 4);
		td_put_be32(b + 4, 1);
		if (backing) {
			td_put_be64(b + 8, 48);
			td_put_be32(b + 16, 5);
			memcpy(b + 48, "p.img", 5);
			fault_io_file(store, "/p.img", 16384);
		}
		td_put_be64(b + 24, 16384);
		b[32] = 9; /* cluster_bits */
		b[33] = 9; /* l2_bits */
		td_put_be64(b + 40, 512);
		td_put_be64(b + 512, 1024);
		td_put_be64(b + 1024, 5120);
		td_put_be64(b + 1032, 6144);
		memset(b + 5120, 0x5a, 1536);
		done(backing ? "qcow on raw" : "qcow", "qcow");
	}
	memset(fault_io_file(store, "/a.img", DISK)->data, 0x5a, DISK / 2);
	done("raw", "aio");
}

static void make_all(void *arg)
{
	make_vhds();
	make_qcow2s();
	make_others();
}

unsigned made_make(struct fault_io *fio, struct ev_loop *loop)
{
	store = fio;
	on_fiber(loop, make_all, NULL);
	return n;
}

/* --- sums --- */

static void sum(uint8_t *b, size_t len, size_t at)
{
	uint32_t s = 0;

	memset(b + at, 0, 4);
	for (size_t i = 0; i < len; i++)
		s += b[i];
	td_put_be32(b + at, ~s);
}

static void vhd_sums(uint8_t *b, uint64_t size)
{
	uint64_t header = size >= VHD_FOOTER ? td_get_be64(b + 16) : 0;

	if (size < VHD_FOOTER)
		return;
	if (!memcmp(b, "conectix", 8))
		sum(b, VHD_FOOTER, 64);
	if (header >= VHD_FOOTER && header <= size && size - header >= VHD_HEADER)
		sum(b + header, VHD_HEADER, 36);
	if (memcmp(b, "conectix", 8) && !memcmp(b + size - VHD_FOOTER, "conectix", 8))
		sum(b + size - VHD_FOOTER, VHD_FOOTER, 64);
	else if (bulk_rnd(2) && size >= 2 * VHD_FOOTER)
		memcpy(b + size - VHD_FOOTER, b, VHD_FOOTER);
}

void made_sums(const struct made *m, uint8_t *b, uint64_t size)
{
	if (!strcmp(m->type, "vhd"))
		vhd_sums(b, size);
}

/* The iterations of the digest and of eight slots. */
void made_cheap(const struct made *m, uint8_t *b, uint64_t size)
{
	const uint8_t *was = memmem(m->image.bytes, m->image.size, "LUKS\xba\xbe", 6);
	uint64_t at = was ? (uint64_t)(was - m->image.bytes) : size;

	for (int i = 0; i < 9; i++) {
		uint64_t k = at + (i ? 208 + 48 * (uint64_t)(i - 1) + 4 : 164);

		if (k + 4 <= size && k + 4 <= m->image.size && td_get_be32(b + k) > 2000)
			memcpy(b + k, m->image.bytes + k, 4);
	}
}
