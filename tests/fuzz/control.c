/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tapdisk's control socket: messages of any shape, with any descriptors, from several connections
 * at once, to a process with disks on the store in memory.  Each question is answered once, by an
 * object with `err', and text where that is not 0; rows and events are objects; and in the end all
 * disks can be closed.  `adopt' is left out: where it fails, its sender ends the process, so that
 * nothing is undone (tapdisk/ctl/handover.h).
 */
#include <errno.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <fcntl.h>
#include <unistd.h>

#include "lib/ctl-dir.h"
#include "lib/msg.h"
#include "tapdisk/ctl/ctl.h"
#include "tapdisk/server.h"
#include "td/ctl.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fault-io.h"
#include "tests/support/on-fiber.h"

const char fuzz_name[] = "control", fuzz_unit[] = "answers";
const char *const fuzz_words[] = {"{\"op\":\"",
				  "\"minor\":",
				  "\"args\":\"aio:/disk\"",
				  "\"options\":[\"cache=none\"]",
				  "\"refs\":[1]",
				  "\"port\":1",
				  "\"transport\":\"mem\"",
				  "\"past\":{\"sectors\":8}",
				  "\"queues\":[{",
				  "\"domid\":7",
				  "\"changed-blocks=/log\"",
				  "\"keeper\":1",
				  "limit",
				  "{}",
				  "[[[[[[[[[[[[[[[[",
				  "1e400",
				  "-9223372036854775808",
				  NULL};

enum { CONNS = 4, MINORS = 3, PATIENCE_TURNS = 20000 };

enum step {
	STEP_ASK, /* more often than others: up to STEP_LIKELY */
	STEP_LIKELY = 5,
	STEP_RAW,
	STEP_TURNS,
	STEP_HEAR,
	STEP_LEAVE,
	STEPS
};

static struct ev_loop *loop;
static struct fault_io fio;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static struct conn {
	int fd;             /* -1: none */
	bool asked, object; /* object: what was asked is one, and gets an answer */
	unsigned answers;
	bool over, watches;
} conns[CONNS];

static void turns(int n)
{
	while (n--)
		ev_run(loop, EVRUN_NOWAIT);
}

/* --- connections --- */

static void check_message(struct conn *c, const json_t *msg)
{
	const json_t *err = json_object_get(msg, "err");

	FUZZ_ASSERT(json_is_object(msg));
	if (json_object_get(msg, "row") || json_object_get(msg, "event")) {
		FUZZ_ASSERT(!json_object_get(msg, "row") || !c->answers);
		return;
	}
	FUZZ_ASSERT(json_is_integer(err) && json_integer_value(err) >= 0);
	FUZZ_ASSERT(!json_integer_value(err) || *json_string_value(json_object_get(msg, "text")));
	FUZZ_ASSERT(!c->answers);
	c->answers++;
	fuzz_count++;
}

static void hear(struct conn *c)
{
	json_t *msg = NULL;
	int rc;

	while (c->fd >= 0 && !c->over && (rc = td_msg_recv(c->fd, &msg, NULL, NULL)) != -EAGAIN) {
		if (rc < 0) {
			FUZZ_ASSERT(rc == -ENODATA || rc == -ECONNRESET);
			c->over = true;
			return;
		}
		check_message(c, msg);
		json_decref(msg);
	}
}

static void leave(struct conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	*c = (struct conn){.fd = -1};
}

static struct conn *come(struct conn *c)
{
	leave(c);
	c->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	FUZZ_ASSERT(c->fd >= 0);
	FUZZ_ASSERT(!connect(c->fd, (struct sockaddr *)&address, sizeof address));
	return c;
}

/* Descriptors of each kind that an operation may take, and of others. */
static int descriptor(uint8_t b)
{
	static const char *const files[] = {"/dev/null", "/dev/zero"};
	int fd = -1;

	switch (b % 4) {
	case 0:
		fd = memfd_create("ring", MFD_CLOEXEC);
		FUZZ_ASSERT(fd >= 0 && !ftruncate(fd, b & 4 ? 4096 : (b >> 3) * 4096));
		break;
	case 1:
		fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		break;
	case 2:
		fd = open(files[b >> 7], O_RDWR | O_CLOEXEC);
		break;
	default:
		fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	}
	FUZZ_ASSERT(fd >= 0);
	return fd;
}

static void send_packet(struct conn *c, const void *text, size_t len, const uint8_t *fds, int nfds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(TD_MSG_FDS * sizeof(int))];
	} control = {0};
	struct iovec iov = {(void *)(uintptr_t)text, len};
	struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
	int own[TD_MSG_FDS];

	for (int i = 0; i < nfds; i++)
		own[i] = descriptor(fds[i]);
	if (nfds) {
		mh.msg_control = control.bytes;
		mh.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		control.align = (struct cmsghdr){.cmsg_len = CMSG_LEN(nfds * sizeof(int)),
						 .cmsg_level = SOL_SOCKET,
						 .cmsg_type = SCM_RIGHTS};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&mh)), own, nfds * sizeof(int));
	}
	sendmsg(c->fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
	for (int i = 0; i < nfds; i++)
		close(own[i]);
	c->asked = true;
}

/* --- questions --- */

/* No socket of a server outside is touched. */
static bool is_left_out(const char *text)
{
	return strstr(text, "nbd:/") || strstr(text, "nbd:\\") || strstr(text, "adopt") ||
	       strstr(text, "\\u");
}

static json_t *number(struct fuzz_in *in)
{
	static const long long some[] = {0, 1, 2, 7, -1, 16383, 16384, 4294967295ll, INT64_MAX};
	uint8_t b = fuzz_u8(in);

	return b < 200   ? json_integer(some[b % 9])
	       : b < 230 ? json_integer((json_int_t)fuzz_u64(in))
	       : b < 240 ? json_string("1")
	       : b < 245 ? json_real(1e300)
			 : json_null();
}

static json_t *options(struct fuzz_in *in)
{
	static const char *const words[] = {"cache=none",        "cache=writeback",
					    "cache=directsync",  "cache=writethrough",
					    "cache=unsafe",      "unsafe=yes",
					    "shared=yes",        "on-enospc=report",
					    "sector-size=4096",  "request-timeout=1",
					    "parents=no",        "parents=/",
					    "data-file=/data",   "changed-blocks=/log",
					    "limit=none",        "iops=100",
					    "bytes=1M",          "two-primaries=yes",
					    "parents-cache=yes", "redo=no",
					    "nonsense",          "limit-iops=5",
					    "limit-burst=1",     "ring-memory=1"};
	json_t *a = json_array();
	unsigned n = fuzz_u8(in) % 4;
	char own[40] = {0};

	while (n--) {
		uint8_t b = fuzz_u8(in);

		if (b < 250) {
			json_array_append_new(a, json_string(words[b % 24]));
			continue;
		}
		fuzz_take(in, own, sizeof own - 1);
		for (char *p = own; *p; p++)
			if (*p < 0x20 || *p > 0x7e)
				*p = '=';
		json_array_append_new(a, b < 254 ? json_string(own) : number(in));
	}
	return a;
}

static json_t *ring(struct fuzz_in *in, json_t *o)
{
	json_t *refs = json_array();
	unsigned n = fuzz_u8(in), pages = n < 200 ? 1u << n % 5 : n % 40;

	for (unsigned i = 0; i < pages; i++)
		json_array_append_new(refs, n & 32 ? number(in) : json_integer(i + 1));
	json_object_set_new(o, "refs", refs);
	json_object_set_new(o, "port", number(in));
	return o;
}

static json_t *past(struct fuzz_in *in)
{
	json_t *o = json_object();
	uint8_t b = fuzz_u8(in);

	json_object_set_new(o, "paused", json_boolean(b & 1));
	json_object_set_new(o, "sectors", b & 2 ? number(in) : json_integer(128));
	json_object_set_new(o, "sticky", b & 4 ? number(in) : json_integer(0));
	if (b & 8)
		json_object_set_new(o, "log", json_string("x"));
	return o;
}

static void add_key(struct fuzz_in *in, json_t *o, uint8_t which)
{
	static const char *const specs[] = {
		"aio:/disk", "vhd:/a.vhd", "qcow2:/a.qcow2", "null:1M",    "aio:/none", "ram:",
		"nbd:none",  "aio:",       "cdrom:",         "qcow:/disk", ":",         "empty:"};
	json_t *q;

	switch (which % 16) {
	case 0:
		json_object_set_new(o, "args", json_string(specs[fuzz_u8(in) % 12]));
		break;
	case 1:
	case 2:
		json_object_set_new(o, "options", options(in));
		break;
	case 3:
		json_object_set_new(o, "past", past(in));
		break;
	case 4:
		ring(in, o);
		break;
	case 5:
		q = json_array();
		for (unsigned n = fuzz_u8(in) % 10; n; n--)
			json_array_append_new(q, ring(in, json_object()));
		json_object_set_new(o, fuzz_u8(in) & 1 ? "queues" : "rings", q);
		break;
	case 6:
		json_object_set_new(o, "transport", json_string(which & 16 ? "xen" : "mem"));
		break;
	default: {
		static const char *const keys[] = {"timeout",
						   "domid",
						   "devid",
						   "polling-duration",
						   "polling-idle-threshold",
						   "to",
						   "keeper",
						   "timestamp",
						   "abi"};
		static const char *const flags[] = {"force",  "read_only",   "persistent",
						    "beside", "take-over",   "full",
						    "raw",    "keep_options"};
		static const char *const texts[] = {"name",     "key",  "file",
						    "relative", "uuid", "abi"};

		if (which & 128)
			json_object_set_new(o, flags[which % 8], json_boolean(which & 64));
		else if (which & 64)
			json_object_set_new(o, texts[which % 6],
					    json_string(which & 32
								? "00112233445566778899aabbccddeeff"
								: "x86_64"));
		else
			json_object_set_new(o, keys[which % 9], number(in));
	}
	}
}

static void ask(struct fuzz_in *in)
{
	static const char *const ops[] = {"ping",       "list",  "attach",    "detach",  "open",
					  "close",      "pause", "unpause",   "resize",  "relink",
					  "limit",      "stats", "stats_all", "info",    "connect",
					  "disconnect", "watch", "handover",  "ping",    "settle",
					  "attach",     "open",  "open",      "connect", "connect"};
	uint8_t op = fuzz_u8(in), who = fuzz_u8(in), fds[TD_MSG_FDS];
	struct conn *c = come(&conns[who % CONNS]);
	unsigned keys = fuzz_u8(in) % 8, nfds = who >> 2 & 7;
	json_t *o = json_object();
	size_t len;
	char *text;

	json_object_set_new(o, "op", json_string(ops[op % 25]));
	if (op < 250)
		json_object_set_new(o, "minor", json_integer(who >> 5 & 1));
	else
		json_object_set_new(o, "minor", number(in));
	if (!strcmp(ops[op % 25], "open") && op < 200)
		json_object_set_new(o, "args", json_string("aio:/disk"));
	while (keys--)
		add_key(in, o, fuzz_u8(in));
	/* the shape of a guest's ring, as a whole */
	if (!strcmp(ops[op % 25], "connect") && op < 200) {
		json_object_set_new(o, "transport", json_string("mem"));
		json_object_set_new(o, "refs", json_pack("[i]", 1));
		json_object_set_new(o, "port", json_integer(1));
		json_object_set_new(o, "domid", json_integer(who & 1 ? 7 : 8));
		json_object_set_new(o, "devid", json_integer(51712));
		memcpy(fds, (const uint8_t[]){4, 1, 1}, 3);
		nfds = 3;
	} else {
		fuzz_take(in, fds, nfds);
	}
	text = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	FUZZ_ASSERT(text);
	len = strlen(text);
	c->object = true;
	if (who & 64 && fuzz_u8(in) & 1) { /* a few of its bytes are others */
		for (int i = 0; i < 3; i++)
			text[fuzz_u16(in) % len] = (char)fuzz_u8(in);
		c->object = false;
	}
	if (!is_left_out(text))
		send_packet(c, text, len, fds, (int)nfds);
	free(text);
	turns(2);
}

static void raw(struct fuzz_in *in)
{
	static char text[4096];
	uint8_t who = fuzz_u8(in), fds[4];
	struct conn *c = &conns[who % CONNS];
	size_t n = fuzz_take(in, text, fuzz_u16(in) % (sizeof text - 1));

	fuzz_take(in, fds, sizeof fds);
	text[n] = 0;
	if (c->fd < 0 || who & 4)
		come(c);
	c->object = false;
	if (n && !is_left_out(text))
		send_packet(c, text, n, fds, who >> 3 & 3);
	turns(1);
}

static void step(struct fuzz_in *in)
{
	unsigned what = fuzz_u8(in) % STEPS;

	switch (what) {
	case STEP_RAW:
		raw(in);
		break;
	case STEP_TURNS:
		turns(1 + fuzz_u8(in) % 8);
		break;
	case STEP_HEAR:
		hear(&conns[fuzz_u8(in) % CONNS]);
		break;
	case STEP_LEAVE:
		leave(&conns[fuzz_u8(in) % CONNS]);
		break;
	default:
		ask(in);
	}
}

/* --- the whole --- */

size_t fuzz_seed(unsigned n, uint8_t *p)
{
	const uint8_t *start = p;

	if (n >= 27)
		return 0;
	/* attach, open, connect, then the n-th operation, beside a pause or not; close */
	p = fuzz_put(p, (const uint8_t[]){STEP_ASK, 2, 0, 0, STEP_ASK, 4, 1, 0, STEP_TURNS, 7}, 10);
	p = fuzz_put(p, (const uint8_t[]){STEP_ASK, 14, 2, 0, STEP_TURNS, 7}, 6);
	p = fuzz_put(p, (const uint8_t[]){STEP_ASK, (uint8_t)n, 3, 3, 1, 2, 5, 6, 0, 1}, 10);
	p = fuzz_put(p, (const uint8_t[]){STEP_TURNS, 7, STEP_HEAR, 3, STEP_HEAR, 0}, 6);
	p = fuzz_put(p, (const uint8_t[]){STEP_ASK, 7, 1, 0, STEP_ASK, 5, 3, 0, STEP_TURNS, 7}, 10);
	return (size_t)(p - start);
}

static void make_markers(const char *dir)
{
	char path[512];

	snprintf(path, sizeof path, "%s/tapdisk", dir);
	mkdir(path, 0700);
	for (int i = 0; i < MINORS; i++) {
		int fd;

		snprintf(path, sizeof path, "%s/tapdisk/tapdisk-%d", dir, i);
		fd = open(path, O_CREAT | O_RDWR | O_TRUNC, 0600);
		FUZZ_ASSERT(fd >= 0);
		close(fd);
	}
}

void fuzz_start(void)
{
	struct td_err err = {0};
	const char *dir = fuzz_dir();

	setenv("TAPDISK_CONF", "/dev/null", 1);
	setenv("TAPDISK_DISKS", dir, 1);
	setenv("TAPDISK_THREADS", "1", 1);
	make_markers(dir);
	loop = ev_default_loop(0);
	server_init(loop);
	fault_io_new(&fio, loop, 512, 512);
	fio.grows = true;
	fio.most = 4 << 20;
	server.queue.direct = server.queue.buffered = fio.io;
	FUZZ_ASSERT(!ctl_start(loop, &err));
	snprintf(address.sun_path, sizeof address.sun_path, "%s/ctl%d", dir, (int)getpid());
}

/* What was asked before, and nobody waits for, may still be under way, and open it again. */
static void close_one(struct vbd *v)
{
	struct td_err err = {0};
	bool last;
	int rc;

	for (int i = 0; v->spec || vbd_busy(v); i++) {
		FUZZ_ASSERT(i < 6000); /* a minute */
		err.code = 0;
		rc = v->spec ? vbd_close(v, true, 0, &err) : 0;
		FUZZ_ASSERT(!rc || (err.code == -rc && err.text[0]));
		if (vbd_busy(v))
			td_fiber_wait_for(0.01);
	}
	FUZZ_ASSERT(!server_detach(v->minor, 0, &last, &err));
}

static void close_all(void *arg)
{
	while (!td_list_empty(&server.disks))
		close_one(td_entry(server.disks.next, struct vbd, link));
}

static bool all_heard(void)
{
	bool all = true;

	for (struct conn *c = conns; c < conns + CONNS; c++) {
		hear(c);
		all &= c->fd < 0 || !c->object || !c->asked || c->answers || c->over;
	}
	return all;
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	for (int i = 0; i < CONNS; i++)
		conns[i].fd = -1;
	fault_io_file(&fio, "/disk", 64 << 10);
	fault_io_file(&fio, "/log", 64 << 10);
	for (int i = 0; i < 32 && in.left; i++)
		step(&in);
	for (int i = 0; i < PATIENCE_TURNS && !all_heard(); i++) {
		turns(1);
		if (i > 100)
			usleep(100);
	}
	FUZZ_ASSERT(all_heard());
	for (struct conn *c = conns; c < conns + CONNS; c++) {
		FUZZ_ASSERT(c->fd < 0 || !c->asked || !c->object || c->answers == 1);
		leave(c);
	}
	turns(3);
	on_fiber(loop, close_all, NULL);
	turns(3);
	FUZZ_ASSERT(td_list_empty(&server.disks));
	for (int i = 0; i < FAULT_FILES; i++) {
		free(fio.file[i].data);
		fio.file[i].data = NULL;
	}
	fault_io_clear(&fio);
	return 0;
}
