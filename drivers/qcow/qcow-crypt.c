/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Encrypted images.  What the guest's clusters hold is encrypted sector by sector; tables, bitmaps
 * and compressed clusters are not.
 *
 * LUKS: the key stands in a LUKS header of its own within the image, and a passphrase opens it; a
 * sector's number is that of its place in the file.  AES, of old images: the key is the passphrase
 * itself, cut off or filled up to 16 bytes, which nothing in the image can confirm; a sector's
 * number is that of the disk's.  It is read, and not written any more: equal disks look equal, and
 * what changes shows.
 */
#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

#include "drivers/cipher.h"
#include "drivers/qcow/qcow-luks.h"
#include "drivers/qcow/qcow.h"
#include "lib/fiber/fiber.h"

static int open_aes(struct qcow *q, const struct td_key *key, struct td_err *err)
{
	uint8_t bytes[16] = {0};
	int rc;

	memcpy(bytes, key->bytes, key->len < sizeof bytes ? key->len : sizeof bytes);
	rc = td_cipher_new(TD_CIPHER_CBC, TD_IV_PLAIN64, bytes, sizeof bytes, &q->crypt);
	OPENSSL_cleanse(bytes, sizeof bytes);
	return rc ? td_fail(err, -rc, "%s: its key cannot be used: %s", q->image->path,
			    strerror(-rc))
		  : 0;
}

struct unlock {
	struct luks luks;
	const uint8_t *area;
	const struct td_key *pass;
	uint8_t key[TD_CIPHER_KEY_MAX];
};

static long unlock_run(void *arg)
{
	struct unlock *u = arg;

	return luks_unlock(&u->luks, u->area, u->pass->bytes, u->pass->len, u->key);
}

static int unlock(struct qcow *q, struct unlock *u, struct td_err *err)
{
	int rc = (int)td_await_call(q->io, unlock_run, u); /* which takes seconds */

	if (!rc)
		rc = td_cipher_new(u->luks.mode, u->luks.iv, u->key, u->luks.key_bytes, &q->crypt);
	OPENSSL_cleanse(u->key, sizeof u->key);
	if (rc == -ENOKEY)
		return td_fail(err, ENOKEY,
			       "%s is encrypted, and not with this passphrase (which is all of "
			       "standard input: a newline counts)",
			       q->image->path);
	return rc ? td_fail(err, -rc, "%s: its encryption cannot be opened: %s", q->image->path,
			    strerror(-rc))
		  : 0;
}

static int open_luks(struct qcow *q, const struct td_key *key, struct td_err *err)
{
	uint64_t len = q->h.luks_len;
	struct unlock u = {.pass = key};
	uint8_t *area = NULL;
	int rc;

	if (len > LUKS_MOST)
		return td_fail(err, EINVAL,
			       "%s: an encryption header of %llu bytes: at most %u are opened",
			       q->image->path, (unsigned long long)len, LUKS_MOST);
	if (posix_memalign((void **)&area, 4096, td_round_up(len + 1, 4096)))
		return td_fail(err, ENOMEM, "%s: out of memory for its encryption header",
			       q->image->path);
	rc = td_file_rw(q->file, TD_IO_READ, area, q->h.luks_off, len, 0);
	if (rc)
		td_fail(err, -rc, "cannot read the encryption header of %s: %s", q->image->path,
			strerror(-rc));
	else
		rc = luks_decode(area, len, q->image->path, &u.luks, err);
	u.area = area;
	if (!rc)
		rc = unlock(q, &u, err);
	free(area);
	q->crypt_host = true;
	return rc;
}

int qcow_crypt_open(struct qcow *q, struct td_err *err)
{
	const struct td_key *key = q->image->key;
	const char *path = q->image->path;
	bool given = key && key->len, parent = q->image->file_flags & TD_FILE_PARENT;

	if (!q->h.crypt) /* a leaf that takes what one believes to be encrypted in the clear;
			    parents may well be plain */
		return given && !parent
			       ? td_fail(err, EINVAL, "%s is not encrypted, though a key was given",
					 path)
			       : 0;
	if (q->h.crypt == QCOW_AES && q->writable)
		return td_fail(err, EROFS,
			       "%s is encrypted in the old way (AES), which is too weak to be "
			       "written: open it read-only, or make one with "
			       "LUKS of it by `qemu-img convert -o encrypt.format=luks'",
			       path);
	if (q->h.autoclear & QCOW_AUTOCLEAR_RAW)
		return td_fail(
			err, ENOTSUP,
			"%s is encrypted, and its data file is to be raw: one excludes the other",
			path);
	if (!given)
		return td_fail(
			err, ENOKEY,
			"%s is encrypted (%s): give its passphrase on standard input, with -E",
			path, q->h.crypt == QCOW_LUKS ? "LUKS" : "AES");
	return q->h.crypt == QCOW_LUKS ? open_luks(q, key, err) : open_aes(q, key, err);
}
