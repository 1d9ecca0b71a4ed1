/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/cipher.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lib/bytes.h"

struct td_cipher {
	EVP_CIPHER_CTX *en, *de;
	EVP_CIPHER_CTX *essiv; /* or NULL */
	enum td_cipher_iv iv;
};

static const EVP_CIPHER *algorithm(enum td_cipher_mode mode, size_t len)
{
	if (mode == TD_CIPHER_XTS)
		return len == 32 ? EVP_aes_128_xts() : len == 64 ? EVP_aes_256_xts() : NULL;
	return len == 16   ? EVP_aes_128_cbc()
	       : len == 24 ? EVP_aes_192_cbc()
	       : len == 32 ? EVP_aes_256_cbc()
			   : NULL;
}

static bool new_context(EVP_CIPHER_CTX **ctx, const EVP_CIPHER *how, const uint8_t *key,
			int encrypt)
{
	*ctx = EVP_CIPHER_CTX_new();
	return *ctx && EVP_CipherInit_ex(*ctx, how, NULL, key, NULL, encrypt) &&
	       EVP_CIPHER_CTX_set_padding(*ctx, 0);
}

static bool new_essiv(struct td_cipher *c, const uint8_t *key, size_t len)
{
	uint8_t hash[EVP_MAX_MD_SIZE];
	bool ok = EVP_Digest(key, len, hash, NULL, EVP_sha256(), NULL) &&
		  new_context(&c->essiv, EVP_aes_256_ecb(), hash, 1);

	explicit_bzero(hash, sizeof hash);
	return ok;
}

int td_cipher_new(enum td_cipher_mode mode, enum td_cipher_iv iv, const uint8_t *key, size_t len,
		  struct td_cipher **out)
{
	const EVP_CIPHER *how = algorithm(mode, len);
	struct td_cipher *c = how ? calloc(1, sizeof *c) : NULL;

	*out = NULL;
	if (!c)
		return how ? -ENOMEM : -EINVAL;
	c->iv = iv;
	if (!new_context(&c->en, how, key, 1) || !new_context(&c->de, how, key, 0) ||
	    (iv == TD_IV_ESSIV && !new_essiv(c, key, len))) {
		td_cipher_free(c);
		return -EINVAL;
	}
	*out = c;
	return 0;
}

void td_cipher_free(struct td_cipher *c)
{
	if (!c)
		return;
	EVP_CIPHER_CTX_free(c->en);
	EVP_CIPHER_CTX_free(c->de);
	EVP_CIPHER_CTX_free(c->essiv);
	free(c);
}

static bool make_iv(struct td_cipher *c, uint64_t sector, uint8_t iv[16])
{
	int n;

	memset(iv, 0, 16);
	td_put_le32(iv, (uint32_t)sector);
	if (c->iv != TD_IV_PLAIN)
		td_put_le32(iv + 4, (uint32_t)(sector >> 32));
	return !c->essiv || (EVP_CipherUpdate(c->essiv, iv, &n, iv, 16) && n == 16);
}

static bool one_sector(struct td_cipher *c, EVP_CIPHER_CTX *ctx, uint64_t at, uint8_t *p)
{
	uint8_t iv[16];
	int n;

	return make_iv(c, at / TD_CIPHER_SECTOR, iv) &&
	       EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) &&
	       EVP_CipherUpdate(ctx, p, &n, p, TD_CIPHER_SECTOR) && n == TD_CIPHER_SECTOR;
}

int td_encrypt(struct td_cipher *c, uint64_t at, void *buf, size_t len)
{
	uint8_t *p = buf;

	for (; len; len -= TD_CIPHER_SECTOR, p += TD_CIPHER_SECTOR, at += TD_CIPHER_SECTOR)
		if (!one_sector(c, c->en, at, p))
			return -EIO;
	return 0;
}

int td_encrypt_copy(struct td_cipher *c, uint64_t at, const struct iovec *iov, int iovcnt,
		    uint64_t len, void **copy)
{
	char *to;

	if (posix_memalign(copy, 4096, len)) {
		*copy = NULL;
		return -ENOMEM;
	}
	to = *copy;
	for (int i = 0; i < iovcnt; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
	return td_encrypt(c, at, *copy, len);
}

/* The next sector of the pieces, to or from buf; for one that does not lie in one piece. */
static void copy_sector(const struct iovec *iov, size_t skip, uint8_t *buf, bool back)
{
	for (size_t n = 0, part; n < TD_CIPHER_SECTOR; n += part, iov++, skip = 0) {
		uint8_t *p = (uint8_t *)iov->iov_base + skip;

		part = iov->iov_len - skip < TD_CIPHER_SECTOR - n ? iov->iov_len - skip
								  : TD_CIPHER_SECTOR - n;
		memcpy(back ? p : buf + n, back ? buf + n : p, part);
	}
}

int td_decrypt(struct td_cipher *c, uint64_t at, const struct iovec *iov, int iovcnt)
{
	const struct iovec *end = iov + iovcnt;
	uint8_t buf[TD_CIPHER_SECTOR];
	size_t skip = 0;

	for (;; at += TD_CIPHER_SECTOR, skip += TD_CIPHER_SECTOR) {
		while (iov < end && skip >= iov->iov_len)
			skip -= iov++->iov_len;
		if (iov == end)
			return 0;
		if (iov->iov_len - skip >= TD_CIPHER_SECTOR) {
			if (!one_sector(c, c->de, at, (uint8_t *)iov->iov_base + skip))
				return -EIO;
			continue;
		}
		copy_sector(iov, skip, buf, false);
		if (!one_sector(c, c->de, at, buf))
			return -EIO;
		copy_sector(iov, skip, buf, true);
	}
}
