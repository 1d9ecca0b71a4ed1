/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The log of a format's changes (E1-E3 of lib/redo.h).  The image is 8 bytes, each a version number
 * of itself, so that a judge knows of each whether what was answered is there.  SEED=n in the
 * environment repeats a run; it is printed.
 */
#include <time.h>

/* What counts of a log changes by atomic stores alone: before and after each a process may have
 * died. */
static void (*at_store)(void);

static void stored(void)
{
	if (at_store)
		at_store();
}
#define __atomic_store_n(p, v, order) (stored(), *(p) = (v), stored())
#include "lib/redo.c"
#include "lib/redo-apply.c"
#undef __atomic_store_n

#include "tests/support/redo-log.h"

#define BYTES 8

struct world {
	uint8_t memory[BYTES];   /* what the process knows */
	uint8_t promised[BYTES]; /* what it has answered */
	uint8_t image[BYTES];    /* what the file has */
};

static struct world world;
static struct td_redo *alive;
static unsigned seed, deaths;
static bool in_order; /* each byte refers to those before it: what is there of the later is there of
			 the earlier */

/* What a process that is not killed would go on to do. */
struct life {
	uint8_t waiting[BYTES]; /* versions that are answered after a commit */
	uint8_t picture[BYTES];
	bool committing;
};

/* What a death leaves: the log, and the image as it is then. */
struct remains {
	uint8_t log[WHOLE], image[BYTES];
};

static void remains(struct remains *to, const uint8_t *of)
{
	memcpy(to->log, alive->head, WHOLE);
	memcpy(to->image, of, BYTES);
}

/* A successor that dies itself leaves a log that the next one reads. */
static void next_one_reads(void)
{
	struct redo_head h;
	int fd = open(log_path, O_RDONLY);

	ck_assert_int_eq(pread(fd, &h, sizeof h, 0), sizeof h);
	close(fd);
	ck_assert_msg(sane(&h), "seed %u: from %u and %u, used %u and %u, now %u, held %u", seed,
		      h.h[0].from, h.h[1].from, h.h[0].used, h.h[1].used, h.now, h.held);
}

/* What a successor makes of it. */
static void judge(const struct remains *of)
{
	int fd = open(log_path, O_RDWR | O_CREAT | O_TRUNC, 0600);

	deaths++;
	ck_assert_int_eq(write(fd, of->log, WHOLE), WHOLE);
	close(fd);
	memcpy(image->data, of->image, BYTES);
	at_store = next_one_reads;
	ck_assert_int_eq(adopt_and_apply(), 0);
	at_store = NULL;
	for (unsigned i = 0; i < BYTES; i++)
		ck_assert_msg(
			image->data[i] >= world.promised[i] && image->data[i] <= world.memory[i],
			"seed %u: byte %u is version %u after a death; %u was answered, %u written",
			seed, i, image->data[i], world.promised[i], world.memory[i]);
	for (unsigned i = 1; in_order && i < BYTES; i++)
		ck_assert_msg(image->data[i] <= image->data[i - 1],
			      "byte %u is there without the one before it", i);
}

static void die_here(void)
{
	static struct remains r;

	at_store = NULL;
	remains(&r, world.image);
	judge(&r);
	at_store = die_here;
}

/* Of a successor, which is on a fiber: judged later. */
static struct remains *later[16];
static unsigned nlater;

static void die_later(void)
{
	ck_assert_uint_lt(nlater, 16);
	later[nlater] = malloc(sizeof **later);
	remains(later[nlater++], image->data);
}

static void write_one(struct life *l)
{
	unsigned i = (unsigned)rand() % BYTES;
	uint8_t version = (uint8_t)(world.memory[i] + 1);

	if (version == 255)
		return;
	world.memory[i] = version;
	if (put(alive, i % 2 ? TD_REDO_FIRST : TD_REDO_SECOND, i, version) &&
	    !td_redo_missed(alive))
		world.promised[i] = version;
	else
		l->waiting[i] = version;
}

static void commit_or_not(struct life *l)
{
	int rc = rand() % 2 ? 0 : -EIO;

	if (!l->committing) {
		memcpy(l->picture, world.memory, BYTES);
		td_redo_freeze(alive);
		l->committing = true;
		return;
	}
	l->committing = false;
	if (!rc)
		memcpy(world.image, l->picture, BYTES);
	td_redo_done(alive, rc);
	for (unsigned i = 0; !rc && i < BYTES; i++)
		if (l->waiting[i] && l->waiting[i] <= l->picture[i]) {
			if (l->waiting[i] > world.promised[i])
				world.promised[i] = l->waiting[i];
			l->waiting[i] = 0;
		}
}

static void live(void)
{
	struct life l = {.committing = false};

	for (int round = 0; round < 6; round++) {
		at_store = NULL;
		if (round % 3 == 1)
			fill_up(alive, 600); /* room for some changes more */
		at_store = die_here;
		for (int i = 0; i < 24; i++) {
			if (rand() % 3)
				write_one(&l);
			else
				commit_or_not(&l);
		}
	}
	at_store = NULL;
	put(alive, TD_REDO_FIRST, 0, world.memory[0]); /* for a successor, if there is room */
}

/* A successor may be killed as well.  It finds nothing to apply when all that fills the log comes
 * after a change that was missed. */
static void succeed(void)
{
	struct applying a = {alive, 0};
	unsigned stores = td_redo_pending(alive) ? 4 : 0;

	memcpy(image->data, world.image, BYTES);
	at_store = die_later;
	on_fiber(loop, apply_it, &a);
	at_store = NULL;
	ck_assert_int_eq(a.rc, 0);
	ck_assert_uint_ge(nlater, stores);
	for (unsigned i = 0; i < nlater; i++) {
		judge(later[i]);
		free(later[i]);
	}
	nlater = 0;
}

START_TEST(a_death_at_any_store_takes_nothing_that_was_answered)
{
	const char *given = getenv("SEED");
	char dead_log[140];

	seed = given ? (unsigned)atoi(given) : (unsigned)time(NULL) ^ (unsigned)getpid();
	printf("SEED=%u\n", seed);
	fflush(stdout);
	srand(seed);
	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	for (int i = 0; i < 3; i++) {
		memset(&world, 0, sizeof world);
		alive = td_redo_new(dead_log);
		live();
		succeed();
		td_redo_free(alive);
	}
	ck_assert_uint_gt(deaths, 300);
	unlink(dead_log);
	end();
}
END_TEST

/* What was in the file before a half was frozen may be newer there than its record, if the newer
 * one found no room. */
START_TEST(what_a_half_has_behind_it_does_not_come_back_while_it_is_emptied)
{
	char dead_log[140];

	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	alive = td_redo_new(dead_log);
	put(alive, TD_REDO_SECOND, 1, 0);
	td_redo_freeze(alive);
	td_redo_done(alive, -EIO);
	put(alive, TD_REDO_SECOND, 0, 1);
	fill_up(alive, 0);
	while (put(alive, TD_REDO_SECOND, 2, 0))
		;
	ck_assert(!put(alive, TD_REDO_SECOND, 0, 2));
	td_redo_freeze(alive);
	world = (struct world){.memory = {2}, .image = {2}};
	td_redo_done(alive, 0);
	world.promised[0] = 2; /* answered by the commit */
	at_store = die_here;
	td_redo_freeze(alive);
	td_redo_done(alive, 0);
	at_store = NULL;
	ck_assert_uint_ge(deaths, 6);
	td_redo_free(alive);
	unlink(dead_log);
	end();
}
END_TEST

/* A commit's steps by hand: what it takes in stands in the image when it is over, or in part before
 * that. */
static void commit_all(int rc, unsigned upto)
{
	td_redo_freeze(alive);
	for (unsigned i = 0; i < upto && !rc; i++) {
		world.image[i] = 1;
		die_here();
	}
	if (upto < BYTES && world.memory[upto] == 0) { /* one more, made during it */
		world.memory[upto] = 1;
		put(alive, TD_REDO_FIRST, upto, 1);
		die_here();
	}
	td_redo_done(alive, rc);
	die_here();
}

START_TEST(what_comes_after_a_change_that_was_missed_counts_only_with_it)
{
	char dead_log[140];

	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	in_order = true;
	for (unsigned fails = 0; fails < 3; fails++) {
		memset(&world, 0, sizeof world);
		alive = td_redo_new(dead_log);
		world.memory[0] = world.memory[1] = 1;
		fill_up(alive, 64);
		ck_assert(!td_redo_put(alive, TD_REDO_SECOND, 0, (uint8_t[600]){1}, 600));
		ck_assert(!put(alive, TD_REDO_SECOND, 1, 1)); /* for which there would be room */
		at_store = die_here;
		for (unsigned i = 0; i < fails; i++)
			commit_all(-EIO, 2 + i);
		commit_all(0, 2 + fails);
		memset(world.promised, 1,
		       3 + fails); /* it is missed no more, and so all is answered */
		ck_assert(!td_redo_missed(alive));
		die_here();
		at_store = NULL;
		td_redo_free(alive);
	}
	ck_assert_uint_ge(deaths, 30);
	in_order = false;
	unlink(dead_log);
	end();
}
END_TEST

/* What does not count is left out by a successor, who may be killed at that, when the commit that
 * took it in was over but for its last store. */
START_TEST(a_successor_that_dies_before_it_has_applied_leaves_a_log_that_is_read)
{
	char dead_log[140];

	begin();
	snprintf(dead_log, sizeof dead_log, "%s.dead", dir);
	memset(&world, 0, sizeof world);
	alive = td_redo_new(dead_log);
	world.memory[0] = world.memory[1] = 1;
	ck_assert(put(alive, TD_REDO_FIRST, 0, 1));
	td_redo_freeze(alive);
	td_redo_done(alive, -EIO);
	fill_up(alive, 64);
	ck_assert(!td_redo_put(alive, TD_REDO_SECOND, 0, (uint8_t[600]){1}, 600));
	td_redo_freeze(alive);
	td_redo_done(alive, -EIO);
	ck_assert(put(alive, TD_REDO_SECOND, 1, 1)); /* for which there is room */
	td_redo_freeze(alive);
	world.image[0] = world.image[1] = 1;
	at_store = die_here;
	td_redo_done(alive, 0);
	at_store = NULL;
	td_redo_free(alive);
	unlink(dead_log);
	end();
}
END_TEST

int main(void)
{
	Suite *s = suite_create("redo, deaths");

	SUITE_ADD(s, what_a_half_has_behind_it_does_not_come_back_while_it_is_emptied);
	SUITE_ADD(s, a_death_at_any_store_takes_nothing_that_was_answered);
	SUITE_ADD(s, what_comes_after_a_change_that_was_missed_counts_only_with_it);
	SUITE_ADD(s, a_successor_that_dies_before_it_has_applied_leaves_a_log_that_is_read);
	return suite_run(s);
}
