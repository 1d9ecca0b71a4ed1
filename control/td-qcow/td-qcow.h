/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What the files of td-qcow share. */
#ifndef CONTROL_TD_QCOW_H
#define CONTROL_TD_QCOW_H

#include <jansson.h>

#include "drivers/qcow/qcow-image.h"

/* A command: runs on a fiber.  Exit code 0, or a positive number with err set (or, of check,
 * without). */
struct td_qcow {
	struct td_io *io;
	int argc;
	char **argv; /* argv[0]: the command's name */
	bool json;
	struct td_key key; /* of what is encrypted; from standard input, where -E says so */
	struct td_err *err;
};

/* td-qcow-create.c */
int td_qcow_create(struct td_qcow *t);
int td_qcow_snapshot(struct td_qcow *t);
/* td-qcow-show.c */
int td_qcow_info(struct td_qcow *t);
int td_qcow_map(struct td_qcow *t);
int td_qcow_print(json_t *j); /* takes the reference; 0 */

/* td-qcow-commit.c */
int td_qcow_commit(struct td_qcow *t);

/* "10G", "512": bytes.  -EINVAL */
int td_qcow_size(const char *text, uint64_t *size, struct td_err *err);
/* 22, with the usage as text. */
int td_qcow_usage(struct td_qcow *t);

#endif
