/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Pre-shared keys: lines of USER:HEXADECIMAL, as GnuTLS' psktool writes them. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/bytes.h"
#include "lib/tls/tls.h"

enum { FILE_MAX = 1 << 20, KEY_MIN = 16 /* bytes: a word that can be guessed is no key */ };

struct psk {
	size_t len;
	char user[TLS_USER_MAX]; /* of a client */
	char text[];
};

static void forget(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
	struct psk *p = ptr;

	if (p)
		OPENSSL_cleanse(p->text, p->len);
	free(p);
}

static int ctx_index; /* of a context's struct psk */
static CRYPTO_ONCE once = CRYPTO_ONCE_STATIC_INIT;

static void make_index(void)
{
	ctx_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, forget);
}

/* The line of that user, behind the colon; NULL: there is none. */
static const char *line_of(const struct psk *p, const char *user)
{
	size_t n = strlen(user);

	for (const char *at = p->text; at && *at;
	     at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
		if (*at != '#' && !strncmp(at, user, n) && at[n] == ':')
			return at + n + 1;
	return NULL;
}

/* Its bytes; 0: it is no key. */
static unsigned key_of(const char *hex, unsigned char *key, unsigned room)
{
	size_t digits = hex ? strspn(hex, "0123456789abcdefABCDEF") : 0;
	unsigned n = (unsigned)(digits / 2);

	if (digits % 2 || n < KEY_MIN || n > room ||
	    (hex[digits] && !isspace((unsigned char)hex[digits])))
		return 0;
	for (unsigned i = 0; i < n; i++)
		if (sscanf(hex + 2 * i, "%2hhx", &key[i]) != 1)
			return 0;
	return n;
}

static const struct psk *psk_of(SSL *ssl)
{
	return SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), ctx_index);
}

static unsigned client_key(SSL *ssl, const char *hint, char *identity, unsigned id_room,
			   unsigned char *key, unsigned room)
{
	const struct psk *p = psk_of(ssl);

	if (strlen(p->user) >= id_room)
		return 0;
	strcpy(identity, p->user);
	return key_of(line_of(p, p->user), key, room);
}

static unsigned server_key(SSL *ssl, const char *identity, unsigned char *key, unsigned room)
{
	if (!identity || !*identity || strlen(identity) >= TLS_USER_MAX ||
	    strpbrk(identity, ":\n#"))
		return 0;
	return key_of(line_of(psk_of(ssl), identity), key, room);
}

static int read_keys(const char *path, struct psk **out, struct td_err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), rc = fd < 0 ? -errno : 0;
	struct psk *p = NULL;
	struct stat st;
	ssize_t n;

	if (!rc && fstat(fd, &st) < 0)
		rc = -errno;
	if (!rc && (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX))
		rc = -EINVAL;
	if (!rc && !(p = calloc(1, sizeof *p + (size_t)st.st_size + 1)))
		rc = -ENOMEM;
	if (!rc) {
		n = read(fd, p->text, (size_t)st.st_size);
		rc = n < 0 ? -errno : 0;
		p->len = n < 0 ? 0 : (size_t)n;
	}
	if (fd >= 0)
		close(fd);
	if (rc < 0) {
		free(p);
		return td_fail(err, -rc, "TLS: cannot read the pre-shared keys in %s: %s", path,
			       strerror(-rc));
	}
	*out = p;
	return 0;
}

/* The only one of the file; whoever has several says which. */
static int find_user(struct psk *p, const char *path, struct td_err *err)
{
	const char *at = p->text, *only = NULL;
	int users = 0;

	while (at && *at) {
		const char *end = strchr(at, '\n');

		if (*at != '#' && *at != '\n') {
			only = at;
			users++;
		}
		at = end ? end + 1 : NULL;
	}
	if (users != 1 || strcspn(only, ":") >= sizeof p->user)
		return td_fail(err, EINVAL,
			       "TLS: %s has %d users: say which one by tls-username=", path, users);
	memcpy(p->user, only, strcspn(only, ":"));
	return 0;
}

static int check_user(struct psk *p, const char *path, const char *user, struct td_err *err)
{
	unsigned char key[TLS_KEY_MAX];
	int rc = 0;

	if (user && strlen(user) < sizeof p->user)
		strcpy(p->user, user);
	if (!*p->user)
		rc = find_user(p, path, err);
	if (!rc && !line_of(p, p->user))
		return td_fail(err, ENOENT, "TLS: %s has no key of the user %s", path, p->user);
	if (!rc && !key_of(line_of(p, p->user), key, sizeof key))
		rc = td_fail(
			err, EINVAL,
			"TLS: in %s, the key of the user %s is not %d to %d hexadecimal digits",
			path, p->user, KEY_MIN * 2, TLS_KEY_MAX * 2);
	OPENSSL_cleanse(key, sizeof key);
	return rc;
}

int td_tls_psk_set(struct ssl_ctx_st *ctx, const char *path, const char *user, bool server,
		   struct td_err *err)
{
	struct psk *p = NULL;
	int rc = read_keys(path, &p, err);

	if (rc < 0)
		return rc;
	CRYPTO_THREAD_run_once(&once, make_index);
	SSL_CTX_set_ex_data(ctx, ctx_index, p);
	if (server)
		SSL_CTX_set_psk_server_callback(ctx, server_key);
	else
		SSL_CTX_set_psk_client_callback(ctx, client_key);
	return server ? 0 : check_user(p, path, user, err);
}
