/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * xenstore, as tapback and tap-vbd use it: a thin layer over libxenstore.
 *
 * A path is dir + "/" + key (key may be NULL); a relative path is below the own domain's directory,
 * so that it works in a driver domain.  Between store_begin() and store_end() all reads and
 * writes belong to that transaction.  Calls wait for xenstored and for nobody else.  One thread.
 */
#ifndef TD_CONTROL_STORE_H
#define TD_CONTROL_STORE_H

#include <stdbool.h>
#include <stdint.h>

#include "td/log.h"

struct store;

#define STORE_PATH 512 /* bytes of a path, with its end: all that this project makes or accepts */

int store_open(struct store **out, struct td_err *err);
void store_close(struct store *s);

/* A value, to be freed; NULL with errno (ENOENT: there is none).  A NUL inside the value ends it.
 */
char *store_read(struct store *s, const char *dir, const char *key);
/* As store_read, but a decimal number of at most max; -1 when there is none, -2 when it is
 * something else. */
int64_t store_read_number(struct store *s, const char *dir, const char *key, uint64_t max);
bool store_read_is(struct store *s, const char *dir, const char *key, const char *value);
bool store_exists(struct store *s, const char *path);
/* Names in a directory: one block to free; NULL with errno. */
char **store_list(struct store *s, const char *path, unsigned *n);

/* 0 or -errno. */
int store_write(struct store *s, const char *dir, const char *key, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* As it is, of whatever length; key NULL: the directory's own value. */
int store_write_text(struct store *s, const char *dir, const char *key, const char *text);
/* 0 also when it is not there */
int store_remove(struct store *s, const char *dir, const char *key);
/* owner has all access, reader may read, nobody else; keys made in it later inherit that. */
int store_owner(struct store *s, const char *path, unsigned owner, unsigned reader);

int store_begin(struct store *s);
/* rc: of what was done in it; not 0: it is undone.  rc, or -errno; -EAGAIN: somebody else was
 * faster: do the whole again. */
int store_end(struct store *s, int rc);

int store_watch(struct store *s, const char *path, const char *token);
void store_unwatch(struct store *s, const char *path, const char *token);
int store_fd(struct store *s); /* readable when there are events */
/* The next event: path and token, one block to free: NULL with EAGAIN when there is none, other
 * errno: xenstored is lost. */
char **store_event(struct store *s);

/*
 * A descriptor that hangs up when xenstored dies (libxenstore itself does not tell who only
 * listens); -1 where that cannot be told, as in a driver domain.  The caller's to close.
 */
int store_hangup_fd(void);

/* A plain decimal number (no sign, space or leading zero) of at most max. */
bool store_decimal(const char *text, uint64_t max, uint64_t *out);

#endif
