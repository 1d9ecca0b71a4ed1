/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a hostile tapdisk may send to its opener, that no honest one does. */
#include <pthread.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "tapdisk/opener/opener-calls.h"
#include "tests/support/test-opener.h"

static unsigned seed = 1;

static unsigned some(unsigned n)
{
	seed = seed * 1103515245 + 12345;
	return (seed >> 8) % n;
}

static void send_noise(void)
{
	struct {
		struct opener_ask ask;
		char data[2 * OPENER_PART_MAX + 100];
	} m;
	size_t n;
	const struct opener_call *calls = opener_calls(&n);

	for (int i = 0; i < 20000; i++) {
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(8 * sizeof(int))];
		} control = {0};
		int fds[8], nfds = (int)some(8), sv[2];
		struct iovec iov = {&m, some(sizeof m)};
		struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

		for (size_t b = 0; b < sizeof m; b += 64)
			((unsigned char *)&m)[b] = (unsigned char)some(256);
		m.ask.nr = calls[some((unsigned)n)].nr;
		/* harmless to this machine: nothing below / has this name */
		memset(m.data, 1 + (int)some(31), some(200));
		m.ask.len[0] = some(3) ? some(300) : some(~0u >> 1);
		m.ask.len[1] = some(3) ? 0 : some(300);
		if (some(2))
			iov.iov_len = sizeof m.ask + m.ask.len[0] % 9000 + m.ask.len[1];
		if (iov.iov_len > sizeof m)
			iov.iov_len = sizeof m;
		m.ask.deadline = 0;
		SAY(!socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, sv));
		for (int k = 0; k < nfds; k++)
			fds[k] = sv[1];
		if (nfds) {
			mh.msg_control = &control;
			mh.msg_controllen = CMSG_SPACE((unsigned)nfds * sizeof(int));
			control.align.cmsg_level = SOL_SOCKET;
			control.align.cmsg_type = SCM_RIGHTS;
			control.align.cmsg_len = CMSG_LEN((unsigned)nfds * sizeof(int));
			memcpy(CMSG_DATA(&control.align), fds, (unsigned)nfds * sizeof(int));
		}
		if (iov.iov_len) /* an end of file is one */
			SAY(sendmsg(opener_channel(), &mh, MSG_NOSIGNAL) >= 0);
		close(sv[0]);
		close(sv[1]);
	}
	SAY(!access(DIR_NAME, F_OK) && !opener_is_dead());
}

START_TEST(noise_is_refused)
{
	inside(send_noise);
}
END_TEST

static void *open_pipe(void *arg)
{
	*(int *)arg = open(DIR_NAME "/fifo", O_RDONLY | O_CLOEXEC);
	return NULL;
}

/* A descriptor's number that the opener had for an earlier call is another call's by now, which
 * hangs. */
static void ask_without_socket(void)
{
	struct opener_ask ask = {.nr = SYS_newfstatat};
	pthread_t t;
	int fd = -1, w;

	for (int i = 0; i < 100; i++)
		SAY(!access(DIR_NAME, F_OK));
	SAY(!pthread_create(&t, NULL, open_pipe, &fd) && !usleep(100000));
	for (int i = 0; i < 100; i++)
		SAY(send(opener_channel(), &ask, sizeof ask, MSG_NOSIGNAL) == sizeof ask &&
		    !access(DIR_NAME, F_OK));
	w = open(DIR_NAME "/fifo", O_RDWR | O_CLOEXEC);
	SAY(w >= 0 && !pthread_join(t, NULL) && fd >= 0);
}

START_TEST(a_question_without_a_socket_harms_no_other)
{
	ck_assert_int_eq(mkfifo(DIR_NAME "/fifo", 0600), 0);
	inside(ask_without_socket);
}
END_TEST

static int others; /* a socket whose other end the tapdisk has not made */

static void ask_in_its_name(void)
{
	struct opener_ask ask = {.nr = SYS_newfstatat};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof others)];
	} control = {.align = {CMSG_LEN(sizeof others), SOL_SOCKET, SCM_RIGHTS}};
	struct iovec iov = {&ask, sizeof ask};
	struct msghdr mh = {.msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof control};

	memcpy(CMSG_DATA(&control.align), &others, sizeof others);
	for (int i = 0; i < 10; i++)
		SAY(sendmsg(opener_channel(), &mh, MSG_NOSIGNAL) >= 0 && !access(DIR_NAME, F_OK));
}

START_TEST(nobody_else_gets_an_answer)
{
	int sv[2];
	char c;

	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv), 0);
	others = sv[1];
	inside(ask_in_its_name);
	ck_assert(recv(sv[0], &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
	close(sv[0]);
	close(sv[1]);
}
END_TEST

static void add(Suite *s)
{
	ADD(noise_is_refused, 0, 1);
	ADD(a_question_without_a_socket_harms_no_other, 0, 1);
	ADD(nobody_else_gets_an_answer, 0, 1);
}

int main(void)
{
	return opener_main("opener-hostile", add);
}
