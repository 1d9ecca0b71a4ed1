/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The processes of the simulated host: a tapdisk is born, goes on step by step, and dies. */
#include "tests/crash/host-inside.h"

#include <jansson.h>
#include <stdlib.h>

#include "lib/ctl-client.h"
#include "lib/fiber/fiber.h"
#include "lib/kill.h"
#include "tests/crash/clock.h"
#include "tests/crash/stand-in.h"

#define TURN      0.0002 /* s on the lab's clock that a turn of the loop takes */
#define BORED     0.25   /* s that it jumps when nothing can happen before a timer */
#define BORED_MAX 600    /* of these in a row, and it hangs */

LAB struct host H = {0};

void host_say(const char *fmt, ...)
{
	va_list ap;

	if (!H.r->verbose)
		return;
	va_start(ap, fmt);
	printf("    [%u] ", H.r->clock);
	vprintf(fmt, ap);
	printf("\n");
	fflush(stdout);
	va_end(ap);
}

void host_blame(const char *rule, const char *text)
{
	if (H.r->bad.rule)
		return;
	H.r->bad.rule = rule;
	H.r->bad.sector = 0;
	H.r->bad_at = H.r->clock;
	snprintf(H.r->bad.text, sizeof H.r->bad.text, "%s", text);
}

uint32_t host_tick(void)
{
	return H.r->clock++;
}

/* What a successor would be told: is it paused? */
static bool recorded_as_paused(void)
{
	char path[4200];
	json_t *rec;
	bool paused;

	td_ctl_disk_path(H.minor, path);
	rec = json_load_file(path, 0, NULL);
	paused = json_is_true(json_object_get(rec, "paused"));
	json_decref(rec);
	return paused;
}

/* While a disk goes on after a pause: no guest's request is at its image before the record says so.
 */
static void check_record(void)
{
	const struct life *l = H.life[H.serving];

	if (H.starting && l && l->v && l->v->cache.at_image && recorded_as_paused())
		host_blame("I8",
			   "guests run, and a successor would be paused: the record does not say "
			   "so yet");
}

/* Something is about to happen, in a process; which may die before it. */
void host_happens(const char *what)
{
	if (process_current() == H.serving && H.serving != NOBODY && H.starting)
		check_record();
	if (process_current() != H.serving || !H.die_in || --H.die_in)
		return;
	H.r->last = what;
	process_die();
}

#define X(name) #name,
static const char *const instants[] = {TD_KILL_NAMES(X)};
#undef X

void td_kill_at(enum td_kill_point p)
{
	host_happens(instants[p]);
}

int td_kill_sync(int result)
{
	return result;
}

static void birth(void *arg)
{
	struct life *l = calloc(1, sizeof *l);

	l->loop = ev_loop_new(EVFLAG_NOENV | EVBACKEND_POLL);
	stand_in_start(&l->home, l->loop, &H.sim, H.h->lanes);
	H.life[process_current()] = l;
}

int host_new_process(void)
{
	unsigned i = 0;

	while ((int)i == H.giver || (int)i == H.serving)
		i++;
	process_new(i);
	process_run(i, birth, NULL);
	return (int)i;
}

/* A process has ended: its clients never hear of what they had asked. */
void host_drop_clients(int of)
{
	for (unsigned i = 0; i < DIRECT_MAX; i++)
		if (H.direct[i].busy && H.direct[i].owner == of) {
			free(H.direct[i].mem);
			H.direct[i].busy = false;
			H.outstanding--;
		}
}

/* What its disk stands on, which a successor is told. */
static void look_at_record(void)
{
	char path[4200];
	json_t *rec;

	if (!host_commits(H.r->format))
		return;
	td_ctl_disk_path(H.minor, path);
	rec = json_load_file(path, 0, NULL);
	host_commit_spec(json_string_value(json_object_get(rec, "args")));
	json_decref(rec);
}

/* The process that serves is gone: its clients by NBD with it; a guest's rings stay. */
static void lost_all(void)
{
	host_say("it is dead, before: %s", H.r->last ? H.r->last : "a kill");
	H.r->n.deaths++;
	H.sim.who = (unsigned)H.serving;
	sim_death(&H.sim, (unsigned)H.serving, true);
	process_end((unsigned)H.serving);
	host_drop_clients(H.serving);
	H.life[H.serving] = NULL;
	H.serving = NOBODY;
	H.between |= H.busy;
	H.busy = H.working = H.starting = false;
	H.die_in = 0;
	H.dead = H.open;
	if (H.dead)
		look_at_record();
	if (H.r->bad.rule)
		return;
	{
		struct pages files[SIM_FILES];
		char text[200];

		for (unsigned i = 0; i < H.sim.nfiles; i++)
			files[i] = H.sim.file[i].now;
		if (!H.lost && host_check(H.r, H.r->clock, H.spec, files, text, sizeof text))
			host_blame("I5", text);
	}
}

void host_kill_it(void)
{
	H.r->last = NULL;
	lost_all();
}

static void step_main(void *arg)
{
	struct life *l = H.life[H.serving];
	bool moved = false;

	for (uint64_t n = rng_below(&H.rng, 4); n; n--) {
		clock_advance(TURN);
		ev_run(l->loop, EVRUN_NOWAIT);
	}
	while (rng_chance(&H.rng, 60) && stand_in_mail(&H.rng))
		moved = true;
	while (rng_chance(&H.rng, H.h->eager) && H.sim.nrunning) {
		host_happens("the disk has done an operation");
		sim_step(&H.sim);
		moved = true;
	}
	l->idle = !moved;
}

/* One step of the process that serves; true: something moved. */
bool host_step(void)
{
	if (H.serving == NOBODY)
		return false;
	host_call(step_main, NULL);
	host_commit_look();
	return H.serving != NOBODY && !H.life[H.serving]->idle;
}

void host_let(unsigned n)
{
	while (n-- && H.serving != NOBODY)
		host_step();
}

void host_call(void (*fn)(void *arg), void *arg)
{
	if (!process_run((unsigned)H.serving, fn, arg))
		lost_all();
}

bool host_alive(void)
{
	return H.serving != NOBODY;
}

bool host_wait_for(bool (*done)(void), const char *what)
{
	unsigned bored = 0;
	char text[200];

	while (H.serving != NOBODY && !done()) {
		bored = host_step() ? 0 : bored + 1;
		if (bored > 40)
			clock_advance(BORED);
		if (bored > BORED_MAX) {
			snprintf(text, sizeof text,
				 "%s: it hangs: %u requests are not answered, %u operations run",
				 what, H.outstanding, H.sim.nrunning);
			host_blame("I6", text);
			return false;
		}
	}
	return H.serving != NOBODY;
}

bool host_op_done(void)
{
	return !H.busy;
}

/* No operation is at work any more; false: it is dead. */
bool host_at_rest(void)
{
	return host_alive() && host_wait_for(host_op_done, "an operation");
}

bool host_drained(void)
{
	return !H.outstanding || (H.paused && host_commits(H.r->format));
}

static void fiber_main(void *arg)
{
	void (*fn)(struct vbd * v);

	memcpy(&fn, arg, sizeof fn);
	fn(H.life[process_current()]->v);
	H.busy = false;
}

static void start_fiber(void *arg)
{
	td_fiber_start(H.life[process_current()]->loop, fiber_main, arg);
}

/* Begins it in the process that serves; op_done() tells of its end, or its death. */
void host_begin(void (*fn)(struct vbd *v))
{
	static LAB void (*doing)(struct vbd * v) = NULL;

	H.busy = true;
	H.rc = 0;
	H.err.code = 0;
	doing = fn;
	host_call(start_fiber, &doing);
}

/* The same, to its end; false: it died. */
bool host_perform(void (*fn)(struct vbd *v), const char *what)
{
	host_begin(fn);
	return host_wait_for(host_op_done, what);
}
