/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * A tapdisk killed at named and at random instants, again and again, under a guest that keeps its
 * ring full; each time another takes its place.  The death of a process, not of the machine: what
 * the kernel has stays (crashlab cuts the power).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/ctl-client.h"
#include "lib/shm-dir.h"
#include "tests/crash/kill-disk.h"
#include "tests/crash/kill-guest.h"

static const char usage[] =
	"usage: killlab --image TYPE:PATH [--mode M] [--engine libaio|threads] [--kills N] [--seed "
	"N] [--patience S] [--sticky] [--changed] [--secondary TYPE:PATH [--base PATH]]\n"
	"  --kills N   100; one in two at a named point, each in its turn\n"
	"  --sticky    instead, deaths around an fdatasync that fails: no write may succeed after "
	"it\n"
	"  --changed   keeps a log of changed blocks, too\n"
	"  --secondary has the image become full, and this one take its place: beneath it, both "
	"upon "
	"PATH, or standing by\n"
	"Runs in a directory of its own, which $TAPDISK_CONTROL_DIR names.  The image is empty, of "
	"8 MiB.\n"
	"Prints `died at NAME N' and `pause US' lines, `redirected' of an image that became full, "
	"and a RESULT; exits 1 after a violation.\n";

#define LIFE_MOST   20           /* ms, for a death at random */
#define ARMED_MOST  100          /* ms that a named point has to be come to */
#define FULL_MOST   5000         /* the same, of one at a leaf that becomes full */
#define LINGER_MOST 200000       /* us */
#define STARTS_MOST 20.0         /* s */
#define ROOM_LEAST  (512u << 10) /* bytes of a leaf that becomes full: its metadata, and ... */
#define ROOM_MORE   (3u << 20)   /* ... not all that the guest writes */

static struct kill_disk disk = {.mode = "none", .engine = "libaio"};
static struct kill_guest k;
static struct rng rng;
static pid_t child;
static unsigned at_random;
static int next_point;
static unsigned next_full;
static bool log_changes;
static double patience_s = 100; /* that a guest has with a tapdisk that does not answer */

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void violation(const char *what, uint64_t seed, unsigned kill)
{
	printf("VIOLATION: %s, cache=%s, %s, seed %llu, after kill %u: %s\n", disk.spec, disk.mode,
	       disk.engine, (unsigned long long)seed, kill, what);
}

/* True: it is dead, and by a signal: one that has ended by itself has said why. */
static bool is_dead(bool *well)
{
	int status;

	*well = true;
	if (waitpid(child, &status, WNOHANG) != child)
		return false;
	*well = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	td_shm_sweep(child);
	child = 0;
	return true;
}

static bool kill_it(void)
{
	bool well = true;

	kill(child, SIGKILL);
	while (!is_dead(&well))
		usleep(100);
	return well;
}

static bool wait_ready(void)
{
	bool well;

	for (double end = now() + STARTS_MOST; now() < end && !atomic_load(&kill_shared->ready);) {
		if (is_dead(&well))
			return false;
		usleep(100);
	}
	return atomic_load(&kill_shared->ready);
}

/* Keeps the guest at work until the tapdisk is dead, at a named point or after so many ms; NULL, or
 * what is wrong. */
static const char *live_and_die(double ms)
{
	double end = now() + ms / 1000, patience = now() + patience_s;
	uint64_t answers = k.answers;
	bool well;

	for (;;) {
		if (is_dead(&well))
			return well ? NULL : "the tapdisk has ended by itself";
		if (rng_chance(&rng, 95))
			kill_guest_issue(&k, 1 + (unsigned)rng_below(&rng, 12));
		kill_guest_wait(&k, rng_chance(&rng, 50) ? 0 : 1);
		if (k.bad[0])
			return k.bad;
		if (k.answers != answers) {
			answers = k.answers;
			patience = now() + patience_s;
		}
		if (now() > patience && kill_guest_waits(&k))
			return "KG4: no answer";
		/* a life that was too short to begin shows nothing */
		if (now() < end || (!atomic_load(&kill_shared->ready) && now() < patience))
			continue;
		atomic_store(&kill_shared->armed, -1);
		at_random++;
		atomic_store(&kill_shared->last, -1);
		if (!kill_it())
			return "the tapdisk has ended by itself";
		return NULL;
	}
}

/* After a death at `since': until something is answered. */
static const char *first_answer(double since)
{
	uint64_t answers = k.answers;
	bool well;

	while (k.answers == answers && kill_guest_waits(&k)) {
		kill_guest_wait(&k, 10);
		if (k.bad[0])
			return k.bad;
		if (is_dead(&well))
			return well ? NULL : "the tapdisk has ended by itself";
		if (now() - since > patience_s)
			return "KG4: no answer after the death of a tapdisk";
	}
	if (k.answers != answers)
		printf("pause %.0f\n", (now() - since) * 1e6);
	return NULL;
}

static void arm(int point, unsigned most)
{
	atomic_store(&kill_shared->countdown, 1 + (unsigned)rng_below(&rng, most));
	atomic_store(&kill_shared->armed, point);
}

/* Of those that a life comes to, each in its turn. */
static void arm_next(void)
{
	arm(next_point, rng_chance(&rng, 50) ? 3 : 60);
	next_point = (next_point + 1) % TD_KILL_ADOPT_MAPPED;
}

/* Is there a leaf that becomes full, and is not yet? */
static bool is_filling(void)
{
	return disk.secondary && !kill_disk_redirected();
}

/* On the way from a write that finds no space to its answer. */
static void arm_full(void)
{
	atomic_store(&kill_shared->linger, (unsigned)rng_below(&rng, LINGER_MOST));
	arm(TD_KILL_FULL_FOUND + (int)(next_full++ % (TD_KILL_COUNT - TD_KILL_FULL_FOUND)), 1);
}

/* One in the taking over, or soon after it. */
static void arm_successor(void)
{
	if (disk.secondary && rng_chance(&rng, 50)) {
		arm_full();
		return;
	}
	/* some of what the dead one had marked is answered, and some is not */
	if (rng_chance(&rng, 40))
		arm(rng_chance(&rng, 50) ? TD_KILL_PUSH_DONE : TD_KILL_NOTIFY_DONE, 2);
	else if (rng_chance(&rng, 70))
		arm(TD_KILL_ADOPT_MAPPED +
			    (int)rng_below(&rng, TD_KILL_FULL_FOUND - TD_KILL_ADOPT_MAPPED),
		    2);
	else
		arm_next();
}

/* Was the last death one that leaves answers marked and not given? */
static bool between_mark_and_push(void)
{
	int died = atomic_load(&kill_shared->last);

	return died >= TD_KILL_ANSWER_INDEX && died <= TD_KILL_PUSH_BEGIN;
}

/* ms */
static double next_life(bool named)
{
	if (is_filling()) {
		arm_full();
		return FULL_MOST;
	}
	if (!named)
		return (double)rng_below(&rng, LIFE_MOST * 1000) / 1000;
	arm_next();
	return ARMED_MOST;
}

static const char *campaign(unsigned kills, unsigned *done)
{
	const char *wrong = NULL;

	child = kill_disk_start(&disk, false);
	if (disk.secondary && !wait_ready())
		return "it does not begin";
	for (*done = 0; *done < kills && !wrong;) {
		double since;

		wrong = live_and_die(next_life(*done % 2));
		since = now();
		if (wrong)
			break;
		++*done;
		if (rng_chance(&rng, 50)) /* the guest does not know that nobody is there */
			kill_guest_issue(&k, 1 + (unsigned)rng_below(&rng, 32));
		/* and the next dies while it takes over */
		if (rng_chance(&rng, between_mark_and_push() ? 80 : disk.secondary ? 60 : 20))
			arm_successor();
		child = kill_disk_start(&disk, true);
		wrong = first_answer(since);
		for (; !wrong && !child; wrong = first_answer(since)) { /* it did */
			++*done;
			child = kill_disk_start(&disk, true);
		}
		atomic_store(&kill_shared->armed, -1);
	}
	return wrong;
}

/* Whoever has died before its leaf was full shows nothing. */
static const char *fill(void)
{
	double end = now() + patience_s;

	while (is_filling() && !k.bad[0] && now() < end) {
		kill_guest_issue(&k, 8);
		kill_guest_wait(&k, 10);
	}
	if (k.bad[0] || is_filling())
		return k.bad[0] ? k.bad : "the leaf does not become full";
	printf("redirected\n");
	return NULL;
}

/* Does the toolstack know? */
static bool is_full_told(void)
{
	char path[4096];

	return !td_ctl_full_path(0, path) && !access(path, F_OK);
}

/* All that is in flight is answered; every block is read; the image is closed. */
static const char *finish(void)
{
	double end = now() + patience_s;
	const char *wrong;
	int status;
	bool well;

	usleep(100000); /* one that was armed may be dying still */
	if (is_dead(&well))
		child = kill_disk_start(&disk, true);
	if (disk.secondary && (wrong = fill()))
		return wrong;
	while (kill_guest_waits(&k) && !k.bad[0] && now() < end)
		kill_guest_wait(&k, 10);
	if (kill_guest_waits(&k) && !k.bad[0])
		return "KG4: no answer at the end";
	kill_guest_check_all(&k);
	if (k.bad[0])
		return k.bad;
	if (disk.secondary && !is_full_told())
		return "the leaf is full, and its toolstack is not told";
	/* a close without space says that something is lost: a VHD's footer wants some, and of a
	 * leaf that is stood upon all is wanted */
	atomic_store(&kill_shared->room, UINT64_MAX);
	eventfd_write(disk.quit, 1);
	waitpid(child, &status, 0);
	td_shm_sweep(child);
	child = 0;
	return status ? "the image cannot be closed" : NULL;
}

/* --- a flush that fails --- */

static int one(uint8_t op, int ms)
{
	int slot = guest_slot(&k.g), status = -1;

	guest_queue(&k.g, slot, op, 0, op == BLKIF_FLUSH_DISKCACHE ? 0 : 4096);
	guest_push(&k.g);
	for (double end = now() + ms / 1000.; now() < end && !guest_reap(&k.g, &slot, &status);)
		usleep(100);
	return status;
}

static const char *sticky(unsigned i)
{
	static const int points[] = {TD_KILL_SYNC_FAILED,    TD_KILL_SYNC_ENDED,
				     TD_KILL_FLUSH_BACK,     TD_KILL_FLUSH_STICKY,
				     TD_KILL_FLUSH_ANSWERED, TD_KILL_ANSWER_MARKED,
				     TD_KILL_PUSH_BEGIN,     TD_KILL_PUSH_DONE};
	bool well;
	int slot, status;

	child = kill_disk_start(&disk, false);
	if (!wait_ready() || one(BLKIF_WRITE, 20000) || one(BLKIF_FLUSH_DISKCACHE, 20000))
		return "a write or a flush before the fault";
	if (one(BLKIF_WRITE, 20000))
		return "a write before the fault";
	atomic_store(&kill_shared->fail_sync, true);
	atomic_store(&kill_shared->countdown, 1);
	atomic_store(&kill_shared->armed, points[i % (sizeof points / sizeof *points)]);
	slot = guest_slot(&k.g);
	guest_queue(&k.g, slot, BLKIF_FLUSH_DISKCACHE, 0, 0);
	guest_push(&k.g);
	for (double end = now() + 20; now() < end && !is_dead(&well);)
		usleep(100);
	if (child)
		return "it does not come to the point of its death";
	/* the store is well again: only what is recorded knows */
	atomic_store(&kill_shared->fail_sync, false);
	child = kill_disk_start(&disk, true);
	if (!wait_ready())
		return "no successor";
	for (double end = now() + 20; now() < end && !guest_reap(&k.g, &slot, &status);)
		usleep(100);
	if (!status)
		return "the flush that failed succeeds";
	if (!one(BLKIF_WRITE, 20000) || !one(BLKIF_FLUSH_DISKCACHE, 20000))
		return "a write or a flush succeeds after one that failed";
	eventfd_write(disk.quit, 1);
	waitpid(child, NULL, 0);
	td_shm_sweep(child);
	child = 0;
	return NULL;
}

/* --- the program --- */

/* For the 8 MiB of the image, in the control directory; on a real file, as all of it. */
static void make_log(void)
{
	static char path[4096];
	static const unsigned char head[48 + KILL_BLOCKS / 16 / 8 + 16] = {[42] = 0x80};
	int fd;

	snprintf(path, sizeof path, "%s/changes", td_ctl_dir());
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, head, sizeof head) != sizeof head)
		abort();
	k.changed = mmap(NULL, sizeof head, PROT_READ, MAP_SHARED, fd, 0);
	if (k.changed == MAP_FAILED)
		abort();
	close(fd);
	disk.changed = path;
}

static void prepare(uint64_t seed)
{
	struct td_err err = {0};

	if (td_ctl_mkdirs(&err) || kill_guest_new(&k, seed, &err)) {
		fprintf(stderr, "killlab: %s\n", err.text);
		exit(2);
	}
	if (log_changes)
		make_log();
	if (disk.secondary)
		kill_disk_fill(disk.spec, ROOM_LEAST + rng_below(&rng, ROOM_MORE));
	disk.guest = &k.g;
	disk.quit = eventfd(0, EFD_CLOEXEC);
}

static void forget(void)
{
	kill_guest_free(&k);
	close(disk.quit);
}

static int run_sticky(unsigned n, uint64_t seed)
{
	for (unsigned i = 0; i < n; i++) {
		const char *wrong;

		prepare(seed + i);
		wrong = sticky(i);
		if (wrong) {
			violation(wrong, seed, i);
			return 1;
		}
		forget();
	}
	printf("RESULT\t%u\t0\t0\n", n);
	return 0;
}

static int run(unsigned kills, uint64_t seed)
{
	unsigned done = 0, points = 0;
	const char *wrong;

	prepare(seed);
	next_point = (int)(seed * 7 % TD_KILL_ADOPT_MAPPED);
	next_full = (unsigned)seed;
	wrong = campaign(kills, &done);
	if (!wrong)
		wrong = finish();
	for (int i = 0; i < TD_KILL_COUNT; i++)
		if (atomic_load(&kill_shared->died_at[i])) {
			points++;
			printf("died at %s %u\n", kill_names[i],
			       atomic_load(&kill_shared->died_at[i]));
		}
	if (wrong)
		violation(wrong, seed, done);
	printf("RESULT\t%u\t%u\t%u\t%llu\n", done, at_random, points,
	       (unsigned long long)k.answers);
	return wrong != NULL;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {{"image", required_argument, NULL, 'i'},
					      {"mode", required_argument, NULL, 'm'},
					      {"engine", required_argument, NULL, 'e'},
					      {"kills", required_argument, NULL, 'n'},
					      {"seed", required_argument, NULL, 's'},
					      {"sticky", no_argument, NULL, 'y'},
					      {"patience", required_argument, NULL, 'p'},
					      {"changed", no_argument, NULL, 'c'},
					      {"secondary", required_argument, NULL, '2'},
					      {"base", required_argument, NULL, 'b'},
					      {0}};
	unsigned kills = 100;
	uint64_t seed = 1;
	bool stick = false;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1)
		switch (c) {
		case 'i':
			disk.spec = optarg;
			break;
		case 'm':
			disk.mode = optarg;
			break;
		case 'e':
			disk.engine = optarg;
			break;
		case 'n':
			kills = (unsigned)atoi(optarg);
			break;
		case 's':
			seed = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			patience_s = atof(optarg);
			break;
		case 'y':
			stick = true;
			break;
		case 'c':
			log_changes = true;
			break;
		case '2':
			disk.secondary = optarg;
			break;
		case 'b':
			disk.base = optarg;
			break;
		default:
			fputs(usage, stderr);
			return 2;
		}
	if (!disk.spec || !getenv("TAPDISK_CONTROL_DIR")) {
		fputs(usage, stderr);
		return 2;
	}
	rng = rng_seed(seed, 'l');
	kill_disk_init();
	rc = stick ? run_sticky(kills, seed) : run(kills, seed);
	if (child > 0)
		kill_it();
	return rc;
}
