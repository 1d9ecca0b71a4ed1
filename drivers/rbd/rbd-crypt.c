/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * An image that librbd encrypts (`rbd encryption format'), with LUKS in version 1 or 2.  Without a
 * key such an image is opened as it is, since the LUKS in it may be the guest's own.
 */
#include <errno.h>
#include <string.h>

#include "drivers/rbd/rbd.h"
#include "lib/bytes.h"

static int find_version(struct rbdc_handle *h, const char *name, unsigned *version,
			struct td_err *err)
{
	uint8_t head[8] = {0};
	ssize_t n = rbdc_lib->rbd_read(h->rbd, 0, sizeof head, (char *)head);

	if (n < 0)
		return td_fail(err, (int)-n, "rbd:%s: cannot read its first bytes: %s", name,
			       strerror((int)-n));
	if (n < (ssize_t)sizeof head || memcmp(head, "LUKS\xba\xbe", 6) != 0)
		return td_fail(err, EINVAL,
			       "rbd:%s is not encrypted, though a key was given: leave it out, or "
			       "encrypt the image (rbd encryption format), which empties it",
			       name);
	*version = td_get_be16(head + 6);
	return 0;
}

static int load(struct rbdc_handle *h, unsigned version, const struct td_key *key)
{
	rbd_encryption_luks1_format_options_t one = {.passphrase = (const char *)key->bytes,
						     .passphrase_size = key->len};
	rbd_encryption_luks2_format_options_t two = {.passphrase = (const char *)key->bytes,
						     .passphrase_size = key->len};

	return version == 1   ? rbdc_lib->rbd_encryption_load(h->rbd, RBD_ENCRYPTION_FORMAT_LUKS1,
							      &one, sizeof one)
	       : version == 2 ? rbdc_lib->rbd_encryption_load(h->rbd, RBD_ENCRYPTION_FORMAT_LUKS2,
							      &two, sizeof two)
			      : -EOPNOTSUPP;
}

int rbdc_unlock(struct rbdc_handle *h, const char *name, const struct td_key *key,
		struct td_err *err)
{
	unsigned version = 0;
	int rc = find_version(h, name, &version, err);

	if (rc < 0)
		return rc;
	rc = load(h, version, key);
	if (rc == -EPERM)
		return td_fail(err, ENOKEY,
			       "rbd:%s is encrypted, and not with this passphrase (which is all of "
			       "standard input: a newline counts)",
			       name);
	if (rc < 0)
		return td_fail(err, -rc, "rbd:%s: cannot use its encryption (LUKS %u): %s", name,
			       version, strerror(-rc));
	h->encrypted = true;
	return 0;
}
