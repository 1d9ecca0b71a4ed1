/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A process that plays a tapdisk taken over: inside the sandbox it tries what an intruder would.
 * Most of it ends the process, some of it fails: the manual (tapdisk.conf(5), SECURITY) says so.
 */
#include <asm/sockios.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <jansson.h>
#include <limits.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <pthread.h>
#ifdef HAVE_URING
#include <liburing.h>
#endif

#include "lib/conf.h"
#include "td/ctl.h"
#include "td/io.h"
#include "tapdisk/opener/opener-rights.h"
#include "tapdisk/sandbox/sandbox.h"
#include "tests/support/suite.h"

enum { REFUSED = 10, DONE };

#ifdef TD_SANITIZED /* which needs what the filter forbids */
enum { FILTERS = false };
#else
enum { FILTERS = true };
#endif

static void conf(const char *text)
{
	FILE *f = fopen("test-sandbox.conf", "w");

	ck_assert_ptr_nonnull(f);
	fputs(text, f);
	fclose(f);
	setenv(TD_CONF_ENV, "test-sandbox.conf", 1);
}

/* Before the sandbox, as a test has no control socket: what the opener is told. */
static void host_says(const char *op, const char *image)
{
	json_t *msg = json_pack("{s:s, s:i, s:o}", "op", op, "minor", 3, "args",
				json_sprintf("aio:%s", image));

	rights_learn(msg);
	json_decref(msg);
}

/* The minor is its own. */
static void mark_minor(void)
{
	FILE *f;

	mkdir("test-sandbox.d", 0700);
	mkdir("test-sandbox.d/tapdisk", 0700);
	f = fopen("test-sandbox.d/tapdisk/tapdisk-3", "w");
	if (!f || fprintf(f, "%d\n", (int)getpid()) < 0 || fclose(f))
		_exit(1);
}

/* DONE: it did it; REFUSED: an error; -SIGSYS: it died of it. */
static int inside(int (*attempt)(void))
{
	struct td_err err = {0};
	pid_t pid = fork();
	int status;

	if (!pid) {
		mark_minor();
		host_says("attach", "test-sandbox.none");
		host_says("open", "test-sandbox.image");
		if (sandbox_enter(1, &err) || sandbox_network("a disk", false, &err))
			_exit(1);
		_exit(attempt() < 0 ? REFUSED : DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int run_program(void)
{
	return execl("/bin/true", "true", (char *)NULL);
}

static int make_process(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid;
}

static int trace(void)
{
	return (int)ptrace(PTRACE_ATTACH, 0, NULL, NULL);
}

static int seize(void)
{
	return (int)ptrace(PTRACE_SEIZE, getppid(), NULL, NULL);
}

static int traceme(void)
{
	return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL);
}

static int run_descriptor(void)
{
	return (int)syscall(SYS_execveat, -1, "", NULL, NULL, 0);
}

static int make_sharing_process(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, 0);

	if (!pid)
		_exit(0);
	return pid;
}

static int open_mounts(void)
{
	return (int)syscall(SYS_open_tree, -1, "/nowhere", 0);
}

static int move_mounts(void)
{
	return (int)syscall(SYS_move_mount, -1, "", -1, "", 0);
}

static int unmount(void)
{
	return umount2("/nowhere", MNT_DETACH);
}

static int new_root(void)
{
	return (int)syscall(SYS_pivot_root, "/nowhere", "/nowhere");
}

static int dial_out_6(void)
{
	return socket(AF_INET6, SOCK_DGRAM, 0);
}

static int to_the_hypervisor(void)
{
	return socket(AF_VSOCK, SOCK_STREAM, 0);
}

static int routes(void)
{
	return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
}

static int mount_it(void)
{
	return mount("none", "/nowhere", "tmpfs", 0, NULL);
}

static int namespace(void)
{
	return unshare(CLONE_NEWUSER);
}

static int enter_namespace(void)
{
	return setns(0, 0);
}

static int dial_out(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static int packets(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0);
}

/* Of a pair each sends by name, too. */
static int datagram_pair(void)
{
	return socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, (int[2]){0});
}

static int raw_pair(void)
{
	return socketpair(AF_UNIX, SOCK_RAW, 0, (int[2]){0});
}

static int bpf(void)
{
	return (int)syscall(SYS_bpf, 5, NULL, 0);
}

static int read_memory(void)
{
	return (int)syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0);
}

static int write_memory(void)
{
	return (int)syscall(SYS_process_vm_writev, getppid(), NULL, 0, NULL, 0, 0);
}

static int take_descriptor(void)
{
	return (int)syscall(SYS_pidfd_getfd, -1, 0, 0);
}

static int open_by_handle(void)
{
	return (int)syscall(SYS_open_by_handle_at, -1, NULL, 0);
}

static int perf(void)
{
	return (int)syscall(SYS_perf_event_open, NULL, 0, 0, -1, 0);
}

static int faults(void)
{
	return (int)syscall(SYS_userfaultfd, -1);
}

static int keys(void)
{
	return (int)syscall(SYS_keyctl, -1, 0, 0, 0, 0);
}

static int another_kernel(void)
{
	return (int)syscall(SYS_kexec_load, NULL, 0, NULL, ~0ul);
}

static int restart_host(void)
{
	return (int)syscall(SYS_reboot, 0, 0, 0, NULL);
}

static int device_node(void)
{
	return (int)syscall(SYS_mknodat, -1, "", S_IFBLK, 0);
}

/* Any thread of root's, or one who is to hear of a socket of this process. */
static int signal_by_thread(void)
{
	return (int)syscall(SYS_tgkill, getppid(), getppid(), 0);
}

static int signal_by_owner(void)
{
	return fcntl(0, F_SETOWN, getppid());
}

static int signal_by_owner_too(void)
{
	int pid = getppid();

	return ioctl(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), FIOSETOWN, &pid);
}

static int move_to_a_processor(void)
{
	cpu_set_t all;

	memset(&all, 0xff, sizeof all);
	return sched_setaffinity(getppid(), sizeof all, &all);
}

static int give_away(void)
{
	return (int)syscall(SYS_fchownat, -1, "", 1, 1, 0);
}

static int regain_capabilities(void)
{
	return (int)syscall(SYS_capset, NULL, NULL);
}

/* An io_uring of its own: what is asked for by it meets no filter. */
static int own_uring(void)
{
	return (int)syscall(SYS_io_uring_setup, 0, NULL);
}

static int unlock_uring(void)
{
	return (int)syscall(SYS_io_uring_register, -1, 0, NULL, 0);
}

static int kill_parent(void)
{
	return kill(getppid(), 0);
}

static int other_user(void)
{
	return setresuid(1, 1, 1);
}

static int become(void)
{
	return (int)syscall(SYS_chroot, "/");
}

static int module(void)
{
	return (int)syscall(SYS_finit_module, 0, "", 0);
}

static int another_arch(void)
{
#ifdef __x86_64__
	return (int)syscall(0x40000000 | SYS_getpid); /* x32's */
#else
	raise(SIGSYS);
	return -1;
#endif
}

/* Harmless where it is let through: what is asked for is not there. */
static int (*const deadly[])(void) = {
	/* clang-format off */
	run_program, run_descriptor, make_process, make_sharing_process,
	trace, seize, traceme, read_memory, write_memory, take_descriptor, kill_parent,
	signal_by_thread, signal_by_owner, signal_by_owner_too, move_to_a_processor,
	mount_it, open_mounts, move_mounts, unmount, new_root, become,
	namespace, enter_namespace,
	dial_out, dial_out_6, packets, to_the_hypervisor, routes, datagram_pair, raw_pair,
	bpf, perf, faults, keys, module, another_kernel, restart_host,
	other_user, regain_capabilities, device_node, give_away, open_by_handle,
	own_uring, unlock_uring, another_arch,
	/* clang-format on */
};

#define DEADLY (int)(sizeof deadly / sizeof *deadly)

START_TEST(what_an_intruder_tries_ends_the_process)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(deadly[_i]), -SIGSYS);
	/* and without it, it is not the test that fails */
	conf("sandbox = no\n");
	ck_assert_int_ne(inside(deadly[_i]), -SIGSYS);
}
END_TEST

static int own_files(void)
{
	int fd = open("test-sandbox.image", O_RDWR);

	if (fd < 0 || pwrite(fd, "#", 1, 0) != 1 || fdatasync(fd) || close(fd))
		return -1;
	fd = open("test-sandbox.d/left3", O_RDWR | O_CREAT, 0600);
	return fd < 0 || close(fd) || unlink("test-sandbox.d/left3") ? -1 : 0;
}

static void *nothing(void *arg)
{
	return arg;
}

static int thread(void)
{
	pthread_t t;

	return pthread_create(&t, NULL, nothing, NULL) || pthread_join(t, NULL) ? -1 : 0;
}

static int stay_on_a_processor(void)
{
	cpu_set_t one;
	int cpu = sched_getcpu();

	CPU_ZERO(&one);
	CPU_SET(cpu < 0 ? 0 : cpu, &one);
	return sched_setaffinity(0, sizeof one, &one);
}

static int unix_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : close(fd);
}

static int raise_limit(void)
{
	struct rlimit r = {1 << 20, RLIM_INFINITY};

	return setrlimit(RLIMIT_CORE, &r);
}

static int has_capabilities(void)
{
	char line[256];
	FILE *f = fopen("/proc/self/status", "r");
	unsigned long long cap;
	int extra = 0, seen = 0;

	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Cap%*3s: %llx", &cap) == 1) {
			extra |= cap != 0;
			seen++;
		}
	return extra || seen < 5 ? 0 : -1;
}

static int limits_of_another(void)
{
	struct rlimit r;

	if (prlimit(getppid(), RLIMIT_NOFILE, NULL, &r)) /* which remains as it is */
		return -1;
	return prlimit(getppid(), RLIMIT_NOFILE, &r, NULL);
}

/* A filter sees a pointer in halves: the lower one of this is 0. */
static int limits_by_a_round_address(void)
{
	struct rlimit *r = mmap((void *)(1ull << 33), 4096, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (r == MAP_FAILED || prlimit(getppid(), RLIMIT_NOFILE, NULL, r))
		return -1;
	return prlimit(getppid(), RLIMIT_NOFILE, r, NULL);
}

static int ambient_capability(void)
{
	return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 1, 0, 0);
}

#define VICTIM "test-sandbox.victim"

/* whose owner alone may do it, and a process with CAP_FOWNER */
static int open_to_all(void)
{
	return chmod(VICTIM, 0666);
}

static int physical_memory(void)
{
	return open("/dev/mem", O_RDWR | O_CLOEXEC);
}

static int is_whole(void)
{
	return strcmp(sandbox_state(), "yes") ? -1 : 0;
}

/* --- B5 --- */

#ifdef HAVE_RBD
enum { KEEPS = FILTERS };
#else
enum { KEEPS = false };
#endif

static void host_names_cluster(void)
{
	json_t *msg = json_pack("{s:s, s:i, s:s}", "op", "open", "minor", 3, "args", "rbd:a/b");

	rights_learn(msg);
	json_decref(msg);
}

/* As inside(), for a disk on other hosts. */
static int inside_with_network(int (*attempt)(void))
{
	struct td_err err = {0};
	pid_t pid = fork();
	int status;

	if (!pid) {
		host_names_cluster();
		if (sandbox_enter(1, &err) || sandbox_network("rbd:a/b", true, &err) ||
		    sandbox_network("aio:/a", false, &err)) /* and another one beside it */
			_exit(1);
		_exit(attempt() < 0 ? REFUSED : DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

static int come_too_late(void)
{
	struct td_err err = {0};

	return sandbox_network("rbd:a/b", true, &err) == -EPERM &&
			       strstr(err.text, "has given up the network")
		       ? DONE
		       : -1;
}

static int filter_again(void)
{
	return (int)syscall(SYS_seccomp, 1, 0, NULL);
}

static int sockets[2];

static void *dial_when_told(void *arg)
{
	char c;

	return read(sockets[0], &c, 1) == 1 && dial_out() < 0 ? arg : NULL;
}

/* What a thread may, that was there before. */
static int dial_in_a_thread(bool needed)
{
	struct td_err err = {0};
	pid_t pid = fork();
	pthread_t t;
	int status;

	if (!pid) {
		host_names_cluster();
		if (sandbox_enter(1, &err) || socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) ||
		    pthread_create(&t, NULL, dial_when_told, NULL) ||
		    sandbox_network("a disk", needed, &err) || write(sockets[1], "", 1) != 1)
			_exit(1);
		pthread_join(t, NULL);
		_exit(DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

START_TEST(only_a_disk_on_other_hosts_has_the_network)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside_with_network(dial_out), KEEPS || !FILTERS ? DONE : -SIGSYS);
	ck_assert_int_eq(inside_with_network(dial_out_6), KEEPS || !FILTERS ? DONE : -SIGSYS);
	ck_assert_int_eq(inside_with_network(is_whole), DONE);
	if (!FILTERS)
		return;
	ck_assert_int_eq(inside_with_network(routes), KEEPS ? REFUSED : -SIGSYS);
	ck_assert_int_eq(inside_with_network(packets), -SIGSYS);
	ck_assert_int_eq(inside_with_network(to_the_hypervisor), -SIGSYS);
	ck_assert_int_eq(inside_with_network(run_program), -SIGSYS);
	ck_assert_int_eq(inside_with_network(filter_again), -SIGSYS);
	ck_assert_int_eq(inside(filter_again), -SIGSYS);
	ck_assert_int_eq(inside(come_too_late), DONE);
	ck_assert_int_eq(dial_in_a_thread(true), KEEPS ? DONE : -SIGSYS);
	ck_assert_int_eq(dial_in_a_thread(false), -SIGSYS);
}
END_TEST

/* --- B7 --- */

static char abstract_name[64];

/* A datagram by its reader's name: connect() would be caught, this is not. */
static int abstract_datagram(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	strcpy(to.sun_path + 1, abstract_name);
	return (int)sendto(
		fd, "x", 1, 0, (struct sockaddr *)&to,
		(socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(abstract_name)));
}

static int inet_datagram(void)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1 : (int)sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof to);
}

/* It is asked who owns a socket of the host's, and has to be in that network. */
static int socket_of_host(void)
{
	struct {
		struct nlmsghdr nl;
		struct unix_diag_req req;
	} ask = {{sizeof ask, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, 1, 0},
		 {.sdiag_family = AF_UNIX, .udiag_states = ~0u, .udiag_show = UDIAG_SHOW_NAME}};
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
	static char told[65536];
	ssize_t n = fd < 0 || send(fd, &ask, sizeof ask, 0) < 0 ? -1 : 1;

	while (n > 0 && !memmem(told, (size_t)n, abstract_name, strlen(abstract_name)))
		n = recv(fd, told, sizeof told, MSG_DONTWAIT);
	return n > 0 ? 0 : -1;
}

/* Before it has opened its first disk. */
static int inside_early(int (*attempt)(void))
{
	struct td_err err = {0};
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (sandbox_enter(1, &err))
			_exit(1);
		_exit(attempt() < 0 ? REFUSED : DONE);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

START_TEST(the_hosts_network_is_not_there)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	snprintf(abstract_name, sizeof abstract_name, "test-sandbox.%d", (int)getpid());
	strcpy(sa.sun_path + 1, abstract_name);
	ck_assert_int_eq(bind(fd, (struct sockaddr *)&sa,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
					  strlen(abstract_name))),
			 0);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(abstract_datagram), REFUSED);
	ck_assert_int_eq(inside_early(abstract_datagram), REFUSED);
	ck_assert_int_eq(inside_early(inet_datagram), KEEPS ? REFUSED : -SIGSYS);
	ck_assert_int_eq(inside(socket_of_host), DONE);
	conf("sandbox = no\n");
	ck_assert_int_eq(inside(abstract_datagram), DONE);
	close(fd);
}
END_TEST

static long namespace_of(pid_t pid, const char *what)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)pid, what);
	return stat(path, &st) ? -1 : (long)st.st_ino;
}

/* Seen from outside: its namespaces, its root and its mounts; and where it was nothing is left. */
START_TEST(nothing_of_the_host_is_left_to_it)
{
	static const char *const own[] = {"ipc", "mnt"};
	struct td_err err = {0};
	char path[64], c;
	int sv[2], mounts = 0;
	pid_t pid;
	FILE *f;

	conf("sandbox = yes\n");
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	pid = fork();
	if (!pid) {
		close(sv[0]);
		_exit(sandbox_enter(1, &err) || write(sv[1], "", 1) != 1 || read(sv[1], &c, 1));
	}
	close(sv[1]);
	ck_assert_int_eq(read(sv[0], &c, 1), 1);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_ne(namespace_of(pid, own[i]), namespace_of(getpid(), own[i]));
		ck_assert_int_ne(namespace_of(pid, own[i]), -1);
	}
	snprintf(path, sizeof path, "/proc/%d/mounts", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(path, sizeof path, f))
		mounts += strchr(path, '\n') != NULL;
	fclose(f);
	ck_assert_int_eq(mounts, 1);
	snprintf(path, sizeof path, "test-sandbox.d/.root.%d", (int)pid);
	ck_assert(access(path, F_OK) < 0);
	close(sv[0]);
	ck_assert_int_eq(waitpid(pid, &mounts, 0), pid);
	ck_assert_int_eq(mounts, 0);
	ck_assert_int_eq(access("test-sandbox.d/tapdisk", F_OK), 0);
}
END_TEST

START_TEST(what_a_tapdisk_needs_is_there)
{
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(own_files), DONE);
	ck_assert_int_eq(inside(thread), DONE);
	ck_assert_int_eq(inside(stay_on_a_processor), DONE);
	ck_assert_int_eq(inside(unix_socket), DONE);
	ck_assert_int_eq(inside(is_whole), DONE);
	ck_assert_int_eq(inside(raise_limit), REFUSED);
	ck_assert_int_eq(inside(has_capabilities), REFUSED);
}
END_TEST

/* A file in a directory of its own, of another owner, that nobody but root may open. */
static void make_victim(void)
{
	int fd = open(VICTIM, O_RDWR | O_CREAT | O_TRUNC, 0600);

	ck_assert(fd >= 0 && pwrite(fd, "the other guest's", 17, 0) == 17);
	ck_assert(fchown(fd, 12345, 12345) == 0 || geteuid());
	close(fd);
}

START_TEST(what_else_he_tries_fails)
{
	static int (*const tries[])(void) = {limits_of_another, limits_by_a_round_address,
					     ambient_capability, open_to_all, physical_memory};

	make_victim();
	conf("sandbox = yes\n");
	for (size_t i = 0; i < sizeof tries / sizeof *tries; i++)
		if (tries[i] != open_to_all || !geteuid())
			ck_assert_int_eq(inside(tries[i]), REFUSED);
	unlink(VICTIM);
}
END_TEST

/* --- by a ring of his own: what is asked for by it passes no filter --- */

#ifdef HAVE_URING
enum { DEPTH = 128 }; /* of the engine's rings (lib/io/io-uring.c) */
static struct io_uring_params layout;
static struct td_io *engine;
static int status_of_child;

/* The ring that the engine has made. */
static int ring_descriptor(void)
{
	char path[64], is[64] = "";

	for (int fd = 3; fd < 200; fd++) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		if (readlink(path, is, sizeof is - 1) > 0 && strstr(is, "io_uring"))
			return fd;
	}
	return -1;
}

static int ask(struct io_uring *ring, void (*prepare)(struct io_uring_sqe *))
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;

	prepare(sqe);
	if (io_uring_submit(ring) < 0 || io_uring_wait_cqe(ring, &cqe))
		return -EIO;
	return cqe->res;
}

static void ask_socket(struct io_uring_sqe *sqe)
{
	io_uring_prep_socket(sqe, AF_INET, SOCK_STREAM, 0, 0);
}

static void ask_open(struct io_uring_sqe *sqe)
{
	io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDWR, 0);
}

static void ask_sync(struct io_uring_sqe *sqe)
{
	io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
}

static int by_ring(void (*prepare)(struct io_uring_sqe *))
{
	struct io_uring ring;
	int fd = ring_descriptor();

	if (fd < 0 || io_uring_queue_mmap(fd, &layout, &ring))
		_exit(1); /* neither DONE nor REFUSED */
	return ask(&ring, prepare) == -EACCES ? -1 : 0;
}

static int socket_by_ring(void)
{
	return by_ring(ask_socket);
}

static int open_by_ring(void)
{
	return by_ring(ask_open);
}

static int sync_by_ring(void)
{
	return by_ring(ask_sync);
}

START_TEST(a_ring_takes_reads_writes_and_syncs_alone)
{
	struct io_uring ring;
	struct td_err err = {0};

	if (io_uring_queue_init_params(DEPTH, &ring, &layout))
		return; /* this host has none */
	/* a ring that is not restricted does it, so that it is the restriction that refuses */
	ck_assert_int_ge(ask(&ring, ask_open), 0);
	io_uring_queue_exit(&ring);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(socket_by_ring), REFUSED);
	ck_assert_int_eq(inside(open_by_ring), REFUSED);
	ck_assert_int_eq(inside(sync_by_ring), DONE);
	/* and outside, too */
	conf("sandbox = no\n");
	ck_assert_int_eq(sandbox_enter(1, &err), 0);
	if (!fork())
		_exit(td_io_new(ev_default_loop(0), "io_uring", true, &engine, &err) ||
				      by_ring(ask_open) == 0
			      ? 1
			      : 0);
	ck_assert(wait(&status_of_child) > 0 && status_of_child == 0);
}
END_TEST

/* An engine finds a ring as often as one is let go, and another engine when there is none. */
static int engines(void)
{
	struct ev_loop *loop = ev_default_loop(0);
	struct td_io *io, *other;

	for (int i = 0; i < 3; i++) {
		if (td_io_new(loop, "io_uring", true, &io, NULL) ||
		    strcmp(io->ops->name, "io_uring") ||
		    td_io_new(loop, "io_uring", false, &other, NULL) ||
		    strcmp(other->ops->name, "threads"))
			return -1;
		td_io_free(io);
		td_io_free(other);
	}
	return 0;
}

START_TEST(rings_made_before_are_used_again)
{
	struct io_uring ring;

	if (io_uring_queue_init(DEPTH, &ring, 0))
		return;
	io_uring_queue_exit(&ring);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(engines), DONE);
}
END_TEST
#endif

/* --- by path, as root may: what the opener refuses (tests/unit/test-opener.c has its rules) --- */

static const char secret[] = "a word in the parent's memory";
static int listener = -1;
static struct sockaddr_un name_of_listener;

static int disk_of_another(void)
{
	int fd = open(VICTIM, O_RDWR | O_CLOEXEC);

	return fd < 0 || pwrite(fd, "overwritten", 11, 0) != 11 ? -1 : 0;
}

static int look_at_another(void)
{
	return open(VICTIM, O_RDONLY | O_CLOEXEC);
}

static int delete_another(void)
{
	return unlink(VICTIM);
}

static int passwords(void)
{
	char c;
	int fd = open("/etc/shadow", O_RDONLY | O_CLOEXEC);

	return fd < 0 || read(fd, &c, 1) != 1 ? -1 : 0;
}

static int program_for_root(void)
{
	return open("test-sandbox.cron", O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
}

static int control_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	return fd < 0 ? -1
		      : connect(fd, (struct sockaddr *)&name_of_listener, sizeof name_of_listener);
}

/* A datagram names its reader without connect(). */
static int datagram(void)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return (int)sendto(fd, "x", 1, 0, (struct sockaddr *)&name_of_listener,
			   sizeof name_of_listener);
}

static int memory_by_path(void)
{
	char path[64], seen[sizeof secret];
	int fd;

	snprintf(path, sizeof path, "/proc/%d/mem", (int)getppid());
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 || pread(fd, seen, sizeof seen, (off_t)(uintptr_t)secret) !=
				       (ssize_t)sizeof seen
		       ? -1
		       : 0;
}

static int settings_of_the_kernel(void)
{
	return open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC);
}

static int signal_by_descriptor(void)
{
	int fd = (int)syscall(SYS_pidfd_open, getppid(), 0);

	return (int)syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0);
}

/* One that it has, whomever it is of. */
static int parents_pidfd;

static int signal_by_inherited_descriptor(void)
{
	return (int)syscall(SYS_pidfd_send_signal, parents_pidfd, 0, NULL, 0);
}

/* The owner's to do: a program that runs as root, with the image's bytes, for whoever is here. */
static int image_for_root(void)
{
	int fd = open("test-sandbox.image", O_RDWR | O_CLOEXEC);

	return fd < 0 ? -1 : fchmod(fd, 04755);
}

static void listening(int type)
{
	name_of_listener =
		(struct sockaddr_un){.sun_family = AF_UNIX, .sun_path = "test-sandbox.ctl"};
	unlink(name_of_listener.sun_path);
	listener = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(
		bind(listener, (struct sockaddr *)&name_of_listener, sizeof name_of_listener), 0);
	ck_assert(type == SOCK_DGRAM || listen(listener, 5) == 0);
}

/* When one of these comes to be let through, the manual has to say it. */
START_TEST(what_is_not_its_disks_is_refused)
{
	static int (*const tries[])(void) = {disk_of_another,      look_at_another,
					     delete_another,       passwords,
					     control_socket,       datagram,
					     program_for_root,     memory_by_path,
					     signal_by_descriptor, settings_of_the_kernel,
					     image_for_root,       signal_by_inherited_descriptor};
	int (*const try)(void) = tries[_i];
	int without;

	if (geteuid())
		return; /* all of it is root's */
	make_victim();
	listening(try == datagram ? SOCK_DGRAM : SOCK_SEQPACKET);
	parents_pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(try), REFUSED);
	conf("sandbox = no\n"); /* a host may have less than others: then it is no test */
	without = inside(try);
	if (without != DONE)
		printf("try %d: this host refuses it itself\n", _i);
	close(listener);
	close(parents_pidfd);
	chmod("test-sandbox.image", 0644);
	unlink(name_of_listener.sun_path);
	unlink("test-sandbox.cron");
	unlink(VICTIM);
}
END_TEST

/* --- B8 --- */

static uint32_t first_user;

static int user_is_own(void)
{
	uint32_t want = first_user ? first_user + (uint32_t)getpid() : 0, id[8] = {0};
	FILE *f = fopen("/proc/self/status", "re");
	char line[256];
	int groups = -1;

	while (f && fgets(line, sizeof line, f)) {
		sscanf(line, "Uid: %u %u %u %u", &id[0], &id[1], &id[2], &id[3]);
		sscanf(line, "Gid: %u %u %u %u", &id[4], &id[5], &id[6], &id[7]);
		if (!strncmp(line, "Groups:", 7))
			groups = line[strspn(line + 7, "\t\n ") + 7] != 0;
	}
	for (int i = 0; i < 8; i++)
		if (id[i] != want)
			return -1;
	return first_user && groups ? -1 : 0;
}

static int fails_with(const char *text)
{
	struct td_err err = {0};

	conf(text);
	return sandbox_enter(1, &err) == -EINVAL && strstr(err.text, "user ids") ? 0 : -1;
}

START_TEST(its_user_id_is_its_own)
{
	if (geteuid())
		return; /* it stays what it is */
	setgroups(2, (const gid_t[]){0, 6});
	first_user = 0x7f000000;
	conf("sandbox = yes\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	ck_assert_int_eq(inside(own_files), DONE);
	first_user = 500000;
	conf("sandbox = yes\nsandbox-uids = 500000\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	first_user = 0;
	conf("sandbox = yes\nsandbox-uids = no\n");
	ck_assert_int_eq(inside(user_is_own), DONE);
	ck_assert_int_eq(inside(is_whole), DONE);
	ck_assert_int_eq(fails_with("sandbox-uids = 0\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = 4294967295\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = yes\n"), 0);
	ck_assert_int_eq(fails_with("sandbox-uids = -1\n"), 0);
}
END_TEST

START_TEST(a_word_that_is_neither_is_an_error)
{
	struct td_err err = {0};

	conf("sandbox = maybe\n");
	ck_assert_int_eq(sandbox_enter(1, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "yes or no"));
	ck_assert_str_eq(sandbox_state(), "no");
	conf("sandbox = no\n");
	ck_assert_int_eq(sandbox_enter(1, &err), 0);
	ck_assert_str_eq(sandbox_state(), "no");
	unlink("test-sandbox.conf");
}
END_TEST

static int is_off_with_a_reason(void)
{
	return strcmp(sandbox_state(), "no: a build with sanitizers") ? -1 : 0;
}

START_TEST(it_is_on_unless_the_host_says_no)
{
	conf("");
	ck_assert_int_eq(inside(FILTERS ? is_whole : is_off_with_a_reason), DONE);
	if (FILTERS)
		ck_assert_int_eq(inside(run_program), -SIGSYS);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("sandbox");
	char dir[PATH_MAX], own[32];
	FILE *f;

	if (suite_enter_dir(own))
		return 1;
	f = fopen("test-sandbox.image", "w"); /* its disk */
	if (!f || fclose(f) || !getcwd(dir, sizeof dir - 20))
		return 1;
	strcat(dir, "/test-sandbox.d");
	setenv(TD_CTL_DIR_ENV, dir, 1);

	if (FILTERS) {
		SUITE_ADD_LOOP(s, what_an_intruder_tries_ends_the_process, DEADLY);
		SUITE_ADD(s, what_else_he_tries_fails);
#ifdef HAVE_URING
		SUITE_ADD(s, a_ring_takes_reads_writes_and_syncs_alone);
		SUITE_ADD(s, rings_made_before_are_used_again);
#endif
		SUITE_ADD_LOOP(s, what_is_not_its_disks_is_refused, 12);
		SUITE_ADD(s, what_a_tapdisk_needs_is_there);
		SUITE_ADD(s, the_hosts_network_is_not_there);
		SUITE_ADD(s, its_user_id_is_its_own);
		SUITE_ADD(s, nothing_of_the_host_is_left_to_it);
		SUITE_ADD(s, only_a_disk_on_other_hosts_has_the_network);
	}
	SUITE_ADD(s, it_is_on_unless_the_host_says_no);
	SUITE_ADD(s, a_word_that_is_neither_is_an_error);
	return suite_leave_dir(own, suite_run(s));
}
