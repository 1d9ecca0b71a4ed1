/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What stands behind rbd: is pool[/namespace]/image[@snapshot][:key=value]...; a backslash takes
 * from the character behind it what it would mean here.  A name's own text is not in any error,
 * because somebody may have written a key into it (RB9).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/rbd/rbd.h"

/* The first of `stop' in s that has no backslash before it, or s's end. */
static char *find_stop(char *s, const char *stop)
{
	for (; *s && !strchr(stop, *s); s++)
		if (*s == '\\' && s[1])
			s++;
	return s;
}

/* Cuts s at the first of `stop'; what follows, or NULL. */
static char *cut_at(char *s, const char *stop)
{
	char *end = find_stop(s, stop);

	if (!*end)
		return NULL;
	*end = 0;
	return end + 1;
}

static const char *plain(char *s)
{
	char *to = s;

	for (char *from = s; *from; from++) {
		if (*from == '\\' && from[1])
			from++;
		*to++ = *from;
	}
	*to = 0;
	return s;
}

static int bad_name(struct td_err *err)
{
	return td_fail(err, EINVAL,
		       "behind rbd: stands pool[/namespace]/image[@snapshot], as in rbd:vms/disk1; "
		       "a backslash goes before a /, @ or : in one of the names");
}

static int parse_name(struct rbdc_spec *s, char *at, struct td_err *err)
{
	char *image = cut_at(at, "/"), *third = image ? cut_at(image, "/") : NULL, *snap;
	char *ns = third ? image : NULL;

	if (!image || (third && *find_stop(third, "/")))
		return bad_name(err);
	image = third ? third : image;
	snap = cut_at(image, "@");
	if (!*at || !*image || (snap && (!*snap || *find_stop(snap, "@"))) || (ns && !*ns))
		return bad_name(err);
	s->pool = plain(at);
	s->ns = ns ? plain(ns) : "";
	s->image = plain(image);
	s->snap = snap ? plain(snap) : NULL;
	return 0;
}

static int set_path(const char **where, const char *key, const char *value, struct td_err *err)
{
	if (value[0] != '/')
		return td_fail(err, EINVAL, "rbd: %s= wants a file's absolute path", key);
	*where = value;
	return 0;
}

static int set_spec_key(struct rbdc_spec *s, const char *key, const char *value, struct td_err *err)
{
	if (!strcmp(key, "key"))
		return td_fail(err, EINVAL,
			       "rbd: key= would show the key to everybody who sees command lines, "
			       "logs or the list of disks: put it into a file (ceph auth get "
			       "client.ID -o FILE) that only root can read, and say keyring=FILE");
	if (!strcmp(key, "conf"))
		return set_path(&s->conf, key, value, err);
	if (!strcmp(key, "keyring"))
		return set_path(&s->keyring, key, value, err);
	if (!strcmp(key, "id"))
		s->id = value;
	else if (!strcmp(key, "cluster"))
		s->cluster = value;
	else
		return td_fail(
			err, EINVAL,
			"rbd: behind the image may stand conf=FILE, id=USER, keyring=FILE and "
			"cluster=NAME, with a : before each, and nothing else");
	if (!*value || strchr(value, '/'))
		return td_fail(err, EINVAL, "rbd: %s= wants a name, not a path", key);
	return 0;
}

static int parse_keys(struct rbdc_spec *s, char *at, struct td_err *err)
{
	int rc = 0;

	while (at && !rc) {
		char *next = cut_at(at, ":"), *value = cut_at(at, "=");

		if (!value || !*at)
			return td_fail(err, EINVAL,
				       "rbd: behind the image stand keys and values, as in "
				       ":conf=/etc/ceph/ceph.conf:id=xen");
		rc = set_spec_key(s, plain(at), plain(value), err);
		at = next;
	}
	return rc;
}

int rbdc_spec_parse(const char *name, struct rbdc_spec *out, struct td_err *err)
{
	char *keys;
	int rc;

	*out = (struct rbdc_spec){.text = strdup(name)};
	if (!out->text)
		return td_fail(err, ENOMEM, "out of memory");
	keys = cut_at(out->text, ":");
	rc = parse_keys(out, keys, err); /* first, as the name may hold a secret */
	if (!rc)
		rc = parse_name(out, out->text, err);
	if (rc < 0)
		rbdc_spec_free(out);
	return rc;
}

void rbdc_spec_free(struct rbdc_spec *s)
{
	free(s->text);
	*s = (struct rbdc_spec){0};
}
