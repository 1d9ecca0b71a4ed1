/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * This process's connections to clusters.  All disks that say the same cluster, user and key file
 * share one, as a connection has a dozen threads; those whose mode has no cache have another one
 * than the others, since librbd takes that from the connection.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/rbd/rbd.h"

#define TEXT(n)   #n
#define DIGITS(n) TEXT(n)

static struct td_list clusters = {&clusters, &clusters}; /* under the first of: */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, connecting = PTHREAD_MUTEX_INITIALIZER;

static const char *or_else(const char *said, const char *otherwise)
{
	return said ? said : otherwise;
}

static char *make_key(const struct rbdc_spec *s, bool cached)
{
	char *key;

	return asprintf(&key, "%s\n%s\n%s\n%s\n%d", or_else(s->conf, ""), or_else(s->id, ""),
			or_else(s->keyring, ""), or_else(s->cluster, ""), cached) < 0
		       ? NULL
		       : key;
}

static struct rbdc_cluster *find(const char *key)
{
	struct rbdc_cluster *found = NULL;

	pthread_mutex_lock(&lock);
	td_list_each (l, &clusters) {
		struct rbdc_cluster *c = td_entry(l, struct rbdc_cluster, link);

		if (!__atomic_load_n(&c->stale, __ATOMIC_RELAXED) && !strcmp(c->key, key))
			found = c;
	}
	if (found)
		found->users++;
	pthread_mutex_unlock(&lock);
	return found;
}

/* The environment and the current directory count for nothing: a successor has others. */
static int read_cluster_conf(rados_t r, const struct rbdc_spec *s, struct td_err *err)
{
	char *path = NULL;
	int rc;

	if (asprintf(&path, "/etc/ceph/%s.conf", or_else(s->cluster, "ceph")) < 0)
		return td_fail(err, ENOMEM, "out of memory");
	rc = rbdc_lib->rados_conf_read_file(r, or_else(s->conf, path));
	if (rc < 0)
		td_fail(err, -rc, "rbd: cannot read the cluster's configuration %s: %s%s",
			or_else(s->conf, path), strerror(-rc),
			s->conf ? "" : "; another one is named by :conf=FILE");
	free(path);
	return rc;
}

static int set_conf(rados_t r, const char *key, const char *value, struct td_err *err)
{
	int rc = rbdc_lib->rados_conf_set(r, key, value);

	return rc < 0 ? td_fail(err, -rc, "rbd: Ceph's client does not take %s=%s: %s", key, value,
				strerror(-rc))
		      : 0;
}

/* RB12: without a limit of the client's own no request waits in the call that hands it over. */
static int hand_over_at_once(rados_t r, struct td_err *err)
{
	int rc = set_conf(r, "objecter_inflight_ops", "0", err);

	if (!rc)
		rc = set_conf(r, "objecter_inflight_op_bytes", "0", err);
	if (!rc)
		rc = set_conf(r, "rbd_non_blocking_aio", "false", err);
	return rc;
}

static int configure(rados_t r, const struct rbdc_spec *s, bool cached, struct td_err *err)
{
	int rc = read_cluster_conf(r, s, err);

	if (!rc && s->keyring)
		rc = set_conf(r, "keyring", s->keyring, err);
	if (!rc)
		rc = set_conf(r, "client_mount_timeout", DIGITS(RBDC_MON_WAIT), err);
	if (!rc) /* RB2 */
		rc = set_conf(r, "rados_osd_op_timeout", "0", err);
	if (!rc)
		rc = set_conf(r, "rados_mon_op_timeout", "0", err);
	if (!rc) /* RB3 */
		rc = set_conf(r, "rbd_cache", cached ? "true" : "false", err);
	if (!rc && cached) /* a write may wait for space in the cache */
		rc = set_conf(r, "rbd_non_blocking_aio", "true", err);
	if (!rc && !cached)
		rc = hand_over_at_once(r, err);
	return rc;
}

static int why_not(const struct rbdc_spec *s, int rc, struct td_err *err)
{
	const char *id = or_else(s->id, "admin");

	if (rc == -ETIMEDOUT)
		return td_fail(
			err, ETIMEDOUT,
			"rbd: the cluster's monitors do not answer within %d s: are they up, "
			"and are their addresses in %s right?",
			RBDC_MON_WAIT, or_else(s->conf, "its configuration"));
	if (rc == -ENOENT || rc == -EACCES || rc == -EPERM || rc == -EINVAL)
		return td_fail(
			err, -rc,
			"rbd: cannot connect to the cluster as client.%s: %s: has that user a "
			"key in %s, and is it the cluster's?  (:id=USER and :keyring=FILE "
			"name others)",
			id, strerror(-rc),
			or_else(s->keyring, "the file that the configuration names"));
	return td_fail(err, -rc, "rbd: cannot connect to the cluster as client.%s: %s", id,
		       strerror(-rc));
}

static int get_addr(struct rbdc_cluster *c, struct td_err *err)
{
	char *addr = NULL;
	int rc = rbdc_lib->rados_getaddrs(c->rados, &addr);

	if (rc < 0 || !addr || strlen(addr) >= sizeof c->addr)
		return td_fail(err, rc < 0 ? -rc : EPROTO,
			       "rbd: the address of this host's Ceph client is not known");
	strcpy(c->addr, addr);
	rbdc_lib->rados_buffer_free(addr);
	return 0;
}

static int connect_new(struct rbdc_cluster *c, const struct rbdc_spec *s, bool cached,
		       struct td_err *err)
{
	char user[300];
	int rc;

	if (snprintf(user, sizeof user, "client.%s", or_else(s->id, "admin")) >= (int)sizeof user)
		return td_fail(err, ENAMETOOLONG, "rbd: id= is too long");
	rc = rbdc_lib->rados_create2(&c->rados, or_else(s->cluster, "ceph"), user, 0);
	if (rc < 0)
		return td_fail(err, -rc, "rbd: cannot make a Ceph client: %s", strerror(-rc));
	rc = configure(c->rados, s, cached, err);
	if (!rc) {
		rc = rbdc_lib->rados_connect(c->rados);
		rc = rc < 0 ? why_not(s, rc, err) : get_addr(c, err);
	}
	if (rc < 0)
		rbdc_lib->rados_shutdown(c->rados);
	return rc;
}

static int make(char *key, const struct rbdc_spec *s, bool cached, struct rbdc_cluster **out,
		struct td_err *err)
{
	struct rbdc_cluster *c = calloc(1, sizeof *c);
	int rc = c ? connect_new(c, s, cached, err) : td_fail(err, ENOMEM, "out of memory");

	if (rc < 0) {
		free(c);
		return rc;
	}
	c->key = key;
	c->users = 1;
	pthread_mutex_lock(&lock);
	td_list_add(&clusters, &c->link);
	pthread_mutex_unlock(&lock);
	*out = c;
	return 0;
}

int rbdc_cluster_get(const struct rbdc_spec *s, bool cached, struct rbdc_cluster **out,
		     struct td_err *err)
{
	char *key = make_key(s, cached);
	int rc = 0;

	if (!key)
		return td_fail(err, ENOMEM, "out of memory");
	pthread_mutex_lock(&connecting);
	*out = find(key);
	if (!*out)
		rc = make(key, s, cached, out, err);
	pthread_mutex_unlock(&connecting);
	if (rc < 0 || (*out)->key != key)
		free(key);
	return rc;
}

void rbdc_cluster_put(struct rbdc_cluster *c)
{
	bool last;

	pthread_mutex_lock(&lock);
	last = --c->users == 0;
	if (last)
		td_list_del(&c->link);
	pthread_mutex_unlock(&lock);
	if (!last)
		return;
	rbdc_lib->rados_shutdown(c->rados);
	free(c->key);
	free(c);
}
