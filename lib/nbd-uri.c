/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/nbd-uri.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMS                                                                                      \
	"an NBD server is named by nbd:/SOCKET, nbd://HOST[:PORT]/EXPORT, "                        \
	"nbd+unix:///EXPORT?socket=PATH or nbd+vsock://CID[:PORT]/EXPORT, with nbds:// for TLS"

static const struct scheme {
	const char *name;
	enum nbd_way way;
	bool tls;
} schemes[] = {
	{"nbd://", NBD_TCP, false},         {"nbds://", NBD_TCP, true},
	{"nbd+unix://", NBD_UNIX, false},   {"nbds+unix://", NBD_UNIX, true},
	{"nbd+vsock://", NBD_VSOCK, false}, {"nbds+vsock://", NBD_VSOCK, true},
};

static const struct scheme *scheme_of(const char *s)
{
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
		if (!strncmp(s, schemes[i].name, strlen(schemes[i].name)))
			return &schemes[i];
	return NULL;
}

bool nbd_is_spec(const char *spec)
{
	return !strncmp(spec, "nbd:", 4) || scheme_of(spec);
}

const char *nbd_path_of(const char *spec)
{
	return strncmp(spec, "nbd:", 4) ? spec : spec + 4;
}

void nbd_title(const char *path, char *out, size_t size)
{
	snprintf(out, size, "%s%s", scheme_of(path) ? "" : "nbd:", path);
}

/* --- pieces --- */

struct parse {
	const char *all; /* for texts */
	struct nbd_uri *u;
	struct td_err *err;
};

static int bad(const struct parse *p, const char *why)
{
	char title[512];

	nbd_title(p->all, title, sizeof title);
	return td_fail(p->err, EINVAL, "%s: %s: " FORMS, title, why);
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9'                     ? c - '0'
	       : tolower(c) >= 'a' && tolower(c) <= 'f' ? tolower(c) - 'a' + 10
							: -1;
}

/* %XX becomes its byte.  what: for the text. */
static int decode(const struct parse *p, const char *s, size_t len, char *out, size_t size,
		  const char *what)
{
	size_t n = 0;
	char why[80];

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c == '%') {
			int hi = len - i >= 3 ? hex_digit(s[i + 1]) : -1;
			int lo = len - i >= 3 ? hex_digit(s[i + 2]) : -1;

			if (hi < 0 || lo < 0 || hi + lo == 0) {
				snprintf(why, sizeof why,
					 "in %s, two hexadecimal digits must follow a %%, and not "
					 "00",
					 what);
				return bad(p, why);
			}
			c = (unsigned char)(hi << 4 | lo);
			i += 2;
		}
		if (n + 1 >= size) {
			snprintf(why, sizeof why, "%s is longer than %zu bytes", what, size - 1);
			return bad(p, why);
		}
		out[n++] = (char)c;
	}
	out[n] = 0;
	return 0;
}

/* A number of digits alone; false: it is none, or above most. */
static bool decimal(const char *s, size_t len, unsigned long most, unsigned long *out)
{
	unsigned long v = 0;

	if (!len || len > 10)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)s[i]))
			return false;
		v = v * 10 + (unsigned long)(s[i] - '0');
	}
	*out = v;
	return v <= most;
}

/* HOST, HOST:PORT or [ADDRESS]:PORT; *port stays where none is said. */
static int split_port(const struct parse *p, const char *s, size_t len, size_t *host_len,
		      unsigned long most, unsigned long *port)
{
	const char *end = s + len, *colon = memchr(s, ':', len);

	if (len && *s == '[') {
		colon = memchr(s, ']', len);
		if (!colon)
			return bad(p, "a [ has no ] behind it");
		colon++;
		if (colon < end && *colon != ':')
			return bad(p, "behind the ] comes :PORT or nothing");
		colon = colon < end ? colon : NULL;
	} else if (colon && memchr(colon + 1, ':', (size_t)(end - colon - 1))) {
		return bad(p, "an IPv6 address is put into [ and ]");
	}
	*host_len = colon ? (size_t)(colon - s) : len;
	if (colon && (!decimal(colon + 1, (size_t)(end - colon - 1), most, port) || !*port))
		return bad(p, "a port is a number, 65535 for TCP at most");
	return 0;
}

static int take_host(const struct parse *p, const char *s, size_t len)
{
	bool v6 = len && *s == '[';
	char *host = p->u->host, zone[256];
	struct in6_addr a;
	int rc = v6 ? decode(p, s + 1, len - 2, host, sizeof p->u->host, "the address")
		    : decode(p, s, len, host, sizeof p->u->host, "the host");

	if (rc < 0)
		return rc;
	if (!*host)
		return bad(p, "the host is missing");
	for (const char *c = host; *c; c++)
		if ((unsigned char)*c <= ' ' || *c == 127 || strchr("/?#@[]", *c))
			return bad(p, "this is no name of a host");
	snprintf(zone, sizeof zone, "%s", host);
	if (strchr(zone, '%'))
		*strchr(zone, '%') = 0;
	return v6 && inet_pton(AF_INET6, zone, &a) != 1 ? bad(p, "this is no IPv6 address") : 0;
}

static int take_tcp(const struct parse *p, const char *s, size_t len)
{
	unsigned long port = NBD_PORT;
	size_t host;
	int rc = split_port(p, s, len, &host, UINT16_MAX, &port);

	p->u->port = (uint16_t)port;
	return rc < 0 ? rc : take_host(p, s, host);
}

static int take_vsock(const struct parse *p, const char *s, size_t len)
{
	unsigned long port = NBD_PORT, cid;
	size_t host;
	int rc = split_port(p, s, len, &host, UINT32_MAX - 1, &port);

	if (rc < 0)
		return rc;
	if (!decimal(s, host, UINT32_MAX - 1, &cid))
		return bad(p, "a vsock address is a number, the CID: 2 is the host of a guest");
	p->u->cid = (uint32_t)cid;
	p->u->vsock_port = (uint32_t)port;
	return 0;
}

/* --- what follows the ? --- */

static int take_socket_word(const struct parse *p, const char *s, size_t len)
{
	if (p->u->way != NBD_UNIX)
		return bad(p, "socket= belongs to nbd+unix");
	if (*p->u->path)
		return bad(p, "socket= comes twice");
	return decode(p, s, len, p->u->path, sizeof p->u->path, "socket=");
}

static int take_keys(const struct parse *p, const char *s, size_t len, bool psk)
{
	if (*p->u->keys)
		return bad(p, "tls-certificates= or tls-psk-file= is said once, and not both");
	p->u->psk = psk;
	return decode(p, s, len, p->u->keys, sizeof p->u->keys,
		      psk ? "tls-psk-file=" : "tls-certificates=");
}

/* One KEY=VALUE of TLS's. */
static int take_tls_word(const struct parse *p, const char *s, size_t len)
{
	size_t key = strcspn(s, "=&") + 1;
	const char *value = s + key;
	size_t n = len < key ? 0 : len - key;

	if (!p->u->tls)
		return bad(p, "tls-...= belongs to nbds");
	if (!strncmp(s, "tls-certificates=", 17))
		return take_keys(p, value, n, false);
	if (!strncmp(s, "tls-psk-file=", 13))
		return take_keys(p, value, n, true);
	if (!strncmp(s, "tls-username=", 13))
		return decode(p, value, n, p->u->user, sizeof p->u->user, "tls-username=");
	if (!strncmp(s, "tls-hostname=", 13))
		return decode(p, value, n, p->u->tls_host, sizeof p->u->tls_host, "tls-hostname=");
	if (!strncmp(s, "tls-verify-peer=", 16))
		return bad(p, "a server's certificate is always verified: tls-verify-peer= cannot "
			      "be said");
	return bad(p, "of TLS, tls-certificates=, tls-psk-file=, tls-username= and tls-hostname= "
		      "are known");
}

static int take_connections(const struct parse *p, const char *s, size_t len)
{
	unsigned long n;

	if (!decimal(s, len, NBD_URI_CONNECTIONS_MAX, &n) || !n)
		return bad(p, "connections= takes a number from 1 to 16");
	if (p->u->connections)
		return bad(p, "connections= comes twice");
	p->u->connections = (unsigned)n;
	return 0;
}

static int take_query(const struct parse *p, const char *s)
{
	while (*s) {
		size_t len = strcspn(s, "&");
		int rc;

		if (!strncmp(s, "socket=", 7))
			rc = take_socket_word(p, s + 7, len - 7);
		else if (!strncmp(s, "connections=", 12))
			rc = take_connections(p, s + 12, len - 12);
		else if (!strncmp(s, "tls-", 4))
			rc = take_tls_word(p, s, len);
		else
			return bad(
				p,
				"behind the ? only socket=PATH, connections=N and TLS's words are "
				"known");
		if (rc < 0)
			return rc;
		s += len + (s[len] == '&');
	}
	return 0;
}

/* What TLS needs to know, when all is said. */
static int check_tls(const struct parse *p)
{
	struct nbd_uri *u = p->u;

	if (!u->tls)
		return 0;
	if (u->way == NBD_UNIX)
		return bad(p, "TLS goes over TCP and vsock, and not through a Unix socket");
	if (!*u->keys)
		return bad(p, "TLS needs tls-certificates=DIRECTORY or tls-psk-file=FILE");
	if (*u->keys != '/')
		return bad(p, "tls-certificates= and tls-psk-file= take absolute paths");
	if (*u->user && !u->psk)
		return bad(p, "a user belongs to tls-psk-file=");
	if (*u->tls_host && u->psk)
		return bad(p, "tls-hostname= belongs to tls-certificates=");
	if (u->way == NBD_VSOCK && !u->psk && !*u->tls_host)
		return bad(p,
			   "a vsock address has no name: say tls-hostname= with tls-certificates=");
	return 0;
}

/* USER@ before the host: the bytes that it takes, or -EINVAL with text. */
static int take_user(const struct parse *p, const char *s, size_t len)
{
	const char *at = memchr(s, '@', len);
	int rc;

	if (!at)
		return 0;
	if (!p->u->tls)
		return bad(p, "a user before the host is known for TLS alone (nbds)");
	rc = decode(p, s, (size_t)(at - s), p->u->user, sizeof p->u->user, "the user");
	return rc < 0 ? rc : (int)(at - s) + 1;
}

static int take_uri(const struct parse *p, const char *s)
{
	size_t len = strcspn(s, "/?#");
	const char *export = s + len, *query;
	int rc = take_user(p, s, len);

	if (rc < 0)
		return rc;
	s += rc;
	len -= (size_t)rc;
	rc = 0;
	if (strchr(s, '#'))
		return bad(p, "a # is written as %23");
	if (p->u->way == NBD_UNIX && len)
		return bad(p, "nbd+unix has no host: three slashes come before the export");
	if (p->u->way != NBD_UNIX)
		rc = p->u->way == NBD_TCP ? take_tcp(p, s, len) : take_vsock(p, s, len);
	export += *export == '/';
	query = export + strcspn(export, "?");
	if (!rc)
		rc = decode(p, export, (size_t)(query - export), p->u->export, sizeof p->u->export,
			    "the export's name");
	if (!rc && *query)
		rc = take_query(p, query + 1);
	if (!rc && p->u->way == NBD_UNIX && *p->u->path != '/')
		return bad(p,
			   *p->u->path ? "socket= takes an absolute path" : "socket= is missing");
	return rc < 0 ? rc : check_tls(p);
}

/* --- the short forms --- */

/* Behind a socket or an address, as QEMU writes it: :exportname=NAME, without escapes. */
static int take_exportname(const struct parse *p, const char *s)
{
	static const char key[] = "exportname=";

	if (strncmp(s, key, sizeof key - 1))
		return bad(p, "behind the socket or the port comes :exportname=NAME or nothing");
	s += sizeof key - 1;
	if (strlen(s) > NBD_NAME_MAX)
		return bad(p, "the export's name is longer than 4096 bytes");
	strcpy(p->u->export, s);
	return 0;
}

static int take_socket(const struct parse *p, const char *s, size_t len)
{
	if (len >= sizeof p->u->path)
		return bad(p, "the socket's path is longer than 4095 bytes");
	p->u->way = NBD_UNIX;
	memcpy(p->u->path, s, len);
	p->u->path[len] = 0;
	return 0;
}

/* ADDRESS:PORT, by its look: a connection that was passed has another name.  The bytes up to the
 * port's end, or 0. */
static size_t address_len(const char *s)
{
	size_t host = *s == '[' ? strcspn(s, "]") + 1 : strcspn(s, ":"), digits;
	char a[64] = "";
	struct in6_addr v6;
	struct in_addr v4;

	if (host >= sizeof a || host > strlen(s) || s[host] != ':')
		return 0;
	memcpy(a, *s == '[' ? s + 1 : s, *s == '[' ? host - 2 : host);
	if (inet_pton(*s == '[' ? AF_INET6 : AF_INET, a, *s == '[' ? (void *)&v6 : &v4) != 1)
		return 0;
	digits = strspn(s + host + 1, "0123456789");
	return digits && (!s[host + 1 + digits] || s[host + 1 + digits] == ':') ? host + 1 + digits
										: 0;
}

static int take_short(const struct parse *p, const char *s)
{
	size_t len = address_len(s);
	const char *colon;
	int rc;

	if (*s == '/')
		return take_socket(p, s, strlen(s));
	if (!strncmp(s, "unix:/", 6)) {
		s += 5;
		colon = strstr(s, ":exportname=");
		rc = take_socket(p, s, colon ? (size_t)(colon - s) : strlen(s));
		return rc < 0 || !colon ? rc : take_exportname(p, colon + 1);
	}
	if (!len) {
		p->u->way = NBD_PASSED;
		return 0;
	}
	p->u->way = NBD_TCP;
	rc = take_tcp(p, s, len);
	return rc < 0 || !s[len] ? rc : take_exportname(p, s + len + 1);
}

int nbd_uri_parse(const char *path, struct nbd_uri *u, struct td_err *err)
{
	const struct scheme *s = scheme_of(path);
	struct parse p = {path, u, err};

	memset(u, 0, sizeof *u);
	if (!s && !strncmp(path, "//", 2)) {
		u->way = NBD_TCP;
		return take_uri(&p, path + 2);
	}
	if (!s)
		return take_short(&p, path);
	u->way = s->way;
	u->tls = s->tls;
	return take_uri(&p, path + strlen(s->name));
}
