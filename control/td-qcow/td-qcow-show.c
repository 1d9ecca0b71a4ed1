/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* td-qcow info and map: close to what qemu-img prints, for those who read that. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "control/td-qcow/td-qcow.h"
#include "lib/json-get.h"
#include "lib/output.h"
#include "lib/sibling.h"

int td_qcow_print(json_t *j)
{
	json_dumpf(j, stdout, JSON_INDENT(4));
	putchar('\n');
	json_decref(j);
	return 0;
}

static void human(uint64_t bytes, char out[32])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
	double v = (double)bytes;
	unsigned u = 0;

	while (v >= 1000 && u < 5) {
		v /= 1024;
		u++;
	}
	snprintf(out, 32, "%.3g %s", v, units[u]);
}

static uint64_t on_disk(const char *path)
{
	struct stat s;

	return stat(path, &s) < 0 ? 0 : (uint64_t)s.st_blocks * 512;
}

static const char *compat(const struct qcow_header *h)
{
	return h->version == 2 ? "0.10" : "1.1";
}

/* --- encryption --- */

/* "aes-256", "xts", "plain64". */
static void cipher_words(const struct luks *l, char cipher[16], char mode[8], char iv[24])
{
	bool xts = l->mode == TD_CIPHER_XTS;

	snprintf(cipher, 16, "aes-%u", (unsigned)l->key_bytes * 8 / (xts ? 2 : 1));
	snprintf(mode, 8, "%s", xts ? "xts" : "cbc");
	snprintf(iv, 24, "%s", strchr(l->mode_name, '-') + 1);
}

static json_t *json_encrypt(const struct qcow_info *i)
{
	json_t *j = json_pack("{s:s}", "format", i->h.crypt == QCOW_LUKS ? "luks" : "aes"), *slots;
	char cipher[16], mode[8], iv[24];

	if (!i->has_luks)
		return j;
	cipher_words(&i->luks, cipher, mode, iv);
	slots = json_array();
	for (unsigned n = 0; n < LUKS_SLOTS; n++)
		json_array_append_new(slots,
				      json_pack("{s:b, s:i}", "active", i->luks.slot[n].active,
						"iters", (int)i->luks.slot[n].iterations));
	json_object_update_new(j, json_pack("{s:s, s:s, s:s, s:s, s:o}", "cipher-alg", cipher,
					    "cipher-mode", mode, "ivgen-alg", iv, "hash-alg",
					    i->luks.hash_name, "slots", slots));
	return j;
}

static void text_encrypt(const struct qcow_info *i)
{
	char cipher[16], mode[8], iv[24];

	printf("    encrypt:\n        format: %s\n", i->h.crypt == QCOW_LUKS ? "luks" : "aes");
	if (!i->has_luks)
		return;
	cipher_words(&i->luks, cipher, mode, iv);
	printf("        ivgen alg: %s\n        hash alg: %s\n        cipher alg: %s\n        "
	       "cipher mode: %s\n        slots in use:",
	       iv, i->luks.hash_name, cipher, mode);
	for (unsigned n = 0; n < LUKS_SLOTS; n++)
		if (i->luks.slot[n].active)
			printf(" %u", n);
	putchar('\n');
}

/* --- info --- */

/* An image's names were chosen by whoever made it: none makes a line of its own. */
static void text_name(const char *what, const char *name)
{
	printf("%s: ", what);
	td_output_name(stdout, name, false);
	putchar('\n');
}

/* As printf's %-Ns, N being width. */
static void text_column(const char *name, int width)
{
	td_output_name(stdout, name, false);
	for (const char *p = name; *p && width > 0;) {
		unsigned control = td_control(p);

		width -= control ? 4 * (int)control : 1;
		p += control ? control : 1;
	}
	printf("%*s ", width > 0 ? width : 0, "");
}

static json_t *json_snapshots(const struct qcow_info *i)
{
	json_t *all = json_array();

	for (uint32_t n = 0; n < i->h.nsnapshots; n++) {
		const struct qcow_snapshot *s = &i->snapshots[n];
		json_t *j = json_pack(
			"{s:o, s:o, s:I, s:I, s:I, s:I, s:I}", "id", td_json_name(s->id), "name",
			td_json_name(s->name), "vm-state-size", (json_int_t)s->state_size,
			"date-sec", (json_int_t)s->seconds, "date-nsec", (json_int_t)s->nanoseconds,
			"vm-clock-sec", (json_int_t)(s->clock / 1000000000), "vm-clock-nsec",
			(json_int_t)(s->clock % 1000000000));

		if (s->icount != UINT64_MAX)
			json_object_set_new(j, "icount", json_integer((json_int_t)s->icount));
		json_array_append_new(all, j);
	}
	return all;
}

static int info_json(const char *path, const struct qcow_info *i)
{
	const struct qcow_header *h = &i->h;
	json_t *data = json_pack(
		"{s:s, s:s, s:b, s:i, s:b, s:b}", "compat", compat(h), "compression-type",
		h->compression ? "zstd" : "zlib", "lazy-refcounts",
		(h->compat & QCOW_COMPAT_LAZY) != 0, "refcount-bits", 1 << h->ref_order, "corrupt",
		(h->incompat & QCOW_INCOMPAT_CORRUPT) != 0, "extended-l2", qcow_extl2(h));
	json_t *j =
		json_pack("{s:o, s:s, s:I, s:I, s:I, s:b}", "filename", td_json_name(path),
			  "format", "qcow2", "virtual-size", (json_int_t)h->size, "actual-size",
			  (json_int_t)on_disk(path), "cluster-size", (json_int_t)qcow_cluster(h),
			  "dirty-flag", (h->incompat & QCOW_INCOMPAT_DIRTY) != 0);
	char full[TD_PATH_MAX];

	if (h->data_file[0]) {
		json_object_set_new(data, "data-file", td_json_name(h->data_file));
		json_object_set_new(data, "data-file-raw",
				    json_boolean(h->autoclear & QCOW_AUTOCLEAR_RAW));
	}
	if (h->nbitmaps)
		json_object_set_new(data, "bitmaps", json_integer(h->nbitmaps));
	if (h->crypt) {
		json_object_set_new(j, "encrypted", json_true());
		json_object_set_new(data, "encrypt", json_encrypt(i));
	}
	if (h->backing[0]) {
		json_object_set_new(j, "backing-filename", td_json_name(h->backing));
		if (td_sibling(path, h->backing, "", NULL, full, NULL) == 0)
			json_object_set_new(j, "full-backing-filename", td_json_name(full));
		if (h->backing_format[0])
			json_object_set_new(j, "backing-filename-format",
					    td_json_name(h->backing_format));
	}
	if (h->nsnapshots)
		json_object_set_new(j, "snapshots", json_snapshots(i));
	json_object_set_new(j, "format-specific",
			    json_pack("{s:s, s:o}", "type", "qcow2", "data", data));
	return td_qcow_print(j);
}

static void info_snapshots(const struct qcow_info *i)
{
	printf("Snapshot list:\n%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE",
	       "VM CLOCK", "ICOUNT");
	for (uint32_t n = 0; n < i->h.nsnapshots; n++) {
		const struct qcow_snapshot *s = &i->snapshots[n];
		uint64_t sec = s->clock / 1000000000;
		time_t when = s->seconds;
		char size[32], date[32] = "", clock[40], icount[24] = "";
		struct tm tm;

		human(s->state_size, size);
		if (localtime_r(&when, &tm))
			strftime(date, sizeof date, "%Y-%m-%d %H:%M:%S", &tm);
		snprintf(clock, sizeof clock, "%02llu:%02llu:%02llu.%03llu",
			 (unsigned long long)sec / 3600, (unsigned long long)sec / 60 % 60,
			 (unsigned long long)sec % 60,
			 (unsigned long long)s->clock / 1000000 % 1000);
		if (s->icount != UINT64_MAX)
			snprintf(icount, sizeof icount, "%llu", (unsigned long long)s->icount);
		text_column(s->id, 9);
		text_column(s->name, 16);
		printf("%8s %19s %12s %10s\n", size, date, clock, icount);
	}
}

static void yes(const char *what, bool v)
{
	printf("    %s: %s\n", what, v ? "true" : "false");
}

static int info_text(const char *path, const struct qcow_info *i)
{
	const struct qcow_header *h = &i->h;
	char size[32], disk[32];

	human(h->size, size);
	human(on_disk(path), disk);
	text_name("image", path);
	printf("file format: qcow2\nvirtual size: %s (%llu bytes)\ndisk size: %s\n", size,
	       (unsigned long long)h->size, disk);
	if (h->crypt)
		puts("encrypted: yes");
	printf("cluster_size: %llu\n", (unsigned long long)qcow_cluster(h));
	if (h->incompat & QCOW_INCOMPAT_DIRTY)
		puts("cleanly shut down: no");
	if (h->backing[0])
		text_name("backing file", h->backing);
	if (h->backing[0] && h->backing_format[0])
		text_name("backing file format", h->backing_format);
	if (h->nsnapshots)
		info_snapshots(i);
	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
	       compat(h), h->compression ? "zstd" : "zlib");
	if (h->version > 2)
		yes("lazy refcounts", h->compat & QCOW_COMPAT_LAZY);
	printf("    refcount bits: %d\n", 1 << h->ref_order);
	if (h->crypt)
		text_encrypt(i);
	if (h->nbitmaps)
		printf("    bitmaps: %u\n", h->nbitmaps);
	if (h->data_file[0]) {
		text_name("    data file", h->data_file);
		yes("data file raw", h->autoclear & QCOW_AUTOCLEAR_RAW);
	}
	if (h->version > 2)
		yes("corrupt", h->incompat & QCOW_INCOMPAT_CORRUPT);
	if (h->version > 2)
		yes("extended l2", qcow_extl2(h));
	return 0;
}

int td_qcow_info(struct td_qcow *t)
{
	struct qcow_info info = {.snapshots = NULL};
	int rc;

	if (t->argc != 2)
		return td_qcow_usage(t);
	rc = qcow_image_info(t->argv[1], &info, t->io, t->err);
	if (!rc)
		rc = t->json ? info_json(t->argv[1], &info) : info_text(t->argv[1], &info);
	free(info.snapshots);
	return -rc;
}

/* --- map --- */

struct shown {
	struct qcow_extent e;
	bool any, json, first;
};

static void show_image(struct shown *s)
{
	const struct qcow_extent *e = &s->e;

	if (s->json) {
		printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, "
		       "\"zero\": %s, \"data\": %s",
		       s->first ? "[" : ",\n", (unsigned long long)e->off,
		       (unsigned long long)e->len, e->depth, e->present ? "true" : "false",
		       e->zero ? "true" : "false", e->data ? "true" : "false");
		if (e->has_host)
			printf(", \"offset\": %llu", (unsigned long long)e->host);
		printf("}");
	} else if (e->data) {
		char host[32];

		/* -: that format does not say */
		snprintf(host, sizeof host, "%s", e->zipped ? "compressed" : "-");
		if (e->has_host)
			snprintf(host, sizeof host, "%#llx", (unsigned long long)e->host);
		printf("%#-15llx %#-15llx %-15s ", (unsigned long long)e->off,
		       (unsigned long long)e->len, host);
		td_output_name(stdout, e->file, false);
		putchar('\n');
	}
	s->first = false;
}

static int each(void *data, const struct qcow_extent *e)
{
	struct shown *s = data;
	struct qcow_extent *l = &s->e;

	if (e && s->any && l->depth == e->depth && l->present == e->present && l->zero == e->zero &&
	    l->data == e->data && l->has_host == e->has_host && l->zipped == e->zipped &&
	    l->file == e->file && (!e->has_host || l->host + l->len == e->host)) {
		l->len += e->len;
		return 0;
	}
	if (s->any)
		show_image(s);
	s->any = e;
	if (e)
		s->e = *e;
	return 0;
}

int td_qcow_map(struct td_qcow *t)
{
	struct shown s = {.json = t->json, .first = true};
	int rc;

	if (t->argc != 2)
		return td_qcow_usage(t);
	if (!t->json)
		printf("%-15s %-15s %-15s %s\n", "Offset", "Length", "Mapped to", "File");
	rc = qcow_image_map(t->argv[1], each, &s, &t->key, t->io, t->err);
	if (t->json)
		puts(s.first ? "[]" : "]");
	return -rc;
}
