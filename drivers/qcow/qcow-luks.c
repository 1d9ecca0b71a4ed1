/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "drivers/qcow/qcow-luks.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "lib/bytes.h"

#define ACTIVE    0x00ac71f3u
#define INACTIVE  0x0000deadu
#define SLOTS_AT  208
#define SLOT_SIZE 48
#define STRIPES   4000
#define SECTOR    TD_CIPHER_SECTOR
/* some ten seconds' work, of an attacker's choice; and of all slots together, with the digest that
 * is computed for each: */
#define ITERATIONS_MAX (1u << 25)
#define ITERATIONS_ALL (1u << 26)

/* --- the header --- */

/* A field of text of 32 bytes, zeroes behind it. */
static void word(const uint8_t *p, char out[33])
{
	memcpy(out, p, 32);
	out[32] = 0;
	for (char *c = out; *c; c++)
		if (*c < 32 || *c > 126)
			*c = '?';
}

static const struct {
	const char *name;
	enum td_cipher_mode mode;
	enum td_cipher_iv iv;
} modes[] = {
	{"xts-plain64", TD_CIPHER_XTS, TD_IV_PLAIN64},
	{"xts-plain", TD_CIPHER_XTS, TD_IV_PLAIN},
	{"xts-essiv:sha256", TD_CIPHER_XTS, TD_IV_ESSIV},
	{"cbc-plain64", TD_CIPHER_CBC, TD_IV_PLAIN64},
	{"cbc-plain", TD_CIPHER_CBC, TD_IV_PLAIN},
	{"cbc-essiv:sha256", TD_CIPHER_CBC, TD_IV_ESSIV},
};

static const EVP_MD *hash_named(const char *name, const char **known)
{
	static const struct {
		const char *name;
		const EVP_MD *(*hash)(void);
	} hashes[] = {{"sha1", EVP_sha1}, {"sha256", EVP_sha256}, {"sha512", EVP_sha512}};

	for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++)
		if (!strcmp(name, hashes[i].name)) {
			*known = hashes[i].name;
			return hashes[i].hash();
		}
	return NULL;
}

static int decode_cipher(const uint8_t *p, const char *name, struct luks *l, struct td_err *err)
{
	char cipher[33], mode[33], hash[33];
	size_t i = 0, n = sizeof modes / sizeof *modes;

	word(p + 8, cipher);
	word(p + 40, mode);
	word(p + 72, hash);
	while (i < n && strcmp(mode, modes[i].name))
		i++;
	if (strcmp(cipher, "aes") || i == n)
		return td_fail(err, ENOTSUP,
			       "%s is encrypted with %s-%s: AES in the modes xts and cbc with "
			       "plain, plain64 and essiv:sha256 is known here",
			       name, cipher, mode);
	l->mode = modes[i].mode;
	l->iv = modes[i].iv;
	l->mode_name = modes[i].name;
	l->hash = hash_named(hash, &l->hash_name);
	if (!l->hash)
		return td_fail(err, ENOTSUP,
			       "%s: its LUKS header uses the hash %s: sha1, sha256 and sha512 are "
			       "known here",
			       name, hash);
	l->key_bytes = td_get_be32(p + 108);
	if (l->mode == TD_CIPHER_XTS
		    ? l->key_bytes != 32 && l->key_bytes != 64
		    : l->key_bytes != 16 && l->key_bytes != 24 && l->key_bytes != 32)
		return td_fail(err, EINVAL, "%s: its LUKS header gives aes-%s a key of %u bytes",
			       name, mode, l->key_bytes);
	return 0;
}

/* A key in stripes, in whole sectors. */
static size_t spread_size(uint32_t key_bytes)
{
	return td_round_up((uint64_t)key_bytes * STRIPES, SECTOR);
}

static int decode_slot(const uint8_t *p, unsigned i, uint64_t area, const char *name,
		       const struct luks *l, struct luks_slot *s, struct td_err *err)
{
	uint32_t state = td_get_be32(p), stripes = td_get_be32(p + 44);

	*s = (struct luks_slot){.active = state == ACTIVE,
				.iterations = td_get_be32(p + 4),
				.off = (uint64_t)td_get_be32(p + 40) * SECTOR,
				.len = spread_size(l->key_bytes)};
	memcpy(s->salt, p + 8, sizeof s->salt);
	if (state != ACTIVE && state != INACTIVE)
		return td_fail(err, EINVAL,
			       "%s: key slot %u of its LUKS header is neither in use nor free",
			       name, i);
	if (!s->active)
		return 0;
	if (stripes != STRIPES || !s->iterations || s->iterations > ITERATIONS_MAX)
		return td_fail(err, EINVAL,
			       "%s: key slot %u of its LUKS header has %u stripes and %u "
			       "iterations: %u, and 1 to %u, are possible",
			       name, i, stripes, s->iterations, STRIPES, ITERATIONS_MAX);
	if (s->off < LUKS_HEADER || s->off > area || s->len > area - s->off)
		return td_fail(err, EINVAL,
			       "%s: key slot %u of its LUKS header lies at %#llx, outside the %llu "
			       "bytes of it",
			       name, i, (unsigned long long)s->off, (unsigned long long)area);
	return 0;
}

int luks_decode(const uint8_t *buf, uint64_t area, const char *name, struct luks *l,
		struct td_err *err)
{
	uint64_t all = 0;
	int rc;

	if (area < LUKS_HEADER || memcmp(buf, "LUKS\xba\xbe", 6))
		return td_fail(err, EINVAL, "%s: its encryption header is not one of LUKS", name);
	if (td_get_be16(buf + 6) != 1)
		return td_fail(err, ENOTSUP, "%s: its LUKS header is of version %u: 1 is known",
			       name, td_get_be16(buf + 6));
	*l = (struct luks){.iterations = td_get_be32(buf + 164)};
	memcpy(l->digest, buf + 112, sizeof l->digest);
	memcpy(l->salt, buf + 132, sizeof l->salt);
	if (!l->iterations || l->iterations > ITERATIONS_MAX)
		return td_fail(err, EINVAL,
			       "%s: its LUKS header wants %u iterations: 1 to %u are possible",
			       name, l->iterations, ITERATIONS_MAX);
	rc = decode_cipher(buf, name, l, err);
	for (unsigned i = 0; !rc && i < LUKS_SLOTS; i++)
		rc = decode_slot(buf + SLOTS_AT + i * SLOT_SIZE, i, area, name, l, &l->slot[i],
				 err);
	for (unsigned i = 0; !rc && i < LUKS_SLOTS; i++)
		if (l->slot[i].active)
			all += (uint64_t)l->slot[i].iterations + l->iterations;
	if (!rc && all > ITERATIONS_ALL)
		rc = td_fail(err, EINVAL,
			     "%s: the key slots of its LUKS header have %llu iterations together, "
			     "with those of the digest for each: at most %u are tried",
			     name, (unsigned long long)all, ITERATIONS_ALL);
	return rc;
}

/* --- the key --- */

static int stretch(const struct luks *l, const uint8_t *secret, size_t len, const uint8_t salt[32],
		   uint32_t iterations, uint8_t *out, size_t n)
{
	return PKCS5_PBKDF2_HMAC((const char *)secret, (int)len, salt, 32, (int)iterations, l->hash,
				 (int)n, out)
		       ? 0
		       : -EIO;
}

/* Each piece of the block, as long as a hash, becomes the hash of its number and itself. */
static int diffuse(const struct luks *l, uint8_t *block)
{
	size_t size = (size_t)EVP_MD_get_size(l->hash);
	uint8_t text[4 + TD_CIPHER_KEY_MAX], hash[EVP_MAX_MD_SIZE];

	for (size_t at = 0; at < l->key_bytes; at += size) {
		size_t n = l->key_bytes - at < size ? l->key_bytes - at : size;

		td_put_be32(text, (uint32_t)(at / size));
		memcpy(text + 4, block + at, n);
		if (!EVP_Digest(text, 4 + n, hash, NULL, l->hash, NULL))
			return -EIO;
		memcpy(block + at, hash, n);
	}
	OPENSSL_cleanse(text, sizeof text);
	OPENSSL_cleanse(hash, sizeof hash);
	return 0;
}

/* The stripes are all needed to have the key, so that it goes with any of them. */
static int merge(const struct luks *l, const uint8_t *spread, uint8_t *key)
{
	int rc = 0;

	memset(key, 0, l->key_bytes);
	for (unsigned s = 0; !rc && s < STRIPES; s++) {
		for (uint32_t i = 0; i < l->key_bytes; i++)
			key[i] ^= spread[(size_t)s * l->key_bytes + i];
		if (s + 1 < STRIPES)
			rc = diffuse(l, key);
	}
	return rc;
}

static int open_slot(const struct luks *l, const struct luks_slot *s, const uint8_t *area,
		     const uint8_t *pass, size_t len, uint8_t *spread, uint8_t *key)
{
	uint8_t slot_key[TD_CIPHER_KEY_MAX], digest[sizeof l->digest];
	struct td_cipher *c = NULL;
	struct iovec iov = {spread, s->len};
	int rc = stretch(l, pass, len, s->salt, s->iterations, slot_key, l->key_bytes);

	if (!rc)
		rc = td_cipher_new(l->mode, l->iv, slot_key, l->key_bytes, &c);
	memcpy(spread, area + s->off, s->len);
	if (!rc)
		rc = td_decrypt(c, 0, &iov, 1);
	if (!rc)
		rc = merge(l, spread, key);
	if (!rc)
		rc = stretch(l, key, l->key_bytes, l->salt, l->iterations, digest, sizeof digest);
	td_cipher_free(c);
	OPENSSL_cleanse(slot_key, sizeof slot_key);
	return rc ? rc : CRYPTO_memcmp(digest, l->digest, sizeof digest) ? -ENOKEY : 0;
}

int luks_unlock(const struct luks *l, const uint8_t *area, const uint8_t *pass, size_t len,
		uint8_t key[TD_CIPHER_KEY_MAX])
{
	size_t size = spread_size(l->key_bytes);
	uint8_t *spread = malloc(size);
	int rc = spread ? -ENOKEY : -ENOMEM;

	for (unsigned i = 0; rc == -ENOKEY && i < LUKS_SLOTS; i++)
		if (l->slot[i].active)
			rc = open_slot(l, &l->slot[i], area, pass, len, spread, key);
	if (spread)
		OPENSSL_cleanse(spread, size);
	free(spread);
	if (rc)
		OPENSSL_cleanse(key, TD_CIPHER_KEY_MAX);
	return rc;
}

/* --- a new one --- */

#define SLOT_ALIGN     4096
#define ITERATIONS_MIN 1000
#define TRIAL          20000 /* iterations */

static uint64_t slot_room(uint32_t key_bytes)
{
	return td_round_up(spread_size(key_bytes), SLOT_ALIGN);
}

static uint32_t key_bytes(const struct luks_make *m)
{
	return m->aes / 8 * (m->mode == TD_CIPHER_XTS ? 2 : 1);
}

uint64_t luks_size(const struct luks_make *m)
{
	return SLOT_ALIGN + LUKS_SLOTS * slot_room(key_bytes(m));
}

/* How many iterations take that long here. */
static int calibrate(const struct luks *l, unsigned ms, uint32_t *iterations)
{
	uint8_t out[TD_CIPHER_KEY_MAX], salt[32] = {0};
	struct timespec a, b;
	double s, n;
	int rc;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &a);
	rc = stretch(l, salt, sizeof salt, salt, TRIAL, out, l->key_bytes);
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &b);
	s = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
	n = s > 0 ? TRIAL / s * ms / 1000 : ITERATIONS_MAX;
	*iterations = n < ITERATIONS_MIN   ? ITERATIONS_MIN
		      : n > ITERATIONS_MAX ? ITERATIONS_MAX
					   : (uint32_t)n;
	return rc;
}

/* Random stripes, and a last one that makes them the key. */
static int split(const struct luks *l, const uint8_t *key, uint8_t *spread)
{
	size_t most = (size_t)(STRIPES - 1) * l->key_bytes;
	uint8_t d[TD_CIPHER_KEY_MAX] = {0};
	int rc = RAND_bytes(spread, (int)most) == 1 ? 0 : -EIO;

	for (size_t at = 0; !rc && at < most; at += l->key_bytes) {
		for (uint32_t i = 0; i < l->key_bytes; i++)
			d[i] ^= spread[at + i];
		rc = diffuse(l, d);
	}
	for (uint32_t i = 0; i < l->key_bytes; i++)
		spread[most + i] = d[i] ^ key[i];
	OPENSSL_cleanse(d, sizeof d);
	return rc;
}

static int fill_slot(const struct luks *l, const struct luks_slot *s, const uint8_t *pass,
		     size_t len, const uint8_t *key, uint8_t *area)
{
	uint8_t slot_key[TD_CIPHER_KEY_MAX];
	struct td_cipher *c = NULL;
	int rc = split(l, key, area + s->off);

	if (!rc)
		rc = stretch(l, pass, len, s->salt, s->iterations, slot_key, l->key_bytes);
	if (!rc)
		rc = td_cipher_new(l->mode, l->iv, slot_key, l->key_bytes, &c);
	if (!rc)
		rc = td_encrypt(c, 0, area + s->off, s->len);
	td_cipher_free(c);
	OPENSSL_cleanse(slot_key, sizeof slot_key);
	return rc;
}

static void encode(const struct luks_make *m, const struct luks *l, uint8_t *p)
{
	uint8_t id[16];
	size_t i = 0;

	while (modes[i].mode != m->mode || modes[i].iv != m->iv)
		i++;
	memcpy(p, "LUKS\xba\xbe\0\1", 8);
	strcpy((char *)p + 8, "aes");
	strcpy((char *)p + 40, modes[i].name);
	strcpy((char *)p + 72, m->hash);
	td_put_be32(p + 104, (uint32_t)(luks_size(m) / SECTOR));
	td_put_be32(p + 108, l->key_bytes);
	memcpy(p + 112, l->digest, sizeof l->digest);
	memcpy(p + 132, l->salt, sizeof l->salt);
	td_put_be32(p + 164, l->iterations);
	memcpy(id, l->salt, sizeof id); /* random, and no secret */
	id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
	id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
	for (size_t k = 0, at = 168; k < 16; k++)
		at += (size_t)sprintf((char *)p + at,
				      k == 4 || k == 6 || k == 8 || k == 10 ? "-%02x" : "%02x",
				      id[k]);
	for (unsigned s = 0; s < LUKS_SLOTS; s++) {
		uint8_t *q = p + SLOTS_AT + s * SLOT_SIZE;

		td_put_be32(q, l->slot[s].active ? ACTIVE : INACTIVE);
		td_put_be32(q + 4, l->slot[s].iterations);
		memcpy(q + 8, l->slot[s].salt, sizeof l->slot[s].salt);
		td_put_be32(q + 40, (uint32_t)(l->slot[s].off / SECTOR));
		td_put_be32(q + 44, STRIPES);
	}
}

int luks_create(const struct luks_make *m, const uint8_t *pass, size_t len, uint8_t *area)
{
	struct luks l = {.mode = m->mode, .iv = m->iv, .key_bytes = key_bytes(m)};
	uint8_t key[TD_CIPHER_KEY_MAX];
	uint32_t n = 0;
	int rc;

	l.hash = hash_named(m->hash, &l.hash_name);
	rc = calibrate(&l, m->ms, &n);

	for (unsigned s = 0; s < LUKS_SLOTS; s++)
		l.slot[s] = (struct luks_slot){.active = s == 0,
					       .iterations = s ? 0 : n,
					       .off = SLOT_ALIGN + s * slot_room(l.key_bytes),
					       .len = spread_size(l.key_bytes)};
	l.iterations = n / 8 < ITERATIONS_MIN ? ITERATIONS_MIN : n / 8;
	if (!rc && (RAND_bytes(l.salt, sizeof l.salt) != 1 ||
		    RAND_bytes(l.slot[0].salt, sizeof l.slot[0].salt) != 1 ||
		    RAND_priv_bytes(key, (int)l.key_bytes) != 1))
		rc = -EIO;
	if (!rc)
		rc = stretch(&l, key, l.key_bytes, l.salt, l.iterations, l.digest, sizeof l.digest);
	if (!rc)
		rc = fill_slot(&l, &l.slot[0], pass, len, key, area);
	if (!rc)
		encode(m, &l, area);
	OPENSSL_cleanse(key, sizeof key);
	return rc;
}
