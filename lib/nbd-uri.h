/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How an NBD server is named: by a URI (NetworkBlockDevice/nbd, doc/uri.md), or by one of the short
 * forms that hosts write behind `nbd:'.
 */
#ifndef TD_LIB_NBD_URI_H
#define TD_LIB_NBD_URI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "td/log.h"

#define NBD_PORT                10809
#define NBD_NAME_MAX            4096 /* bytes of an export's name */
#define NBD_URI_CONNECTIONS_MAX 16

enum nbd_way {
	NBD_PASSED, /* a connection that was passed to this process under that name */
	NBD_UNIX,
	NBD_TCP,
	NBD_VSOCK,
};

struct nbd_uri {
	enum nbd_way way;
	char host[256]; /* TCP: a name or an address, without brackets */
	uint16_t port;  /* TCP */
	uint32_t cid, vsock_port;
	char path[4096]; /* UNIX: the socket */
	char export[NBD_NAME_MAX + 1];
	/* TLS; keys: a directory of certificates, or a file of pre-shared keys; user: whose key,
	 * "": the only one of the file; tls_host: whom the server's certificate must name, "": host
	 */
	unsigned connections; /* how many are wanted; 0: nobody has said */
	bool tls, psk;
	char keys[4096], user[256], tls_host[256];
};

/* Is it nbd:... or a URI of NBD's, as a disk or a mirror has it? */
bool nbd_is_spec(const char *spec);

/* Where an image's path begins in such a spec: behind `nbd:', and of another URI at its start. */
const char *nbd_path_of(const char *spec);

/* For texts: the spec that path (of nbd_path_of()) comes from.  Cut where there is no room. */
void nbd_title(const char *path, char *out, size_t size);

/* path: what nbd_path_of() gives, or all of a URI.  0 or -errno with text. */
int nbd_uri_parse(const char *path, struct nbd_uri *u, struct td_err *err);

#endif
