/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The medium in a guest's CD drive: the drive, its ring and its tapdisk stay, what is in it
 * changes. */
#ifndef TD_CONTROL_MEDIA_H
#define TD_CONTROL_MEDIA_H

#include "control/attach/toolstack.h"

/*
 * Puts a medium ("type:path", or a path alone: raw) into the drive instead of what is in it; NULL:
 * leaves it empty.  The guest sees the new size at once, and errors for what it still reads of the
 * old one.  -EINVAL when the disk is no cdrom; when the medium cannot be opened, the drive is left
 * empty, and the text is the tapdisk's.
 */
int vbd_media(struct store *s, const struct xs_disk *v, const char *medium, struct td_err *err);

#endif
