/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What needs no cluster of the driver for Ceph: names, calls that are given up, answers about
 * holes, and what a process leaves to its successor. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "drivers/rbd/rbd.h"
#include "lib/fiber/fiber.h"
#include "tests/support/suite.h"

static struct td_err err;
static struct rbdc_spec s;

static int parse(const char *name)
{
	err = (struct td_err){0};
	return rbdc_spec_parse(name, &s, &err);
}

static const char *or_none(const char *text)
{
	return text ? text : "(none)";
}

/* --- names --- */

START_TEST(a_name_has_a_pool_and_an_image)
{
	ck_assert_int_eq(parse("vms/disk1"), 0);
	ck_assert_str_eq(s.pool, "vms");
	ck_assert_str_eq(s.ns, "");
	ck_assert_str_eq(s.image, "disk1");
	ck_assert(!s.snap && !s.conf && !s.id && !s.keyring && !s.cluster);
	rbdc_spec_free(&s);
}
END_TEST

START_TEST(all_that_a_name_may_have)
{
	ck_assert_int_eq(
		parse("vms/team/disk1@monday:conf=/etc/ceph/b.conf:id=xen:keyring=/k:cluster=b"),
		0);
	ck_assert_str_eq(s.ns, "team");
	ck_assert_str_eq(s.image, "disk1");
	ck_assert_str_eq(or_none(s.snap), "monday");
	ck_assert_str_eq(or_none(s.conf), "/etc/ceph/b.conf");
	ck_assert_str_eq(or_none(s.id), "xen");
	ck_assert_str_eq(or_none(s.keyring), "/k");
	ck_assert_str_eq(or_none(s.cluster), "b");
	rbdc_spec_free(&s);
}
END_TEST

START_TEST(a_backslash_makes_a_character_plain)
{
	ck_assert_int_eq(parse("a\\/b/c\\@d\\:e\\\\f@g:conf=/x\\:y=z@w"), 0);
	ck_assert_str_eq(s.pool, "a/b");
	ck_assert_str_eq(s.image, "c@d:e\\f");
	ck_assert_str_eq(or_none(s.snap), "g");
	ck_assert_str_eq(or_none(s.conf), "/x:y=z@w");
	rbdc_spec_free(&s);
	ck_assert_int_eq(parse("a/b\\"), 0); /* nothing is behind it */
	ck_assert_str_eq(s.image, "b\\");
	rbdc_spec_free(&s);
}
END_TEST

static const char *const bad[] = {
	"",
	"a",
	"/b",
	"a/",
	"a//b",
	"a/b/",
	"a/b/c/d",
	"a/b@",
	"a/@s",
	"a/b@s@t",
	"a/b:",
	"a/b:conf",
	"a/b:id=",
	"a/b:=x",
	"a/b:x=1",
	"a/b:conf=c",
	"a/b:id=a/b",
	"a/b:conf=",
	"a/b:keyring=k",
	"a/b:cluster=../x",
};

START_TEST(what_is_no_name_is_refused)
{
	ck_assert_int_eq(parse(bad[_i]), -EINVAL);
	ck_assert_ptr_null(s.text);
	ck_assert_ptr_nonnull(strstr(err.text, "rbd:"));
}
END_TEST

/* RB9 */
START_TEST(a_key_is_refused_and_not_shown)
{
	static const char *const names[] = {
		"a/b:key=AQsecret==", "a:key=AQsecret==", "/:id=x:key=AQsecret==:nix"};

	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		ck_assert_int_eq(parse(names[i]), -EINVAL);
		ck_assert_ptr_nonnull(strstr(err.text, "keyring=FILE"));
		ck_assert_ptr_null(strstr(err.text, "secret"));
	}
	ck_assert_int_eq(parse("a/b:kee=AQsecret=="), -EINVAL); /* nor where it is misspelt */
	ck_assert_ptr_null(strstr(err.text, "secret"));
	ck_assert_int_eq(parse("a/b:AQsecret=="), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "secret"));
	ck_assert_int_eq(parse("AQsecret=="), -EINVAL);
	ck_assert_ptr_null(strstr(err.text, "secret"));
}
END_TEST

/* --- calls that may wait (RB1) --- */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static int undone, result;

static int pass_gate(void *arg)
{
	pthread_mutex_lock(&gate);
	pthread_mutex_unlock(&gate);
	return *(int *)arg;
}

static void undo(void *arg)
{
	__atomic_add_fetch(&undone, 1, __ATOMIC_SEQ_CST);
}

static void call(void *arg)
{
	result = rbdc_call(EV_DEFAULT, pass_gate, undo, arg, 0.05);
	ev_break(EV_DEFAULT, EVBREAK_ALL);
}

START_TEST(a_call_gives_its_result)
{
	int seven = -7;

	undone = 0;
	ck_assert_int_eq(td_fiber_start(ev_default_loop(0), call, &seven), 0);
	ev_run(EV_DEFAULT, 0);
	/* on a machine that was held up it is given up: then it undoes itself, as below */
	ck_assert(result == -7 || result == -EINPROGRESS);
	ck_assert(result != -7 || !undone);
}
END_TEST

START_TEST(a_call_that_is_given_up_undoes_itself)
{
	static int seven = -7;

	undone = 0;
	pthread_mutex_lock(&gate);
	ck_assert_int_eq(td_fiber_start(ev_default_loop(0), call, &seven), 0);
	ev_run(EV_DEFAULT, 0);
	ck_assert_int_eq(result, -EINPROGRESS);
	ck_assert_int_eq(undone, 0); /* it is still under way */
	pthread_mutex_unlock(&gate);
	while (!__atomic_load_n(&undone, __ATOMIC_SEQ_CST))
		usleep(1000);
	ck_assert_int_eq(undone, 1);
}
END_TEST

/* --- holes (RB11) --- */

static struct rbdc_known known;
static struct td_extent told[4];

static void ask_of(uint64_t from, uint64_t end)
{
	known = (struct rbdc_known){.from = from, .to = from, .end = end, .cut = UINT64_MAX};
}

static bool tells(int at, uint64_t off, uint64_t len, bool hole)
{
	return told[at].off == off && told[at].len == len &&
	       told[at].flags == (hole ? TD_EXTENT_HOLE | TD_EXTENT_ZERO : 0u);
}

START_TEST(what_librbd_does_not_tell_is_a_hole)
{
	ask_of(4096, 65536);
	ck_assert_int_eq(rbdc_known_take(8192, 4096, 1, &known), 0);
	ck_assert_int_eq(rbdc_known_take(12288, 4096, 1, &known), 0);
	ck_assert_int_eq(rbdc_known_take(20480, 4096, 0, &known), 0); /* there was something */
	ck_assert_int_eq(rbdc_known_take(61440, 8192, 1, &known), 0); /* a whole object */
	rbdc_known_finish(&known, 0);
	ck_assert_int_eq(rbdc_known_tell(&known, 4096, 61440, told, 4), 4);
	ck_assert(tells(0, 4096, 4096, true) && tells(1, 8192, 8192, false));
	ck_assert(tells(2, 16384, 45056, true) && tells(3, 61440, 4096, false));
	ck_assert_int_eq(rbdc_known_tell(&known, 10240, 7168, told, 4), 2);
	ck_assert(tells(0, 10240, 6144, false) && tells(1, 16384, 1024, true));
	ck_assert_int_eq(rbdc_known_tell(&known, 4096, 61440, told, 1), 1);
	ck_assert(tells(0, 4096, 4096, true));
	ck_assert_int_eq(rbdc_known_tell(&known, 0, 8192, told, 4), 0);
	ck_assert_int_eq(rbdc_known_tell(&known, 65536, 512, told, 4), 0);
}
END_TEST

START_TEST(a_sector_with_a_byte_of_data_is_data)
{
	ask_of(0, 8192);
	ck_assert_int_eq(rbdc_known_take(1023, 2, 1, &known), 0);
	ck_assert_int_eq(rbdc_known_take(1026, 1, 1, &known), 0);
	ck_assert_int_eq(rbdc_known_take(8191, 1, 1, &known), 0);
	rbdc_known_finish(&known, 0);
	ck_assert_int_eq(rbdc_known_tell(&known, 0, 8192, told, 4), 4);
	ck_assert(tells(0, 0, 512, true) && tells(1, 512, 1024, false));
	ck_assert(tells(2, 1536, 6144, true) && tells(3, 7680, 512, false));
}
END_TEST

START_TEST(no_hole_is_told_of_what_was_changed_since)
{
	struct rbdc_question q = {0};
	struct rbdc_asking asking = {.from = 4096, .cut = UINT64_MAX};
	struct rbdc_client c = {.told = &q, .asking = &asking};

	q.known = (struct rbdc_known){.to = 65536, .end = 65536, .cut = UINT64_MAX, .n = 1};
	q.known.e[0] = (struct td_extent){0, 65536, TD_EXTENT_HOLE | TD_EXTENT_ZERO};
	rbdc_extents_changed(&c, 65536, 512); /* behind it */
	ck_assert_int_eq(rbdc_known_tell(&q.known, 0, 65536, told, 4), 1);
	ck_assert(tells(0, 0, 65536, true));
	rbdc_extents_changed(&c, 32768, 512);
	rbdc_extents_changed(&c, 40960, 512);
	ck_assert_int_eq(rbdc_known_tell(&q.known, 0, 65536, told, 4), 1);
	ck_assert(tells(0, 0, 32768, true));
	ck_assert_int_eq(rbdc_known_tell(&q.known, 32768, 512, told, 4), 0);
	ck_assert(asking.cut == 32768);
	rbdc_extents_changed(&c, 0, 4096); /* before what is asked for */
	ck_assert(asking.cut == 32768);
	ck_assert_int_eq(rbdc_known_tell(&q.known, 0, 512, told, 4), 0);
	rbdc_extents_changed(&c, 3584, 1024);
	ck_assert(asking.cut == 3584);
}
END_TEST

START_TEST(an_answer_that_is_long_ends_early)
{
	uint64_t at = 0;

	ask_of(0, 1 << 30);
	while (!rbdc_known_take(at + 512, 512, 1, &known))
		at += 1024;
	ck_assert(at == RBDC_KNOWN / 2 * 1024);
	rbdc_known_finish(&known, -ECANCELED);
	ck_assert_int_eq(rbdc_known_tell(&known, at - 512, 4096, told, 4), 1);
	ck_assert(tells(0, at - 512, 512, false));
	ck_assert_int_eq(rbdc_known_tell(&known, at, 512, told, 4), 0);
}
END_TEST

START_TEST(an_answer_that_is_not_understood_is_none)
{
	ask_of(0, 65536);
	ck_assert_int_eq(rbdc_known_take(8192, 4096, 1, &known), 0);
	ck_assert_int_eq(rbdc_known_take(4096, 4096, 1, &known), -ECANCELED);
	rbdc_known_finish(&known, -ECANCELED);
	ck_assert_int_eq(rbdc_known_tell(&known, 0, 512, told, 4), 0);
	ask_of(0, 65536);
	ck_assert_int_eq(rbdc_known_take(8192, 4096, 1, &known), 0);
	rbdc_known_finish(&known, -EIO);
	ck_assert_int_eq(rbdc_known_tell(&known, 0, 512, told, 4), 0);
}
END_TEST

/* --- what is left to a successor (RB6, RB7) --- */

static char dir[] = "/tmp/td-rbd.XXXXXX", file[64];
static struct td_image image;
static struct rbdc_left *left, own, was;

static int open_left(bool again, bool died)
{
	err = (struct td_err){0};
	image.died = died;
	return rbdc_left_open(&left, &own, &image, again, &was, &err);
}

static void begin(void)
{
	strcpy(dir + sizeof dir - 7, "XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(file, sizeof file, "%s/left0", dir);
	image = (struct td_image){.path = (char *)"rbd/a", .left = file};
	own = (struct rbdc_left){0};
	ck_assert_int_eq(open_left(false, false), 0);
}

static void end(void)
{
	rbdc_left_close(&left, &own);
	unlink(file);
	ck_assert_int_eq(rmdir(dir), 0);
}

static void die(void)
{
	rbdc_left_close(&left, &own);
	ck_assert_int_eq(open_left(true, true), 0);
}

START_TEST(a_dead_client_is_known_until_it_is_fenced)
{
	begin();
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/1"), 0);
	die();
	ck_assert_str_eq(was.clients[0], "10.0.0.1:0/1");
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/2"), 0);
	die(); /* before it had fenced the first */
	ck_assert_str_eq(was.clients[0], "10.0.0.1:0/1");
	ck_assert_str_eq(was.clients[1], "10.0.0.1:0/2");
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/3"), 0);
	rbdc_left_fenced(left, "10.0.0.1:0/3");
	die();
	for (int i = 0; i < RBDC_DEAD; i++)
		ck_assert(!*was.clients[i] || !strcmp(was.clients[i], "10.0.0.1:0/3"));
	end();
}
END_TEST

/* One that was cut short would be another client's. */
START_TEST(a_death_while_a_client_is_noted_leaves_none)
{
	begin();
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/1"), 0);
	strcpy(left->clients[1], "10.0.0.1:0/23"); /* of .../2345 */
	die();
	ck_assert_str_eq(was.clients[0], "10.0.0.1:0/1");
	ck_assert_str_eq(was.clients[1], "");
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/23"), 0);
	die();
	ck_assert_str_eq(was.clients[1], "10.0.0.1:0/23");
	rbdc_left_fenced(left, "10.0.0.1:0/23");
	die();
	ck_assert_str_eq(was.clients[0], "");
	ck_assert_str_eq(was.clients[1], "10.0.0.1:0/23");
	end();
}
END_TEST

START_TEST(none_of_too_many_dead_clients_is_forgotten)
{
	char addr[32];

	begin();
	for (int i = 0; i < RBDC_DEAD; i++) {
		snprintf(addr, sizeof addr, "10.0.0.1:0/%d", i);
		ck_assert_int_eq(rbdc_left_client(left, addr), 0);
	}
	ck_assert_int_eq(rbdc_left_client(left, "10.0.0.1:0/9"), -EMFILE);
	ck_assert_int_eq(rbdc_left_client(left, addr), 0); /* which is there */
	end();
}
END_TEST

START_TEST(what_was_acknowledged_and_not_flushed_is_in_doubt)
{
	begin();
	die();
	ck_assert(!rbdc_left_doubt(&was));
	rbdc_left_changed(left);
	rbdc_left_changed(left);
	die();
	ck_assert(rbdc_left_doubt(&was));
	rbdc_left_covered(left, 1); /* a flush that came before the second one's answer */
	die();
	ck_assert(rbdc_left_doubt(&was));
	rbdc_left_covered(left, 2);
	die();
	ck_assert(!rbdc_left_doubt(&was));
	rbdc_left_failed(left);
	die();
	ck_assert(rbdc_left_doubt(&was));
	rbdc_left_settled(left);
	die();
	ck_assert(!rbdc_left_doubt(&was));
	end();
}
END_TEST

START_TEST(a_file_that_is_missing_or_anothers_is_in_doubt)
{
	begin();
	rbdc_left_close(&left, &own);
	unlink(file);
	ck_assert_int_eq(open_left(true, true), 0);
	ck_assert(rbdc_left_doubt(&was));
	rbdc_left_settled(left);
	rbdc_left_close(&left, &own);
	image.path = (char *)"rbd/b";
	ck_assert_int_eq(open_left(true, true), 0);
	ck_assert(rbdc_left_doubt(&was));
	rbdc_left_close(&left, &own);
	image.path = (char *)"rbd/a"; /* after a pause, of another image */
	ck_assert_int_eq(open_left(true, false), 0);
	ck_assert(!rbdc_left_doubt(&was));
	end();
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("rbd");

	SUITE_ADD(suite, a_name_has_a_pool_and_an_image);
	SUITE_ADD(suite, all_that_a_name_may_have);
	SUITE_ADD(suite, a_backslash_makes_a_character_plain);
	SUITE_ADD_LOOP(suite, what_is_no_name_is_refused, sizeof bad / sizeof *bad);
	SUITE_ADD(suite, a_key_is_refused_and_not_shown);
	SUITE_ADD(suite, a_call_gives_its_result);
	SUITE_ADD(suite, a_call_that_is_given_up_undoes_itself);
	SUITE_ADD(suite, what_librbd_does_not_tell_is_a_hole);
	SUITE_ADD(suite, a_sector_with_a_byte_of_data_is_data);
	SUITE_ADD(suite, no_hole_is_told_of_what_was_changed_since);
	SUITE_ADD(suite, an_answer_that_is_long_ends_early);
	SUITE_ADD(suite, an_answer_that_is_not_understood_is_none);
	SUITE_ADD(suite, a_dead_client_is_known_until_it_is_fenced);
	SUITE_ADD(suite, a_death_while_a_client_is_noted_leaves_none);
	SUITE_ADD(suite, none_of_too_many_dead_clients_is_forgotten);
	SUITE_ADD(suite, what_was_acknowledged_and_not_flushed_is_in_doubt);
	SUITE_ADD(suite, a_file_that_is_missing_or_anothers_is_in_doubt);
	return suite_run(suite);
}
