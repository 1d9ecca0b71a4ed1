/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* B5 and B7: who in the sandbox has a network, and whose. */
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/un.h>

#include "tests/support/test-sandbox.h"

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

static void add(Suite *s)
{
	SUITE_ADD(s, the_hosts_network_is_not_there);
	SUITE_ADD(s, only_a_disk_on_other_hosts_has_the_network);
}

int main(void)
{
	return sandbox_main("sandbox-network", true, add);
}
