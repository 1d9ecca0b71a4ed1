/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tapdisk that was taken over, and its opener, which has more rights: packets of any kind, with
 * names of what is the tapdisk's own, of what is not, and of what leads from one to the other.  The
 * opener runs in a thread of this process, which it takes for its tapdisk.  An input is a row of
 * calls: which, its numbers, its texts, its descriptors.
 *
 * Checked: no descriptor comes back of a file that the host has not named, nor one that may be
 * written of an image that is only to be read; what is another disk's stays as it is; nothing is
 * made, renamed or removed outside of the control directory; each call is answered.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tapdisk/opener/opener-calls.h"
#include "tapdisk/opener/opener-datagram.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/opener/opener.h"
#include "tests/fuzz/dir.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "opener", fuzz_unit[] = "calls that were granted";
const char *const fuzz_words[] = {"/disk7", "/disk9", "/victim.img", "/../",   "/proc/self/fd/",
				  "redo9",  "disk7.", "/images/",    "left7.", NULL};

enum { CALLS = 16, HANDS = 8, SECRETS = 4 };

static const char *dir;
static int to_opener, hand[HANDS], nhands; /* what the tapdisk has */

/* What is another disk's. */
static struct secret {
	const char *name;
	struct stat was;
} secret[SECRETS] = {{.name = "images/victim.img"},
		     {.name = "disk9"},
		     {.name = "redo9"},
		     {.name = "nbdserver9.9"}};
static struct stat read_only;

/* --- what the opener does to files, before it does it --- */

static bool is_inside(int at, const char *path)
{
	char link[64], full[PATH_MAX * 2] = "";
	ssize_t n;

	if (*path != '/') {
		snprintf(link, sizeof link, "/proc/self/fd/%d", at);
		n = readlink(at == AT_FDCWD ? "/proc/self/cwd" : link, full, PATH_MAX);
		FUZZ_ASSERT(n > 0);
		full[n] = 0;
		return !strncmp(full, dir, strlen(dir));
	}
	while (path[1] == '/')
		path++;
	/* of a thread, its name; of a socket, a directory that was judged */
	return !strncmp(path, dir, strlen(dir)) || !strncmp(path, "/proc/self/fd/", 14) ||
	       !strncmp(path, "/proc/", 6);
}

long syscall(long nr, ...)
{
	static long (*next)(long nr, ...);
	const struct opener_call *c = opener_call(nr);
	long a[6];
	int at = AT_FDCWD;
	va_list ap;

	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, long);
	va_end(ap);
	if (!next)
		next = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	switch (nr) {
	case SYS_unlinkat:
	case SYS_renameat:
	case SYS_renameat2:
	case SYS_linkat:
	case SYS_symlinkat:
	case SYS_mkdirat:
	case SYS_fchmodat:
#ifdef SYS_open
	case SYS_unlink:
	case SYS_rename:
	case SYS_link:
	case SYS_symlink:
	case SYS_mkdir:
	case SYS_rmdir:
	case SYS_chmod:
#endif
		for (int i = 0; c && c->args[i]; i++) {
			if (c->args[i] == 'D')
				at = (int)a[i];
			if (c->args[i] == 'P')
				FUZZ_ASSERT(is_inside(at, (const char *)a[i]));
		}
		break;
	default:
		break;
	}
	return next(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* --- what is there --- */

static void path_of(const char *name, char *out)
{
	snprintf(out, PATH_MAX, "%s/%s", dir, name);
}

static void make_file(const char *name, struct stat *st)
{
	char path[PATH_MAX];
	int fd;

	path_of(name, path);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	FUZZ_ASSERT(fd >= 0 && write(fd, "{\"secret\":1}", 12) == 12 && !fsync(fd));
	FUZZ_ASSERT(!st || !fstat(fd, st));
	close(fd);
}

static void say(const char *op, const char *name, bool is_read_only)
{
	json_t *msg = json_pack("{s:s, s:i, s:b, s:i, s:i, s:[s, s]}", "op", op, "minor", 7,
				"read_only", is_read_only, "domid", 7, "devid", 51712, "options",
				"cache=none", "parent-disk=8");

	if (name)
		json_object_set_new(msg, "args", json_sprintf("aio:%s/images/%s", dir, name));
	rights_learn(msg);
	json_decref(msg);
}

static void *serve(void *arg)
{
	opener_serve((int)(intptr_t)arg, getpid());
}

static bool is_isolated(void)
{
	return false;
}

static bool is_restricted(void)
{
	return true;
}

static void take(int fd)
{
	FUZZ_ASSERT(fd >= 0 && nhands < HANDS);
	hand[nhands++] = fd;
}

static void make_hands(void)
{
	char path[PATH_MAX];

	take(open(dir, O_PATH | O_CLOEXEC));
	path_of("images", path);
	take(open(path, O_PATH | O_CLOEXEC));
	path_of("images/victim.img", path);
	take(open(path, O_PATH | O_CLOEXEC));
	take(open("/", O_PATH | O_CLOEXEC));
	take(open("/proc", O_PATH | O_CLOEXEC));
	take(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
	take(open("/dev/null", O_RDWR | O_CLOEXEC));
}

void fuzz_start(void)
{
	char path[PATH_MAX];
	int sv[2], lv[2];
	pthread_t t;

	dir = fuzz_dir();
	path_of("images", path);
	FUZZ_ASSERT(!mkdir(path, 0700));
	for (int i = 0; i < SECRETS; i++)
		make_file(secret[i].name, &secret[i].was);
	make_file("images/own.img", NULL);
	make_file("images/read.img", &read_only);
	make_file("disk7", NULL);
	make_hands();
	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, lv));
	FUZZ_ASSERT(!datagrams_start(is_isolated, is_restricted));
	rights_init(getpid());
	say("attach", NULL, false);
	say("open", "own.img", false);
	say("open", "read.img", true);
	say("connect", NULL, false);
	FUZZ_ASSERT(opener_listen(lv[0]) >= 0); /* a listener comes once */
	to_opener = sv[0];
	FUZZ_ASSERT(!pthread_create(&t, NULL, serve, (void *)(intptr_t)sv[1]));
}

/* --- a call --- */

static size_t make_path(struct fuzz_in *in, char *out)
{
	static const char *const before[] = {"", "", "", "", "/", "/proc/self/root", ""};
	static const char *const between[] = {"/", "/images/", "", "", "//./", "/", "/images/../"};
	static const char *const what[] = {"images/own.img", "images/read.img", "images/victim.img",
					   "disk7",          "disk9",           "redo9",
					   "left7.s",        "disk7.new"};
	char name[64];
	uint8_t how = fuzz_u8(in), n = fuzz_u8(in);

	if (n < 128)
		snprintf(name, sizeof name, "%s", what[n % 8]);
	else
		name[fuzz_take(in, name, n % 64)] = 0;
	if (how >= 240) { /* any bytes */
		memcpy(out, name, sizeof name);
		return n % 64;
	}
	switch (how % 7) {
	case 2:
		return (size_t)snprintf(out, PATH_MAX, "/proc/self/fd/%d/%s", hand[n % nhands],
					name);
	case 3:
		return (size_t)snprintf(out, PATH_MAX, "%s", name);
	default:
		return (size_t)snprintf(out, PATH_MAX, "%s%s%s%s", before[how % 7], dir,
					between[how % 7], name);
	}
}

static size_t make_socket_name(struct fuzz_in *in, char *out)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char path[2 * PATH_MAX];

	make_path(in, path);
	snprintf(sa.sun_path, sizeof sa.sun_path, "%.107s", path);
	memcpy(out, &sa, sizeof sa);
	return offsetof(struct sockaddr_un, sun_path) + strlen(sa.sun_path) + 1;
}

static void check_got(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	FUZZ_ASSERT(!fstat(fd, &st));
	if (flags & O_PATH) /* what it is good for is asked again */
		return;
	for (int i = 0; i < SECRETS; i++)
		FUZZ_ASSERT(st.st_ino != secret[i].was.st_ino || st.st_dev != secret[i].was.st_dev);
	if (st.st_ino == read_only.st_ino && st.st_dev == read_only.st_dev)
		FUZZ_ASSERT((flags & O_ACCMODE) == O_RDONLY);
}

static void hear(int from, bool opens)
{
	static char out[OPENER_PART_MAX];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	struct opener_reply reply = {0};
	struct iovec iov[2] = {{&reply, sizeof reply}, {out, sizeof out}};
	struct msghdr mh = {.msg_iov = iov,
			    .msg_iovlen = 2,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};
	struct pollfd p = {from, POLLIN, 0};
	ssize_t n;
	int ready;

	while ((ready = poll(&p, 1, 50000)) < 0 && errno == EINTR)
		;
	FUZZ_ASSERT(ready == 1);
	while ((n = recvmsg(from, &mh, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n <= 0) /* no reply socket: nobody is answered */
		return;
	FUZZ_ASSERT(n >= (ssize_t)sizeof reply);
	fuzz_count += reply.rc >= 0;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&mh); c; c = CMSG_NXTHDR(&mh, c))
		if (c->cmsg_type == SCM_RIGHTS) {
			int fd;

			memcpy(&fd, CMSG_DATA(c), sizeof fd);
			FUZZ_ASSERT(opens);
			check_got(fd);
			close(fd);
		}
}

static void call(struct fuzz_in *in)
{
	static char parts[OPENER_PARTS * 2 * PATH_MAX];
	size_t ncalls, at = 0;
	const struct opener_call *all = opener_calls(&ncalls), *c = &all[fuzz_u8(in) % ncalls];
	struct opener_ask ask = {.nr = c->nr};
	uint8_t how = fuzz_u8(in);
	int fds[1 + OPENER_FDS + 1], nfds = 1, part = 0, sv[2];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof fds)];
	} control = {0};

	for (int i = 0; c->args[i]; i++) {
		uint64_t v = fuzz_u16(in);

		switch (c->args[i]) {
		case 'D':
			ask.arg[i] = v & 1 ? AT_FDCWD : 0;
			if (ask.arg[i])
				break;
			/* fall through */
		case 'F':
			fds[nfds++] = hand[(v >> 1) % (unsigned)nhands];
			break;
		case 'P':
		case 'T':
			ask.len[part] = (uint32_t)make_path(in, parts + at);
			at += ask.len[part++];
			break;
		case 'B':
			if (c->nr == SYS_connect || c->nr == SYS_bind) {
				ask.len[part] = (uint32_t)make_socket_name(in, parts + at);
			} else {
				ask.len[part] = (uint32_t)fuzz_take(in, parts + at, v % 32);
			}
			at += ask.len[part++];
			break;
		case 'I': /* flags are small; of mode and the like most are, too */
			ask.arg[i] = how & 1 ? (int64_t)v : (int64_t)(v & (O_ACCMODE | O_PATH));
			break;
		default:
			ask.arg[i] = (int64_t)v;
		}
	}
	if (how >= 240)
		ask.len[how & 1] = fuzz_u32(in);
	if (how >= 224 && how < 240)
		ask.nr = (int32_t)fuzz_u32(in);
	if (how >= 208 && how < 224 && nfds > 1)
		nfds--;
	FUZZ_ASSERT(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv));
	fds[0] = sv[1];
	{
		struct iovec iov[2] = {{&ask, sizeof ask}, {parts, at}};
		struct msghdr mh = {.msg_iov = iov,
				    .msg_iovlen = 2,
				    .msg_control = &control,
				    .msg_controllen = CMSG_SPACE((unsigned)nfds * sizeof(int))};
		struct cmsghdr *m = CMSG_FIRSTHDR(&mh);

		m->cmsg_level = SOL_SOCKET;
		m->cmsg_type = SCM_RIGHTS;
		m->cmsg_len = CMSG_LEN((unsigned)nfds * sizeof(int));
		memcpy(CMSG_DATA(m), fds, (unsigned)nfds * sizeof(int));
		FUZZ_ASSERT(opener_send(to_opener, &mh, MSG_NOSIGNAL) > 0);
	}
	close(sv[1]);
	hear(sv[0], c->opens || how >= 224);
	close(sv[0]);
}

int fuzz_one(const uint8_t *data, size_t size)
{
	struct fuzz_in in = {data, size};

	for (int i = 0; i < CALLS && in.left; i++)
		call(&in);
	for (int i = 0; i < SECRETS; i++) {
		char path[PATH_MAX];
		struct stat st;

		path_of(secret[i].name, path);
		FUZZ_ASSERT(!lstat(path, &st) && st.st_ino == secret[i].was.st_ino);
		FUZZ_ASSERT(st.st_size == 12 && st.st_mode == secret[i].was.st_mode);
		FUZZ_ASSERT(st.st_mtim.tv_nsec == secret[i].was.st_mtim.tv_nsec);
	}
	return 0;
}

/* Each call, on each of what there is. */
size_t fuzz_seed(unsigned n, uint8_t *out)
{
	size_t ncalls, at = 0;

	opener_calls(&ncalls);
	if (n >= ncalls)
		return 0;
	for (uint8_t what = 0; what < CALLS; what++) {
		const uint8_t one[] = {(uint8_t)n,          0,        1, 0, (uint8_t)(what % 7),
				       (uint8_t)(what % 8), what & 2, 0, 0, 0};

		memcpy(out + at, one, sizeof one);
		at += sizeof one;
	}
	return at;
}
