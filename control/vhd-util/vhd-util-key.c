/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The command key.  An encrypted image stores no key, only SHA-256(nonce, key), so that a wrong one
 * is noticed.  A key's file is named IMAGE,aes-xts-plain,BITS.key, as key managers name it: the
 * name says how long it must be.  IMAGE is the image's name, with or without what it has from .vhd
 * on.
 */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/vhd-util/vhd-util.h"
#include "drivers/vhd/vhd-image.h"
#include "lib/bytes.h"

static int from_hex(const char *text, uint8_t out[32], const char *what, struct td_err *err)
{
	return td_get_hex(text, out, 32)
		       ? 0
		       : td_fail(err, EINVAL, "key: the %s has 64 hexadecimal digits, not '%s'",
				 what, text);
}

static void print_hex(const uint8_t b[32], char end)
{
	char hex[65];

	td_put_hex(hex, b, 32);
	printf("%s%c", hex, end);
}

/* Bytes of an image's name without what it has from .vhd on. */
static size_t stem(const char *base)
{
	const char *ext = strstr(base, ".vhd");

	return ext ? (size_t)(ext - base) : strlen(base);
}

/* The bytes that the name of the key's file promises for this image; 0: it is not named so. */
static size_t promised(const char *image, const char *key)
{
	const char *base = strrchr(image, '/') ? strrchr(image, '/') + 1 : image,
		   *name = strrchr(key, '/') ? strrchr(key, '/') + 1 : key;
	size_t whole = strlen(base), len = stem(base);

	if (!strncmp(name, base, whole) && name[whole] == ',')
		len = whole;
	if (strncmp(name, base, len))
		return 0;
	return !strcmp(name + len, ",aes-xts-plain,512.key")   ? 64
	       : !strcmp(name + len, ",aes-xts-plain,256.key") ? 32
							       : 0;
}

static int read_key(const char *path, uint8_t key[64], size_t *len, struct td_err *err)
{
	FILE *f = fopen(path, "re");
	uint8_t more;

	if (!f)
		return td_fail(err, errno, "cannot open the key %s: %s", path, strerror(errno));
	setvbuf(f, NULL, _IONBF, 0); /* no copy of the key stays in a buffer */
	*len = fread(key, 1, 64, f);
	if ((*len != 32 && *len != 64) || fread(&more, 1, 1, f) == 1)
		td_fail(err, EINVAL,
			"the key %s has %zu bytes; it takes 32 (256 bits) or 64 (512 bits)", path,
			*len);
	fclose(f);
	return err->code ? -err->code : 0;
}

static int wrong_name(const char *image, const char *key, struct td_err *err)
{
	const char *base = strrchr(image, '/') ? strrchr(image, '/') + 1 : image;
	int len = (int)stem(base);

	return td_fail(err, EINVAL,
		       "the key %s is not named as the key of %s: it has to be named "
		       "%.*s,aes-xts-plain,256.key when it has 32 bytes, "
		       "and %.*s,aes-xts-plain,512.key when it has 64",
		       key, image, len, base, len, base);
}

static int hash_key(const char *image, const char *path, const uint8_t nonce[32], uint8_t hash[32],
		    struct td_err *err)
{
	uint8_t text[96];
	size_t len = 0, want = image ? promised(image, path) : 0;
	int rc;

	if (image && !want)
		return wrong_name(image, path, err);
	memcpy(text, nonce, 32);
	rc = read_key(path, text + 32, &len, err);
	if (!rc && want && len != want)
		rc = td_fail(err, EINVAL,
			     "the key %s has %zu bytes, and by its name it should have %zu", path,
			     len, want);
	if (!rc && !EVP_Digest(text, 32 + len, hash, NULL, EVP_sha256(), NULL))
		rc = td_fail(err, EIO, "cannot compute the SHA-256 of the key %s: OpenSSL failed",
			     path);
	explicit_bzero(text, sizeof text);
	return rc;
}

static int set_key(const struct vu_args *a, struct vhd_image *v, const uint8_t nonce[32],
		   struct td_err *err)
{
	uint8_t hash[32], b[VHD_SECTOR];
	int rc;

	if (!v->has_batmap)
		return td_fail(err, EINVAL, "%s has no batmap, where the hash of a key is kept",
			       v->path);
	if (vhd_image_allocated(v))
		return td_fail(err, EINVAL,
			       "%s has data already, which is not encrypted with this key",
			       v->path);
	rc = a->val['H'] ? from_hex(a->val['H'], hash, "hash", err)
			 : hash_key(v->path, a->val['k'], nonce, hash, err);
	if (rc < 0)
		return rc;
	v->batmap.has_key = 1;
	memcpy(v->batmap.nonce, nonce, 32);
	memcpy(v->batmap.hash, hash, 32);
	vhd_batmap_encode(&v->batmap, b);
	rc = vhd_pwrite(v, b, sizeof b, v->layout.batmap_header, err);
	return rc ? rc : vhd_sync(v, err);
}

static int check_key(const struct vu_args *a, const struct vhd_image *v, struct td_err *err)
{
	uint8_t hash[32];
	int rc;

	if (!v->batmap.has_key)
		return td_fail(err, EINVAL, "%s has no hash of a key: it is not encrypted",
			       v->path);
	rc = hash_key(v->path, a->val['k'], v->batmap.nonce, hash, err);
	if (!rc && memcmp(hash, v->batmap.hash, 32))
		rc = td_fail(err, EINVAL, "the key %s is not that of %s", a->val['k'], v->path);
	return rc;
}

static int usage(const struct vu_args *a, struct td_err *err)
{
	bool k = a->val['k'], h = a->val['H'], s = a->val['s'], c = a->val['c'];

	if (a->val['C'])
		return k ? 0 : td_fail(err, EINVAL, "key: -C needs -k");
	if (!a->val['n'])
		return td_fail(err, EINVAL, "key: -n is missing");
	if (s && (c || k == h))
		return td_fail(err, EINVAL, "key: -s needs one of -k and -H, and no -c");
	if (c && (!k || h || a->val['N']))
		return td_fail(err, EINVAL,
			       "key: -c needs -k, and the nonce and the hash are the image's");
	return s || c || a->val['p']
		       ? 0
		       : td_fail(err, EINVAL, "key: one of -s, -c, -C and -p is needed");
}

int vu_key(const struct vu_args *a, struct td_err *err)
{
	uint8_t nonce[32] = {0}, hash[32];
	struct vhd_image *v;
	int rc = usage(a, err);

	if (!rc && a->val['N'])
		rc = from_hex(a->val['N'], nonce, "nonce", err);
	if (rc < 0)
		return rc;
	if (a->val['C']) {
		rc = hash_key(NULL, a->val['k'], nonce, hash, err);
		if (!rc)
			print_hex(hash, '\n');
		return rc;
	}
	rc = vhd_image_open(a->val['n'], a->val['s'] ? VHD_WRITE : VHD_LOOK | VHD_AS_IS, &v, err);
	if (rc < 0)
		return rc;
	if (a->val['s'])
		rc = set_key(a, v, nonce, err);
	else if (a->val['c'])
		rc = check_key(a, v, err);
	if (!rc && a->val['p']) {
		if (v->batmap.has_key) {
			print_hex(v->batmap.nonce, ' ');
			print_hex(v->batmap.hash, '\n');
		} else {
			puts("none");
		}
	}
	vhd_image_close(v);
	return rc;
}
