/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/tap-ctl/tap-ctl-audit.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "lib/json-get.h"
#include "lib/output.h"

#define COLUMNS 80
#define LABEL   12

/* Text beside a label, in lines of at most COLUMNS; what has no blank is cut where the line ends.
 */
static void put(const char *label, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(const char *label, const char *fmt, ...)
{
	const int room = COLUMNS - LABEL;
	char text[6000], *p = text, *cut;
	va_list ap;
	int n;

	va_start(ap, fmt);
	vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	td_output_line(text);
	do {
		n = (int)strlen(p);
		if (n > room) {
			n = room;
			for (cut = p + room; cut > p && *cut != ' '; cut--)
				;
			if (cut > p)
				n = (int)(cut - p);
		}
		printf("%-*s%.*s\n", LABEL, label, n, p);
		label = "";
		p += n;
		p += strspn(p, " ");
	} while (*p);
}

static void join(char *out, size_t size, const json_t *texts, const char *between)
{
	const json_t *t;
	size_t i;

	out[0] = 0;
	json_array_foreach (texts, i, t)
		snprintf(out + strlen(out), size - strlen(out), "%s%s", i ? between : "",
			 json_string_value(t) ?: "");
}

static void put_pages(const json_t *f)
{
	long long pages = td_json_number(f, "pages", -1), dirty = td_json_number(f, "dirty", -1);
	char more[64] = "";

	if (dirty > 0)
		snprintf(more, sizeof more, ", %lld of them not yet written", dirty);
	if (pages < 0)
		put("  cached", "the kernel does not tell");
	else
		put("  cached", "%lld pages of %lld bytes in the page cache%s (%s)", pages,
		    td_json_number(f, "size", 0), more, td_json_text(f, "pages_by"));
}

static void put_file(const json_t *f)
{
	char text[512];

	put("file", "%s", td_json_text(f, "path"));
	if (!json_object_get(f, "fd"))
		return;
	join(text, sizeof text, json_object_get(f, "flags"), "|");
	put("  open", "%s (descriptor %lld)", text, td_json_number(f, "fd", -1));
	join(text, sizeof text, json_object_get(f, "locks"), "; ");
	put("  locked", "%s", *text ? text : "no");
	put_pages(f);
	if (*td_json_text(f, "file_system"))
		put("  in", "%s of %s%s%s", td_json_text(f, "file_system"),
		    td_json_text(f, "source"), *td_json_text(f, "options") ? ": " : "",
		    td_json_text(f, "options"));
	if (*td_json_text(f, "drbd_peer"))
		put("  DRBD", "the other host is %s", td_json_text(f, "drbd_peer"));
}

static void put_device(const json_t *d)
{
	const char *cache = td_json_text(d, "write_cache");
	long long flushes = td_json_number(d, "flushes", -1);
	char label[16], counted[64] = "";

	snprintf(label, sizeof label, "%*s%.9s", (int)(2 * td_json_number(d, "depth", 0)) % 7, "",
		 td_json_text(d, "name"));
	if (flushes >= 0)
		snprintf(counted, sizeof counted, "; %lld flushes so far", flushes);
	put(label, "write cache: %s; FUA: %s%s (%s)", *cache ? cache : "unknown",
	    !json_object_get(d, "fua") ? "unknown"
	    : td_json_true(d, "fua")   ? "yes"
				       : "no",
	    counted, td_json_text(d, "device"));
}

void tc_audit_print(const json_t *r)
{
	const json_t *o, *n = json_object_get(r, "tapdisk");
	size_t i;

	put("disk", "minor %lld of tapdisk %lld, version %s, on Linux %s",
	    td_json_number(r, "minor", -1), td_json_number(r, "pid", -1),
	    td_json_text(r, "version"), td_json_text(r, "kernel"));
	put("image", "%s%s", td_json_text(r, "args"),
	    td_json_true(r, "read_only") ? ", read-only" : "");
	put("asked for", "cache=%s: %s", td_json_text(r, "cache"), td_json_text(r, "promise"));
	puts("\nThe kernel says, of each file of the chain:");
	json_array_foreach (json_object_get(r, "files"), i, o)
		put_file(o);
	puts("\nand of the devices that they are on, from the top down:");
	json_array_foreach (json_object_get(r, "devices"), i, o)
		put_device(o);
	if (!i)
		put("", "none: the data are not on a block device of this host");
	puts("\nThe tapdisk says:");
	put("requests", "%lld writes, %lld flushes", td_json_number(n, "writes", 0),
	    td_json_number(n, "flushes", 0));
	put("made of it", "%lld fdatasyncs, %lld durable writes (%s, for all of its disks)",
	    td_json_number(n, "fdatasyncs", 0), td_json_number(n, "durable_writes", 0),
	    td_json_text(n, "engine"));
	putchar('\n');
	json_array_foreach (json_object_get(r, "findings"), i, o)
		put("note", "%s", json_string_value(o) ?: "");
	put("in short", "%s",
	    td_json_true(r, "as_asked") ? "open as it was asked for" : "NOT as it was asked for");
}
