/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/attach/xl-disk.h"

static struct td_err err;

static struct xl_disk good(const char *text)
{
	struct xl_disk d;

	memset(&err, 0, sizeof err);
	ck_assert_msg(!xl_disk_parse(text, &d, &err), "'%s': %s", text, err.text);
	return d;
}

static void bad(const char *text, const char *why)
{
	struct xl_disk d;

	memset(&err, 0, sizeof err);
	ck_assert_msg(xl_disk_parse(text, &d, &err) == -EINVAL, "'%s' was accepted", text);
	ck_assert_msg(strstr(err.text, why) != NULL, "'%s': '%s' does not say '%s'", text, err.text,
		      why);
	xl_disk_free(&d);
}

START_TEST(by_name)
{
	struct xl_disk d = good(
		"vdev=xvdb, format=vhd "
		",access=ro,backendtype=tap,script=block-tap,no-discard,target=/srv/a,b=c.vhd");

	ck_assert_str_eq(d.target, "/srv/a,b=c.vhd");
	ck_assert_str_eq(d.format, "vhd");
	ck_assert_str_eq(d.vdev, "xvdb");
	ck_assert_uint_eq(d.devid, 51728);
	ck_assert(d.read_only && !d.shared && !d.discard && !d.cdrom);
	xl_disk_free(&d);
}
END_TEST

START_TEST(what_is_not_a_file_of_this_host)
{
	static const char *const given[][3] = {
		{"vdev=xvda,target=nbd://store/vm1", "nbd", "//store/vm1"},
		{"vdev=xvda,format=nbd,target=nbd://store/vm1", "nbd", "//store/vm1"},
		{"vdev=xvda,target=nbd+unix:///a,b?socket=/s", "nbd", "nbd+unix:///a,b?socket=/s"},
		{"vdev=xvda,target=nbds://store/vm1", "nbd", "nbds://store/vm1"},
		{"nbd+vsock://2/vm1,xvda,rw", "nbd", "nbd+vsock://2/vm1"},
		{"vdev=xvda,format=rbd,target=vms/a", "rbd", "vms/a"},
		{"vdev=xvda,target=rbd:vms/a", "rbd", "vms/a"},
	};

	for (size_t i = 0; i < sizeof given / sizeof *given; i++) {
		struct xl_disk d = good(given[i][0]);

		ck_assert_str_eq(d.format, given[i][1]);
		ck_assert_str_eq(d.target, given[i][2]);
		xl_disk_free(&d);
	}
	bad("vdev=xvda,format=raw,target=nbd://store/vm1", "given twice");
	bad("vdev=xvda,format=nbd,target=store/vm1", "not an absolute path");
}
END_TEST

START_TEST(by_position)
{
	struct xl_disk d = good("/srv/a.img,raw,xvda,rw");

	ck_assert_str_eq(d.target, "/srv/a.img");
	ck_assert_str_eq(d.format, "raw");
	ck_assert_uint_eq(d.devid, 51712);
	ck_assert(!d.read_only && d.discard);
	xl_disk_free(&d);
	d = good("/srv/x=y.img,,hdc,r,devtype=cdrom");
	ck_assert_str_eq(d.target, "/srv/x=y.img");
	ck_assert_str_eq(d.format, "raw");
	ck_assert_uint_eq(d.devid, 22 << 8);
	ck_assert(d.cdrom && d.read_only);
	xl_disk_free(&d);
	d = good("vdev=xvdd,devtype=cdrom"); /* an empty drive */
	ck_assert_str_eq(d.target, "");
	ck_assert_str_eq(d.format, "raw");
	xl_disk_free(&d);
}
END_TEST

START_TEST(the_old_way)
{
	struct xl_disk d = good("raw:/srv/a.img,xvda,w");

	ck_assert_str_eq(d.format, "raw");
	ck_assert_str_eq(d.target, "/srv/a.img");
	ck_assert_str_eq(d.vdev, "xvda");
	xl_disk_free(&d);
	d = good("tap:vhd:/srv/a.vhd,xvdc,r");
	ck_assert_str_eq(d.format, "vhd");
	ck_assert_uint_eq(d.devid, 51744);
	ck_assert(d.read_only);
	xl_disk_free(&d);
}
END_TEST

START_TEST(ours)
{
	struct xl_disk d = good("cache=unsafe,unsafe=yes,shared=yes,on-enospc=report,sector-size="
				"4096,vdev=xvda,target=/a");

	ck_assert_str_eq(d.words, "cache=unsafe:unsafe=yes:on-enospc=report:sector-size=4096:");
	ck_assert(d.shared);
	xl_disk_free(&d);
	d = good("/a,raw,xvda,rw,two-primaries=yes,limit-iops-read=100,limit-bytes=10M,"
		 "request-timeout=5,connections=8,unsafe=no");
	ck_assert_str_eq(d.words, "two-primaries=yes:limit-iops-read=100:limit-bytes=10M:"
				  "request-timeout=5:connections=8:");
	xl_disk_free(&d);
	d = good("/a,raw,xvda,w!");
	ck_assert(d.shared && !d.read_only);
	xl_disk_free(&d);
}
END_TEST

START_TEST(refused)
{
	bad("", "no target");
	bad("/a", "no vdev");
	bad("vdev=xvda", "no target");
	bad("vdev=xvda,target=", "no target");
	bad("vdev=xvda,target=a.img", "absolute");
	bad("/a,raw,xvda,maybe", "access 'maybe'");
	bad("/a,vmdk,xvda,w", "format 'vmdk'");
	bad("/a,raw,xvd,w", "virtual device");
	bad("/a,raw,xvda,w,more", "fifth");
	bad("/a,raw,xvda,vdev=xvdb", "twice");
	bad("format=raw,raw:/a,xvda", "twice");
	bad("/a,raw,xvda,backendtype=qdisk", "backendtype");
	bad("/a,raw,xvda,colour=red", "unknown key 'colour'");
	bad("/a,raw,xvda,unsafe=perhaps", "yes or no");
	bad("/a,raw,xvda,cache=none,limit-iops=5,cache=unsafe", "cache is given twice");
	bad("/a,raw,xvda,limit-iops=5:cache=unsafe", "':'");
	bad("/a,raw,xvda,cache=none/b", "'/'");
	bad("/a,raw,xvda,two-primaries=", "empty");
	bad("/a,raw,xvda,r,shared=yes", "read-only");
	bad("/a,raw,xvda,devtype=tape", "devtype");
}
END_TEST

START_TEST(long_fields)
{
	char *text = malloc(10000);
	struct xl_disk d;

	memset(text, 'a', 9999);
	text[0] = '/';
	text[9999] = 0;
	memset(&err, 0, sizeof err);
	ck_assert_int_eq(xl_disk_parse(text, &d, &err), -EINVAL);
	xl_disk_free(&d);
	free(text);
}
END_TEST

START_TEST(numbers)
{
	static const struct {
		const char *name;
		uint32_t devid;
	} known[] = {
		{"xvda", 51712},
		{"xvda1", 51713},
		{"xvdp15", 51967},
		{"xvdq", (1u << 28) + (16 << 8)},
		{"xvdaa", (1u << 28) + (26 << 8)},
		{"xvda16", (1u << 28) + 16},
		{"d0", 51712},
		{"d1p2", 51730},
		{"hda", 768},
		{"hdb1", 833},
		{"hdc", 5632},
		{"sda", 2048},
		{"sdb1", 2065},
		{"51712", 51712},
	};
	static const char *const none[] = {
		"",      "xvd", "xvdA", "xvda256", "xvda01", "hde",           "sdq",
		"xvda ", "d",   "d0p",  "d0p1x",   "5171x",  "xvdaaaaaaaaaa", "99999999999"};
	char name[24];
	uint32_t id;

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++) {
		ck_assert_msg(xl_vdev_number(known[i].name, &id), "%s", known[i].name);
		ck_assert_msg(id == known[i].devid, "%s: %u", known[i].name, id);
		xl_vdev_name(id, name);
		if (known[i].name[0] == 'x')
			ck_assert_str_eq(name, known[i].name);
	}
	for (unsigned i = 0; i < sizeof none / sizeof *none; i++)
		ck_assert_msg(!xl_vdev_number(none[i], &id), "'%s' was accepted", none[i]);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("xl-disk");
	TCase *c = tcase_create("all");
	SRunner *r;
	int failed;

	tcase_add_test(c, by_name);
	tcase_add_test(c, by_position);
	tcase_add_test(c, what_is_not_a_file_of_this_host);
	tcase_add_test(c, the_old_way);
	tcase_add_test(c, ours);
	tcase_add_test(c, refused);
	tcase_add_test(c, long_fields);
	tcase_add_test(c, numbers);
	suite_add_tcase(s, c);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
