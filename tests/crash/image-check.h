/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Is an image sound, as anybody who knows the format would say?  Of what it says of itself alone;
 * nothing here is shared with a driver.
 *
 * qcow2: each cluster that something refers to is referred to once, lies within what can be
 * counted, and has a count that is not 0 (where the image does not say that it is dirty); an entry
 * that says COPIED has a count of 1.  VHD: the copy of the footer and the header have their
 * checksums; no two blocks overlap, and none lies in the tables.
 */
#ifndef CRASH_IMAGE_CHECK_H
#define CRASH_IMAGE_CHECK_H

#include "tests/crash/pages.h"

/* 0; or -1 with a text. */
int image_check(const char *type, const struct pages *file, char *text, size_t len);

#endif
