/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A LUKS header from a stranger, and a passphrase tried on it where that costs little.  An input:
 * the length of the area in units of 64 KiB (1 byte), then its beginning; the rest is zeroes.
 */
#include <errno.h>
#include <stdbool.h>

#include "drivers/qcow/qcow-luks.h"
#include "lib/bytes.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "luks", fuzz_unit[] = "headers accepted";
const char *const fuzz_words[] = {"LUKS\xba\xbe",     "aes",       "xts-plain64", "cbc-plain64",
				  "cbc-essiv:sha256", "xts-plain", "sha1",        "sha256",
				  "sha512",           NULL};

enum { UNIT = 64 << 10, TRIED_MAX = 64 /* iterations */ };

static uint8_t *area;

void fuzz_start(void)
{
	area = calloc(256, UNIT);
	FUZZ_ASSERT(area);
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	static const char *const ciphers[] = {"xts-plain64", "cbc-plain64", "cbc-essiv:sha256"};
	static const char *const hashes[] = {"sha1", "sha256", "sha512"};
	uint8_t *p = out + 1;

	bool costly = n >= 9;
	unsigned slots = costly ? LUKS_SLOTS : 1 + n % 2;

	if (n >= 12)
		return 0;
	n %= 9;
	memset(out, 0, 1 + LUKS_HEADER);
	out[0] = slots == 1 ? 3 : 40;
	memcpy(p, "LUKS\xba\xbe\0\1", 8);
	strcpy((char *)p + 8, "aes");
	strcpy((char *)p + 40, ciphers[n % 3]);
	strcpy((char *)p + 72, hashes[n / 3]);
	td_put_be32(p + 108, n % 3 ? 16 : 32);
	td_put_be32(p + 164, costly ? 1u << 22 : 1 + n);
	for (unsigned s = 0; s < LUKS_SLOTS; s++) {
		uint8_t *q = p + 208 + s * 48;

		td_put_be32(q, s < slots ? 0x00ac71f3 : 0x0000dead);
		td_put_be32(q + 4, costly ? 1u << 22 : 1 + s);
		td_put_be32(q + 40, 8 + s * 256);
		td_put_be32(q + 44, 4000);
	}
	return 1 + LUKS_HEADER;
}

/* Beyond the end of what luks_decode() was given nothing may be read: it is a block of its own. */
static int decode(const uint8_t *header, uint64_t size, struct luks *l)
{
	uint8_t *own = malloc(LUKS_HEADER);
	struct td_err err = {0};
	int rc;

	FUZZ_ASSERT(own);
	memcpy(own, header, LUKS_HEADER);
	rc = luks_decode(own, size, "a.img", l, &err);
	FUZZ_ASSERT(rc ? err.code == -rc && err.text[0] : !err.code);
	free(own);
	return rc;
}

static uint64_t check(const struct luks *l, uint64_t size)
{
	uint64_t all = 0;

	FUZZ_ASSERT(l->key_bytes >= 16 && l->key_bytes <= TD_CIPHER_KEY_MAX && l->iterations);
	for (unsigned i = 0; i < LUKS_SLOTS; i++) {
		const struct luks_slot *s = &l->slot[i];

		if (!s->active)
			continue;
		FUZZ_ASSERT(s->off >= LUKS_HEADER && s->off <= size && s->len <= size - s->off);
		FUZZ_ASSERT(s->len >= (uint64_t)l->key_bytes * 4000 && s->iterations);
		all += (uint64_t)s->iterations + l->iterations;
	}
	FUZZ_ASSERT(all <= 1u << 26); /* some twenty seconds on most machines */
	return all;
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint64_t len = fuzz_u8(&in) * (uint64_t)UNIT + LUKS_HEADER / 2;
	static const uint8_t pass[] = {'s', 'e', 'c', 'r', 'e', 't'};
	uint8_t key[TD_CIPHER_KEY_MAX];
	uint64_t work;
	struct luks l;
	size_t n;

	n = fuzz_take(&in, area, in.left < len ? in.left : len);
	if (!decode(area, len, &l)) {
		fuzz_count++;
		work = check(&l, len);
		/* what a stranger makes up does not happen to have a passphrase */
		if (work && work <= TRIED_MAX)
			FUZZ_ASSERT(luks_unlock(&l, area, pass, sizeof pass, key) == -ENOKEY);
	}
	memset(area, 0, n);
	return 0;
}
