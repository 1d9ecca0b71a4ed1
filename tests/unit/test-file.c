/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Opening image files: what is refused and in what words, and who keeps whom off. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/io/file.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

static struct ev_loop *loop;
static struct td_io *io;
static char dir[64], image[128];
static struct td_err err;

static void begin(void)
{
	int fd;

	strcpy(dir, "test-file.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(image, sizeof image, "%s/disk.img", dir);
	fd = open(image, O_RDWR | O_CREAT, 0600);
	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	close(fd);
	loop = ev_loop_new(EVFLAG_AUTO);
	ck_assert_int_eq(td_io_new(loop, "threads", false, &io, NULL), 0);
}

static void end(void)
{
	char cmd[128];

	td_io_free(io);
	ev_loop_destroy(loop);
	snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
	ck_assert_int_eq(system(cmd), 0);
}

struct open_args {
	const char *path;
	unsigned flags;
	struct td_file *f;
	int rc;
};

static void open_it(void *arg)
{
	struct open_args *a = arg;

	err.code = 0;
	err.text[0] = 0;
	a->rc = td_file_open(io, a->path, a->flags, &a->f, &err);
}

static void close_it(void *arg)
{
	td_file_close(arg);
}

static int try_open(const char *path, unsigned flags, struct td_file **f)
{
	struct open_args a = {.path = path, .flags = flags};

	on_fiber(loop, open_it, &a);
	*f = a.f;
	if (a.rc < 0) {
		ck_assert_ptr_null(a.f);
		ck_assert_int_eq(err.code, -a.rc);
		ck_assert_ptr_nonnull(strstr(err.text, path)); /* every text names the file */
	}
	return a.rc;
}

static void must_close(struct td_file *f)
{
	on_fiber(loop, close_it, f);
}

static void refused(const char *path, unsigned flags, int code, const char *word)
{
	struct td_file *f;

	ck_assert_int_eq(try_open(path, flags, &f), -code);
	ck_assert_msg(strstr(err.text, word) != NULL, "'%s' has no '%s'", err.text, word);
}

/* --- refusals --- */

START_TEST(what_is_no_image_is_refused_by_name)
{
	char path[128];

	begin();
	snprintf(path, sizeof path, "%s/missing", dir);
	refused(path, 0, ENOENT, "No such file");
	refused(path, TD_FILE_DIRECT, ENOENT, "No such file");
	for (unsigned flags = 0; flags <= (TD_FILE_DIRECT | TD_FILE_RDONLY); flags++)
		refused(dir, flags & (TD_FILE_DIRECT | TD_FILE_RDONLY), EISDIR, "directory");
	snprintf(path, sizeof path, "%s/fifo", dir);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	refused(path, 0, EINVAL, "neither a file nor a block device");
	refused(path, TD_FILE_RDONLY, EINVAL, "neither a file nor a block device");
	refused(path, TD_FILE_DIRECT, EINVAL, "neither a file nor a block device");
	refused("/dev/null", 0, EINVAL, "neither a file nor a block device");
	refused("/dev/null", TD_FILE_DIRECT, EINVAL, "neither a file nor a block device");
	snprintf(path, sizeof path, "%s/disk.img/below", dir);
	refused(path, 0, ENOTDIR, "Not a directory");
	end();
}
END_TEST

static void as_nobody(void)
{
	begin();
	ck_assert_int_eq(chmod(image, 0400), 0);
	ck_assert_int_eq(chmod(dir, 0755), 0);
	ck_assert_int_eq(chown(image, 65534, 65534), 0);
}

START_TEST(a_file_that_may_not_be_written_says_so)
{
	struct td_file *f;

	if (geteuid() != 0)
		return; /* only root can become another */
	as_nobody();
	ck_assert_int_eq(seteuid(65534), 0);
	/* the threads of the pool are of this process: glibc changes them all */
	refused(image, 0, EACCES, "open it read-only");
	ck_assert_int_eq(try_open(image, TD_FILE_RDONLY, &f), 0);
	must_close(f);
	ck_assert_int_eq(seteuid(0), 0);
	end();
}
END_TEST

/* --- what a device that is not here says: open and stat as the linker gives them to
 * lib/io/file-open.c and file-lock.c --- */

static int open_error;      /* 0: the file's own */
static unsigned fake_major; /* 0: it is what it is */

int __real_open(const char *name, int how, ...);
int __real_stat(const char *name, struct stat *s);
int __wrap_open(const char *name, int how, ...);
int __wrap___open_2(const char *name, int how);
int __wrap_stat(const char *name, struct stat *s);
int __wrap_fstatfs(int fd, struct statfs *fs);

int __wrap_open(const char *name, int how, ...)
{
	va_list ap;
	int mode;

	va_start(ap, how);
	mode = how & O_CREAT ? va_arg(ap, int) : 0;
	va_end(ap);
	if (open_error && !strcmp(name, image)) {
		errno = open_error;
		return -1;
	}
	return __real_open(name, how, mode);
}

/* What open() is where _FORTIFY_SOURCE is on. */
int __wrap___open_2(const char *name, int how)
{
	return __wrap_open(name, how);
}

int __wrap_stat(const char *name, struct stat *s)
{
	int rc = __real_stat(name, s);

	if (!rc && fake_major && !strcmp(name, image)) {
		s->st_mode = S_IFBLK | 0660;
		s->st_rdev = makedev(fake_major, 5);
	}
	return rc;
}

static long fs_type; /* 0: what it is */

int __real_fstatfs(int fd, struct statfs *fs);

int __wrap_fstatfs(int fd, struct statfs *fs)
{
	int rc = __real_fstatfs(fd, fs);

	if (fs_type)
		fs->f_type = fs_type;
	return rc;
}

START_TEST(a_device_that_is_secondary_names_its_role_and_what_to_do)
{
	static const struct {
		unsigned major, flags;
		int error;
		const char *says, *says_too, *does_not;
	} t[] = {
		{147, 0, EROFS, "DRBD's device 5, which is Secondary on this host",
		 "drbdadm primary", "owner and mode"},
		{147, TD_FILE_SHARED, EROFS, "for writing", "Secondary on this host",
		 "owner and mode"},
		{147, TD_FILE_RDONLY, EMEDIUMTYPE, "for reading",
		 "DRBD's device 5, which is Secondary", "owner and mode"},
		{147, 0, EACCES, "owner and mode", "for writing", "DRBD"},
		{147, 0, ENXIO, "cannot open", image, "DRBD"},
		{253, 0, EROFS, "the device is read-only on this host", "blockdev --getro", "DRBD"},
		{253, TD_FILE_RDONLY, EMEDIUMTYPE, "cannot open", "medium type", "DRBD"},
		{0, 0, EROFS, "its file system is mounted read-only", "open it read-only",
		 "owner and mode"},
	};

	begin();
	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		open_error = t[i].error;
		fake_major = t[i].major;
		refused(image, t[i].flags, t[i].error, t[i].says);
		ck_assert_msg(strstr(err.text, t[i].says_too) != NULL, "%s", err.text);
		ck_assert_msg(strstr(err.text, t[i].does_not) == NULL, "%s", err.text);
	}
	open_error = 0;
	fake_major = 0;
	end();
}
END_TEST

START_TEST(a_file_says_what_it_is)
{
	struct td_file *f;

	begin();
	ck_assert_int_eq(try_open(image, 0, &f), 0);
	ck_assert(f->st.size == 1 << 20 && !f->st.blockdev);
	ck_assert(f->st.off_align == 1 && f->st.mem_align == 1 && f->st.physical >= 512);
	ck_assert_int_eq(truncate(image, 2 << 20), 0);
	ck_assert_uint_eq(f->st.size, 1 << 20);
	must_close(f);
	if (try_open(image, TD_FILE_DIRECT, &f) == 0) {
		/* its I/O may wait */
		ck_assert_int_eq(fcntl(f->fd, F_GETFL) & (O_NONBLOCK | O_DIRECT), O_DIRECT);
		ck_assert(f->st.off_align >= 512 && f->st.mem_align >= 512 &&
			  f->st.off_align <= 4096);
		ck_assert_uint_ge(f->st.physical, f->st.off_align);
		must_close(f);
	}
	must_close(NULL);
	end();
}
END_TEST

static void write_and_read(void *arg)
{
	struct td_file *f = arg;
	char buf[4097], back[4097];
	uint64_t size;

	memset(buf, 0x3c, sizeof buf);
	/* misaligned memory, any engine */
	ck_assert_int_eq(td_file_rw(f, TD_IO_WRITE, buf + 1, 4096, 4096, TD_IO_DSYNC), 0);
	ck_assert_int_eq(td_file_rw(f, TD_IO_READ, back + 1, 4096, 4096, 0), 0);
	ck_assert_mem_eq(buf + 1, back + 1, 4096);
	ck_assert_int_eq(truncate(image, 3 << 20), 0);
	ck_assert_int_eq(td_file_size(f, &size), 0);
	ck_assert(size == 3 << 20 && f->st.size == 3 << 20);
}

START_TEST(a_file_can_be_read_and_written_on_a_fiber)
{
	struct td_file *f;

	begin();
	for (unsigned flags = 0; flags <= TD_FILE_DIRECT; flags += TD_FILE_DIRECT) {
		if (try_open(image, flags, &f) < 0)
			continue;
		on_fiber(loop, write_and_read, f);
		must_close(f);
		ck_assert_int_eq(truncate(image, 1 << 20), 0);
	}
	end();
}
END_TEST

/* --- locks --- */

/* Opens the image in a child, which holds it until it is killed. */
static pid_t held_by_child(unsigned flags)
{
	int ready[2];
	pid_t pid;
	char c;

	ck_assert_int_eq(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		struct ev_loop *l = ev_loop_new(EVFLAG_AUTO);
		struct open_args a = {.path = image, .flags = flags};

		loop = l;
		if (td_io_new(l, "threads", false, &io, NULL) < 0)
			_exit(1);
		on_fiber(l, open_it, &a);
		c = a.rc < 0 ? 'n' : 'y';
		if (write(ready[1], &c, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	ck_assert_int_eq(read(ready[0], &c, 1), 1);
	ck_assert_int_eq(c, 'y');
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void release(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

START_TEST(a_second_writer_is_told_who_the_first_is)
{
	struct td_file *f;
	char who[32];
	pid_t pid;

	begin();
	pid = held_by_child(0);
	snprintf(who, sizeof who, "(pid %d)", (int)pid);
	refused(image, 0, EBUSY, who);
	ck_assert_ptr_nonnull(strstr(err.text, "one writer"));
	refused(image, TD_FILE_RDONLY, EBUSY, who);
	refused(image, TD_FILE_PARENT | TD_FILE_RDONLY, EBUSY, who);
	refused(image, TD_FILE_SHARED, EBUSY, who);
	release(pid); /* kill -9 leaves no lock behind */
	ck_assert_int_eq(try_open(image, 0, &f), 0);
	refused(image, 0, EBUSY, "by this tapdisk");
	must_close(f);
	end();
}
END_TEST

/* By a description that no process of this host has: it is under way in a socket. */
static int held_by_nobody(int sv[2])
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec one = {"", 1};
	struct msghdr msg = {.msg_iov = &one,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof control};
	struct timespec now;
	char who[128] = "";
	int fd = open(image, O_RDWR | O_CLOEXEC);

	clock_gettime(CLOCK_MONOTONIC, &now);
	ck_assert_int_eq(td_file_lock(fd, image, 0, &now, who, sizeof who), 0);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	control.align = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
	memcpy(CMSG_DATA(&control.align), &fd, sizeof fd);
	ck_assert_int_eq(sendmsg(sv[0], &msg, 0), 1);
	close(fd);
	return open(image, O_RDWR | O_CLOEXEC);
}

START_TEST(a_writer_of_another_host_is_told_as_one)
{
	static const struct {
		long type;
		bool says;
	} all[] = {{0x6969, true},     {0xfe534d42, true}, {0x01161970, true},
		   {0x7461636f, true}, {0x00c36400, true}, {0xef53, false}};
	struct timespec past = {0};
	int sv[2], fd;

	begin();
	fd = held_by_nobody(sv);
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		char who[128] = "";

		fs_type = all[i].type;
		ck_assert_int_eq(td_file_lock(fd, image, 0, &past, who, sizeof who), -EAGAIN);
		ck_assert_int_eq(strstr(who, "most likely of another host") != NULL, all[i].says);
		err = (struct td_err){0};
		td_file_busy(who, image, 0, &err);
		ck_assert_int_eq(strstr(err.text, "on each host that has") != NULL, all[i].says);
	}
	fs_type = 0;
	close(sv[0]);
	close(sv[1]);
	close(fd);
	end();
}
END_TEST

/* LC7 of tapdisk/commit.h: who has it as a parent keeps it, and nobody new comes, except the owner.
 */
START_TEST(a_parent_that_is_claimed_gets_no_new_readers)
{
	unsigned parent = TD_FILE_PARENT | TD_FILE_RDONLY;
	struct td_file *was, *claim, *again;
	pid_t pid;

	begin();
	ck_assert_int_eq(try_open(image, parent, &was), 0);
	pid = held_by_child(TD_FILE_BENEATH); /* for a change that children do not see */
	ck_assert_int_eq(try_open(image, parent, &again), 0);
	must_close(again);
	refused(image, TD_FILE_BENEATH | TD_FILE_CLAIM, EBUSY, "is in use");
	release(pid);
	ck_assert_int_eq(try_open(image, TD_FILE_BENEATH | TD_FILE_CLAIM, &claim), 0);
	refused(image, parent, EBUSY, "by this tapdisk");
	must_close(claim);
	pid = held_by_child(TD_FILE_BENEATH | TD_FILE_CLAIM);
	refused(image, parent, EBUSY, "which is committing another image into it");
	refused(image, TD_FILE_RDONLY, EBUSY, "tap-ctl cancel");
	refused(image, 0, EBUSY, "which is committing another image into it");
	refused(image, TD_FILE_BENEATH, EBUSY, "which is committing another image into it");
	ck_assert_int_eq(try_open(image, parent | TD_FILE_CLAIM, &again), 0);
	must_close(again);
	release(pid);
	ck_assert_int_eq(try_open(image, parent, &again), 0);
	must_close(again);
	must_close(was);
	end();
}
END_TEST

START_TEST(a_parent_is_shared_by_readers_and_kept_from_writers)
{
	struct td_file *a, *b, *c;
	char who[32];
	pid_t pid;

	begin();
	pid = held_by_child(TD_FILE_PARENT | TD_FILE_RDONLY);
	snprintf(who, sizeof who, "(pid %d)", (int)pid);
	ck_assert_int_eq(try_open(image, TD_FILE_PARENT | TD_FILE_RDONLY, &a), 0);
	ck_assert_int_eq(try_open(image, TD_FILE_PARENT | TD_FILE_RDONLY, &b), 0);
	ck_assert_int_eq(try_open(image, TD_FILE_RDONLY, &c), 0);
	must_close(a);
	must_close(b);
	must_close(c);
	refused(image, 0, EBUSY, who);
	release(pid);
	ck_assert_int_eq(try_open(image, 0, &a), 0);
	must_close(a);
	end();
}
END_TEST

START_TEST(shared_goes_with_shared_and_not_with_a_sole_writer)
{
	struct td_file *f;
	pid_t pid;

	begin();
	pid = held_by_child(TD_FILE_SHARED);
	ck_assert_int_eq(try_open(image, TD_FILE_SHARED, &f), 0);
	must_close(f);
	refused(image, 0, EBUSY, "one writer");
	release(pid);
	end();
}
END_TEST

/* The image is $IMAGE in cmd. */
static int shell(const char *cmd)
{
	setenv("IMAGE", image, 1);
	return system(cmd);
}

START_TEST(qemu_and_we_keep_off_each_other)
{
	struct td_file *f;

	begin();
	if (shell("command -v qemu-io >/dev/null")) {
		end();
		return;
	}
	ck_assert_int_eq(shell("qemu-io -r -f raw -c 'read 0 512' $IMAGE >/dev/null 2>&1"), 0);
	ck_assert_int_eq(try_open(image, 0, &f), 0);
	ck_assert_int_ne(shell("qemu-io -r -f raw -c 'read 0 512' $IMAGE >/dev/null 2>&1"), 0);
	must_close(f);
	ck_assert_int_eq(try_open(image, TD_FILE_PARENT | TD_FILE_RDONLY, &f), 0);
	/* its readers do not mind */
	ck_assert_int_eq(shell("qemu-io -r -f raw -c 'read 0 512' $IMAGE >/dev/null 2>&1"), 0);
	/* its writers do */
	ck_assert_int_ne(shell("qemu-io -f raw -c 'write 0 512' $IMAGE >/dev/null 2>&1"), 0);
	must_close(f);
	ck_assert_int_eq(shell("qemu-io -f raw -c 'write 0 512' $IMAGE >/dev/null 2>&1"), 0);
	end();
}
END_TEST

START_TEST(a_qemu_that_writes_keeps_us_off)
{
	struct td_file *f;
	FILE *q = NULL;
	int rc = 0;

	begin();
	if (shell("command -v qemu-io >/dev/null")) {
		end();
		return;
	}
	for (int i = 0; i < 300 && rc == 0; i++) { /* until it has opened it; our own look may have
						      kept it off, then it is started again */
		if (i % 50 == 0) {
			if (q)
				pclose(q);
			q = popen("exec qemu-io -f raw $IMAGE >/dev/null 2>&1", "w");
			ck_assert_ptr_nonnull(q);
		}
		usleep(100000);
		rc = try_open(image, TD_FILE_PARENT | TD_FILE_RDONLY, &f);
		if (!rc)
			must_close(f);
	}
	ck_assert_int_eq(rc, -EBUSY);
	ck_assert_ptr_nonnull(strstr(err.text, "qemu-io"));
	refused(image, 0, EBUSY, "qemu-io");
	fputs("quit\n", q);
	pclose(q);
	ck_assert_int_eq(try_open(image, 0, &f), 0);
	must_close(f);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file");

	SUITE_ADD(s, what_is_no_image_is_refused_by_name);
	SUITE_ADD(s, a_file_that_may_not_be_written_says_so);
	SUITE_ADD(s, a_device_that_is_secondary_names_its_role_and_what_to_do);
	SUITE_ADD(s, a_file_says_what_it_is);
	SUITE_ADD(s, a_file_can_be_read_and_written_on_a_fiber);
	SUITE_ADD(s, a_second_writer_is_told_who_the_first_is);
	SUITE_ADD(s, a_writer_of_another_host_is_told_as_one);
	SUITE_ADD(s, a_parent_that_is_claimed_gets_no_new_readers);
	SUITE_ADD(s, a_parent_is_shared_by_readers_and_kept_from_writers);
	SUITE_ADD(s, shared_goes_with_shared_and_not_with_a_sole_writer);
	SUITE_ADD(s, qemu_and_we_keep_off_each_other);
	SUITE_ADD(s, a_qemu_that_writes_keeps_us_off);
	return suite_run(s);
}
