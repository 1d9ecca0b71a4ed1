/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * How a disk on other hosts is named, and what a dead tapdisk has left of it: the words of NBD
 * servers (lib/nbd-uri.h) and of images in Ceph (drivers/rbd/rbd-spec.c), which come from xenstore
 * and from images; and files of the control directory that a tapdisk which was taken over may have
 * written: what an NBD client and an rbd client leave, a disk's record.  An input is one of these.
 *
 * Checked: a name that is taken means what it says (a model decodes it, too), and written in its
 * longest form it is taken again as the same; one that is refused has a text, and the text of one
 * in Ceph has no key in it; a file that makes no sense says that something may be lost.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "drivers/drivers.h"
#include "drivers/nbd/nbd.h"
#ifdef HAVE_RBD
#include "drivers/rbd/rbd.h"
#endif
#include "lib/ctl-dir.h"
#include "tapdisk/vbd/record.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/fuzz.h"

#define SECRET "AQBsecret" /* it stands for a key that somebody has written into a name */

const char fuzz_name[] = "words", fuzz_unit[] = "accepted";
const char *const fuzz_words[] = {"nbd:",          "nbd://",     "nbds://",      "nbd+unix:///",
				  "nbd+vsock://",  "?socket=/",  "%2F",          "%25",
				  "%00",           "%",          ":exportname=", "unix:/",
				  "[fd00::1]",     ":10809",     "10.0.0.1",     "rbd:",
				  "pool/ns/image", "@snap",      ":conf=/",      ":id=",
				  ":keyring=/",    ":cluster=",  ":key=" SECRET, "\\:",
				  "\\/",           "\\",         "\\=",          "cache=none",
				  "unsafe=yes",    "\"args\":",  "\"options\":", "\"past\":",
				  "\"commit\":",   "shared=yes", "parent-disk=", NULL};

enum kind { NBD, RBD, NBD_LEFT, RBD_LEFT, RECORD, KINDS };
/* of a file that a client has left */
enum { MAGIC = 1, NAME = 2, SIZE = 4, DIED = 8 };

#define NAME_TEXT "/srv/nbd.sock"

static char path[PATH_MAX];

/* In a block of its own, so that what reads beyond its end is seen; up to a zero. */
static char *text_of(struct fuzz_in *in, size_t most)
{
	size_t n = strnlen((const char *)in->p, in->left < most ? in->left : most);
	char *s = malloc(n + 1);

	FUZZ_ASSERT(s);
	fuzz_take(in, s, n);
	s[n] = 0;
	return s;
}

static bool is_told(int rc, const struct td_err *err)
{
	return rc == -err->code && (!rc || err->text[0]);
}

/* --- NBD servers --- */

static char *escape(char *to, const char *from)
{
	for (; *from; from++)
		if (isalnum((unsigned char)*from) || strchr("/.-_", *from))
			*to++ = *from;
		else
			to += sprintf(to, "%%%02X", (unsigned char)*from);
	*to = 0;
	return to;
}

/* The same server, as a URI. */
static void write_uri(const struct nbd_uri *u, char *to)
{
	to += sprintf(to, "nbd%s%s://", u->tls ? "s" : "",
		      u->way == NBD_UNIX    ? "+unix"
		      : u->way == NBD_VSOCK ? "+vsock"
					    : "");
	if (u->way == NBD_TCP) {
		to = escape(to, u->host);
		to += sprintf(to, ":%u", u->port);
	} else if (u->way == NBD_VSOCK) {
		to += sprintf(to, "%u:%u", u->cid, u->vsock_port);
	}
	*to++ = '/';
	to = escape(to, u->export);
	if (u->way == NBD_UNIX)
		escape(to + sprintf(to, "?socket="), u->path);
}

static unsigned hex(char c)
{
	return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 32) - 'a' + 10);
}

/* What stands behind the // of a URI; NULL: it is one of the short forms. */
static const char *authority_of(const char *uri)
{
	const char *s = strncmp(uri, "nbd", 3) ? uri : strchr(uri, ':') + 1;

	return strncmp(s, "//", 2) ? NULL : s + 2;
}

/* The export, as the text says it. */
static void check_export(const char *authority, const struct nbd_uri *u)
{
	const char *s = authority + strcspn(authority, "/?");
	size_t n = 0;

	for (s += *s == '/'; *s && *s != '?'; s++, n++)
		if (*s != '%') {
			FUZZ_ASSERT(u->export[n] == *s);
		} else {
			FUZZ_ASSERT((unsigned char)u->export[n] == (hex(s[1]) << 4 | hex(s[2])));
			FUZZ_ASSERT(u->export[n]);
			s += 2;
		}
	FUZZ_ASSERT(!u->export[n]);
}

/* A host's port likewise. */
static void check_port(const char *authority, const struct nbd_uri *u)
{
	size_t len = strcspn(authority, "/?"), digits = 0;

	while (digits < len && isdigit((unsigned char)authority[len - 1 - digits]))
		digits++;
	if (digits < len && authority[len - 1 - digits] == ':' &&
	    !memchr(authority + len - digits, ']', digits))
		FUZZ_ASSERT(strtoul(authority + len - digits, NULL, 10) == u->port);
	else
		FUZZ_ASSERT(u->port == NBD_PORT);
}

static void check_text(const char *uri, const struct nbd_uri *u)
{
	const char *authority = authority_of(uri);

	if (!authority)
		return;
	check_export(authority, u);
	if (u->way == NBD_TCP)
		check_port(authority, u);
}

static void check_server(const struct nbd_uri *u)
{
	FUZZ_ASSERT(u->way == NBD_TCP || (!*u->host && !u->port));
	FUZZ_ASSERT(u->way == NBD_UNIX || !*u->path);
	FUZZ_ASSERT(u->way == NBD_VSOCK || (!u->cid && !u->vsock_port));
	switch (u->way) {
	case NBD_TCP:
		FUZZ_ASSERT(*u->host && u->port);
		for (const char *c = u->host; *c; c++)
			FUZZ_ASSERT((unsigned char)*c > ' ' && *c != 127 && !strchr("/?#@[]", *c));
		break;
	case NBD_UNIX:
		FUZZ_ASSERT(*u->path == '/');
		break;
	case NBD_VSOCK:
		FUZZ_ASSERT(u->vsock_port && u->cid != UINT32_MAX && u->vsock_port != UINT32_MAX);
		break;
	default:
		FUZZ_ASSERT(!*u->export && !u->tls);
	}
}

static void try_title(struct fuzz_in *in, const char *spec)
{
	size_t size = 1 + fuzz_u8(in);
	char *title = malloc(size);

	FUZZ_ASSERT(title);
	nbd_title(spec, title, size);
	FUZZ_ASSERT(memchr(title, 0, size));
	free(title);
}

static void try_server(struct fuzz_in *in)
{
	static char again[3 * sizeof(struct nbd_uri)];
	static struct nbd_uri u, v;
	struct td_err err = {0};
	char *spec;
	const char *at;
	int rc;

	try_title(in, "nbd:x");
	spec = text_of(in, 8192);
	at = spec;
	if (td_driver_parse(spec, &at, &err) == &td_driver_nbd) {
		FUZZ_ASSERT(nbd_is_spec(spec) && at == nbd_path_of(spec));
		err = (struct td_err){0};
		rc = nbd_uri_parse(at, &u, &err);
		FUZZ_ASSERT(is_told(rc, &err));
		if (!rc) {
			fuzz_count++;
			check_server(&u);
			if (u.way != NBD_PASSED) {
				check_text(at, &u);
				write_uri(&u, again);
				FUZZ_ASSERT(!nbd_uri_parse(again, &v, &err));
				FUZZ_ASSERT(!memcmp(&u, &v, sizeof u));
			}
		}
	}
	free(spec);
}

/* --- images in Ceph --- */

#ifdef HAVE_RBD

/* The first of `stop' that no backslash stands before; the end, where there is none. */
static const char *stop_at(const char *s, const char *stop)
{
	while (*s && !strchr(stop, *s))
		s += *s == '\\' && s[1] ? 2 : 1;
	return s;
}

/* Is one of the words behind the image `key'? */
static bool says_key(const char *name)
{
	const char *s = stop_at(name, ":");

	while (*s) {
		const char *k = s + 1, *end = stop_at(k, ":"), *is = stop_at(k, "=:");
		char plain[4] = "";
		unsigned n = 0;

		if (*is != '=')
			return false; /* it is refused for that */
		for (; k < is && n < 4; k++) {
			k += *k == '\\' && k + 1 < is;
			plain[n++] = *k;
		}
		if (n == 3 && !memcmp(plain, "key", 3))
			return true;
		s = end;
	}
	return false;
}

static char *put_plain(char *to, const char *before, const char *s)
{
	if (!s)
		return to;
	to = stpcpy(to, before);
	for (; *s; s++) {
		if (strchr("\\/@:=", *s))
			*to++ = '\\';
		*to++ = *s;
	}
	*to = 0;
	return to;
}

static bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

static void check_image(const struct rbdc_spec *s)
{
	static char again[2 * FUZZ_SIZE_MAX];
	struct td_err err = {0};
	struct rbdc_spec t;
	char *p = put_plain(again, "", s->pool);

	FUZZ_ASSERT(*s->pool && *s->image && (!s->snap || *s->snap));
	FUZZ_ASSERT((!s->conf || *s->conf == '/') && (!s->keyring || *s->keyring == '/'));
	FUZZ_ASSERT(!s->id || (*s->id && !strchr(s->id, '/')));
	FUZZ_ASSERT(!s->cluster || (*s->cluster && !strchr(s->cluster, '/')));
	p = put_plain(p, "/", *s->ns ? s->ns : NULL);
	p = put_plain(put_plain(p, "/", s->image), "@", s->snap);
	p = put_plain(put_plain(p, ":conf=", s->conf), ":keyring=", s->keyring);
	put_plain(put_plain(p, ":id=", s->id), ":cluster=", s->cluster);
	FUZZ_ASSERT(!rbdc_spec_parse(again, &t, &err));
	FUZZ_ASSERT(same(s->pool, t.pool) && same(s->ns, t.ns) && same(s->image, t.image));
	FUZZ_ASSERT(same(s->snap, t.snap) && same(s->conf, t.conf) && same(s->id, t.id));
	FUZZ_ASSERT(same(s->keyring, t.keyring) && same(s->cluster, t.cluster));
	rbdc_spec_free(&t);
}

static void try_image(struct fuzz_in *in)
{
	char *name = text_of(in, 4096);
	struct td_err err = {0};
	struct rbdc_spec s;
	int rc = rbdc_spec_parse(name, &s, &err);

	FUZZ_ASSERT(is_told(rc, &err));
	FUZZ_ASSERT(!strstr(err.text, SECRET)); /* RB9 */
	FUZZ_ASSERT(rc < 0 || !says_key(name));
	if (!rc) {
		fuzz_count++;
		check_image(&s);
	}
	rbdc_spec_free(&s);
	free(name);
}

#endif

/* --- what clients have left --- */

static void write_file(const void *p, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	FUZZ_ASSERT(fd >= 0 && write(fd, p, n) == (ssize_t)n);
	close(fd);
}

/* A struct that td_keep_left() has made, and then a stranger has had: its number and its name are
 * as they were, or not. */
static void write_left(struct fuzz_in *in, unsigned how, void *p, size_t size, uint32_t magic,
		       char *name, size_t name_size)
{
	fuzz_take(in, p, size);
	if (how & MAGIC)
		memcpy(p, &magic, sizeof magic);
	if (how & NAME) {
		memset(name, 0, name_size);
		strcpy(name, NAME_TEXT);
	}
	write_file(p, how & SIZE ? size : size - 1);
}

static void try_nbd_left(struct fuzz_in *in)
{
	static struct nbdc_client n;
	struct nbdc_left l, was;
	unsigned how = fuzz_u8(in);
	const struct td_image image = {.left = path, .path = NAME_TEXT, .died = how & DIED};
	struct td_err err = {0};

	write_left(in, how, &l, sizeof l, 0x6e626c31, l.name, sizeof l.name);
	n = (struct nbdc_client){.name = "nbd:" NAME_TEXT};
	FUZZ_ASSERT(!nbdc_left_open(&n, &image, true, &was, &err));
	if (how & SIZE && l.magic == 0x6e626c31 && !strncmp(l.name, NAME_TEXT, sizeof l.name)) {
		FUZZ_ASSERT(!memcmp(&l, &was, sizeof l));
		FUZZ_ASSERT(nbdc_left_doubt(&was, false, true) == (l.failed != 0));
		FUZZ_ASSERT(nbdc_left_doubt(&was, true, true) ==
			    (l.failed || l.sent != l.answered));
		FUZZ_ASSERT(nbdc_left_doubt(&was, false, false) ==
			    (l.failed || l.changed != l.covered));
		fuzz_count++;
	} else if (how & DIED) { /* nobody knows what that one has left */
		FUZZ_ASSERT(nbdc_left_doubt(&was, true, true));
		FUZZ_ASSERT(nbdc_left_doubt(&was, false, false));
		FUZZ_ASSERT(nbdc_left_doubt(n.left, true, true));
		FUZZ_ASSERT(nbdc_left_doubt(n.left, false, false));
	}
	nbdc_left_settled(&n, true);
	FUZZ_ASSERT(!nbdc_left_doubt(n.left, true, false));
	nbdc_left_close(&n);
}

#ifdef HAVE_RBD

static void note_client(struct rbdc_left *l, struct fuzz_in *in)
{
	char *addr = text_of(in, RBDC_ADDR - 1);
	int rc = rbdc_left_client(l, addr), found = 0;

	FUZZ_ASSERT(!rc || (rc == -EMFILE && (l->whole & 0xff) == 0xff));
	for (int i = 0; i < RBDC_DEAD; i++)
		found += (l->whole >> i & 1) && !strncmp(l->clients[i], addr, RBDC_ADDR);
	FUZZ_ASSERT(rc || found);
	rbdc_left_fenced(l, addr);
	for (int i = 0; i < RBDC_DEAD; i++)
		FUZZ_ASSERT(!(l->whole >> i & 1) || !strncmp(l->clients[i], addr, RBDC_ADDR));
	free(addr);
}

static void try_rbd_left(struct fuzz_in *in)
{
	static struct rbdc_left own;
	struct rbdc_left l, was, *left;
	unsigned how = fuzz_u8(in);
	const struct td_image image = {.left = path, .path = NAME_TEXT, .died = how & DIED};
	struct fuzz_in addr = {in->p, in->left < 24 ? in->left : 24};
	struct td_err err = {0};

	write_left(in, how, &l, sizeof l, 0x72626432, l.name, sizeof l.name);
	FUZZ_ASSERT(!rbdc_left_open(&left, &own, &image, true, &was, &err));
	for (int i = 0; i < RBDC_DEAD; i++) {
		FUZZ_ASSERT(memchr(was.clients[i], 0, RBDC_ADDR));
		FUZZ_ASSERT(!was.clients[i][0] || was.whole >> i & 1);
	}
	if (how & SIZE && l.magic == 0x72626432 && !strncmp(l.name, NAME_TEXT, sizeof l.name)) {
		FUZZ_ASSERT(rbdc_left_doubt(&was) == (l.failed || l.changed != l.covered));
		fuzz_count++;
	} else if (how & DIED) {
		FUZZ_ASSERT(rbdc_left_doubt(&was) && rbdc_left_doubt(left));
	}
	note_client(left, &addr);
	rbdc_left_settled(left);
	FUZZ_ASSERT(!rbdc_left_doubt(left));
	rbdc_left_close(&left, &own);
}

#endif

/* --- a disk's record --- */

static void try_record(struct fuzz_in *in)
{
	struct vbd_recorded r = {0};
	struct td_err err = {0};
	char record[PATH_MAX];
	int fd, rc;

	FUZZ_ASSERT(!options_default(&r.opt, &err));
	FUZZ_ASSERT(!td_ctl_disk_path(0, record));
	fd = open(record, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	FUZZ_ASSERT(fd >= 0 && write(fd, in->p, in->left) == (ssize_t)in->left);
	close(fd);
	rc = record_read(0, &r);
	FUZZ_ASSERT(rc < 0 ? !r.spec : r.spec != NULL);
	FUZZ_ASSERT(r.opt.mode && r.opt.mode->name);
	if (!rc) {
		fuzz_count++;
		FUZZ_ASSERT(r.past.sticky <= 0 && r.past.sectors <= INT64_MAX / 512);
		FUZZ_ASSERT(r.past.job.err <= 0);
		FUZZ_ASSERT(r.past.job.state != VBD_JOB_FAILED || r.past.job.err);
		FUZZ_ASSERT(memchr(r.past.born, 0, sizeof r.past.born));
		FUZZ_ASSERT(memchr(r.past.beneath.args, 0, sizeof r.past.beneath.args));
	}
	free(r.spec);
}

/* --- the whole --- */

static const char *const names[] = {
	"nbd:/run/nbd.sock",
	"nbd:unix:/run/nbd.sock:exportname=a:b",
	"nbd:10.0.0.1:10809:exportname=disk",
	"nbd:[fd00::1]:10809",
	"nbd:passed-1",
	"nbd://store.example.org:10810/vm1",
	"nbds://[fe80::1%25eth0]/a%2Fb",
	"nbd+unix:///ex%20port?socket=/run/n%3Asock",
	"nbd+vsock://2:10809/x",
	"nbd:nbd://store/x",
	"nbd://store:70000/%00x",
	"nbd://store:70000/x",
};

#ifdef HAVE_RBD
static const char *const images[] = {
	"vms/disk1",
	"vms/ns/disk1@snap:conf=/etc/ceph/ceph.conf:id=xen",
	"a\\/b/c\\@d:keyring=/k\\:1:cluster=c\\=1",
	"vms/disk1:id=xen:key=" SECRET "==",
	"vms/disk1:" SECRET,
	SECRET "/a/b/c",
	"vms/" SECRET "@",
};
#endif

static const char *const records[] = {
	"{\"args\":\"aio:/srv/"
	"a.img\",\"options\":[\"cache=none\",\"shared=no\"],\"read_only\":false,"
	"\"paused\":true,\"sectors\":2048,\"sticky\":5,\"log\":\"x\",\"born\":\"ab\","
	"\"beneath\":{\"born\":\"c\",\"file\":\"1:2\",\"args\":\"vhd:/b\"},"
	"\"commit\":{\"image\":\"a\",\"parent\":\"b\",\"state\":\"running\",\"at\":1,\"all\":2}}",
	"{\"args\":\"aio:/srv/a.img\",\"commit\":{\"state\":\"failed\",\"error\":-5}}",
	"{\"args\":\"aio:/srv/a.img\",\"sticky\":2147483648,\"sectors\":-1}",
	"{\"args\":\"aio:/srv/a.img\",\"commit\":{\"error\":4294967295}}",
	"{\"options\":[\"cache=nothing\"]}",
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static size_t seed_of(uint8_t *out, enum kind k, unsigned pad, const char *text)
{
	memset(out, 0x20, 1 + pad);
	out[0] = (uint8_t)k;
	memcpy(out + 1 + pad, text, strlen(text));
	return 1 + pad + strlen(text);
}

size_t fuzz_seed(unsigned n, uint8_t *out)
{
	if (n < COUNT(names))
		return seed_of(out, NBD, 1, names[n]);
	n -= COUNT(names);
	if (n < COUNT(records))
		return seed_of(out, RECORD, 0, records[n]);
	n -= COUNT(records);
	if (n < 16) { /* files, in each of these ways */
		memset(out, (int)n, 256);
		out[0] = NBD_LEFT;
		out[1] = (uint8_t)(15 - n);
		return 256;
	}
	n -= 16;
#ifdef HAVE_RBD
	if (n < 16) {
		memset(out, 'a', 1200);
		out[0] = RBD_LEFT;
		out[1] = (uint8_t)(15 - n);
		return 1200;
	}
	n -= 16;
	if (n < COUNT(images))
		return seed_of(out, RBD, 0, images[n]);
#endif
	return 0;
}

void fuzz_start(void)
{
	snprintf(path, sizeof path, "%s/left0", fuzz_dir());
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	switch (fuzz_u8(&in) % KINDS) {
	case NBD:
		try_server(&in);
		break;
	case NBD_LEFT:
		try_nbd_left(&in);
		break;
#ifdef HAVE_RBD
	case RBD:
		try_image(&in);
		break;
	case RBD_LEFT:
		try_rbd_left(&in);
		break;
#endif
	case RECORD:
		try_record(&in);
		break;
	}
	return 0;
}
