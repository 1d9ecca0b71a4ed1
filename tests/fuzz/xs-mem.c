/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/fuzz/xs-mem.h"

#include <errno.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <xenstore.h>

#include "tests/fuzz/fuzz.h"

enum { NODES = 256, WATCHES = 32, EVENTS = 512, UNDO = 64 };

struct node {
	char path[XS_MEM_PATH]; /* "": free */
	char *value;
	unsigned len;
};

struct watch {
	char path[XS_MEM_PATH], full[XS_MEM_PATH], token[64]; /* path "": free */
};

struct event {
	char path[XS_MEM_PATH], token[64];
};

void (*xs_mem_reads)(const char *path);
void (*xs_mem_writes)(const char *path, const char *value);
unsigned xs_mem_busy, xs_mem_calls;

static struct node nodes[NODES];
static struct watch watches[WATCHES];
static struct event events[EVENTS];
static unsigned first, nevents;
static int fd = -1;
static bool in_transaction;
static struct node undo[UNDO]; /* value NULL: it was not there */
static unsigned nundo;

static const char *full(const char *path, char out[XS_MEM_PATH])
{
	FUZZ_ASSERT(strlen(path) < XS_MEM_PATH - 20);
	snprintf(out, XS_MEM_PATH, "%s%s", path[0] == '/' ? "" : "/local/domain/0/", path);
	return out;
}

static bool is_below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return !strncmp(path, dir, n) && path[n] == '/';
}

static struct node *find(const char *path)
{
	for (struct node *n = nodes; n < nodes + NODES; n++)
		if (n->path[0] && !strcmp(n->path, path))
			return n;
	return NULL;
}

/* --- watches --- */

static void push(const struct watch *w, const char *changed)
{
	struct event *e = &events[(first + nevents) % EVENTS];
	size_t n = strlen(w->full);

	FUZZ_ASSERT(nevents < EVENTS);
	if (!strncmp(changed, w->full, n))
		snprintf(e->path, sizeof e->path, "%.120s%.120s", w->path, changed + n);
	else
		snprintf(e->path, sizeof e->path, "%s", w->path);
	strcpy(e->token, w->token);
	nevents++;
	eventfd_write(fd, 1);
}

static void fire(const char *path, bool removed)
{
	for (struct watch *w = watches; w < watches + WATCHES; w++)
		if (w->path[0] && nevents < EVENTS - WATCHES &&
		    (!strcmp(path, w->full) || is_below(path, w->full) ||
		     (removed && is_below(w->full, path))))
			push(w, path);
}

/* --- the tree --- */

static void set(const char *path, const char *value, unsigned len)
{
	struct node *n = find(path);

	if (!n)
		for (n = nodes; n < nodes + NODES && n->path[0]; n++)
			;
	if (n == nodes + NODES)
		return; /* a guest's quota */
	snprintf(n->path, sizeof n->path, "%s", path);
	free(n->value);
	n->value = malloc(len + 1);
	FUZZ_ASSERT(n->value);
	memcpy(n->value, value, len);
	n->value[len] = 0;
	n->len = len;
}

static bool drop(const char *path)
{
	bool any = false;

	for (struct node *n = nodes; n < nodes + NODES; n++)
		if (n->path[0] && (!strcmp(n->path, path) || is_below(n->path, path))) {
			free(n->value);
			n->value = NULL;
			n->path[0] = 0;
			any = true;
		}
	return any;
}

void xs_mem_put(const char *path, const char *value, size_t len)
{
	set(path, value, (unsigned)len);
	fire(path, false);
}

void xs_mem_remove(const char *path)
{
	if (drop(path))
		fire(path, true);
}

const char *xs_mem_get(const char *path)
{
	struct node *n = find(path);

	if (n)
		return n->value;
	for (n = nodes; n < nodes + NODES; n++)
		if (n->path[0] && is_below(n->path, path))
			return "";
	return NULL;
}

void xs_mem_clear(void)
{
	eventfd_t v;

	for (struct node *n = nodes; n < nodes + NODES; n++) {
		free(n->value);
		n->value = NULL;
		n->path[0] = 0;
	}
	for (struct watch *w = watches; w < watches + WATCHES; w++)
		w->path[0] = 0;
	first = nevents = xs_mem_busy = xs_mem_calls = 0;
	if (fd >= 0)
		eventfd_read(fd, &v);
}

/* --- libxenstore --- */

struct xs_handle *xs_open(unsigned long flags)
{
	if (fd < 0)
		fd = eventfd(0, EFD_NONBLOCK);
	return (struct xs_handle *)nodes;
}

void xs_close(struct xs_handle *h)
{
}

int xs_fileno(struct xs_handle *h)
{
	return fd;
}

const char *xs_daemon_socket(void)
{
	return NULL;
}

void *xs_read(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned *len)
{
	char name[XS_MEM_PATH];
	const char *v;
	char *copy;
	size_t n;

	xs_mem_calls++;
	xs_mem_reads(full(path, name));
	v = xs_mem_get(name);
	if (!v) {
		errno = ENOENT;
		return NULL;
	}
	n = find(name) ? find(name)->len : 0;
	copy = malloc(n + 1);
	FUZZ_ASSERT(copy);
	memcpy(copy, v, n);
	copy[n] = 0;
	if (len)
		*len = (unsigned)n;
	return copy;
}

static void note_undo(const char *path)
{
	struct node *n = find(path), *u = &undo[nundo++];

	FUZZ_ASSERT(nundo <= UNDO);
	snprintf(u->path, sizeof u->path, "%s", path);
	u->len = n ? n->len : 0;
	u->value = n ? strdup(n->value) : NULL;
}

bool xs_write(struct xs_handle *h, xs_transaction_t t, const char *path, const void *data,
	      unsigned len)
{
	char name[XS_MEM_PATH];

	xs_mem_calls++;
	xs_mem_writes(full(path, name), data);
	if (in_transaction)
		note_undo(name);
	set(name, data, len);
	if (!in_transaction)
		fire(name, false);
	return true;
}

bool xs_rm(struct xs_handle *h, xs_transaction_t t, const char *path)
{
	char name[XS_MEM_PATH];

	xs_mem_calls++;
	xs_mem_writes(full(path, name), NULL);
	if (in_transaction)
		note_undo(name);
	if (drop(name))
		fire(name, true);
	return true;
}

/* Names of what stands directly below. */
char **xs_directory(struct xs_handle *h, xs_transaction_t t, const char *path, unsigned *num)
{
	char name[XS_MEM_PATH];
	char **list = calloc(1, NODES * (sizeof *list + XS_MEM_PATH)), *p;
	size_t skip = strlen(full(path, name)) + 1;

	FUZZ_ASSERT(list);
	xs_mem_calls++;
	xs_mem_reads(name);
	p = (char *)(list + NODES);
	*num = 0;
	for (struct node *n = nodes; n < nodes + NODES; n++) {
		size_t len;
		bool known = false;

		if (!n->path[0] || !is_below(n->path, name))
			continue;
		len = strcspn(n->path + skip, "/");
		for (unsigned i = 0; i < *num; i++)
			known |= strlen(list[i]) == len && !strncmp(list[i], n->path + skip, len);
		if (known)
			continue;
		list[(*num)++] = p;
		memcpy(p, n->path + skip, len);
		p += len + 1;
	}
	return list;
}

xs_transaction_t xs_transaction_start(struct xs_handle *h)
{
	xs_mem_calls++;
	FUZZ_ASSERT(!in_transaction);
	in_transaction = true;
	return 1;
}

bool xs_transaction_end(struct xs_handle *h, xs_transaction_t t, bool undone)
{
	bool again = !undone && xs_mem_busy;

	FUZZ_ASSERT(in_transaction);
	xs_mem_busy -= again;
	in_transaction = false;
	for (unsigned i = nundo; i-- > 0;) {
		if ((undone || again) && undo[i].value)
			set(undo[i].path, undo[i].value, undo[i].len);
		else if (undone || again)
			drop(undo[i].path);
		else
			fire(undo[i].path, !find(undo[i].path));
		free(undo[i].value);
	}
	nundo = 0;
	errno = EAGAIN;
	return !again;
}

bool xs_set_permissions(struct xs_handle *h, xs_transaction_t t, const char *path,
			struct xs_permissions *perms, unsigned n)
{
	return true;
}

bool xs_watch(struct xs_handle *h, const char *path, const char *token)
{
	struct watch *w = watches;
	char name[XS_MEM_PATH];

	xs_mem_calls++;
	xs_mem_reads(full(path, name));
	while (w < watches + WATCHES && w->path[0])
		w++;
	FUZZ_ASSERT(w < watches + WATCHES && strlen(token) < sizeof w->token);
	snprintf(w->path, sizeof w->path, "%s", path);
	snprintf(w->full, sizeof w->full, "%s", name);
	strcpy(w->token, token);
	push(w, name);
	return true;
}

bool xs_unwatch(struct xs_handle *h, const char *path, const char *token)
{
	for (struct watch *w = watches; w < watches + WATCHES; w++)
		if (!strcmp(w->path, path) && !strcmp(w->token, token))
			w->path[0] = 0;
	return true;
}

char **xs_check_watch(struct xs_handle *h)
{
	const struct event *e = &events[first % EVENTS];
	char **out, *p;
	eventfd_t v;

	if (!nevents) {
		eventfd_read(fd, &v);
		errno = EAGAIN;
		return NULL;
	}
	first = (first + 1) % EVENTS;
	nevents--;
	out = malloc(2 * sizeof *out + sizeof e->path + sizeof e->token);
	FUZZ_ASSERT(out);
	p = (char *)(out + 2);
	out[0] = strcpy(p, e->path);
	out[1] = strcpy(p + sizeof e->path, e->token);
	return out;
}
