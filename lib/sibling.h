/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names of other files that an image holds: its backing file, its data file.  They come from whoever made the image, perhaps a
 * hostile guest's owner, so that only plain names within the image's own directory (or below it) are followed.
 */
#ifndef TD_LIB_SIBLING_H
#define TD_LIB_SIBLING_H

#include <stddef.h>

#include "td/log.h"

#define TD_PATH_MAX 4096 /* bytes, with the zero */

/*
 * The path of `name', as it stands in the image at path `image', into out (TD_PATH_MAX bytes).  Relative names start from the image's
 * directory, whatever the process's; absolute ones must lie below it.  0, or -EINVAL, -EPERM or -ENAMETOOLONG.  what: "backing
 * file", for the error.  Looks at no file system.  Any thread.
 */
int td_sibling(const char *image, const char *name, const char *what, char *out, struct td_err *err);

#endif
