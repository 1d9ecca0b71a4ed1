/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Calls that end the process of an intruder, and some that fail: tapdisk.conf(5), SECURITY. */
#include <asm/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/un.h>

#include "tests/support/test-sandbox.h"

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

/* whose owner alone may do it, and a process with CAP_FOWNER */
static int open_to_all(void)
{
	return chmod(VICTIM, 0666);
}

static int physical_memory(void)
{
	return open("/dev/mem", O_RDWR | O_CLOEXEC);
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

static void add(Suite *s)
{
	SUITE_ADD_LOOP(s, what_an_intruder_tries_ends_the_process, DEADLY);
	SUITE_ADD(s, what_else_he_tries_fails);
}

int main(void)
{
	return sandbox_main("sandbox-calls", true, add);
}
