/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypted VHDs, as the tap tools know them: each 512-byte sector of the disk on its own by
 * AES-XTS, with the low 32 bits of the sector's number, little-endian, as the tweak
 * ("aes-xts-plain"); a key of 32 bytes is AES-128's two, one of 64 AES-256's.  The batmap's header
 * has a nonce and the SHA-256 of nonce and key, so that a wrong key is refused rather than made
 * into noise.  Tables and bitmaps are not encrypted.  A sector that nobody wrote is not there, and
 * reads as zeroes.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#include "drivers/cipher.h"
#include "drivers/vhd/vhd.h"

static int check_key(const struct vhd *v, const uint8_t *key, size_t len, struct td_err *err)
{
	uint8_t text[sizeof v->batmap.nonce + TD_CIPHER_KEY_MAX], hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	bool same;

	memcpy(text, v->batmap.nonce, sizeof v->batmap.nonce);
	memcpy(text + sizeof v->batmap.nonce, key, len);
	same = EVP_Digest(text, sizeof v->batmap.nonce + len, hash, &n, EVP_sha256(), NULL) &&
	       n == sizeof v->batmap.hash && !CRYPTO_memcmp(hash, v->batmap.hash, n);
	OPENSSL_cleanse(text, sizeof text);
	return same ? 0
		    : td_fail(err, ENOKEY, "%s is encrypted, and not with this key",
			      v->image->path);
}

int vhd_crypt_new(struct vhd *v, const uint8_t *key, size_t len, struct td_cipher **out,
		  struct td_err *err)
{
	int rc;

	if (len != 32 && len != 64)
		return td_fail(err, EINVAL, "%s: a key has 32 or 64 bytes, not %zu", v->image->path,
			       len);
	rc = check_key(v, key, len, err);
	if (rc < 0)
		return rc;
	rc = td_cipher_new(TD_CIPHER_XTS, TD_IV_PLAIN, key, len, out);
	return rc ? td_fail(err, -rc,
			    "%s: the key cannot be used for AES-XTS (its halves must differ)",
			    v->image->path)
		  : 0;
}
