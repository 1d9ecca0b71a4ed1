/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * VHDs offline: every change's system calls are recorded; at each point of them the power is cut,
 * so that what was not synced survives or not, sector by sector; the image must open, pass the
 * check, and hold what it held or was given.  And each of them fails.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/vhd/vhd-check.h"
#include "tests/support/cut-calls.h"
#include "tests/support/vhd-trial.h"

/* Each sector is as before or as after: both of `size' bytes. */
static void old_or_new(const char *path, const uint8_t *old, const uint8_t *new, uint64_t size,
		       size_t cut)
{
	uint64_t got_size;
	uint8_t *got = content(path, &got_size);

	ck_assert_uint_eq(got_size, size);
	for (uint64_t s = 0; s < size; s += 512)
		if (memcmp(got + s, old + s, 512) && memcmp(got + s, new + s, 512))
			ck_abort_msg("seed %lu: cut after %zu of %zu: sector %llu is neither as "
				     "before nor as after",
				     seed, cut, nevents, (unsigned long long)s / 512);
	free(got);
}

/* Cuts everywhere; `path' is put into each state and looked at, also after a repair. */
static void cut_everywhere(const char *path, const uint8_t *before, uint64_t len,
			   const uint8_t *old, const uint8_t *new, uint64_t size)
{
	struct disk d = {.room = len};

	for (size_t i = 0; i < nevents; i++) {
		uint64_t end =
			events[i].kind == TRUNCATE ? events[i].len : events[i].off + events[i].len;

		d.room = end > d.room ? end : d.room;
	}
	d.b = malloc(d.room);
	for (size_t cut = 0; cut <= nevents; cut++)
		for (int again = 0; again < 2; again++) {
			disk_after(&d, before, len, cut);
			spill(path, d.b, d.len);
			old_or_new(path, old, new, size, cut);
			check_image(path, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS, "after a cut");
			err.code = 0;
			ok(vhd_repair(path, &err));
			check_image(path, 0, "after a cut and a repair");
			old_or_new(path, old, new, size, cut);
		}
	free(d.b);
}

static int change_set(struct vhd_image *v)
{
	v->footer.hidden = 1;
	return vhd_image_put_footer(v, &err);
}

static int change_write(struct vhd_image *v)
{
	static uint8_t sector[512];
	int rc = 0;

	memset(sector, 0x77, sizeof sector);
	for (uint64_t s = 0; s < v->size / 512 && !rc; s += 3)
		rc = vhd_image_write(v, sector, s * 512, 512, &err);
	return rc ? rc : vhd_image_flush(v, &err);
}

static int change_fill(struct vhd_image *v)
{
	return vhd_fill(v, NULL, &err);
}

static int change_parent(struct vhd_image *v)
{
	return vhd_reparent(v, in_dir("a.vhd"), false, &err);
}

static int change_kill(struct vhd_image *v)
{
	return vhd_kill_data(v, &err);
}

static void make_pair(char path_a[128], char path_b[128])
{
	struct vhd_new a = {.size = 300 * 512, .block_size = 4096}, b = {.block_size = 4096};

	strcpy(path_a, in_dir("a.vhd"));
	strcpy(path_b, in_dir("b.vhd"));
	a.path = b.parent = path_a;
	b.path = path_b;
	ok(vhd_create(&a, &err));
	write_some(path_a, NULL, 20);
	ok(vhd_create(&b, &err));
	write_some(path_b, NULL, 8);
}

/* A child on a parent, both with data; the child is changed, and cut. */
static void cut_change(int (*change)(struct vhd_image *v))
{
	char path_a[128], path_b[128];
	uint64_t size, len;
	uint8_t *before, *old, *new;
	struct vhd_image *v;

	make_pair(path_a, path_b);
	old = content(path_b, &size);
	before = slurp(path_b, &len);
	ok(vhd_image_open(path_b, VHD_WRITE | VHD_CHAIN, &v, &err));
	start_recording(path_b);
	ok(change(v));
	stop_recording();
	vhd_image_close(v);
	new = content(path_b, &size);
	check_image(path_b, 0, "after the change");
	cut_everywhere(path_b, before, len, old, new, size);
	forget_events();
	free(before);
	free(old);
	free(new);
}

/* One call fails: an error that says so, and a good image; what is only interrupted or short goes
 * on. */
static bool one_fault(int (*change)(struct vhd_image *v), const char *path, const uint8_t *old,
		      const uint8_t *new, uint64_t size)
{
	struct vhd_image *v;
	bool soft = fault_errno == EINTR || fault_errno == SHORT;
	int rc;

	err.code = 0;
	ok(vhd_image_open(path, VHD_WRITE | VHD_CHAIN, &v, &err));
	calls = 0;
	start_recording(path);
	rc = change(v);
	stop_recording();
	forget_events();
	vhd_image_close(v);
	if (calls < fault_at || soft) {
		ck_assert_msg(rc == 0, "seed %lu: call %u, errno %d: %s", seed, fault_at,
			      fault_errno, err.text);
		same_content(path, new, size, "after a fault that is none");
	} else {
		ck_assert_int_eq(rc, -fault_errno);
		ck_assert_ptr_nonnull(strstr(err.text, path));
		old_or_new(path, old, new, size, fault_at);
		check_image(path, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS, "after a fault");
		err.code = 0;
		ok(vhd_repair(path, &err));
		check_image(path, 0, "after a fault and a repair");
		old_or_new(path, old, new, size, fault_at);
	}
	return calls >= fault_at;
}

START_TEST(faults)
{
	static int (*const changes[])(struct vhd_image * v) = {
		change_set, change_write, change_fill, change_parent, change_kill};
	static const int errnos[] = {EIO, ENOSPC, EINTR, SHORT};
	char path_a[128], path_b[128];
	uint64_t size, len;
	uint8_t *before, *old, *new;
	struct vhd_image *v;

	make_pair(path_a, path_b);
	old = content(path_b, &size);
	before = slurp(path_b, &len);
	for (size_t c = 0; c < sizeof changes / sizeof *changes; c++) {
		spill(path_b, before, len);
		ok(vhd_image_open(path_b, VHD_WRITE | VHD_CHAIN, &v, &err));
		ok(changes[c](v));
		vhd_image_close(v);
		new = content(path_b, &size);
		for (size_t e = 0; e < sizeof errnos / sizeof *errnos; e++) {
			bool hit = true;

			fault_errno = errnos[e];
			for (fault_at = 1; hit; fault_at += fault_at < 30 ? 1 : 7) {
				spill(path_b, before, len);
				hit = one_fault(changes[c], path_b, old, new, size);
			}
		}
		fault_at = 0;
		free(new);
	}
	free(before);
	free(old);
}
END_TEST

START_TEST(cut_set)
{
	cut_change(change_set);
}
END_TEST

START_TEST(cut_write)
{
	cut_change(change_write);
}
END_TEST

START_TEST(cut_fill)
{
	cut_change(change_fill);
}
END_TEST

START_TEST(cut_reparent)
{
	cut_change(change_parent);
}
END_TEST

START_TEST(cut_kill_data)
{
	cut_change(change_kill);
}
END_TEST

/* Under a cut coalesce the child shows the same all the time. */
START_TEST(cut_coalesce)
{
	char path_a[128], path_b[128];
	uint64_t size, len, sectors;
	uint8_t *before, *shown;
	struct vhd_image *v, *to;
	struct disk d;

	make_pair(path_a, path_b);
	shown = content(path_b, &size);
	before = slurp(path_a, &len);
	ok(vhd_image_open(path_b, VHD_READ, &v, &err));
	ok(vhd_image_open_parent(v, VHD_BENEATH, &to, &err));
	start_recording(path_a);
	ok(vhd_coalesce(v, to, NULL, &sectors, &err));
	stop_recording();
	vhd_image_close(to);
	vhd_image_close(v);
	same_content(path_a, shown, size, "the parent after a coalesce");
	d.b = malloc(len + (16 << 20));
	for (size_t cut = 0; cut <= nevents; cut++) {
		disk_after(&d, before, len, cut);
		spill(path_a, d.b, d.len);
		same_content(path_b, shown, size, "the child over a parent whose coalesce was cut");
		check_image(path_a, VHD_CHECK_NO_LAST | VHD_CHECK_NO_BITMAPS,
			    "after a cut coalesce");
	}
	forget_events();
	free(d.b);
	free(before);
	free(shown);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-cuts");

	ADD(cut_set);
	ADD(cut_write);
	ADD(cut_fill);
	ADD(cut_reparent);
	ADD(cut_kill_data);
	ADD(cut_coalesce);
	ADD(faults);
	return suite_run(s);
}
