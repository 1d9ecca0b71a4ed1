/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tapdisk/stats/stats.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- counting --- */

static void add_counts(struct stats_count *to, const struct stats_count *n)
{
	to->done += STATS_GET(n->done);
	to->errors += STATS_GET(n->errors);
	to->sectors += STATS_GET(n->sectors);
	to->ns += STATS_GET(n->ns);
	to->under_way += STATS_GET(n->under_way);
}

struct stats_count stats_sum(const struct stats *s, unsigned kind)
{
	struct stats_count sum = s->gone[kind];

	td_list_each (l, &s->sources)
		add_counts(&sum, &td_entry(l, struct stats_source, link)->kind[kind]);
	return sum;
}

static unsigned source_under_way(const struct stats_source *src)
{
	unsigned n = 0;

	for (unsigned i = 0; i < STATS_KINDS; i++)
		n += STATS_GET(src->kind[i].under_way);
	return n;
}

unsigned stats_under_way(const struct stats *s)
{
	unsigned n = 0;

	td_list_each (l, &s->sources)
		n += source_under_way(td_entry(l, struct stats_source, link));
	return n;
}

static bool is_in_thread(const struct stats_source *src)
{
	return src->tally != &src->disk->tally;
}

void stats_taken(struct stats_source *src)
{
	struct stats_tally *t = src->tally;
	unsigned n = is_in_thread(src) ? source_under_way(src) : stats_under_way(src->disk),
		 i = n ? 31 - (unsigned)__builtin_clz(n) : 0;

	if (n > t->most)
		STATS_ADD(t->most, n - t->most);
	STATS_ADD(t->depth[i < STATS_DEPTHS ? i : STATS_DEPTHS - 1], src->begun);
	src->begun = 0;
}

static void join_tally(struct stats_tally *t, const struct stats_tally *from)
{
	for (unsigned i = 0; i < STATS_KINDS; i++)
		histogram_join(&t->took[i], &from->took[i]);
	for (unsigned i = 0; i < STATS_DEPTHS; i++)
		t->depth[i] += STATS_GET(from->depth[i]);
	if (STATS_GET(from->most) > t->most)
		t->most = STATS_GET(from->most);
}

struct stats_tally *stats_tally_all(const struct stats *s)
{
	struct stats_tally *t = malloc(sizeof *t);

	if (!t)
		return NULL;
	*t = s->tally;
	td_list_each (l, &s->sources)
		if (is_in_thread(td_entry(l, struct stats_source, link)))
			join_tally(t, td_entry(l, struct stats_source, link)->tally);
	return t;
}

void stats_open(struct stats *s, int minor)
{
	char name[32];

	memset(s, 0, sizeof *s);
	td_list_init(&s->sources);
	snprintf(name, sizeof name, "vdi-%d", minor);
	shm_open_file(&s->shm, name);
}

void stats_close(struct stats *s)
{
	shm_close_file(&s->shm);
}

void stats_source_open(struct stats_source *src, struct stats *disk, const char *name)
{
	memset(src, 0, sizeof *src);
	src->disk = disk;
	src->tally = &disk->tally;
	src->device = src;
	td_list_each (l, &disk->sources) {
		struct stats_source *s = td_entry(l, struct stats_source, link);

		if (name && !strcmp(s->shm.name, name))
			src->device = s;
	}
	td_list_add(&disk->sources, &src->link);
	if (name && src->device == src)
		shm_open_file(&src->shm, name);
}

int stats_source_thread(struct stats_source *src)
{
	struct stats_tally *t = calloc(1, sizeof *t);

	if (!t)
		return -ENOMEM;
	src->tally = t;
	return 0;
}

/* The file that its device's other queues show in is theirs from now on. */
static void pass_on(struct stats_source *src)
{
	struct stats_source *heir = NULL;

	td_list_each (l, &src->disk->sources) {
		struct stats_source *s = td_entry(l, struct stats_source, link);

		if (s->device != src)
			continue;
		if (!heir) {
			heir = s;
			heir->shm = src->shm;
			memset(&src->shm, 0, sizeof src->shm);
		}
		s->device = heir;
	}
}

void stats_source_close(struct stats_source *src)
{
	if (!src->disk)
		return;
	stats_publish(src); /* the disk's page outlives it */
	for (unsigned i = 0; i < STATS_KINDS; i++)
		add_counts(&src->disk->gone[i], &src->kind[i]);
	if (is_in_thread(src)) {
		join_tally(&src->disk->tally, src->tally);
		free(src->tally);
	}
	td_list_del(&src->link);
	pass_on(src);
	shm_close_file(&src->shm);
	src->disk = NULL;
}

/* --- for other programs --- */

static void show_dir(struct td_shm_dir *to, const struct stats_count *n)
{
	to->submitted = n->done + n->under_way;
	to->completed = n->done;
	to->sectors = n->sectors;
	to->ticks = n->ns / 1000;
}

/* Flushes and discards show in what is outstanding and in the errors alone, as libxenstat has no
 * place for them. */
static void publish_counts(struct td_shm_counters *to, const struct stats_count n[STATS_KINDS])
{
	uint64_t outstanding = 0, errors = 0;

	for (unsigned i = 0; i < STATS_KINDS; i++) {
		outstanding += n[i].under_way;
		errors += n[i].errors;
	}
	to->outstanding = outstanding;
	to->io_errors = errors;
	show_dir(&to->read, &n[STATS_READ]);
	show_dir(&to->write, &n[STATS_WRITE]);
}

/* All its queues. */
static void show_device(const struct stats_source *device)
{
	struct stats_count sum[STATS_KINDS] = {};

	td_list_each (l, &device->disk->sources) {
		const struct stats_source *s = td_entry(l, struct stats_source, link);

		for (unsigned i = 0; s->device == device && i < STATS_KINDS; i++)
			add_counts(&sum[i], &s->kind[i]);
	}
	publish_counts(device->shm.at, sum);
}

void stats_publish(const struct stats_source *src)
{
	const struct stats *s = src->disk;
	struct stats_count sum[STATS_KINDS];

	if (src->device->shm.at)
		show_device(src->device);
	if (!s->shm.at)
		return;
	for (unsigned i = 0; i < STATS_KINDS; i++)
		sum[i] = stats_sum(s, i);
	publish_counts(s->shm.at, sum);
}
