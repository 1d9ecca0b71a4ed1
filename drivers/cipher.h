/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The sectors of a disk, 512 bytes each, encrypted each on its own by AES: in XTS mode, or CBC,
 * with the sector's number as what makes equal sectors different.  What VHD's tap tools, LUKS and
 * old qcow images do alike; OpenSSL does the work.
 *
 * A cipher belongs to one thread at a time.
 */
#ifndef DRIVERS_CIPHER_H
#define DRIVERS_CIPHER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define TD_CIPHER_SECTOR  512
#define TD_CIPHER_KEY_MAX 64 /* bytes */

enum td_cipher_mode {
	TD_CIPHER_XTS, /* a key of 32 or 64 bytes: AES-128's or AES-256's two, which must differ */
	TD_CIPHER_CBC, /* a key of 16, 24 or 32 bytes */
};

enum td_cipher_iv {
	TD_IV_PLAIN,   /* the low 32 bits of the sector's number, little-endian */
	TD_IV_PLAIN64, /* all 64 */
	TD_IV_ESSIV,   /* these, encrypted by AES-256 with the SHA-256 of the key */
};

struct td_cipher;

/* 0, -EINVAL where the key does not fit the mode, or -ENOMEM.  free: NULL is fine. */
int td_cipher_new(enum td_cipher_mode mode, enum td_cipher_iv iv, const uint8_t *key, size_t len,
		  struct td_cipher **out);
void td_cipher_free(struct td_cipher *c);

/* In place; at: the byte offset of the first sector, len: bytes in whole sectors.  0, or -EIO
 * (OpenSSL failed). */
int td_encrypt(struct td_cipher *c, uint64_t at, void *buf, size_t len);
/* The same of memory in pieces of any length, whole sectors in all. */
int td_decrypt(struct td_cipher *c, uint64_t at, const struct iovec *iov, int iovcnt);
/* Copies the pieces into new memory (*copy; free() it, after an error too: NULL or not) and
 * encrypts that.  -ENOMEM, -EIO. */
int td_encrypt_copy(struct td_cipher *c, uint64_t at, const struct iovec *iov, int iovcnt,
		    uint64_t len, void **copy);

#endif
