/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A directory with VHDs that are written at random, looked at, and compared.  The seed is printed;
 * VHD_SEED in the environment repeats it. */
#ifndef TESTS_VHD_TRIAL_H
#define TESTS_VHD_TRIAL_H

#include <check.h>

#include "drivers/vhd/vhd-image.h"
#include "tests/support/suite.h"

extern struct td_err err;
extern char dir[64];
extern unsigned long seed;

#define ok(what)                                                                                   \
	do {                                                                                       \
		int rc_ = (what);                                                                  \
		ck_assert_msg(rc_ >= 0, "seed %lu: %s: %d, %s", seed, #what, rc_, err.text);       \
	} while (0)

uint32_t rnd(uint32_t below);

/* Around each case. */
void setup(void);
void teardown(void);

const char *in_dir(const char *name); /* valid until the next call */

void check_image(const char *path, unsigned flags, const char *when); /* VHD_CHECK_* */
/* the whole disk, through the chain; the caller's */
uint8_t *content(const char *path, uint64_t *size);
void same_content(const char *path, const uint8_t *want, uint64_t size, const char *when);
/* random runs of sectors; into the model too, or NULL */
void write_some(const char *path, uint8_t *model, unsigned runs);

#define ADD(test)                                                                                  \
	do {                                                                                       \
		TCase *tc_ = tcase_create(#test);                                                  \
		tcase_set_timeout(tc_, SUITE_PATIENCE);                                            \
		tcase_add_checked_fixture(tc_, setup, teardown);                                   \
		tcase_add_test(tc_, test);                                                         \
		suite_add_tcase(s, tc_);                                                           \
	} while (0)

#endif
