/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The host-wide configuration: lines of "key = value", '#' begins a comment. */
#ifndef TD_LIB_CONF_H
#define TD_LIB_CONF_H

#include <stddef.h>

#include "td/log.h"

#define TD_CONF_ENV "TAPDISK_CONF" /* another file than SYSCONFDIR/tapdisk/tapdisk.conf */

/* The configuration file in force; a static string. */
const char *td_conf_path(void);

/*
 * Calls set(key, value, arg) for each line, in order, until it returns non-zero.  A missing file is
 * an empty one, unless TD_CONF_ENV names it.  0, -errno from set or from reading; the text names
 * file and line.  Never waits.
 */
int td_conf_read(int (*set)(const char *key, const char *value, void *arg, struct td_err *err),
		 void *arg, struct td_err *err);

/* What stands between the white space at both ends of s, which is cut short. */
char *td_conf_trim(char *s);

#endif
