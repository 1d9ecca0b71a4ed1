/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Keys and certificates from their files, and what is asked of every connection (TL2, TL3). */
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/tls/tls.h"

/* with a pre-shared key, TLS 1.2 has other ciphers */
#define CERTIFICATE_CIPHERS "ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:!aNULL:!eNULL:!PSK"
#define PSK_CIPHERS         "kECDHEPSK:kDHEPSK:!eNULL:!3DES:!RC4"

/* OpenSSL would ask for it at the terminal. */
static int no_password(char *buf, int size, int writing, void *arg)
{
	return -1;
}

static int unusable(struct td_err *err, const char *path)
{
	const char *why = ERR_reason_error_string(ERR_peek_last_error());
	int rc = td_fail(err, EINVAL, "TLS: cannot use %s: %s", path, why ?: "it cannot be read");

	ERR_clear_error();
	return rc;
}

struct file {
	char path[PATH_MAX];
	bool there;
};

/* What is no file, a pipe that nobody writes to, could hold us up. */
static int find_file(struct file *f, const char *dir, const char *name, bool needed,
		     struct td_err *err)
{
	struct stat st;

	if (snprintf(f->path, sizeof f->path, "%s/%s", dir, name) >= (int)sizeof f->path)
		return td_fail(err, ENAMETOOLONG, "TLS: the path %.200s... is too long", dir);
	f->there = stat(f->path, &st) == 0;
	if (!f->there && (needed || errno != ENOENT))
		return td_fail(err, errno, "TLS: cannot read %s: %s", f->path, strerror(errno));
	if (f->there && !S_ISREG(st.st_mode))
		return td_fail(err, EINVAL, "TLS: %s is not a file", f->path);
	return 0;
}

static int take_authority(SSL_CTX *ctx, const char *dir, bool server, struct td_err *err)
{
	X509_STORE *store = SSL_CTX_get_cert_store(ctx);
	struct file ca, crl;
	int rc = find_file(&ca, dir, "ca-cert.pem", true, err)
			 ?: find_file(&crl, dir, "ca-crl.pem", false, err);

	if (rc < 0)
		return rc;
	if (SSL_CTX_load_verify_file(ctx, ca.path) != 1)
		return unusable(err, ca.path);
	if (server)
		SSL_CTX_set_client_CA_list(ctx, SSL_load_client_CA_file(ca.path));
	if (!crl.there)
		return 0;
	if (X509_STORE_load_file(store, crl.path) != 1)
		return unusable(err, crl.path);
	X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK);
	return 0;
}

static int take_own(SSL_CTX *ctx, const char *dir, bool server, struct td_err *err)
{
	struct file cert, key;
	int rc = find_file(&cert, dir, server ? "server-cert.pem" : "client-cert.pem", server, err);

	if (rc < 0 || !cert.there)
		return rc;
	rc = find_file(&key, dir, server ? "server-key.pem" : "client-key.pem", true, err);
	if (rc < 0)
		return rc;
	if (SSL_CTX_use_certificate_chain_file(ctx, cert.path) != 1)
		return unusable(err, cert.path);
	if (SSL_CTX_use_PrivateKey_file(ctx, key.path, SSL_FILETYPE_PEM) != 1)
		return unusable(err, key.path);
	return 0;
}

static int set_up(SSL_CTX *ctx, const struct td_tls_keys *keys, bool server, struct td_err *err)
{
	int verify = SSL_VERIFY_PEER | (server && keys->dir ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0);

	/* the system's configuration may ask for more */
	if (SSL_CTX_get_min_proto_version(ctx) < TLS1_2_VERSION)
		SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
	SSL_CTX_set_options(ctx,
			    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET);
	SSL_CTX_set_num_tickets(ctx, 0);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* which a client's pre-shared key is checked against, as if it were a session's */
	if (server)
		SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"nbd", 3);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_default_passwd_cb(ctx, no_password);
	/* with a pre-shared key nobody shows a certificate; a server that does has the wrong one */
	SSL_CTX_set_verify(ctx, verify, NULL);
	if (SSL_CTX_set_cipher_list(ctx, keys->dir ? CERTIFICATE_CIPHERS : PSK_CIPHERS) != 1)
		return unusable(err, "the ciphers that are asked for");
	if (keys->psk_file)
		return td_tls_psk_set(ctx, keys->psk_file, keys->user, server, err);
	return take_authority(ctx, keys->dir, server, err) ?: take_own(ctx, keys->dir, server, err);
}

struct ssl_ctx_st *td_tls_context(const struct td_tls_keys *keys, bool server, struct td_err *err)
{
	SSL_CTX *ctx = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());

	if (!ctx)
		td_fail(err, ENOMEM, "TLS: no memory, or OpenSSL's configuration makes no sense");
	if (!ctx || set_up(ctx, keys, server, err) < 0) {
		SSL_CTX_free(ctx);
		return NULL;
	}
	return ctx;
}

int td_tls_check(const struct td_tls_keys *keys, bool server, struct td_err *err)
{
	SSL_CTX *ctx = td_tls_context(keys, server, err);

	if (!ctx)
		return -err->code;
	SSL_CTX_free(ctx);
	return 0;
}
