/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of files that an image gives for other files.  By their text alone: what links there are on
 * the way, lib/io/reach.h minds.
 */
#ifndef TD_LIB_PATH_H
#define TD_LIB_PATH_H

#include <stddef.h>

/*
 * `name' as seen from the directory of the file `beside' (an absolute path), without empty parts,
 * `.' and `..'; what begins with a slash is taken as it is.  0, or -ENAMETOOLONG; -EINVAL for an
 * empty name.
 */
int td_path_resolve(const char *beside, const char *name, char *out, size_t max);

#endif
