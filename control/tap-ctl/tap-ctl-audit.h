/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* audit: what the kernel says of a running disk, and not what its tapdisk does. */
#ifndef CONTROL_TAP_CTL_AUDIT_H
#define CONTROL_TAP_CTL_AUDIT_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

/*
 * tap-ctl-audit-kernel.c.  Each adds to o what there is, and leaves out what the kernel does not
 * tell.
 */

/* Of the descriptor of process pid that is the image's file: fd, flags, direct, writes, locks,
 * pages, dirty, pages_by, size.  False: it has none. */
bool tc_audit_file(json_t *o, pid_t pid, const char *path, struct stat *st);
/* file_system, source and, of a network file system, options. */
void tc_audit_mount(json_t *o, dev_t dev);
/* To the array: the device and those below it, each once, with name, depth, write_cache, fua and
 * flushes; `last': nothing is below it. */
void tc_audit_devices(json_t *devices, dev_t dev, int depth);

/* tap-ctl-audit-print.c: the report on one screen of 80 columns. */
void tc_audit_print(const json_t *report);

#endif
