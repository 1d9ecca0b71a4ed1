/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "control/store.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <xenstore.h>

struct store {
	struct xs_handle *xs;
	xs_transaction_t t; /* XBT_NULL outside of one */
};

int store_open(struct store **out, struct td_err *err)
{
	struct store *s = calloc(1, sizeof *s);

	if (!s)
		return td_fail(err, ENOMEM, "out of memory");
	s->xs = xs_open(0);
	if (!s->xs) {
		int e = errno;

		free(s);
		return td_fail(err, e,
			       "cannot reach xenstored: %s; is it running, and is this user root?",
			       strerror(e));
	}
	*out = s;
	return 0;
}

void store_close(struct store *s)
{
	if (!s)
		return;
	xs_close(s->xs);
	free(s);
}

static int join_path(char path[STORE_PATH], const char *dir, const char *key)
{
	int n = snprintf(path, STORE_PATH, "%s%s%s", dir, key ? "/" : "", key ? key : "");

	if (n < STORE_PATH)
		return 0;
	errno = ENAMETOOLONG;
	return -ENAMETOOLONG;
}

char *store_read(struct store *s, const char *dir, const char *key)
{
	char path[STORE_PATH];

	return join_path(path, dir, key) ? NULL : xs_read(s->xs, s->t, path, NULL);
}

bool store_decimal(const char *text, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9' || v > UINT64_MAX / 10)
			return false;
		v *= 10;
		if (v > max || (uint64_t)(*text - '0') > max - v)
			return false;
		v += (uint64_t)(*text - '0');
	}
	*out = v;
	return true;
}

int64_t store_read_number(struct store *s, const char *dir, const char *key, uint64_t max)
{
	char *text = store_read(s, dir, key);
	uint64_t v;
	bool ok;

	if (!text)
		return -1;
	ok = store_decimal(text, max, &v);
	free(text);
	return ok ? (int64_t)v : -2;
}

bool store_read_is(struct store *s, const char *dir, const char *key, const char *value)
{
	char *text = store_read(s, dir, key);
	bool is = text && !strcmp(text, value);

	free(text);
	return is;
}

bool store_exists(struct store *s, const char *path)
{
	char *text = store_read(s, path, NULL);

	free(text);
	return text != NULL;
}

char **store_list(struct store *s, const char *path, unsigned *n)
{
	return xs_directory(s->xs, s->t, path, n);
}

int store_write_text(struct store *s, const char *dir, const char *key, const char *text)
{
	char path[STORE_PATH];

	if (join_path(path, dir, key))
		return -errno;
	return xs_write(s->xs, s->t, path, text, (unsigned)strlen(text)) ? 0 : -errno;
}

int store_write(struct store *s, const char *dir, const char *key, const char *fmt, ...)
{
	char path[STORE_PATH], value[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(value, sizeof value, fmt, ap);
	va_end(ap);
	/* only texts for people are ever that long: their beginning says enough */
	if (n >= (int)sizeof value)
		n = sizeof value - 1;
	if (join_path(path, dir, key))
		return -errno;
	return xs_write(s->xs, s->t, path, value, (unsigned)n) ? 0 : -errno;
}

int store_remove(struct store *s, const char *dir, const char *key)
{
	char path[STORE_PATH];

	if (join_path(path, dir, key))
		return -errno;
	return xs_rm(s->xs, s->t, path) || errno == ENOENT ? 0 : -errno;
}

int store_owner(struct store *s, const char *path, unsigned owner, unsigned reader)
{
	struct xs_permissions p[2] = {
		{.id = owner, .perms = XS_PERM_NONE},
		{.id = reader, .perms = XS_PERM_READ},
	};

	return xs_set_permissions(s->xs, s->t, path, p, 2) ? 0 : -errno;
}

int store_begin(struct store *s)
{
	s->t = xs_transaction_start(s->xs);
	return s->t != XBT_NULL ? 0 : -errno;
}

int store_end(struct store *s, int rc)
{
	bool ended = xs_transaction_end(s->xs, s->t, rc != 0);

	s->t = XBT_NULL;
	return ended || rc ? rc : -errno;
}

int store_watch(struct store *s, const char *path, const char *token)
{
	return xs_watch(s->xs, path, token) ? 0 : -errno;
}

void store_unwatch(struct store *s, const char *path, const char *token)
{
	xs_unwatch(s->xs, path, token);
}

int store_fd(struct store *s)
{
	return xs_fileno(s->xs);
}

char **store_event(struct store *s)
{
	return xs_check_watch(s->xs);
}

int store_hangup_fd(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const char *path = xs_daemon_socket();
	int fd;

	if (!path || strlen(path) >= sizeof a.sun_path)
		return -1;
	strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a)) {
		close(fd);
		fd = -1;
	}
	return fd;
}
