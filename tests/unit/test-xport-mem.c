/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The memory transport: rings in any order of pages, copies within bounds, and frontends that hand
 * over what they should not. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "td/xport.h"

#define PAGES 8

static int memory(unsigned bytes, int seals)
{
	int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, bytes), 0);
	ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, seals), 0);
	return fd;
}

struct side {
	struct td_xport *x;
	char *guest;
	int kick, call; /* our ends */
};

static struct side connect_pages(void)
{
	struct side s;
	struct td_err err = {0};
	int fd = memory(PAGES * TD_PAGE, F_SEAL_SHRINK), kick = eventfd(0, EFD_CLOEXEC),
	    call = eventfd(0, EFD_CLOEXEC);

	s.guest = mmap(NULL, PAGES * TD_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ck_assert_ptr_ne(s.guest, MAP_FAILED);
	s.kick = dup(kick);
	s.call = dup(call);
	ck_assert_int_eq(td_xport_mem(fd, kick, call, &s.x, &err), 0);
	return s;
}

static void finish(struct side *s)
{
	s->x->ops->close(s->x);
	munmap(s->guest, PAGES * TD_PAGE);
	close(s->kick);
	close(s->call);
}

START_TEST(test_ring_of_scattered_pages)
{
	struct side s = connect_pages();
	const uint32_t refs[] = {5, 2, 7, 2};
	struct td_err err = {0};
	char *ring = s.x->ops->map_ring(s.x, refs, 4, &err);

	ck_assert_ptr_nonnull(ring);
	for (unsigned i = 0; i < 4; i++)
		memset(s.guest + refs[i] * TD_PAGE, (int)refs[i], TD_PAGE);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(ring[i * TD_PAGE], (char)refs[i]);
		ck_assert_int_eq(ring[i * TD_PAGE + TD_PAGE - 1], (char)refs[i]);
	}
	ring[TD_PAGE + 9] = 'x';
	ck_assert_int_eq(s.guest[2 * TD_PAGE + 9], 'x');
	s.x->ops->unmap_ring(s.x, ring, 4);

	ck_assert_ptr_null(s.x->ops->map_ring(s.x, (uint32_t[]){0, PAGES}, 2, &err));
	ck_assert_int_eq(err.code, EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "outside"));
	finish(&s);
}
END_TEST

START_TEST(test_copies_stay_inside)
{
	struct side s = connect_pages();
	char out[TD_PAGE], in[TD_PAGE];
	struct td_copy c[] = {
		{.local = in, .ref = 3, .off = 512, .len = 1024},
		{.local = out, .ref = 4, .off = 0, .len = TD_PAGE, .to_guest = true},
		{.local = in, .ref = PAGES, .off = 0, .len = 512},
		{.local = in, .ref = UINT32_MAX, .off = 0, .len = 512},
		{.local = out, .ref = 1, .off = 4000, .len = 512, .to_guest = true},
		{.local = in, .ref = 1, .off = 65535, .len = 1},
		{.local = out, .ref = PAGES - 1, .off = 3584, .len = 512, .to_guest = true},
	};
	const int want[] = {0, 0, -EFAULT, -EFAULT, -EFAULT, -EFAULT, 0};

	memset(out, 'o', sizeof(out));
	memset(in, 0, sizeof(in));
	memset(s.guest, 'g', PAGES * TD_PAGE);
	s.x->ops->copy(s.x, c, 7);
	for (int i = 0; i < 7; i++)
		ck_assert_int_eq(c[i].err, want[i]);
	ck_assert_int_eq(in[0], 'g');
	ck_assert_int_eq(in[1023], 'g');
	ck_assert_int_eq(in[1024], 0);
	ck_assert_mem_eq(s.guest + 4 * TD_PAGE, out, TD_PAGE);
	ck_assert_int_eq(s.guest[5 * TD_PAGE], 'g');
	ck_assert_int_eq(s.guest[TD_PAGE + 4000], 'g');
	ck_assert_int_eq(s.guest[PAGES * TD_PAGE - 512], 'o');
	ck_assert_int_eq(s.guest[PAGES * TD_PAGE - 513], 'g');
	finish(&s);
}
END_TEST

START_TEST(test_events)
{
	struct side s = connect_pages();
	struct td_err err = {0};
	int fd = s.x->ops->bind(s.x, 0, &err);

	ck_assert_int_ge(fd, 0);
	ck_assert(!s.x->ops->ack(s.x)); /* must not wait */
	eventfd_write(s.kick, 3);
	ck_assert(s.x->ops->ack(s.x));
	ck_assert(!s.x->ops->ack(s.x));

	eventfd_t n;
	s.x->ops->notify(s.x);
	ck_assert_int_eq(eventfd_read(s.call, &n), 0);
	ck_assert_uint_eq(n, 1);
	eventfd_write(s.call, UINT64_MAX - 1);
	s.x->ops->notify(s.x); /* full: must not wait */
	s.x->ops->unbind(s.x);
	finish(&s);
}
END_TEST

static int try(int memfd, int kick, int call, const char *text)
{
	struct td_xport *x = NULL;
	struct td_err err = {0};
	int rc = td_xport_mem(memfd, kick, call, &x, &err);

	ck_assert_ptr_null(x);
	ck_assert_ptr_nonnull(strstr(err.text, text));
	ck_assert_int_eq(fcntl(memfd, F_GETFD), -1); /* taken over and closed */
	ck_assert_int_eq(fcntl(kick, F_GETFD), -1);
	ck_assert_int_eq(fcntl(call, F_GETFD), -1);
	return rc;
}

START_TEST(test_refusals)
{
	int p[2];

	ck_assert_int_eq(try(memory(TD_PAGE, 0), eventfd(0, 0), eventfd(0, 0), "F_SEAL_SHRINK"),
			 -EPERM);
	ck_assert_int_eq(try(memory(TD_PAGE, F_SEAL_SHRINK | F_SEAL_WRITE), eventfd(0, 0),
			     eventfd(0, 0), "writing"),
			 -EPERM);
	ck_assert_int_eq(try(memory(TD_PAGE - 1, F_SEAL_SHRINK), eventfd(0, 0), eventfd(0, 0),
			     "less than one page"),
			 -EINVAL);
	ck_assert_int_eq(
		try(open("/dev/null", O_RDWR), eventfd(0, 0), eventfd(0, 0), "F_SEAL_SHRINK"),
		-EPERM);
	ck_assert_int_eq(try(memory(TD_PAGE, F_SEAL_SHRINK), open("/dev/null", O_RDWR),
			     eventfd(0, 0), "kick"),
			 -EINVAL);
	ck_assert_int_eq(pipe(p), 0);
	ck_assert_int_eq(try(memory(TD_PAGE, F_SEAL_SHRINK), eventfd(0, 0), p[1], "call"), -EINVAL);
	close(p[0]);
}
END_TEST

START_TEST(test_cannot_be_cut_off)
{
	int fd = memory(PAGES * TD_PAGE, F_SEAL_SHRINK), theirs = dup(fd);
	struct td_xport *x;
	struct td_copy c = {.ref = PAGES - 1, .len = 1, .local = &(char){0}};

	ck_assert_int_eq(td_xport_mem(fd, eventfd(0, 0), eventfd(0, 0), &x, NULL), 0);
	ck_assert_int_eq(ftruncate(theirs, 0), -1);
	/* growing is harmless, and not seen */
	ck_assert_int_eq(ftruncate(theirs, 2 * PAGES * TD_PAGE), 0);
	x->ops->copy(x, &c, 1);
	ck_assert_int_eq(c.err, 0);
	c.ref = PAGES;
	x->ops->copy(x, &c, 1);
	ck_assert_int_eq(c.err, -EFAULT);
	x->ops->close(x);
	close(theirs);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("xport-mem");
	TCase *t = tcase_create("all");
	SRunner *r = srunner_create(s);
	int failed;

	suite_add_tcase(s, t);
	tcase_add_test(t, test_ring_of_scattered_pages);
	tcase_add_test(t, test_copies_stay_inside);
	tcase_add_test(t, test_events);
	tcase_add_test(t, test_refusals);
	tcase_add_test(t, test_cannot_be_cut_off);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
