/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The drivers that are built in: all that a tapdisk knows of image formats. */
#ifndef DRIVERS_H
#define DRIVERS_H

#include "td/block.h"

extern const struct td_driver td_driver_raw;
extern const struct td_driver td_driver_vhd;
extern const struct td_driver td_driver_null;
extern const struct td_driver td_driver_qcow2;
extern const struct td_driver td_driver_qcow;
extern const struct td_driver td_driver_empty;
extern const struct td_driver td_driver_nbd;
extern const struct td_driver td_driver_rbd; /* where the build has it: HAVE_RBD */

/*
 * The driver of a type name (or its alias).  NULL and err: ENOENT for a name that nobody knows,
 * ENOSYS for a known type that this build does not have.
 */
const struct td_driver *td_driver_find(const char *type, struct td_err *err);

/* Splits "type:path" and finds the driver; *path points into spec.  EINVAL for what is not of that
 * form. */
const struct td_driver *td_driver_parse(const char *spec, const char **path, struct td_err *err);

#endif
