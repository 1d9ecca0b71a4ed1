/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypted VHDs, as the tap tools know them: each 512-byte sector of the disk on its own by AES-XTS, with the low 32 bits of the sector's
 * number, little-endian, as the tweak ("aes-xts-plain"); a key of 32 bytes is AES-128's two, one of 64 AES-256's.  The batmap's header has a
 * nonce and the SHA-256 of nonce and key, so that a wrong key is refused rather than made into noise.  Tables and bitmaps are not
 * encrypted.  A sector that nobody wrote is not there, and reads as zeroes.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd.h"
#include "lib/bytes.h"

struct vhd_crypt {
	EVP_CIPHER_CTX *en, *de;
};

static int check_key(const struct vhd *v, const uint8_t *key, size_t len, struct td_err *err)
{
	uint8_t text[sizeof v->batmap.nonce + 64], hash[EVP_MAX_MD_SIZE];
	unsigned n = 0;
	bool same;

	memcpy(text, v->batmap.nonce, sizeof v->batmap.nonce);
	memcpy(text + sizeof v->batmap.nonce, key, len);
	same = EVP_Digest(text, sizeof v->batmap.nonce + len, hash, &n, EVP_sha256(), NULL) && n == sizeof v->batmap.hash &&
	       !CRYPTO_memcmp(hash, v->batmap.hash, n);
	OPENSSL_cleanse(text, sizeof text);
	return same ? 0 : td_fail(err, ENOKEY, "%s is encrypted, and not with this key", v->image->path);
}

int vhd_crypt_new(struct vhd *v, const uint8_t *key, size_t len, struct vhd_crypt **out, struct td_err *err)
{
	const EVP_CIPHER *how = len == 64 ? EVP_aes_256_xts() : EVP_aes_128_xts();
	struct vhd_crypt *c;
	int rc;

	if (len != 32 && len != 64)
		return td_fail(err, EINVAL, "%s: a key has 32 or 64 bytes, not %zu", v->image->path, len);
	rc = check_key(v, key, len, err);
	if (rc < 0)
		return rc;
	c = calloc(1, sizeof *c);
	if (!c || !(c->en = EVP_CIPHER_CTX_new()) || !(c->de = EVP_CIPHER_CTX_new()) || !EVP_EncryptInit_ex(c->en, how, NULL, key, NULL) ||
	    !EVP_DecryptInit_ex(c->de, how, NULL, key, NULL)) {
		vhd_crypt_free(c);
		return td_fail(err, EINVAL, "%s: the key cannot be used for AES-XTS (its halves must differ)", v->image->path);
	}
	*out = c;
	return 0;
}

void vhd_crypt_free(struct vhd_crypt *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->en);
	EVP_CIPHER_CTX_free(c->de);
	free(c);
}

static bool one_sector(EVP_CIPHER_CTX *ctx, uint64_t at, uint8_t *to, const uint8_t *from)
{
	uint8_t tweak[16] = {0};
	int n;

	td_put_le32(tweak, (uint32_t)(at / VHD_SECTOR));
	return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, -1) && EVP_CipherUpdate(ctx, to, &n, from, VHD_SECTOR) && n == (int)VHD_SECTOR;
}

int vhd_encrypt(struct vhd_crypt *c, uint64_t at, void *buf, size_t len)
{
	uint8_t *p = buf;

	for (; len; len -= VHD_SECTOR, p += VHD_SECTOR, at += VHD_SECTOR)
		if (!one_sector(c->en, at, p, p))
			return -EIO;
	return 0;
}

/* The next sector of the pieces, to or from buf; for one that does not lie in one piece. */
static void copy_sector(const struct iovec *iov, size_t skip, uint8_t *buf, bool back)
{
	for (size_t n = 0, part; n < VHD_SECTOR; n += part, iov++, skip = 0) {
		uint8_t *p = (uint8_t *)iov->iov_base + skip;

		part = iov->iov_len - skip < VHD_SECTOR - n ? iov->iov_len - skip : VHD_SECTOR - n;
		memcpy(back ? p : buf + n, back ? buf + n : p, part);
	}
}

int vhd_decrypt(struct vhd_crypt *c, uint64_t at, struct iovec *iov, int iovcnt)
{
	const struct iovec *end = iov + iovcnt;
	uint8_t buf[VHD_SECTOR];
	size_t skip = 0;

	for (;; at += VHD_SECTOR, skip += VHD_SECTOR) {
		while (iov < end && skip >= iov->iov_len)
			skip -= iov++->iov_len;
		if (iov == end)
			return 0;
		if (iov->iov_len - skip >= VHD_SECTOR) {
			uint8_t *p = (uint8_t *)iov->iov_base + skip;

			if (!one_sector(c->de, at, p, p))
				return -EIO;
			continue;
		}
		copy_sector(iov, skip, buf, false);
		if (!one_sector(c->de, at, buf, buf))
			return -EIO;
		copy_sector(iov, skip, buf, true);
	}
}
