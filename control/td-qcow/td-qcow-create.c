/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* td-qcow create and snapshot. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/td-qcow/td-qcow.h"
#include "lib/redo.h"
#include "lib/sibling.h"

/* What the options say. */
struct create {
	struct qcow_create o;
	struct luks_make luks;
};

static int bad_option(struct td_err *err, const char *key, const char *value, const char *known)
{
	return td_fail(err, EINVAL, "%s=%.100s: it is %s", key, value, known);
}

static int set_power(struct td_qcow *t, const char *key, const char *value, uint64_t least,
		     uint64_t most, unsigned *bits, const char *known)
{
	uint64_t v;
	int rc = td_qcow_size(value, &v, t->err);

	if (rc)
		return rc;
	if (v < least || v > most || (v & (v - 1)))
		return bad_option(t->err, key, value, known);
	*bits = (unsigned)__builtin_ctzll(v);
	return 0;
}

static int set_bool(struct td_qcow *t, const char *key, const char *value, bool *out)
{
	if (strcmp(value, "on") && strcmp(value, "off"))
		return bad_option(t->err, key, value, "on or off");
	*out = !strcmp(value, "on");
	return 0;
}

static int set_word(struct td_qcow *t, const char *key, const char *value, const char *const *words,
		    unsigned *out, const char *known)
{
	for (unsigned i = 0; words[i]; i++)
		if (!strcmp(words[i], value)) {
			*out = i;
			return 0;
		}
	return bad_option(t->err, key, value, known);
}

/* Those whose names begin with encrypt. */
static int set_encrypt(struct td_qcow *t, struct create *c, const char *key, const char *value)
{
	static const char *const formats[] = {"luks", NULL},
				 *const ciphers[] = {"aes-128", "aes-256", NULL},
				 *const modes[] = {"xts", "cbc", NULL},
				 *const ivs[] = {"plain", "plain64", "essiv", NULL},
				 *const hashes[] = {"sha1", "sha256", "sha512", NULL},
				 *const iv_hashes[] = {"sha256", NULL};
	unsigned v = 0;
	int rc;

	c->o.luks = &c->luks; /* each of them alone says that it is to be encrypted */
	if (!strcmp(key, "format")) {
		rc = set_word(t, "encrypt.format", value, formats, &v, "luks");
	} else if (!strcmp(key, "cipher-alg")) {
		rc = set_word(t, "encrypt.cipher-alg", value, ciphers, &v, "aes-128 or aes-256");
		c->luks.aes = v ? 256 : 128;
	} else if (!strcmp(key, "cipher-mode")) {
		rc = set_word(t, "encrypt.cipher-mode", value, modes, &v, "xts or cbc");
		c->luks.mode = v ? TD_CIPHER_CBC : TD_CIPHER_XTS;
	} else if (!strcmp(key, "ivgen-alg")) {
		rc = set_word(t, "encrypt.ivgen-alg", value, ivs, &v, "plain, plain64 or essiv");
		c->luks.iv = v == 2 ? TD_IV_ESSIV : v ? TD_IV_PLAIN64 : TD_IV_PLAIN;
	} else if (!strcmp(key, "ivgen-hash-alg")) {
		rc = set_word(t, "encrypt.ivgen-hash-alg", value, iv_hashes, &v, "sha256");
	} else if (!strcmp(key, "hash-alg")) {
		rc = set_word(t, "encrypt.hash-alg", value, hashes, &v, "sha1, sha256 or sha512");
		c->luks.hash = rc ? "" : hashes[v];
	} else if (!strcmp(key, "iter-time")) {
		c->luks.ms = (unsigned)strtoul(value, NULL, 10);
		rc = c->luks.ms && c->luks.ms <= 60000
			     ? 0
			     : bad_option(t->err, "encrypt.iter-time", value, "1 to 60000 ms");
	} else {
		rc = td_fail(t->err, EINVAL,
			     "unknown option 'encrypt.%.100s': format, cipher-alg, cipher-mode, "
			     "ivgen-alg, ivgen-hash-alg, hash-alg and "
			     "iter-time are known (and -E for the passphrase)",
			     key);
	}
	return rc;
}

static int disk_size(struct td_qcow *t, const char *text, uint64_t *size)
{
	int rc = td_qcow_size(text, size, t->err);

	return rc || *size ? rc
			   : td_fail(t->err, EINVAL, "a disk has more than '%.100s' bytes", text);
}

static int set_option(struct td_qcow *t, struct create *c, const char *key, const char *value)
{
	static const char *const zip[] = {"zlib", "zstd", NULL},
				 *const prealloc[] = {"off", "metadata", "falloc", "full", NULL},
				 *const compat[] = {"", "", "0.10", "1.1", NULL},
				 *const versions[] = {"", "", "v2", "v3", NULL};
	struct qcow_create *o = &c->o;
	unsigned v = 0;
	int rc = 0;

	if (!strncmp(key, "encrypt.", 8))
		return set_encrypt(t, c, key + 8, value);
	if (!strcmp(key, "cluster_size"))
		return set_power(t, key, value, 512, 2u << 20, &o->cluster_bits,
				 "a power of two from 512 to 2M");
	if (!strcmp(key, "refcount_bits"))
		return set_power(t, key, value, 1, 64, &o->refcount_order,
				 "a power of two from 1 to 64");
	if (!strcmp(key, "lazy_refcounts"))
		return set_bool(t, key, value, &o->lazy);
	if (!strcmp(key, "extended_l2"))
		return set_bool(t, key, value, &o->extended_l2);
	if (!strcmp(key, "data_file_raw"))
		return set_bool(t, key, value, &o->data_raw);
	if (!strcmp(key, "compression_type"))
		return set_word(t, key, value, zip, &o->compression, "zlib or zstd");
	if (!strcmp(key, "compat"))
		return set_word(t, key, value, value[0] == 'v' ? versions : compat, &o->version,
				"0.10 or 1.1");
	if (!strcmp(key, "preallocation")) {
		rc = set_word(t, key, value, prealloc, &v, "off, metadata, falloc or full");
		o->prealloc = rc ? QCOW_PREALLOC_OFF : (enum qcow_prealloc)v;
		return rc;
	}
	if (!strcmp(key, "data_file"))
		o->data_file = value;
	else if (!strcmp(key, "backing_file"))
		o->backing = value;
	else if (!strcmp(key, "backing_fmt"))
		o->backing_format = value;
	else if (!strcmp(key, "size"))
		return disk_size(t, value, &o->size);
	else
		return td_fail(t->err, EINVAL,
			       "unknown option '%.100s': the options are cluster_size, "
			       "refcount_bits, compat, lazy_refcounts, extended_l2, "
			       "compression_type, data_file, data_file_raw, preallocation, "
			       "backing_file, backing_fmt, size and encrypt.*",
			       key);
	return 0;
}

/* "a=b,c=d", in place. */
static int set_options(struct td_qcow *t, struct create *c, char *list)
{
	char *save, *value;
	int rc = 0;

	for (char *p = strtok_r(list, ",", &save); p && !rc; p = strtok_r(NULL, ",", &save)) {
		value = strchr(p, '=');
		if (!value)
			return td_fail(t->err, EINVAL, "'%.100s' is not of the form option=value",
				       p);
		*value++ = 0;
		rc = set_option(t, c, p, value);
	}
	return rc;
}

/* The file or device at path.  *made: it was not there. */
static int make_file(const char *path, bool force, bool *made, struct td_err *err)
{
	int how = O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
	    fd = open(path, how | O_CREAT | O_EXCL, 0644), rc = 0;
	struct stat s;

	*made = fd >= 0;
	/* or a symbolic link is, and leads to a file that is not */
	if (fd < 0 && errno == EEXIST) {
		bool there = !stat(path, &s);

		fd = open(path, how | O_CREAT, 0644);
		*made = fd >= 0 && !there;
	}
	if (fd < 0 || fstat(fd, &s) < 0)
		rc = td_fail(err, errno, "cannot create %s: %s", path, strerror(errno));
	else if (S_ISREG(s.st_mode) && s.st_size && !force)
		rc = td_fail(err, EEXIST,
			     "%s is there already, with %lld bytes: --force makes an image of it, "
			     "and its contents are gone",
			     path, (long long)s.st_size);
	if (!rc && !*made)
		rc = td_redo_mind(path, true, err);
	if (fd >= 0)
		close(fd);
	return rc;
}

/* What the new image stands on has to be there, and opens with the key if it is encrypted, as does
 * then the new one. */
static int look_below(struct td_qcow *t, const char *path, struct create *c)
{
	struct qcow_create *o = &c->o;
	bool encrypted = false;
	char below[TD_PATH_MAX];
	uint64_t size = 0;
	int rc = td_sibling(path, o->backing, "backing file", NULL, below, t->err);

	if (!rc && access(below, R_OK) < 0)
		rc = td_fail(t->err, errno, "cannot open the backing file %s: %s", below,
			     strerror(errno));
	if (!rc)
		rc = qcow_image_below(below, o->backing_format, &t->key, &size, &encrypted, t->io,
				      t->err);
	if (!rc && !o->size)
		o->size = td_round_up(size, 512);
	if (!rc && encrypted)
		o->luks = &c->luks;
	return rc;
}

/* The file that make_file() made, behind a link if it is one. */
static void take_back(const char *path)
{
	char *real = realpath(path, NULL);

	if (real)
		unlink(real);
	free(real);
}

/* What an image stands on is written no more, and a tapdisk wants to see that; its data file
 * likewise. */
static void freeze_below(struct td_qcow *t, const char *path, const char *backing)
{
	struct qcow_info info = {.snapshots = NULL};
	char below[TD_PATH_MAX], data[TD_PATH_MAX];
	struct td_err none = {0};
	int rc = td_sibling(path, backing, "backing file", NULL, below, &none);

	if (!rc)
		rc = td_reach_freeze(below);
	if (rc)
		fprintf(stderr,
			"td-qcow: cannot take the write permissions of %s away: %s; a tapdisk will "
			"not take it as a parent before\n",
			backing, strerror(-rc));
	if (!rc && qcow_image_info(below, &info, t->io, &none) == 0 && info.h.data_file[0] &&
	    td_sibling(below, info.h.data_file, "data file", NULL, data, &none) == 0)
		td_reach_freeze(data);
	free(info.snapshots);
}

static int create(struct td_qcow *t, const char *path, struct create *c, bool force)
{
	struct qcow_create *o = &c->o;
	bool made = false, made_data = false;
	char data[TD_PATH_MAX];
	int rc = 0;

	if (t->key.len)
		o->luks = &c->luks;
	if (o->backing && !o->backing_format)
		return td_fail(t->err, EINVAL,
			       "say what format the backing file has (-F raw, qcow2, qcow or vpc): "
			       "a raw disk could pretend to be any");
	if (o->backing)
		rc = look_below(t, path, c);
	if (!rc && o->data_file)
		rc = td_sibling(path, o->data_file, "data file", NULL, data, t->err);
	if (!rc)
		rc = make_file(path, force, &made, t->err);
	if (!rc && o->data_file)
		/* a data file that is there keeps its contents */
		rc = make_file(data, true, &made_data, t->err);
	if (!rc)
		rc = qcow_image_create(path, o, t->io, t->err);
	if (!rc && o->backing)
		freeze_below(t, path, o->backing);
	if (rc && made)
		take_back(path);
	if (rc && made_data)
		take_back(data);
	return rc;
}

static const struct option longs[] = {{"force", no_argument, NULL, 'f'}, {NULL, 0, NULL, 0}};

static struct create defaults(const struct td_qcow *t)
{
	return (struct create){
		.o = {.version = 3, .cluster_bits = 16, .refcount_order = 4, .key = &t->key},
		.luks = {TD_CIPHER_XTS, TD_IV_PLAIN64, 256, "sha256", 2000}};
}

int td_qcow_create(struct td_qcow *t)
{
	struct create new = defaults(t);
	struct qcow_create *o = &new.o;
	bool force = false;
	int c, rc = 0;

	while (!rc && (c = getopt_long(t->argc, t->argv, "fo:b:F:", longs, NULL)) != -1) {
		if (c == 'f')
			force = true;
		else if (c == 'o')
			rc = set_options(t, &new, optarg);
		else if (c == 'b')
			o->backing = optarg;
		else if (c == 'F')
			o->backing_format = optarg;
		else
			return td_qcow_usage(t);
	}
	if (!rc && (t->argc - optind < 1 || t->argc - optind > 2))
		return td_qcow_usage(t);
	if (!rc && t->argc - optind == 2)
		rc = disk_size(t, t->argv[optind + 1], &o->size);
	if (!rc && !o->size && !o->backing)
		rc = td_fail(t->err, EINVAL,
			     "the size of %s is missing: give it behind the file, or a backing "
			     "file with -b",
			     t->argv[optind]);
	return -(rc ? rc : create(t, t->argv[optind], &new, force));
}

/* The name by which the image at `path' is to know its parent: as short as it can be. */
static int name_of(const char *path, const char *parent, const char **name, struct td_err *err)
{
	const char *slash = strrchr(path, '/');
	size_t dir = slash ? (size_t)(slash - path + 1) : 0;
	char out[TD_PATH_MAX];

	*name = !strncmp(parent, path, dir) ? parent + dir : parent;
	return td_sibling(path, *name, "backing file", NULL, out, err);
}

int td_qcow_snapshot(struct td_qcow *t)
{
	struct create new = defaults(t);
	bool force = false;
	int c, rc = 0;

	new.o.backing_format = "qcow2";
	while (!rc && (c = getopt_long(t->argc, t->argv, "fF:o:", longs, NULL)) != -1) {
		if (c == 'f')
			force = true;
		else if (c == 'F')
			new.o.backing_format = optarg;
		else if (c == 'o')
			rc = set_options(t, &new, optarg);
		else
			return td_qcow_usage(t);
	}
	if (!rc && t->argc - optind != 2)
		return td_qcow_usage(t);
	if (!rc)
		rc = name_of(t->argv[optind + 1], t->argv[optind], &new.o.backing, t->err);
	return -(rc ? rc : create(t, t->argv[optind + 1], &new, force));
}
