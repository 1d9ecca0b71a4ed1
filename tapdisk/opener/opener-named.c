/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the host has named in its messages (OR1). */
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#include "lib/ctl-dir.h"
#include "lib/disk-words.h"
#include "lib/nbd-uri.h"
#include "td/ctl.h"
#include "tapdisk/opener/opener-inside.h"
#include "tapdisk/opener/opener-rights.h"

enum { DEVICES_MAX = 64 };

struct device {
	unsigned domid, devid;
	bool connected;
};

static pthread_mutex_t naming = PTHREAD_MUTEX_INITIALIZER; /* held over no system call */
static struct named *files;                                /* only added to */
static unsigned char minors[TD_MINOR_MAX / 8], below[TD_MINOR_MAX / 8], settled[TD_MINOR_MAX / 8];
static unsigned char read_only[TD_MINOR_MAX / 8]; /* how the last of them was opened */
static struct device devices[DEVICES_MAX];
static unsigned ndevices;
static bool commits, remote;
static pid_t successor, keeper;

pid_t opener_for;

void rights_init(pid_t pid)
{
	opener_for = pid;
}

/* --- questions --- */

const struct named *named_first(void)
{
	return __atomic_load_n(&files, __ATOMIC_ACQUIRE);
}

static struct named *named_find(const char *path)
{
	for (const struct named *f = named_first(); f; f = f->next)
		if (!strcmp(f->path, path))
			return (struct named *)f;
	return NULL;
}

bool named_has(const char *path)
{
	return named_find(path);
}

bool named_writes(const char *path)
{
	const struct named *f = named_find(path);

	return f && __atomic_load_n(&f->writes, __ATOMIC_RELAXED);
}

bool named_is_beside(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[PATH_MAX];

	if (!slash || slash - path > PATH_MAX - 2)
		return false;
	memcpy(dir, path, (size_t)(slash - path) + 1);
	dir[slash - path + 1] = 0;
	return dir[1] && named_has(dir);
}

static bool has_bit(const unsigned char *bits, long n)
{
	return n >= 0 && n < TD_MINOR_MAX &&
	       __atomic_load_n(&bits[n / 8], __ATOMIC_RELAXED) >> n % 8 & 1;
}

bool named_has_minor(long minor)
{
	return has_bit(minors, minor);
}

bool named_settles(long minor)
{
	return has_bit(settled, minor);
}

bool named_keeper(pid_t pid)
{
	return pid > 0 && pid == __atomic_load_n(&keeper, __ATOMIC_RELAXED);
}

bool named_stands_on(long minor)
{
	return has_bit(below, minor);
}

static unsigned count_devices(void)
{
	return ndevices < DEVICES_MAX ? ndevices : DEVICES_MAX;
}

bool named_has_device(unsigned domid, unsigned devid)
{
	bool has = false;

	pthread_mutex_lock(&naming);
	for (unsigned i = 0; i < count_devices() && !has; i++)
		has = devices[i].domid == domid && devices[i].devid == devid;
	pthread_mutex_unlock(&naming);
	return has;
}

bool named_has_devices(void)
{
	bool has;

	pthread_mutex_lock(&naming);
	has = ndevices > 0;
	pthread_mutex_unlock(&naming);
	return has;
}

int named_only_domain(void)
{
	int only = -1;

	pthread_mutex_lock(&naming);
	for (unsigned i = 0; i < count_devices(); i++) {
		if (!devices[i].connected)
			continue;
		only = only < 0 || only == (int)devices[i].domid ? (int)devices[i].domid : INT_MAX;
	}
	if (ndevices > DEVICES_MAX) /* some were forgotten */
		only = -1;
	pthread_mutex_unlock(&naming);
	return only == INT_MAX ? -1 : only;
}

bool named_commits(void)
{
	return __atomic_load_n(&commits, __ATOMIC_RELAXED);
}

bool named_remote(void)
{
	return __atomic_load_n(&remote, __ATOMIC_RELAXED);
}

pid_t named_successor(void)
{
	return __atomic_load_n(&successor, __ATOMIC_RELAXED);
}

/* --- what is said --- */

void named_add(const char *path, bool image, bool writes)
{
	size_t n = strlen(path) + 1;
	struct named *f = named_find(path);

	if (f && writes)
		__atomic_store_n(&f->writes, true, __ATOMIC_RELAXED);
	f = f || n > PATH_MAX ? NULL : malloc(sizeof *f + n);
	if (!f)
		return;
	memcpy(f->path, path, n);
	f->image = image;
	f->writes = writes;
	pthread_mutex_lock(&naming);
	f->next = files;
	__atomic_store_n(&files, f, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&naming);
}

static void put_bit(unsigned char *bits, json_int_t n, bool set)
{
	unsigned char bit;

	if (n < 0 || n >= TD_MINOR_MAX)
		return;
	bit = (unsigned char)(1 << n % 8);
	if (set)
		__atomic_or_fetch(&bits[n / 8], bit, __ATOMIC_RELAXED);
	else
		__atomic_and_fetch(&bits[n / 8], (unsigned char)~bit, __ATOMIC_RELAXED);
}

static void add_bit(unsigned char *bits, json_int_t n)
{
	put_bit(bits, n, true);
}

/* The file that an option names; NULL: none. */
static const char *file_of(const char *word, bool *image)
{
	static const char *const keys[] = {"data-file=", "changed-blocks=", "mirror="};
	const char *colon;

	*image = false;
	for (size_t i = 0; word && i < sizeof keys / sizeof *keys; i++) {
		size_t n = strlen(keys[i]);

		if (strncmp(word, keys[i], n))
			continue;
		if (i < 2)
			return word + n;
		colon = strchr(word + n, ':');
		*image = colon && !nbd_is_spec(word + n);
		return colon ? colon + 1 : NULL;
	}
	return NULL;
}

static long minor_of(const char *word)
{
	static const char key[] = "parent-disk=";

	return word && !strncmp(word, key, sizeof key - 1) ? strtol(word + sizeof key - 1, NULL, 10)
							   : -1;
}

/* Behind an image of a cluster, KEY=FILE and the like, with a colon before each and a backslash
 * before a colon that is meant (drivers/rbd/rbd-spec.c). */
static void name_cluster_file(const char *spec, const char *key)
{
	const char *at = strstr(spec, key);
	char path[PATH_MAX];
	size_t n = 0;

	for (at = at ? at + strlen(key) : ""; *at && *at != ':' && n < sizeof path - 1; at++)
		path[n++] = *at == '\\' && at[1] ? *++at : *at;
	path[n] = 0;
	if (!n)
		return;
	named_add(path, false, false);
	/* and what it names, which is beside it: the directory */
	if (strrchr(path, '/')) {
		strrchr(path, '/')[1] = 0;
		named_add(path, false, false);
	}
}

static void name_cluster(const char *spec)
{
	if (strncmp(spec, "rbd:", 4))
		return;
	__atomic_store_n(&remote, true, __ATOMIC_RELAXED);
	name_cluster_file(spec, ":conf=");
	name_cluster_file(spec, ":keyring=");
}

/* A disk's or a mirror's; of a Unix socket, that one. */
static void name_server(const char *spec)
{
	struct td_err why;
	struct nbd_uri u;
	char title[4200];

	if (!nbd_is_spec(spec) || nbd_uri_parse(nbd_path_of(spec), &u, &why) < 0)
		return;
	if (u.way == NBD_UNIX)
		named_add(u.path, false, true);
	nbd_title(nbd_path_of(spec), title, sizeof title);
	if (u.way == NBD_TCP || u.way == NBD_VSOCK)
		named_add(title, false, false);
}

static bool is_data(const char *word)
{
	return !strncmp(word, "data-file=", 10);
}

/* writes: the disk may be written. */
static void name_word(const char *word, bool writes)
{
	bool image;
	const char *path = file_of(word, &image);

	if (path)
		named_add(path, image, writes || !is_data(word));
	if (word && !strncmp(word, "mirror=", 7)) {
		name_cluster(word + 7);
		name_server(word + 7);
	}
	add_bit(below, minor_of(word));
}

/* What the host's files say of the image (lib/disk-words.h).  Looks at the image: may wait. */
static void name_disk_words(const char *path, bool writes)
{
	char words[TD_DISK_WORDS], file[PATH_MAX], *word, *next = words;

	if (td_disk_words(path, words, file, NULL) < 0)
		return;
	while ((word = strsep(&next, "\n")) && *word)
		name_word(word, writes);
}

static bool is_op(const json_t *msg, const char *name)
{
	const char *op = json_string_value(json_object_get(msg, "op"));

	return op && !strcmp(op, name);
}

static const char *path_of(const json_t *msg)
{
	const char *spec = json_string_value(json_object_get(msg, "args"));
	const char *colon = spec ? strchr(spec, ':') : NULL;

	return colon ? colon + 1 : NULL;
}

static const json_t *past_of(const json_t *msg)
{
	return json_object_get(json_object_get(msg, "past"), "commit");
}

/* An unpause goes on with what the disk had, unless it says its options anew. */
static bool is_written(const json_t *msg)
{
	json_int_t minor = json_integer_value(json_object_get(msg, "minor"));
	bool anew =
		!is_op(msg, "unpause") || (json_array_size(json_object_get(msg, "options")) > 0 &&
					   !json_is_true(json_object_get(msg, "keep_options")));

	if (json_is_true(json_object_get(msg, "read_only")))
		return false;
	return anew || !has_bit(read_only, minor);
}

static void name_disk(const json_t *msg, bool writes)
{
	const char *path = path_of(msg);
	const json_t *w;
	size_t i;

	name_cluster(json_string_value(json_object_get(msg, "args")) ?: "");
	name_server(json_string_value(json_object_get(msg, "args")) ?: "");
	if (path) {
		named_add(path, true, writes);
		name_disk_words(path, writes);
	}
	json_array_foreach (json_object_get(msg, "options"), i, w)
		name_word(json_string_value(w), writes);
	if (past_of(msg)) /* one that goes on here */
		__atomic_store_n(&commits, true, __ATOMIC_RELAXED);
}

static void name_device(const json_t *msg, bool connected)
{
	struct device d = {(unsigned)json_integer_value(json_object_get(msg, "domid")),
			   (unsigned)json_integer_value(json_object_get(msg, "devid")), connected};
	unsigned i;

	pthread_mutex_lock(&naming);
	for (i = 0; i < count_devices(); i++)
		if (devices[i].domid == d.domid && devices[i].devid == d.devid)
			break;
	if (i < count_devices())
		devices[i] = d;
	else if (connected)
		devices[ndevices++ % DEVICES_MAX] = d;
	pthread_mutex_unlock(&naming);
}

/* --- a record --- */

bool named_covers(const json_t *record)
{
	const char *path = path_of(record);
	const json_t *w;
	size_t i;

	if (!path ||
	    !(json_is_true(json_object_get(record, "read_only")) ? named_has(path)
								 : named_writes(path)) ||
	    (json_object_get(record, "commit") && !named_commits()))
		return false;
	json_array_foreach (json_object_get(record, "options"), i, w) {
		bool image;
		const char *word = json_string_value(w), *file = file_of(word, &image);

		if ((file && !named_has(file)) ||
		    (minor_of(word) >= 0 && !named_stands_on(minor_of(word))))
			return false;
	}
	return true;
}

static bool names_something(const char *word)
{
	bool image;

	return !word || file_of(word, &image) || minor_of(word) >= 0;
}

static bool has_words_of(const json_t *record, const json_t *msg)
{
	const json_t *w, *r;
	size_t i, k;

	json_array_foreach (json_object_get(msg, "options"), i, w) {
		bool found = !names_something(json_string_value(w));

		json_array_foreach (json_object_get(record, "options"), k, r)
			found = found || json_equal(w, r);
		if (!found)
			return false;
	}
	return true;
}

/* OR4.  The other tapdisk, which says this, is as little to be believed. */
static bool is_recorded(const json_t *msg)
{
	json_int_t minor = json_integer_value(json_object_get(msg, "minor"));
	char path[PATH_MAX];
	json_t *record;
	bool same;

	if (minor < 0 || minor >= TD_MINOR_MAX || td_ctl_disk_path((int)minor, path) ||
	    !(record = json_load_file(path, 0, NULL)))
		return false;
	same = json_equal(json_object_get(record, "args"), json_object_get(msg, "args")) &&
	       (json_is_true(json_object_get(msg, "read_only")) ||
		!json_is_true(json_object_get(record, "read_only"))) &&
	       (!past_of(msg) || json_object_get(record, "commit")) && has_words_of(record, msg);
	json_decref(record);
	return same;
}

void named_learn_record(const char *path)
{
	json_t *record = json_load_file(path, 0, NULL);

	if (record)
		name_disk(record, !json_is_true(json_object_get(record, "read_only")));
	if (json_object_get(record, "commit"))
		__atomic_store_n(&commits, true, __ATOMIC_RELAXED);
	json_decref(record);
}

/* --- a message --- */

bool rights_takes_time(const json_t *msg)
{
	return is_op(msg, "open") || is_op(msg, "unpause") || is_op(msg, "settle") ||
	       is_op(msg, "adopt");
}

void rights_learn(const json_t *msg)
{
	const json_t *ring;
	size_t i;

	if (is_op(msg, "attach") || is_op(msg, "settle") || is_op(msg, "adopt"))
		add_bit(minors, json_integer_value(json_object_get(msg, "minor")));
	if (is_op(msg, "settle"))
		add_bit(settled, json_integer_value(json_object_get(msg, "minor")));
	if (is_op(msg, "detach") || is_op(msg, "close"))
		__atomic_store_n(&keeper, (pid_t)json_integer_value(json_object_get(msg, "keeper")),
				 __ATOMIC_RELAXED);
	if (rights_takes_time(msg) && (!is_op(msg, "adopt") || is_recorded(msg))) {
		name_disk(msg, is_written(msg));
		put_bit(read_only, json_integer_value(json_object_get(msg, "minor")),
			!is_written(msg));
	}
	if (is_op(msg, "connect") || is_op(msg, "disconnect"))
		name_device(msg, is_op(msg, "connect"));
	json_array_foreach (json_object_get(msg, "rings"), i, ring)
		name_device(ring, true);
	if (is_op(msg, "commit"))
		__atomic_store_n(&commits, true, __ATOMIC_RELAXED);
	if (is_op(msg, "handover"))
		__atomic_store_n(&successor, (pid_t)json_integer_value(json_object_get(msg, "to")),
				 __ATOMIC_RELAXED);
}
