/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lib/bytes.h"

#include "tests/support/suite.h"

START_TEST(bytes_as_text_and_back)
{
	uint8_t in[256], out[256];
	char text[513];

	for (unsigned i = 0; i < sizeof in; i++)
		in[i] = (uint8_t)i;
	td_put_hex(text, in, sizeof in);
	ck_assert_uint_eq(strlen(text), 512);
	ck_assert(!strncmp(text, "000102", 6) && !strcmp(text + 508, "feff"));
	ck_assert(td_get_hex(text, out, sizeof out) && !memcmp(in, out, sizeof in));
	ck_assert(td_get_hex("DeadBeef", out, 4) && !memcmp(out, "\xde\xad\xbe\xef", 4));
	ck_assert(td_get_hex("", out, 0));
}
END_TEST

START_TEST(what_is_no_such_text_is_refused)
{
	static const char *const bad[] = {"",
					  "0",
					  "000",
					  "00000",
					  "0g00",
					  "0G00",
					  "00 0",
					  "-100",
					  "0x10",
					  " 000",
					  "00\n0",
					  "00/0",
					  "00:0",
					  "00`0",
					  "00@0",
					  "\xff"
					  "000"};
	uint8_t out[2];

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
		ck_assert_msg(!td_get_hex(bad[i], out, 2), "'%s'", bad[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("bytes");

	SUITE_ADD(s, bytes_as_text_and_back);
	SUITE_ADD(s, what_is_no_such_text_is_refused);
	return suite_run(s);
}
