/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The header of LUKS, version 1: it hides the key of a disk behind up to eight passphrases. Buffers
 * in, a key out; no I/O; any thread.
 *
 * Facts: the LUKS On-Disk Format Specification 1.2.3, and what qemu-img 7.2 writes.  All numbers
 * are big-endian, places are in sectors of 512 bytes from the header's start.
 */
#ifndef DRIVERS_QCOW_LUKS_H
#define DRIVERS_QCOW_LUKS_H

#include <openssl/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "drivers/cipher.h"
#include "td/log.h"

#define LUKS_HEADER 592 /* bytes */
#define LUKS_SLOTS  8
#define LUKS_MOST   (8u << 20) /* bytes of header and slots that are read */

struct luks {
	enum td_cipher_mode mode;
	enum td_cipher_iv iv;
	const EVP_MD *hash;
	const char *hash_name, *mode_name; /* as in the header: "sha256", "xts-plain64" */
	uint32_t key_bytes;
	uint8_t digest[20], salt[32]; /* of the disk's key */
	uint32_t iterations;
	struct luks_slot {
		bool active;
		uint32_t iterations;
		uint8_t salt[32];
		uint64_t off, len; /* bytes: the key, spread */
	} slot[LUKS_SLOTS];
};

/*
 * buf: the header's first LUKS_HEADER bytes, of an area of `area' bytes.  All that unlocking needs
 * is checked here.  0; EINVAL: not sane, ENOTSUP: a cipher or hash that we do not have.  name: the
 * image's, for errors.
 */
int luks_decode(const uint8_t *buf, uint64_t area, const char *name, struct luks *l,
		struct td_err *err);

/*
 * The disk's key (l->key_bytes) from a passphrase; area: header and slots, as long as luks_decode()
 * was told.  Takes seconds, as it is meant to.  0; -ENOKEY: no slot opens with it; -EINVAL,
 * -ENOMEM, -EIO.
 */
int luks_unlock(const struct luks *l, const uint8_t *area, const uint8_t *pass, size_t len,
		uint8_t key[TD_CIPHER_KEY_MAX]);

/* A new header. */
struct luks_make {
	enum td_cipher_mode mode;
	enum td_cipher_iv iv;
	unsigned aes;     /* 128 or 256 bits */
	const char *hash; /* "sha1", "sha256", "sha512" */
	unsigned ms;      /* of this machine's time that one guess at a passphrase is to cost */
};

/* Bytes of header and slots. */
uint64_t luks_size(const struct luks_make *m);
/* Into area, luks_size() bytes of zeroes: a new random key behind a passphrase, in slot 0.  Takes
 * about 1.3 * m->ms.  0, -EIO, -ENOMEM. */
int luks_create(const struct luks_make *m, const uint8_t *pass, size_t len, uint8_t *area);

#endif
