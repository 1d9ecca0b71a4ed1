/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a disk is opened with: the words after -o, the host's tapdisk.conf, and which of them do not
 * go together. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/conf.h"
#include "tapdisk/options.h"
#include "tests/support/suite.h"

static struct td_err err;
static struct vbd_options opt;
static char path[] = "test-options.XXXXXX";

static void conf(const char *text)
{
	int fd;

	strcpy(path, "test-options.XXXXXX");
	fd = mkstemp(path);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	setenv(TD_CONF_ENV, path, 1);
	err.code = 0;
	err.text[0] = 0;
}

static int defaults(const char *text)
{
	int rc;

	conf(text);
	rc = options_default(&opt, &err);
	unlink(path);
	return rc;
}

static int add(const char *word)
{
	err.code = 0;
	err.text[0] = 0;
	return options_add(&opt, word, &err);
}

static void says(const char *word)
{
	ck_assert_msg(strstr(err.text, word) != NULL, "'%s' has no '%s'", err.text, word);
}

START_TEST(nothing_said_is_none)
{
	ck_assert_int_eq(defaults(""), 0);
	ck_assert_str_eq(opt.mode->name, "none");
	ck_assert(!opt.unsafe && !opt.shared && !opt.report_enospc && !opt.read_only);
	ck_assert_uint_eq(opt.ring_memory, 0);
	ck_assert_int_eq(defaults("ring-memory = 8\n"), 0);
	ck_assert_uint_eq(opt.ring_memory, 8 << 20);
	ck_assert(!opt.no_polling);
	ck_assert_int_eq(defaults("polling = no\n"), 0);
	ck_assert(opt.no_polling);
	ck_assert_int_eq(defaults("polling = yes\n"), 0);
	ck_assert(!opt.no_polling);
	setenv(TD_CONF_ENV, "/dev/null", 1);
	ck_assert_int_eq(options_default(&opt, &err), 0);
	ck_assert_str_eq(opt.mode->name, "none");
	setenv(TD_CONF_ENV, "", 1);
	ck_assert_ptr_nonnull(strstr(td_conf_path(), "/tapdisk/tapdisk.conf"));
}
END_TEST

/* What the file was to say would be weaker in silence. */
START_TEST(a_file_that_is_named_must_be_there)
{
	err.code = 0;
	setenv(TD_CONF_ENV, "/nonexistent/tapdisk.conf", 1);
	ck_assert_int_eq(options_default(&opt, &err), -ENOENT);
	says("/nonexistent/tapdisk.conf");
	says(TD_CONF_ENV);
}
END_TEST

START_TEST(a_fifo_is_not_waited_for)
{
	err.code = 0;
	strcpy(path, "test-options.fifo");
	unlink(path);
	ck_assert_int_eq(mkfifo(path, 0600), 0);
	setenv(TD_CONF_ENV, path, 1);
	alarm(60);
	ck_assert_int_eq(options_default(&opt, &err), 0);
	unlink(path);
}
END_TEST

START_TEST(the_hosts_file_gives_the_defaults)
{
	ck_assert_int_eq(
		defaults("# defaults\n\n  cache =  writeback\t# for now\r\non-enospc=report"), 0);
	ck_assert_str_eq(opt.mode->name, "writeback");
	ck_assert(opt.report_enospc);
	ck_assert_int_eq(add("cache=directsync"), 0); /* a disk's word goes over it */
	ck_assert_str_eq(opt.mode->name, "directsync");
	ck_assert_int_eq(defaults("cache=writeback\n"), 0);
	ck_assert_int_eq(add("cache=default"), 0);
	ck_assert_str_eq(opt.mode->name, "writeback");
}
END_TEST

START_TEST(a_bad_line_is_named_with_its_file_and_number)
{
	static const struct {
		const char *text, *where, *what;
	} t[] = {{"# fine\n\ncache none\n", "line 3", "key = value"},
		 {"cache=none\ncache=fast\n", "line 2", "cache=fast"},
		 {"polling=perhaps\n", "line 1", "polling"},
		 {"ring-memory=3\n", "line 1", "from 4 to 65536"},
		 {"ring-memory=99999999999\n", "line 1", "from 4 to 65536"},
		 {"speed=high\n", "line 1", "cache, unsafe, on-enospc, request-timeout"},
		 {"\n=none\n", "line 2", "unknown option ''"},
		 {"shared=yes\n", "line 1", "unknown option 'shared'"}, /* a disk's own affair */
		 {"unsafe=maybe\n", "line 1", "yes or no"}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		ck_assert_int_eq(defaults(t[i].text), -EINVAL);
		ck_assert_int_eq(err.code, EINVAL);
		says(path);
		says(t[i].where);
		says(t[i].what);
	}
}
END_TEST

START_TEST(a_line_too_long_is_refused_whole)
{
	char text[3000];

	memset(text, ' ', sizeof text);
	memcpy(text, "cache=writeback", 15);
	/* where a reader of pieces would find a line of its own */
	memcpy(text + 1023, "cache=unsafe\n", 14);
	ck_assert_int_eq(defaults(text), -EINVAL);
	says("line 1");
	says("too long");
	memset(text, '#', sizeof text);
	memcpy(text + 2900, "\ncache=writeback\n", 18);
	ck_assert_int_eq(defaults(text), -EINVAL);
	says("line 1");
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_an_error)
{
	setenv(TD_CONF_ENV, "/", 1);
	err.code = 0;
	ck_assert_int_lt(options_default(&opt, &err), 0); /* and not the weaker built-in */
	says("/");
}
END_TEST

START_TEST(words_are_checked_one_by_one)
{
	static const struct {
		const char *word, *what;
	} bad[] = {{"cache", "key=value"},
		   {"=none", "key=value"},
		   {"", "key=value"},
		   {"cache=", "none, writethrough, writeback, directsync, unsafe"},
		   {"cache=NONE", "the modes are"},
		   {"unsafe=1", "yes or no"},
		   {"shared=", "yes or no"},
		   {"parents-cache=", "yes or no"},
		   {"on-enospc=stop", "pause"},
		   {"colour=red",
		    "cache, unsafe, on-enospc, request-timeout, reconnect-limit, connections, "
		    "parents-cache, shared, two-primaries"},
		   {"request-timeout=soon", "number of seconds"},
		   {"request-timeout=-1", "number of seconds"},
		   {"reconnect-limit=yes", "how many seconds"},
		   {"reconnect-limit=-1", "how many seconds"},
		   {"connections=0", "from 1 to 16"},
		   {"connections=17", "from 1 to 16"},
		   {"connections=4x", "from 1 to 16"},
		   {"connections=", "from 1 to 16"},
		   {"sector-size=1024", "512 or 4096"},
		   {"sector-size=4096b", "512 or 4096"},
		   {"cach=none", "unknown option 'cach'"},
		   {"caches=none", "unknown option 'caches'"}};
	char longest[5000];

	ck_assert_int_eq(defaults(""), 0);
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		ck_assert_int_eq(add(bad[i].word), -EINVAL);
		says(bad[i].what);
	}
	memset(longest, 'x', sizeof longest);
	longest[sizeof longest - 1] = 0;
	ck_assert_int_eq(add(longest), -EINVAL);
	longest[4000] = '=';
	ck_assert_int_eq(add(longest), -EINVAL);
	ck_assert_int_eq(add("shared=yes"), 0);
	ck_assert_int_eq(add("shared=no"), 0);
	ck_assert(!opt.shared);
	ck_assert_uint_eq(options_sector(&opt), 512);
	ck_assert_int_eq(add("sector-size=4096"), 0);
	ck_assert_uint_eq(options_sector(&opt), 4096);
	ck_assert_int_eq(add("on-enospc=report"), 0);
	ck_assert_int_eq(add("on-enospc=pause"), 0);
	ck_assert(!opt.report_enospc);
}
END_TEST

START_TEST(unsafe_needs_its_second_word)
{
	ck_assert_int_eq(defaults(""), 0);
	ck_assert_int_eq(add("cache=unsafe"), 0);
	err.code = 0;
	ck_assert_int_eq(options_check(&opt, "aio", &err), -EINVAL);
	says("unsafe=yes");
	ck_assert_int_eq(add("unsafe=yes"), 0);
	ck_assert_int_eq(options_check(&opt, "aio", &err), 0);
	ck_assert_int_eq(defaults("cache=unsafe\n"), 0);
	/* the host's file is no way around it */
	ck_assert_int_eq(options_check(&opt, "aio", &err), -EINVAL);
	ck_assert_int_eq(defaults("unsafe=yes\n"), 0);
	ck_assert_str_eq(opt.mode->name, "none");
	ck_assert_int_eq(options_check(&opt, "aio", &err), 0);
}
END_TEST

START_TEST(shared_goes_with_raw_and_the_direct_modes_only)
{
	static const struct {
		const char *cache, *type;
		bool ok;
		const char *word;
	} t[] = {{"cache=none", "aio", true, ""},
		 {"cache=directsync", "aio", true, ""},
		 {"cache=writethrough", "aio", false, "cache=writethrough"},
		 {"cache=writeback", "aio", false, "cache=none or"},
		 {"cache=unsafe", "aio", false, "cache=unsafe"},
		 {"cache=none", "vhd", false, "raw disks only"},
		 {"cache=directsync", "qcow2", false, "raw disks only"}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		ck_assert_int_eq(defaults("unsafe=yes"), 0);
		ck_assert_int_eq(add("shared=yes"), 0);
		ck_assert_int_eq(add(t[i].cache), 0);
		ck_assert_int_eq(options_check(&opt, t[i].type, &err), t[i].ok ? 0 : -EINVAL);
		says(t[i].word);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("options");

	SUITE_ADD(s, nothing_said_is_none);
	SUITE_ADD(s, a_file_that_is_named_must_be_there);
	SUITE_ADD(s, a_fifo_is_not_waited_for);
	SUITE_ADD(s, the_hosts_file_gives_the_defaults);
	SUITE_ADD(s, a_bad_line_is_named_with_its_file_and_number);
	SUITE_ADD(s, a_line_too_long_is_refused_whole);
	SUITE_ADD(s, a_file_that_cannot_be_read_is_an_error);
	SUITE_ADD(s, words_are_checked_one_by_one);
	SUITE_ADD(s, unsafe_needs_its_second_word);
	SUITE_ADD(s, shared_goes_with_raw_and_the_direct_modes_only);
	return suite_run(s);
}
