/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Which of librbd's caches are in force for an image that is open (RB3): whatever its connection
 * says, the configuration of its pool goes before that, and its own before both. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/rbd/rbd.h"

static bool is_yes(const char *value)
{
	return !strcmp(value, "true") || !strcmp(value, "yes") || !strcmp(value, "1") ||
	       !strcmp(value, "on");
}

static int whose_word(const char *name, const rbd_config_option_t *o, struct td_err *err)
{
	return td_fail(err, EINVAL,
		       "rbd:%s is cached by this host, as the configuration of its %s says %s=%s: "
		       "take that away (rbd config %s rm ... %s), or ask for cache=writeback",
		       name, o->source == RBD_CONFIG_SOURCE_IMAGE ? "image" : "pool", o->name,
		       o->value, o->source == RBD_CONFIG_SOURCE_IMAGE ? "image" : "pool", o->name);
}

static int persistent(const char *name, const rbd_config_option_t *o, struct td_err *err)
{
	return td_fail(err, EINVAL,
		       "rbd:%s has a persistent cache on this host (%s=%s), without which another "
		       "host would see an old state of the disk: take that away",
		       name, o->name, o->value);
}

static int look_at(struct rbdc_handle *h, const char *name, bool may, const rbd_config_option_t *o,
		   struct td_err *err)
{
	if (!strcmp(o->name, "rbd_cache")) {
		h->cached = is_yes(o->value);
		if (h->cached && !may)
			return whose_word(name, o, err);
	} else if (!strcmp(o->name, "rbd_persistent_cache_mode")) {
		if (*o->value && strcmp(o->value, "disabled"))
			return persistent(name, o, err);
	} else if (!strcmp(o->name, "rbd_discard_granularity_bytes")) {
		unsigned long n = strtoul(o->value, NULL, 10);

		h->discard = n >= 512 && n <= 64u << 20 && !(n & (n - 1)) ? (uint32_t)n : 0;
	}
	return 0;
}

int rbdc_cache_check(struct rbdc_handle *h, const char *name, bool may, struct td_err *err)
{
	rbd_config_option_t *o;
	int n = 0, rc = rbdc_lib->rbd_config_image_list(h->rbd, NULL, &n);

	h->cached = true; /* unless it is seen that it is not */
	h->discard = 65536;
	if (rc != -ERANGE || n <= 0 || n > 10000)
		return td_fail(err, rc < 0 && rc != -ERANGE ? -rc : EPROTO,
			       "rbd:%s: cannot read which configuration is in force for it", name);
	o = calloc((size_t)n, sizeof *o);
	if (!o)
		return td_fail(err, ENOMEM, "out of memory");
	rc = rbdc_lib->rbd_config_image_list(h->rbd, o, &n);
	if (rc < 0) {
		free(o);
		return td_fail(err, -rc, "rbd:%s: cannot read its configuration: %s", name,
			       strerror(-rc));
	}
	rc = 0;
	for (int i = 0; i < n && !rc; i++)
		rc = look_at(h, name, may, &o[i], err);
	rbdc_lib->rbd_config_image_list_cleanup(o, n);
	free(o);
	if (!rc && h->cached && !may)
		rc = td_fail(err, EINVAL,
			     "rbd:%s: it is not known that this host does not cache it", name);
	return rc;
}
