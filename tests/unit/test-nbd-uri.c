/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Names of NBD servers: URIs, and the short forms. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/drivers.h"
#include "lib/nbd-uri.h"
#include "tests/support/suite.h"

static struct td_err err;
static struct nbd_uri u;

/* As a disk has it. */
static int parse(const char *spec)
{
	const char *path;

	err = (struct td_err){0};
	if (td_driver_parse(spec, &path, &err) != &td_driver_nbd)
		return -err.code;
	return nbd_uri_parse(path, &u, &err);
}

static void is_tcp(const char *spec, const char *host, unsigned port, const char *export)
{
	ck_assert_msg(!parse(spec), "%s: %s", spec, err.text);
	ck_assert_int_eq(u.way, NBD_TCP);
	ck_assert_str_eq(u.host, host);
	ck_assert_uint_eq(u.port, port);
	ck_assert_str_eq(u.export, export);
}

static void is_unix(const char *spec, const char *path, const char *export)
{
	ck_assert_msg(!parse(spec), "%s: %s", spec, err.text);
	ck_assert_int_eq(u.way, NBD_UNIX);
	ck_assert_str_eq(u.path, path);
	ck_assert_str_eq(u.export, export);
}

START_TEST(hosts_ports_and_exports)
{
	is_tcp("nbd://store", "store", 10809, "");
	is_tcp("nbd://store/", "store", 10809, "");
	is_tcp("nbd://store.example.org:10810/vm1", "store.example.org", 10810, "vm1");
	is_tcp("nbd://10.0.0.1/a/b", "10.0.0.1", 10809, "a/b");
	is_tcp("nbd://10.0.0.1//a", "10.0.0.1", 10809, "/a");
	is_tcp("nbd://[fd00::1]/x", "fd00::1", 10809, "x");
	is_tcp("nbd://[fe80::1%25eth0]:7/x", "fe80::1%eth0", 7, "x");
	is_tcp("nbd:nbd://store/x", "store", 10809, "x");
	ck_assert(!u.tls);
}
END_TEST

START_TEST(tls_says_its_keys)
{
	is_tcp("nbds://store/x?tls-certificates=/etc/a%20b", "store", 10809, "x");
	ck_assert(u.tls && !u.psk);
	ck_assert_str_eq(u.keys, "/etc/a b");
	ck_assert_str_eq(u.user, "");
	is_tcp("nbds://me%40home@store:7/?tls-psk-file=/k", "store", 7, "");
	ck_assert(u.tls && u.psk);
	ck_assert_str_eq(u.keys, "/k");
	ck_assert_str_eq(u.user, "me@home");
	is_tcp("nbds://[fd00::1]?tls-username=a&tls-psk-file=/k", "fd00::1", 10809, "");
	ck_assert_str_eq(u.user, "a");
	is_tcp("nbds://10.0.0.1/x?tls-certificates=/c&tls-hostname=store", "10.0.0.1", 10809, "x");
	ck_assert_str_eq(u.tls_host, "store");
	ck_assert_int_eq(parse("nbds+vsock://2/x?tls-psk-file=/k"), 0);
	ck_assert(u.tls && u.way == NBD_VSOCK && !u.connections);
	is_tcp("nbds://h/x?connections=16&tls-psk-file=/k", "h", 10809, "x");
	ck_assert_uint_eq(u.connections, 16);
}
END_TEST

START_TEST(sockets_and_machines)
{
	is_unix("nbd+unix:///vm1?socket=/run/a%20b", "/run/a b", "vm1");
	is_unix("nbd+unix://?socket=/s", "/s", "");
	is_unix("nbd:/run/a.sock", "/run/a.sock", "");
	is_unix("nbd:/run/a?socket=b", "/run/a?socket=b", "");
	is_unix("nbd:unix:/run/a.sock", "/run/a.sock", "");
	is_unix("nbd:unix:/run/a.sock:exportname=vm 1%20", "/run/a.sock", "vm 1%20");
	ck_assert_int_eq(parse("nbd+vsock://2:99/x"), 0);
	ck_assert(u.way == NBD_VSOCK && u.cid == 2 && u.vsock_port == 99);
	ck_assert_str_eq(u.export, "x");
	ck_assert_int_eq(parse("nbd+vsock://4294967294"), 0);
	ck_assert(u.cid == 4294967294u && u.vsock_port == NBD_PORT);
}
END_TEST

START_TEST(addresses_and_names_that_were_passed)
{
	is_tcp("nbd:10.0.0.1:10809", "10.0.0.1", 10809, "");
	is_tcp("nbd:[::1]:7", "::1", 7, "");
	is_tcp("nbd:10.0.0.1:7:exportname=a", "10.0.0.1", 7, "a");
	ck_assert(!parse("nbd:vbd/5/xvda") && u.way == NBD_PASSED);
	ck_assert(!parse("nbd:store:10809") && u.way == NBD_PASSED);
	ck_assert(!parse("nbd:1.2.3.4") && u.way == NBD_PASSED);
	ck_assert(!parse("nbd:1.2.3.4:x") && u.way == NBD_PASSED);
	ck_assert(!parse("nbd:[") && u.way == NBD_PASSED);
}
END_TEST

START_TEST(percent_signs)
{
	is_tcp("nbd://h/%41%2f%3F%23%25", "h", 10809, "A/?#%");
	is_tcp("nbd://h/%e4+", "h", 10809, "\xe4+");
}
END_TEST

START_TEST(what_is_no_name_is_refused_with_a_reason)
{
	static const char *const bad[][2] = {
		{"nbd://", "host is missing"},
		{"nbd:///x", "host is missing"},
		{"nbd://:7/x", "host is missing"},
		{"nbd://h:0/x", "a port is a number"},
		{"nbd://h:65536", "a port is a number"},
		{"nbd://h:/x", "a port is a number"},
		{"nbd://h:7a/x", "a port is a number"},
		{"nbd://fd00::1/x", "put into [ and ]"},
		{"nbd://[fd00::1/x", "has no ]"},
		{"nbd://[fd00::1]x/x", "behind the ]"},
		{"nbd://[]/x", "host is missing"},
		{"nbd://[store]/x", "no IPv6 address"},
		{"nbd://a b/x", "no name of a host"},
		{"nbd://a%0ab/x", "no name of a host"},
		{"nbd://me@h/x", "for TLS alone"},
		{"nbd://h/%", "two hexadecimal digits"},
		{"nbd://h/%4", "two hexadecimal digits"},
		{"nbd://h/%4g", "two hexadecimal digits"},
		{"nbd://h/%00", "not 00"},
		{"nbd://h/a#b", "%23"},
		{"nbd://h/a?socket=/s", "belongs to nbd+unix"},
		{"nbd://h/a?tls=yes", "only socket=PATH"},
		{"nbds://h/x", "needs tls-certificates="},
		{"nbds://h/x?tls-certificates=", "needs tls-certificates="},
		{"nbds://h/x?tls-certificates=c", "absolute paths"},
		{"nbds://h/x?tls-certificates", "are known"},
		{"nbds://h/x?tls-certificates=/c&tls-psk-file=/k", "and not both"},
		{"nbds://h/x?tls-certificates=/c&tls-verify-peer=false", "always verified"},
		{"nbds://h/x?tls-certificates=/c&tls-priority=NONE", "are known"},
		{"nbds://me@h/x?tls-certificates=/c", "a user belongs to"},
		{"nbds://h/x?tls-psk-file=/k&tls-hostname=h", "belongs to tls-certificates="},
		{"nbds://h/x?tls-psk-file=/k%00", "not 00"},
		{"nbds+vsock://2/x?tls-certificates=/c", "has no name"},
		{"nbds+unix:///x?socket=/s&tls-psk-file=/k", "not through a Unix socket"},
		{"nbd://h/x?tls-certificates=/c", "belongs to nbds"},
		{"nbd+unix://h/x?socket=/s", "has no host"},
		{"nbd+unix:///x", "socket= is missing"},
		{"nbd+unix:///x?socket=", "socket= is missing"},
		{"nbd+unix:///x?socket=s", "absolute path"},
		{"nbd+unix:///x?socket=/s&socket=/t", "twice"},
		{"nbd+unix:///x?sock=/s", "only socket=PATH"},
		{"nbd+vsock://host/x", "the CID"},
		{"nbd+vsock://4294967295/x", "the CID"},
		{"nbd+vsock:///x", "the CID"},
		{"nbd:unix:/s:export=x", NULL}, /* a socket of that name */
		{"nbd:10.0.0.1:70000", "a port is a number"},
		{"nbd:10.0.0.1:7:x", ":exportname="},
		{"nbd://h/?connections=1", NULL},
		{"nbd://h/?connections=0", "from 1 to 16"},
		{"nbd://h/?connections=17", "from 1 to 16"},
		{"nbd://h/?connections=", "from 1 to 16"},
		{"nbd://h/?connections=2&connections=2", "twice"},
	};

	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		int rc = parse(bad[i][0]);

		ck_assert_msg(rc == (bad[i][1] ? -EINVAL : 0), "%s: %d", bad[i][0], rc);
		ck_assert_msg(!bad[i][1] || (strstr(err.text, bad[i][1]) &&
					     strstr(err.text, "nbd://HOST[:PORT]/EXPORT")),
			      "%s: %s", bad[i][0], err.text);
	}
}
END_TEST

START_TEST(what_is_too_long_is_refused)
{
	static char spec[5000];

	memset(spec, 'a', sizeof spec - 1);
	memcpy(spec, "nbd://", 6);
	ck_assert_int_eq(parse(spec), -ENAMETOOLONG);
	memcpy(spec, "nbd+unix://", 11);
	ck_assert_int_eq(parse(spec), -ENAMETOOLONG);
	spec[400] = 0;
	memcpy(spec, "nbd://aaaaa", 11);
	ck_assert_int_eq(parse(spec), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "the host is longer than 255 bytes"));
}
END_TEST

START_TEST(titles_name_what_was_asked_for)
{
	static const char *const specs[] = {"nbd:/s", "nbd:name", "nbd://h/x",
					    "nbd+unix:///x?socket=/s", "nbds://h/x"};
	char title[100];

	for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
		ck_assert(nbd_is_spec(specs[i]));
		nbd_title(nbd_path_of(specs[i]), title, sizeof title);
		ck_assert_str_eq(title, specs[i]);
	}
	ck_assert(!nbd_is_spec("vhd:/nbd:") && !nbd_is_spec("nbdx://h"));
}
END_TEST

int main(void)
{
	Suite *s = suite_create("nbd-uri");

	SUITE_ADD(s, hosts_ports_and_exports);
	SUITE_ADD(s, tls_says_its_keys);
	SUITE_ADD(s, sockets_and_machines);
	SUITE_ADD(s, addresses_and_names_that_were_passed);
	SUITE_ADD(s, percent_signs);
	SUITE_ADD(s, what_is_no_name_is_refused_with_a_reason);
	SUITE_ADD(s, what_is_too_long_is_refused);
	SUITE_ADD(s, titles_name_what_was_asked_for);
	return suite_run(s);
}
