/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lib/io/iov.c: every slice of memory in pieces, against the same of plain memory. */
#include <string.h>

#include "lib/io/iov.h"
#include "tests/support/suite.h"

#define BYTES 13

static unsigned char mem[BYTES];
/* pieces of 3, 0, 1, 5 and 4 bytes */
static const struct iovec iov[] = {
	{mem, 3}, {mem + 3, 0}, {mem + 3, 1}, {mem + 4, 5}, {mem + 9, 4}};
enum { N = sizeof iov / sizeof *iov };

static void count_up(void)
{
	for (int i = 0; i < BYTES; i++)
		mem[i] = (unsigned char)(i + 1);
}

START_TEST(each_slice_has_its_bytes_in_order)
{
	for (unsigned skip = 0; skip <= BYTES; skip++)
		for (unsigned len = 0; skip + len <= BYTES; len++) {
			struct iovec to[N];
			int n = td_iov_slice(iov, N, skip, len, to, N);
			unsigned char got[BYTES], *p = got;

			count_up();
			ck_assert_int_eq(n, td_iov_slice(iov, N, skip, len, NULL, 0));
			for (int i = 0; i < n; i++) {
				ck_assert_uint_gt(to[i].iov_len, 0);
				memcpy(p, to[i].iov_base, to[i].iov_len);
				p += to[i].iov_len;
			}
			ck_assert_uint_eq((unsigned)(p - got), len);
			ck_assert_int_eq(memcmp(got, mem + skip, len), 0);
			if (n)
				ck_assert_int_eq(td_iov_slice(iov, N, skip, len, to, n - 1), -1);
		}
}
END_TEST

START_TEST(zeroes_go_where_they_are_meant_and_nowhere_else)
{
	for (unsigned skip = 0; skip <= BYTES + 1; skip++)
		for (unsigned len = 0; len <= BYTES + 1; len++) {
			count_up();
			td_iov_zero(iov, N, skip, len);
			for (unsigned i = 0; i < BYTES; i++)
				ck_assert_uint_eq(mem[i], i >= skip && i < skip + len ? 0 : i + 1);
		}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("iov");

	SUITE_ADD(s, each_slice_has_its_bytes_in_order);
	SUITE_ADD(s, zeroes_go_where_they_are_meant_and_nowhere_else);
	return suite_run(s);
}
