/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the parts of tap-ctl share: the table of commands, their options, and the steps of `create'
 * and `destroy'.  Every function returns 0 or -errno, with text in err.
 */
#ifndef CONTROL_TAP_CTL_H
#define CONTROL_TAP_CTL_H

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

#include "td/log.h"

/* s that a tapdisk has for what waits for a disk: open, close, pause, unpause */
#define TC_SLOW 120

/* What an option means; its letter alone does not tell (-t is a type, or a time). */
enum tc_what {
	TC_PID = 1,
	TC_MINOR,
	TC_ARGS,
	TC_TYPE,
	TC_FILE,
	TC_READ_ONLY,
	TC_BUFFERED,
	TC_STACK,
	TC_LEAF_CACHE,
	TC_OPTION,
	TC_TIMEOUT,
	TC_REQUEST_TIMEOUT,
	TC_FORCE,
	TC_JSON,
	TC_BATCH,
	TC_COUNT,
	TC_DELAY,
	TC_NAME,
	TC_KEY,
	TC_ALL,
	TC_CLEAR,
	TC_CHANGED,
	TC_RATE,
	TC_WAIT,
	TC_SECONDARY,
	TC_STANDBY,
	TC_LISTEN,
	TC_CERTIFICATES,
	TC_PSK_FILE,
	TC_PLAIN,
	TC_HELP,
};

struct tc_opt {
	int letter; /* below ' ': a long name only */
	const char *name, *arg /* NULL: takes none */, *help;
	enum tc_what what;
};

struct tc_args {
	pid_t pid;                                                   /* -1: not given, as below */
	int minor, timeout;                                          /* timeout: s */
	const char *args, *type, *file, *name, *changed, *secondary; /* NULL: not given */
	const char *listen, *certificates, *psk_file;                /* of export */
	json_t *options;         /* array of "key=value"; NULL: none */
	int count;               /* of top: looks; of export: clients; 0: not given */
	double delay;            /* of top; s; 0: not given */
	unsigned long long rate; /* of commit; bytes a second; 0: not given */
	bool key;                /* read one from standard input */
	bool read_only, buffered, force, json, batch, all, clear, wait, plain, help;
};

struct tc_cmd {
	const char *name, *summary;
	const struct tc_opt *opts; /* ends with letter == 0 */
	const char *need;          /* letters of the options that must be given */
	int (*run)(const struct tc_args *a, struct td_err *err);
};

extern const struct tc_cmd tc_cmds[]; /* ends with name == NULL */

/* tap-ctl.c.  Prints a line on stdout, and flushes.  When that fails the caller undoes its work, so
 * that nothing exists that the user was not told about. */
int tc_put_line(const char *text, struct td_err *err);

/* tap-ctl-args.c.  argv[0] is the command's name.  a->options is the caller's to release. */
int tc_parse(const struct tc_cmd *cmd, int argc, char **argv, struct tc_args *a,
	     struct td_err *err);
void tc_help(const struct tc_cmd *cmd);
void tc_usage(bool to_stderr);

/* type:path with a relative path of a file made absolute, since a tapdisk stands in `/'.  *spec: to
 * be freed. */
int tc_spec(const char *args, char **spec, struct td_err *err);
char *tc_absolute(const char *path); /* to be freed; NULL and errno */

/* tap-ctl-minor.c.  making: the number is for a disk that this process is making; the marker is
 * swept when it dies over that. path: the marker's, to be freed; may be NULL.  tc_free: 19 when
 * there is none, 16 when it is held.  tc_marker_sweep removes the marker, and the records, if a
 * dead tapdisk left them; true when it did.  One that holds what was not written yet stays:
 * tc_settle. */
int tc_allocate(bool making, int *minor, char **path, struct td_err *err);
int tc_free(int minor, bool give_up, struct td_err *err);
bool tc_marker_sweep(int minor);
void tc_markers(void (*fn)(int minor, void *arg), void *arg);

/* tap-ctl-revive.c.  The record of how a disk was open, locked until fd is closed; -ENODEV when
 * there is none. */
int tc_record_open(int minor, int seconds, int *fd, json_t **record, struct td_err *err);

/* tap-ctl-settle.c.  Is there anything that a dead tapdisk had answered and not written yet?  0:
 * no; else how many changes, or -errno when nobody can tell.  tc_settle puts it into the image;
 * give_up: or says what is lost, and that it is. */
int tc_log_waits(int minor);
int tc_settle(int minor, bool give_up, struct td_err *err);
/* Had a flush of a dead tapdisk's disk failed?  And what is said once that disk is taken away:
 * -EIO; give_up: to stderr, and 0. */
bool tc_flush_failed(int minor);
/* Has a dead tapdisk's disk guests that wait for a successor, or something to tell: that a flush
 * had failed; or, if none of the live disks has the image, that it was paused, or what became of a
 * live commit?  Then a mere look does not take it away. */
struct tc_rows;
bool tc_dead_is_wanted(int minor, const struct tc_rows *live);
int tc_say_failed(int minor, bool give_up, struct td_err *err);

/* tap-ctl-spawn.c.  leash: NULL, or where to put a descriptor: the tapdisk gives up and ends when
 * that is closed, as by our death, before tc_release (0 or -errno with text).  tc_reap: sees the
 * end of a child that tc_spawn made, by force after a grace, and removes its socket. */
int tc_spawn(pid_t *pid, int *leash, struct td_err *err);
int tc_program(char *path, struct td_err *err); /* that tc_spawn runs; PATH_MAX bytes */
int tc_release(int leash, struct td_err *err);
void tc_reap(pid_t pid, int grace_ms);

/* tap-ctl-place.c.  Gives a new process the cgroups, priorities and processors of an old one, as
 * far as the host lets it. */
void tc_place_like(pid_t now, pid_t old);

/* tap-ctl-disk.c.  keep: the marker is ours to free then, and is swept if we die before.
 * detach: the tapdisk does that after the close, even if we have given up waiting; give_up: as of
 * tc_settle. */
struct tc_closed {
	bool gone;           /* the process is dead and what it left has been removed */
	bool detached, last; /* the tapdisk has detached it as well, which one of an older version
				leaves to us; it was its last disk */
};
int tc_attach(pid_t pid, int minor, struct td_err *err);
int tc_detach(pid_t pid, int minor, bool keep, bool *last, struct td_err *err);
int tc_open(const struct tc_args *a, pid_t pid, int minor, struct td_err *err);
/* Reads it from standard input. */
int tc_put_key(json_t *req, struct td_err *err);
int tc_close(const struct tc_args *a, bool detach, bool give_up, struct tc_closed *is,
	     struct td_err *err);

/* the commands */
int tc_cmd_list(const struct tc_args *a, struct td_err *err);
int tc_cmd_allocate(const struct tc_args *a, struct td_err *err);
int tc_cmd_free(const struct tc_args *a, struct td_err *err);
int tc_cmd_spawn(const struct tc_args *a, struct td_err *err);
int tc_cmd_attach(const struct tc_args *a, struct td_err *err);
int tc_cmd_detach(const struct tc_args *a, struct td_err *err);
int tc_cmd_open(const struct tc_args *a, struct td_err *err);
int tc_cmd_close(const struct tc_args *a, struct td_err *err);
int tc_cmd_create(const struct tc_args *a, struct td_err *err);
int tc_cmd_destroy(const struct tc_args *a, struct td_err *err);
int tc_cmd_pause(const struct tc_args *a, struct td_err *err);
int tc_cmd_unpause(const struct tc_args *a, struct td_err *err);
int tc_cmd_revive(const struct tc_args *a, struct td_err *err);
int tc_cmd_settle(const struct tc_args *a, struct td_err *err);
int tc_cmd_upgrade(const struct tc_args *a, struct td_err *err);
int tc_cmd_resize(const struct tc_args *a, struct td_err *err);
int tc_cmd_limit(const struct tc_args *a, struct td_err *err);
int tc_cmd_stats(const struct tc_args *a, struct td_err *err);
int tc_cmd_audit(const struct tc_args *a, struct td_err *err);
int tc_cmd_top(const struct tc_args *a, struct td_err *err);
int tc_cmd_metrics(const struct tc_args *a, struct td_err *err);
int tc_cmd_mode(const struct tc_args *a, struct td_err *err);
int tc_cmd_commit(const struct tc_args *a, struct td_err *err);
int tc_cmd_query(const struct tc_args *a, struct td_err *err);
int tc_cmd_export(const struct tc_args *a, struct td_err *err);
int tc_cmd_cancel(const struct tc_args *a, struct td_err *err);

#endif
