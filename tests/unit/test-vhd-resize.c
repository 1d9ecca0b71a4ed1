/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* VHDs offline: a resize, cut at every point of it, is reverted by its journal, to the byte; also
 * when the revert is cut in its turn. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/cut-calls.h"
#include "tests/support/vhd-trial.h"

/*
 * The power goes while a resize that was cut off is being reverted; what is left is reverted once
 * more.  path is as the first cut left it; every cut of the second is tried.
 */
static void cut_revert(const char *path, const char *journal, const uint8_t *j, uint64_t jlen,
		       const uint8_t *before, uint64_t len)
{
	struct event *outer = events;
	size_t nouter = nevents;
	uint64_t cut_len, got_size;
	uint8_t *cut_before = slurp(path, &cut_len), *got;
	struct disk d = {.b = malloc((cut_len > len ? cut_len : len) + (1 << 20))};

	events = NULL;
	spill(journal, j, jlen);
	start_recording(path);
	ok(vhd_revert(path, journal, &err));
	stop_recording();
	ck_assert_uint_gt(nevents, 0);
	for (size_t cut = 0; cut <= nevents; cut++) {
		disk_after(&d, cut_before, cut_len, cut);
		spill(path, d.b, d.len);
		spill(journal, j, jlen);
		err.code = 0;
		ok(vhd_revert(path, journal, &err));
		got = slurp(path, &got_size);
		ck_assert_msg(got_size == len && !memcmp(got, before, len),
			      "seed %lu: reverted after %zu of %zu of a revert, it is another file",
			      seed, cut, nevents);
		free(got);
	}
	forget_events();
	free(events);
	free(d.b);
	free(cut_before);
	events = outer;
	nevents = nouter;
}

/* The journal alone, as vhd_resize makes it. */
static int journal_of(const char *path, const char *journal)
{
	struct vhd_image *v;
	int rc = vhd_image_open(path, VHD_READ, &v, &err);

	if (rc < 0)
		return rc;
	rc = vhd_journal_make(v, journal, &err);
	vhd_image_close(v);
	return rc;
}

/* Larger, cut, reverted: the disk of before, to the byte; and not reverted: the disk of before, or
 * a larger one with zeroes. */
static void cut_resize(bool fixed, uint64_t from, uint64_t to)
{
	struct vhd_new a = {.size = from, .block_size = 4096, .fixed = fixed};
	char path[128], journal[128], saved[128];
	uint64_t size, len, jlen, got_size;
	uint8_t *before, *old, *j, *got;
	struct disk d;

	strcpy(path, in_dir("a.vhd"));
	strcpy(journal, in_dir("j"));
	strcpy(saved, in_dir("saved"));
	a.path = path;
	ok(vhd_create(&a, &err));
	write_some(path, NULL, 20);
	old = content(path, &size);
	before = slurp(path, &len);
	start_recording(path);
	names_synced = 0;
	ok(vhd_resize(path, to, journal, &err));
	ck_assert_msg(names_synced == 1,
		      "the image is changed when a power cut may still leave no journal");
	stop_recording();
	check_image(path, 0, "after the resize");
	/* the journal once more, of the image as it was */
	spill(path, before, len);
	ck_assert_int_eq(vhd_resize(path, to, "/nonexistent/j", NULL), -ENOENT);
	same_content(path, old, size, "a resize whose journal cannot be written changes nothing");
	ok(journal_of(path, saved));
	j = slurp(saved, &jlen);
	d.b = malloc(len + to + (1 << 20));
	for (size_t cut = 0; cut <= nevents; cut++)
		for (int again = 0; again < 3; again++) {
			disk_after(&d, before, len, cut);
			spill(path, d.b, d.len);
			if (!fixed) {
				got = content(path, &got_size);
				ck_assert_msg(got_size == from || got_size == to,
					      "seed %lu: %llu bytes", seed,
					      (unsigned long long)got_size);
				ck_assert_int_eq(memcmp(got, old, from), 0);
				for (uint64_t i = from; i < got_size; i++)
					if (got[i])
						ck_abort_msg("seed %lu: byte %llu of what is new "
							     "is not zero",
							     seed, (unsigned long long)i);
				free(got);
			}
			if (!again) {
				cut_revert(path, journal, j, jlen, before, len);
				spill(path, d.b, d.len);
			}
			spill(journal, j, jlen);
			err.code = 0;
			ok(vhd_revert(path, journal, &err));
			ck_assert_int_lt(access(journal, F_OK), 0);
			got = slurp(path, &got_size);
			ck_assert_msg(got_size == len && !memcmp(got, before, len),
				      "seed %lu: reverted after %zu of %zu, it is another file",
				      seed, cut, nevents);
			free(got);
		}
	forget_events();
	free(d.b);
	free(before);
	free(old);
	free(j);
}

START_TEST(cut_resize_new_table)
{
	cut_resize(false, 100 * 512, 3000 * 512);
}
END_TEST

START_TEST(cut_resize_fast)
{
	cut_resize(false, 100 * 512, 200 * 512);
}
END_TEST

START_TEST(cut_resize_fixed)
{
	cut_resize(true, 100 * 512, 300 * 512);
}
END_TEST

/* What was written since the resize was cut is not undone. */
static void use_and_revert(bool fixed)
{
	struct vhd_new a = {.size = 100 * 512, .block_size = 4096, .fixed = fixed, .replace = true};
	char path[128], journal[128];

	strcpy(path, in_dir("a.vhd"));
	strcpy(journal, in_dir("j"));
	a.path = path;
	ok(vhd_create(&a, &err));
	ok(journal_of(path, journal));
	ok(vhd_resize(path, 3000 * 512, in_dir("j2"), &err));
	write_some(path, NULL, 50);
	ck_assert_int_eq(vhd_revert(path, journal, &err), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "would lose data"));
	check_image(path, 0, "a refused revert");
	unlink(journal);
	err.code = 0;
}

START_TEST(revert_after_use)
{
	use_and_revert(false);
	use_and_revert(true);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vhd-resize");

	ADD(cut_resize_new_table);
	ADD(cut_resize_fast);
	ADD(cut_resize_fixed);
	ADD(revert_after_use);
	return suite_run(s);
}
