/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The names of other files that an image holds: its backing file, its data file.  They come from
 * whoever made the image, perhaps a stranger, so that only plain names are followed, and only into
 * directories where such files may be.
 */
#ifndef TD_LIB_SIBLING_H
#define TD_LIB_SIBLING_H

#include <stddef.h>

#include "lib/io/reach.h"
#include "td/log.h"

#define TD_PATH_MAX 4096 /* bytes, with the zero */

/*
 * The path of `name', as it stands in the image at path `image', into out (TD_PATH_MAX bytes).
 * Relative names start from the image's directory, whatever the process's.  It must lie where the
 * image's word goes (NULL: the image's own directory, or below). 0, or -EINVAL, -EPERM or
 * -ENAMETOOLONG.  what: "backing file", for the error.  By the text alone; any thread.
 */
int td_sibling(const char *image, const char *name, const char *what, const struct td_reach *reach,
	       char *out, struct td_err *err);

#endif
