/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/attach/xl-disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/nbd-uri.h"

#define MAX_FIELD 4160

/* --- virtual device numbers (xen-vbd-interface(7)) --- */

static bool digits(const char **p, uint32_t max, uint32_t *out)
{
	const char *s = *p;
	uint64_t v = 0;

	if (*s < '0' || *s > '9' || (s[0] == '0' && s[1] >= '0' && s[1] <= '9'))
		return false;
	for (; *s >= '0' && *s <= '9'; s++) {
		v = v * 10 + (uint64_t)(*s - '0');
		if (v > max)
			return false;
	}
	*p = s;
	*out = (uint32_t)v;
	return true;
}

/* a, b, ... z, aa, ab: 0, 1, ... 25, 26, 27 */
static bool letters(const char **p, uint32_t *out)
{
	const char *s = *p;
	uint32_t v = 0;

	for (; *s >= 'a' && *s <= 'z'; s++) {
		v = v * 26 + (uint32_t)(*s - 'a') + 1;
		if (v > 1u << 20)
			return false;
	}
	if (s == *p)
		return false;
	*p = s;
	*out = v - 1;
	return true;
}

static bool xvd_number(uint32_t disk, uint32_t part, uint32_t *devid)
{
	if (disk >= 1u << 20 || part > 255)
		return false;
	if (disk < 16 && part < 16)
		*devid = 202u << 8 | disk << 4 | part;
	else
		*devid = 1u << 28 | disk << 8 | part;
	return true;
}

bool xl_vdev_number(const char *vdev, uint32_t *devid)
{
	uint32_t disk, part = 0;
	const char *p = vdev;

	if (digits(&p, UINT32_MAX, devid) && !*p)
		return true;
	if (vdev[0] == 'd' && (p = vdev + 1, digits(&p, (1u << 20) - 1, &disk))) {
		if (*p == 'p' && (p++, !digits(&p, 255, &part)))
			return false;
		return !*p && xvd_number(disk, part, devid);
	}
	if (strncmp(vdev, "xvd", 3) && strncmp(vdev, "hd", 2) && strncmp(vdev, "sd", 2))
		return false;
	p = vdev + (vdev[0] == 'x' ? 3 : 2);
	if (!letters(&p, &disk) || (*p && !digits(&p, 255, &part)) || *p)
		return false;
	if (vdev[0] == 'x')
		return xvd_number(disk, part, devid);
	if (vdev[0] == 's') {
		*devid = 8u << 8 | disk << 4 | part;
		return disk < 16 && part < 16;
	}
	*devid = (disk < 2 ? 3u : 22u) << 8 | (disk & 1) << 6 | part;
	return disk < 4 && part < 64;
}

void xl_vdev_name(uint32_t devid, char name[24])
{
	uint32_t disk, part;
	char tmp[8];
	int n = 0;

	if (devid >> 28 == 1) {
		disk = (devid & 0xfffffff) >> 8;
		part = devid & 255;
	} else if (devid >> 8 == 202) {
		disk = devid >> 4 & 15;
		part = devid & 15;
	} else {
		snprintf(name, 24, "?%u", devid);
		return;
	}
	for (disk++; disk; disk = (disk - 1) / 26)
		tmp[n++] = (char)('a' + (disk - 1) % 26);
	name += sprintf(name, "xvd");
	while (n)
		*name++ = tmp[--n];
	*name = 0;
	if (part)
		sprintf(name, "%u", part);
}

/* --- the specification --- */

static int set_text(char **where, const char *value, const char *what, struct td_err *err)
{
	if (*where)
		return td_fail(err, EINVAL, "%s is given twice: '%s' and '%s'", what, *where,
			       value);
	*where = strdup(value);
	return *where ? 0 : td_fail(err, ENOMEM, "out of memory");
}

static int set_yes(bool *where, const char *key, const char *value, struct td_err *err)
{
	if (!strcmp(value, "yes") || !strcmp(value, "1"))
		*where = true;
	else if (strcmp(value, "no") && strcmp(value, "0"))
		return td_fail(err, EINVAL, "%s=%s: yes or no", key, value);
	return 0;
}

static int set_number(char **where, const char *key, const char *v, uint32_t max, const char *unit,
		      struct td_err *err)
{
	const char *end = v;
	uint32_t n;

	if (!digits(&end, max, &n) || *end)
		return td_fail(err, EINVAL, "%s=%s: a number of %s from 0 to %u", key, v, unit,
			       max);
	return set_text(where, v, key, err);
}

/* --- words for the tapdisk, which says what is wrong with a value --- */

static bool is_word(const char *key)
{
	/* clang-format off */
	static const char *const words[] = {
		"cache",         "on-enospc",        "sector-size",       "two-primaries",
		"parents-cache", "request-timeout",  "reconnect-limit",   "connections",
		"mirror-timeout",
		"limit",         "limit-iops",       "limit-iops-read",   "limit-iops-write",
		"limit-bytes",   "limit-bytes-read", "limit-bytes-write", "limit-burst"};
	/* clang-format on */

	for (unsigned i = 0; i < sizeof words / sizeof *words; i++)
		if (!strcmp(key, words[i]))
			return true;
	return false;
}

static bool has_word(const struct xl_disk *d, const char *key)
{
	size_t n = strlen(key);

	for (const char *w = d->words; w && *w; w = strchr(w, ':') + 1)
		if (!strncmp(w, key, n) && w[n] == '=')
			return true;
	return false;
}

static int keep_word(struct xl_disk *d, const char *key, const char *v, struct td_err *err)
{
	char *more;

	if (has_word(d, key))
		return td_fail(err, EINVAL, "%s is given twice, the second time as '%s'", key, v);
	/* of such a value the hotplug script would make a path, or words of its own */
	if (!*v || strpbrk(v, ":/"))
		return td_fail(err, EINVAL, "%s=%s: no value of %s is empty or has a ':' or '/'",
			       key, v, key);
	if (asprintf(&more, "%s%s=%s:", d->words ? d->words : "", key, v) < 0)
		return td_fail(err, ENOMEM, "out of memory");
	free(d->words);
	d->words = more;
	return 0;
}

static int set_unsafe(struct xl_disk *d, const char *v, struct td_err *err)
{
	bool yes = false;

	if (set_yes(&yes, "unsafe", v, err))
		return -err->code;
	return yes ? keep_word(d, "unsafe", "yes", err) : 0;
}

static int set_access(struct xl_disk *d, const char *v, struct td_err *err)
{
	if (!strcmp(v, "r") || !strcmp(v, "ro"))
		d->read_only = true;
	else if (!strcmp(v, "w!") || !strcmp(v, "rw!"))
		d->shared = true;
	else if (strcmp(v, "w") && strcmp(v, "rw"))
		return td_fail(err, EINVAL, "access '%s' is none of r, ro, w, rw, w!", v);
	return 0;
}

static int set_vdev(struct xl_disk *d, const char *v, struct td_err *err)
{
	if (set_text(&d->vdev, v, "vdev", err))
		return -err->code;
	return xl_vdev_number(v, &d->devid)
		       ? 0
		       : td_fail(err, EINVAL, "'%s' is not a virtual device such as xvda", v);
}

static int set_format(struct xl_disk *d, const char *v, struct td_err *err)
{
	static const char *const known[] = {"raw", "aio", "vhd", "qcow2", "qcow", "nbd", "rbd"};

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(v, known[i]))
			return set_text(&d->format, v, "format", err);
	return td_fail(err, EINVAL, "format '%s' is none of raw, vhd, qcow2, qcow, nbd, rbd", v);
}

static int set_named(struct xl_disk *d, const char *key, const char *v, struct td_err *err)
{
	if (!strcmp(key, "format"))
		return set_format(d, v, err);
	if (!strcmp(key, "vdev"))
		return set_vdev(d, v, err);
	if (!strcmp(key, "access"))
		return set_access(d, v, err);
	if (is_word(key))
		return keep_word(d, key, v, err);
	if (!strcmp(key, "polling-duration"))
		return set_number(&d->polling_duration, key, v, 10000, "microseconds", err);
	if (!strcmp(key, "polling-idle-threshold"))
		return set_number(&d->polling_idle, key, v, 100, "percent", err);
	if (!strcmp(key, "unsafe"))
		return set_unsafe(d, v, err);
	if (!strcmp(key, "shared"))
		return set_yes(&d->shared, key, v, err);
	if (!strcmp(key, "removable"))
		return set_yes(&d->removable, key, v, err);
	if (!strcmp(key, "devtype")) {
		d->cdrom = !strcmp(v, "cdrom");
		d->read_only = d->read_only || d->cdrom;
		return d->cdrom || !strcmp(v, "disk")
			       ? 0
			       : td_fail(err, EINVAL, "devtype '%s' is neither disk nor cdrom", v);
	}
	if (!strcmp(key, "backendtype"))
		return !strcmp(v, "tap")
			       ? 0
			       : td_fail(err, EINVAL,
					 "backendtype '%s': this command makes tap disks only", v);
	/* ours is the one that fits; xl's own knows no better for a tap disk */
	if (!strcmp(key, "script"))
		return 0;
	return td_fail(err, EINVAL,
		       "unknown key '%s'; known are target, format, vdev, access, devtype, "
		       "backendtype, script, discard, "
		       "no-discard, direct-io-safe, removable, cache, unsafe, shared, on-enospc, "
		       "sector-size, two-primaries, parents-cache, request-timeout, "
		       "reconnect-limit, connections, mirror-timeout, limit, "
		       "limit-iops and the other limits, polling-duration, "
		       "polling-idle-threshold",
		       key);
}

/* A flag, or false. */
static bool set_flag(struct xl_disk *d, const char *v)
{
	if (!strcmp(v, "discard"))
		d->discard = true;
	else if (!strcmp(v, "no-discard"))
		d->discard = false;
	else if (!strcmp(v, "direct-io-safe"))
		d->direct_io_safe = true;
	else if (!strcmp(v, "cdrom") || !strcmp(v, "devtype=cdrom"))
		d->cdrom = d->read_only = true;
	else
		return false;
	return true;
}

static bool is_nbd_uri(const char *v)
{
	return nbd_is_spec(v) && (strncmp(v, "nbd:", 4) || !strncmp(v, "nbd://", 6));
}

/* Said before, it may be said again; false: another one was. */
static bool set_nbd(struct xl_disk *d)
{
	d->format = d->format ? d->format : strdup("nbd");
	return d->format && !strcmp(d->format, "nbd");
}

/* A target with its format in front; *prefixed tells that the next field is then the vdev. */
static int set_target(struct xl_disk *d, const char *v, bool *prefixed, struct td_err *err)
{
	static const struct {
		const char *prefix, *format;
	} old[] = {
		{"raw:", "raw"},   {"aio:", "raw"}, {"file:", "raw"},
		{"phy:", "raw"},   {"vhd:", "vhd"}, {"qcow2:", "qcow2"},
		{"qcow:", "qcow"}, {"nbd:", "nbd"}, {"rbd:", "rbd"},
	};

	*prefixed = false;
	while (!strncmp(v, "tap:", 4) || !strncmp(v, "tap2:", 5)) {
		v = strchr(v, ':') + 1;
		*prefixed = true;
	}
	if (is_nbd_uri(v)) {
		*prefixed = true;
		return set_nbd(d) ? set_text(&d->target, nbd_path_of(v), "target", err)
				  : td_fail(err, EINVAL,
					    "format is given twice: '%s', and that of '%s'",
					    d->format, v);
	}
	for (unsigned i = 0; i < sizeof old / sizeof *old; i++)
		if (!strncmp(v, old[i].prefix, strlen(old[i].prefix))) {
			*prefixed = true;
			if (set_text(&d->format, old[i].format, "format", err))
				return -err->code;
			v += strlen(old[i].prefix);
			break;
		}
	return set_text(&d->target, v, "target", err);
}

/* An image in a cluster, or a URI. */
static bool names_no_file(const struct xl_disk *d)
{
	return (d->format && !strcmp(d->format, "rbd")) || nbd_is_spec(d->target);
}

/* The next field, without the blanks around it; false at the end. */
static bool field(const char **p, char out[MAX_FIELD], struct td_err *err)
{
	const char *s = *p, *end;
	size_t n;

	if (!s)
		return false;
	s += strspn(s, " \t");
	end = strchr(s, ',');
	/* target= takes all the rest */
	if (!strncmp(s, "target=", 7))
		end = NULL;
	*p = end ? end + 1 : NULL;
	n = end ? (size_t)(end - s) : strlen(s);
	while (n && (s[n - 1] == ' ' || s[n - 1] == '\t'))
		n--;
	if (n >= MAX_FIELD) {
		td_fail(err, EINVAL, "a field of %zu bytes is too long", n);
		return false;
	}
	memcpy(out, s, n);
	out[n] = 0;
	return true;
}

static int one(struct xl_disk *d, char *f, unsigned *position, struct td_err *err)
{
	char *eq = strchr(f, '=');
	bool prefixed = false;
	int rc;

	if (!strncmp(f, "target=", 7))
		return set_target(d, f + 7, &prefixed, err);
	if (set_flag(d, f))
		return 0;
	/* a positional target may hold a '=', after a '/' */
	if (eq && memchr(f, '/', (size_t)(eq - f)) == NULL) {
		*eq = 0;
		return set_named(d, f, eq + 1, err);
	}
	switch ((*position)++) {
	case 0:
		rc = *f ? set_target(d, f, &prefixed, err) : 0;
		if (prefixed && !rc)
			(*position)++;
		return rc;
	case 1:
		return *f ? set_format(d, f, err) : 0;
	case 2:
		return *f ? set_vdev(d, f, err) : 0;
	case 3:
		return *f ? set_access(d, f, err) : 0;
	default:
		return *f ? td_fail(err, EINVAL, "'%s': a disk has no fifth field without a name",
				    f)
			  : 0;
	}
}

int xl_disk_parse(const char *text, struct xl_disk *d, struct td_err *err)
{
	struct td_err own = {};
	char f[MAX_FIELD];
	unsigned position = 0;

	err = err ? err : &own;
	memset(d, 0, sizeof *d);
	d->discard = true;
	while (!err->code && field(&text, f, err))
		one(d, f, &position, err);
	if (err->code)
		return -err->code;
	if (!d->target && d->cdrom && !(d->target = strdup("")))
		return td_fail(err, ENOMEM, "out of memory");
	if ((!d->target || !*d->target) && !d->cdrom) /* a drive may be empty */
		return td_fail(err, EINVAL,
			       "no target: the path of the image, as in target=/srv/disk.img");
	if (!d->vdev)
		return td_fail(err, EINVAL,
			       "no vdev: the disk's name in the guest, as in vdev=xvda");
	if (d->target[0] != '/' && *d->target && !names_no_file(d))
		return td_fail(err, EINVAL, "target '%s' is not an absolute path", d->target);
	if (d->read_only && d->shared)
		return td_fail(err, EINVAL, "a read-only disk needs no shared=yes");
	return d->format ? 0 : set_text(&d->format, "raw", "format", err);
}

void xl_disk_free(struct xl_disk *d)
{
	free(d->target);
	free(d->format);
	free(d->vdev);
	free(d->words);
	free(d->polling_duration);
	free(d->polling_idle);
	memset(d, 0, sizeof *d);
}
