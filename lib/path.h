/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Names of files that an image gives for other files.  By their text alone: whoever made the image chose it, while what links stand in a
 * directory is the host's own business.
 */
#ifndef TD_LIB_PATH_H
#define TD_LIB_PATH_H

#include <stdbool.h>
#include <stddef.h>

/*
 * `name' as seen from the directory of the file `beside' (an absolute path), without empty parts, `.' and `..'; what begins with a slash
 * is taken as it is.  0, or -ENAMETOOLONG; -EINVAL for an empty name.
 */
int td_path_resolve(const char *beside, const char *name, char *out, size_t max);

/* Is `path' (resolved) in one of the directories, or below it?  dirs: absolute, with colons between. */
bool td_path_within(const char *path, const char *dirs);

#endif
