/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The NBD server, over a socket, on an image that completes in any order and with errors.  An input
 * is a client: one that keeps to the protocol and asks for anything (nbd-guest.h), or a wild one,
 * which sends any bytes, in any pieces, and leaves at any time.  Of both, what reaches the image is
 * within the disk and allowed.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tapdisk/nbd/nbd-conn.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/nbd-guest.h"
#include "tests/support/test-image.h"

const char fuzz_name[] = "nbd-server", fuzz_unit[] = "requests answered";
const char *const fuzz_words[] = {"IHAVEOPT", "base:allocation", "base:", "\x25\x60\x95\x13", NULL};

/* an input's head: disk; client */
enum { READ_ONLY = 1, TRIMS = 2, BLOCKS = 4, AT_ONCE = 8, FAILS = 16 };
enum { WILD = 1, OLDSTYLE = 2 };

enum step {
	STEP_REQUEST, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 5,
	STEP_OPTION,
	STEP_QUERY,
	STEP_COMPLETE,
	STEP_TURNS,
	STEP_HEAR,
	STEP_HOLD,
	TAME_STEPS,
	STEP_RAW = TAME_STEPS,
	STEP_SHRINK,
	STEP_CLOSE,
	STEPS
};

static struct ev_loop *loop;
static struct test_image img;
static struct cache cache;
static struct stats stats;
static struct nbd_disk disk;
static struct nbd *n;
static bool wild;
static int fd;

static void turns(int k)
{
	while (k--)
		ev_run(loop, EVRUN_NOWAIT);
}

/* --- the image --- */

static void check_write(uint64_t s, const char *p)
{
	uint64_t zero = 0, v = client_number(CLIENT_WRITTEN, s);

	FUZZ_ASSERT(!memcmp(p, &v, 8) || !memcmp(p, &zero, 8));
	FUZZ_ASSERT(!memcmp(p, p + 8, 512 - 8));
}

static void move(struct test_image *t, struct td_req *r)
{
	uint64_t s = r->off / 512;

	if (r->op == TD_FLUSH)
		return;
	FUZZ_ASSERT(r->off <= disk.size && r->len <= disk.size - r->off);
	FUZZ_ASSERT(r->op == TD_READ || !disk.read_only);
	FUZZ_ASSERT(r->op == TD_READ || !disk.block || (r->off | r->len) % disk.block == 0);
	for (int i = 0; i < r->iovcnt && (r->op == TD_READ || r->op == TD_WRITE); i++) {
		char *p = r->iov[i].iov_base;

		for (size_t at = 0; at < r->iov[i].iov_len; at += 512, s++)
			if (r->op == TD_READ)
				for (int k = 0; k < 64; k++) {
					uint64_t v = client_number(CLIENT_DISK, s);

					memcpy(p + at + 8 * k, &v, 8);
				}
			else if (!wild)
				check_write(s, p + at);
	}
}

static void complete_one(uint8_t b)
{
	static const int errors[] = {0, 0, 0, 0, EIO, ENOMEM, EINVAL, EOPNOTSUPP};

	if (!img.npending)
		return;
	if (errors[b >> 5])
		client_failed();
	test_image_complete(&img, b % img.npending, -errors[b >> 5]);
}

/* --- the client's end --- */

static void hear(void)
{
	static char nothing[65536];

	if (!wild)
		client_hear();
	else if (fd >= 0)
		while (recv(fd, nothing, sizeof nothing, MSG_DONTWAIT) > 0)
			;
}

static void say(const uint8_t *p, size_t len)
{
	for (int i = 0; len && fd >= 0; i++) {
		ssize_t k = send(fd, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k > 0) {
			p += k;
			len -= (size_t)k;
			continue;
		}
		if (errno != EAGAIN || (wild && i > 8))
			return;
		FUZZ_ASSERT(i < 10000); /* it hangs */
		nbd_run(n);
		test_image_drain(&img);
		turns(1);
		hear();
	}
}

static uint8_t out[CLIENT_DATA + 64];

static void option(struct fuzz_in *in, uint32_t o, const uint8_t *data, uint32_t len)
{
	/* the server leaves a client whose export's name is too long */
	if (o == NBD_OPT_EXPORT_NAME && len > 4096)
		return;
	if (wild || client_may_ask())
		say(out, client_option(o, data, len, out));
	turns(3);
	hear();
}

static void raw_option(struct fuzz_in *in)
{
	static const uint8_t known[] = {NBD_OPT_EXPORT_NAME,
					NBD_OPT_ABORT,
					NBD_OPT_LIST,
					NBD_OPT_STARTTLS,
					NBD_OPT_INFO,
					NBD_OPT_GO,
					NBD_OPT_STRUCTURED_REPLY,
					NBD_OPT_SET_META_CONTEXT};
	static uint8_t data[16384];
	uint8_t which = fuzz_u8(in);
	uint32_t len = which & 64 ? fuzz_u16(in) % sizeof data : fuzz_u8(in);

	fuzz_take(in, data, len);
	option(in, which & 128 ? fuzz_u32(in) : known[which % sizeof known], data,
	       which & 32 ? 0 : len);
}

/* Options with queries inside, which add up, or nearly do. */
static void query(struct fuzz_in *in)
{
	uint8_t which = fuzz_u8(in), data[512], *p = data;
	unsigned name = fuzz_u8(in) % 8, queries = fuzz_u8(in) % 4;
	static const char context[] = "base:allocation";

	p = nbd_put32(p, name);
	memset(p, 'x', name);
	p += name;
	if (which & 1) {
		p = nbd_put32(p, queries);
		while (queries--) {
			p = nbd_put32(p, which & 32 ? fuzz_u32(in) : sizeof context - 1);
			p = fuzz_put(p, context, sizeof context - 1);
		}
	} else {
		p = nbd_put16(p, (uint16_t)queries);
		while (queries--)
			p = nbd_put16(p, fuzz_u8(in) % 6);
	}
	option(in,
	       which & 1   ? which & 2 ? NBD_OPT_LIST_META_CONTEXT : NBD_OPT_SET_META_CONTEXT
	       : which & 2 ? NBD_OPT_INFO
			   : NBD_OPT_GO,
	       data, (uint32_t)(p - data) - (which & 16 ? 1 : 0));
}

static void request(struct fuzz_in *in)
{
	static const uint8_t likely[] = {NBD_CMD_READ, NBD_CMD_WRITE,        NBD_CMD_FLUSH,
					 NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS,
					 NBD_CMD_READ, NBD_CMD_WRITE};
	uint8_t what = fuzz_u8(in), how = fuzz_u8(in);
	uint16_t type = what < 240 ? likely[what % sizeof likely] : fuzz_u16(in);
	uint16_t flags = how & 16 ? fuzz_u16(in) : how & 15;
	uint64_t off = how & 32 ? fuzz_u64(in) : fuzz_u16(in) % (TEST_IMAGE_SECTORS + 16) * 512ull;
	uint32_t len = how & 64 ? fuzz_u32(in) : fuzz_u16(in) % (how & 128 ? 4096 : 16) * 512u;

	if (disk.block && what < 200)
		off &= ~4095ull, len &= ~4095u;
	if (wild || client_may_send())
		say(out, client_request(type, flags, off, len, out));
	turns(1);
}

static void wild_step(struct fuzz_in *in, unsigned what)
{
	static uint8_t raw[4096];
	size_t len;

	switch (what) {
	case STEP_RAW:
		len = fuzz_u8(in) * 4u;
		say(raw, fuzz_take(in, raw, len));
		turns(1);
		break;
	case STEP_SHRINK:
		if (!disk.read_only || nbd_inflight(n))
			break;
		nbd_hold(n);
		disk.size = fuzz_u16(in) % (TEST_IMAGE_SECTORS + 1) * 512ull;
		nbd_run(n);
		break;
	default:
		if (fd < 0)
			break;
		if (fuzz_u8(in) & 1) {
			shutdown(fd, SHUT_WR);
		} else {
			close(fd);
			fd = -1;
		}
	}
}

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % (wild ? STEPS : TAME_STEPS);

	switch (what) {
	case STEP_OPTION:
		raw_option(in);
		break;
	case STEP_QUERY:
		query(in);
		break;
	case STEP_COMPLETE:
		complete_one(fuzz_u8(in));
		break;
	case STEP_TURNS:
		turns(1 + fuzz_u8(in) % 4);
		break;
	case STEP_HEAR:
		hear();
		break;
	case STEP_HOLD:
		if (fuzz_u8(in) & 1)
			nbd_hold(n);
		else
			nbd_run(n);
		break;
	default:
		if (what <= STEP_LIKELY)
			request(in);
		else
			wild_step(in, what);
	}
}

/* --- the whole --- */

size_t fuzz_seed(unsigned i, uint8_t *p)
{
	const uint8_t *start = p;

	if (i >= 16)
		return 0;
	*p++ = (uint8_t)(TRIMS | (i & 1 ? AT_ONCE : 0) | (i == 9 ? READ_ONLY : 0) |
			 (i == 10 ? BLOCKS : 0) | (i == 11 ? AT_ONCE | FAILS : 0));
	*p++ = (i & 2 ? WILD : 0) | (i & 4 ? OLDSTYLE : 0);
	*p++ = 1; /* flags */
	if (!(i & 4)) {
		const uint8_t ask[] = {STEP_OPTION, 2, 0, STEP_OPTION, 6, 0, STEP_QUERY,
				       1,           1, 1, STEP_QUERY,  3, 0, 2,
				       STEP_QUERY,  2, 2, 3,           1, 2, 3,
				       STEP_QUERY,  0, 0, 1,           3};

		p = fuzz_put(p, ask, sizeof ask);
	}
	for (uint8_t k = 0; k < 8; k++) {
		const uint8_t r[] = {STEP_REQUEST,
				     k,
				     (uint8_t)(k == 7 ? 128 : 0),
				     (uint8_t)(k * 8),
				     0,
				     16,
				     (uint8_t)(k >= 6 ? 8 : 0)};

		p = fuzz_put(p, r, sizeof r);
	}
	for (uint8_t k = 0; k < 8; k++) {
		*p++ = STEP_COMPLETE;
		*p++ = (uint8_t)(i & 8 ? 32 * k : 1);
		*p++ = STEP_HEAR;
	}
	return (size_t)(p - start);
}

static void nothing(struct cache *c)
{
}

static void idle(void *owner)
{
}

void fuzz_start(void)
{
	struct td_err err = {0};

	fuzz_dir();
	loop = ev_loop_new(EVFLAG_AUTO);
	test_image_open(&img, 0);
	img.seen = move;
	cache_init(&cache, loop, NULL);
	cache.changed = nothing;
	td_list_init(&stats.sources);
	disk = (struct nbd_disk){.cache = &cache, .stats = &stats, .name = "fuzz", .idle = idle};
	n = nbd_new(loop, &disk, 7);
	FUZZ_ASSERT(nbd_listen(n, &err) == 0);
}

/* All is answered, and heard; then the client leaves. */
static void settle(void)
{
	img.at_once_err = 0;
	nbd_run(n);
	for (int i = 0; i < 10000 && (nbd_inflight(n) || (!wild && client_waits())); i++) {
		test_image_drain(&img);
		turns(1);
		hear();
	}
	FUZZ_ASSERT(!nbd_inflight(n));
	FUZZ_ASSERT(wild || !client_waits());
	if (fd >= 0)
		close(fd);
	for (int i = 0; i < 1000 && !td_list_empty(&n->conns); i++) {
		test_image_drain(&img);
		turns(1);
	}
	FUZZ_ASSERT(td_list_empty(&n->conns));
}

/* A client keeps to the protocol, however slow the host is. */
static void without_patience(void)
{
	td_list_each (l, &n->conns) {
		struct nbd_conn *c = td_entry(l, struct nbd_conn, link);

		ev_timer_stop(loop, &c->patience);
		c->patience.repeat = 0;
	}
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};
	uint8_t disk_is = fuzz_u8(&in), who = fuzz_u8(&in), flags = fuzz_u8(&in);
	int pair[2];

	disk.read_only = disk_is & READ_ONLY;
	disk.trim = disk_is & TRIMS;
	disk.block = disk_is & BLOCKS ? 4096 : 0;
	disk.size = TEST_IMAGE_SECTORS * 512;
	wild = who & WILD;
	img.at_once = disk_is & AT_ONCE;
	img.at_once_err = disk_is & FAILS ? -EIO : 0;
	cache_attach(&cache, td_cache_modes, img.image, &img.io, true);
	cache_resume(&cache);
	nbd_run(n);
	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair));
	fd = pair[0];
	client_begin(fd, &disk, who & OLDSTYLE);
	if (img.at_once_err)
		client_failed();
	nbd_conn_new(n, pair[1], &(struct nbd_manner){.oldstyle = who & OLDSTYLE});
	without_patience();
	turns(2);
	hear();
	if (!(who & OLDSTYLE))
		say(out, client_flags(flags, out));
	while (in.left && !(!wild && client_is_over()))
		step(&in);
	settle();
	cache_quiesce(&cache);
	cache_detach(&cache);
	return 0;
}
