/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * promise: a guest's files, each fsynced, and told of when fsync has said that it is there; and
 * later, what is there.
 *
 *   promise write DIR NAME N   steps 1..N; "@P NAME N" when step N is promised
 *   promise check DIR NAME N   whether all that steps 1..N have promised is there; 1 when not
 *
 * What step N does follows from N alone (P1), so that whoever checks needs nothing but N:
 *
 * P1 N % 4 is 1: a new file fN, made under another name, fsynced and renamed.  2: a new file fN.
 *    3: the file of step N - 1 is overwritten in place.  0: the file "log" grows by a sector.  In
 *    each, the file and then the directory are fsynced.
 * P2 Each sector of 512 bytes says what it is: NAME, the step, its number in the file, again and
 *    again until it is full.
 * P3 After a cut, a file of a promised step has each of its sectors, of that step or of a later
 *    one that writes there.  Later steps may be there, in part, or not.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECTOR = 512, SECTORS_MAX = 48 };

static const char *name;

static void die(const char *what, const char *path)
{
	printf("promise: %s: %s %s: %s\n", name, what, path, strerror(errno));
	exit(2);
}

/* Of the file that step n makes, in sectors. */
static unsigned sectors(unsigned n)
{
	return 1 + n * 7919 % SECTORS_MAX;
}

static void fill(char *sector, unsigned step, unsigned at)
{
	char text[64];
	size_t len = (size_t)snprintf(text, sizeof text, "%s %u %u\n", name, step, at);

	for (size_t i = 0; i < SECTOR; i++)
		sector[i] = text[i % len];
}

/* --- writing --- */

static void put(const char *path, unsigned step, unsigned first, unsigned n)
{
	static char buf[SECTORS_MAX * SECTOR];
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	if (fd < 0)
		die("open", path);
	for (unsigned i = 0; i < n; i++)
		fill(buf + i * SECTOR, step, first + i);
	if (pwrite(fd, buf, n * SECTOR, (off_t)first * SECTOR) != (ssize_t)(n * SECTOR))
		die("write", path);
	if (fsync(fd) < 0)
		die("fsync", path);
	close(fd);
}

static void do_step(unsigned n, int dir)
{
	char path[32];

	snprintf(path, sizeof path, "f%u", n % 4 == 3 ? n - 1 : n);
	switch (n % 4) {
	case 0:
		put("log", n, n / 4 - 1, 1);
		break;
	case 1:
		put("new", n, 0, sectors(n));
		if (rename("new", path) < 0)
			die("rename to", path);
		break;
	case 2:
		put(path, n, 0, sectors(n));
		break;
	case 3:
		put(path, n, 0, sectors(n - 1));
		break;
	}
	if (fsync(dir) < 0)
		die("fsync", "of the directory");
}

static int write_steps(unsigned steps, int dir)
{
	for (unsigned n = 1; n <= steps; n++) {
		do_step(n, dir);
		printf("@P %s %u\n", name, n);
		fflush(stdout);
	}
	return 0;
}

/* --- checking (P3) --- */

static unsigned lost;

static void complain(const char *path, unsigned at, const char *what)
{
	if (lost++ < 5)
		printf("promise: %s: %s, sector %u: %s\n", name, path, at, what);
}

/* The step that a sector says it is of, or 0. */
static unsigned step_of(const char *sector, unsigned at)
{
	char want[SECTOR], who[32];
	unsigned step, number;

	if (sscanf(sector, "%31[^ ] %u %u\n", who, &step, &number) != 3 || strcmp(who, name) ||
	    number != at)
		return 0;
	fill(want, step, at);
	return memcmp(sector, want, SECTOR) ? 0 : step;
}

/* Sectors first..first + n - 1 of a file are of one of two steps. */
static void check_file(const char *path, unsigned first, unsigned n, unsigned step, unsigned later)
{
	char sector[SECTOR + 1] = "", what[96];
	int fd = open(path, O_RDONLY);

	if (fd < 0) {
		complain(path, 0, strerror(errno));
		return;
	}
	for (unsigned i = first; i < first + n; i++) {
		unsigned is = 0;

		if (pread(fd, sector, SECTOR, (off_t)i * SECTOR) == SECTOR)
			is = step_of(sector, i);
		if (is && (is == step || is == later))
			continue;
		snprintf(what, sizeof what,
			 "not what step %u promised, but of step %u (0: of none)", step, is);
		complain(path, i, what);
	}
	close(fd);
}

static int check_steps(unsigned promised)
{
	char path[32];

	for (unsigned n = 1; n <= promised; n++) {
		snprintf(path, sizeof path, "f%u", n % 4 == 3 ? n - 1 : n);
		if (n % 4 == 0)
			check_file("log", n / 4 - 1, 1, n, n);
		else if (n % 4 == 1)
			check_file(path, 0, sectors(n), n, n);
		else if (n % 4 == 2 && n + 1 > promised)
			check_file(path, 0, sectors(n), n, n + 1);
		else if (n % 4 == 3)
			check_file(path, 0, sectors(n - 1), n, n);
	}
	printf("promise: %s: %u steps, %u sectors lost\n", name, promised, lost);
	return lost ? 1 : 0;
}

int main(int argc, char **argv)
{
	unsigned n;
	int dir;

	if (argc != 5 || (strcmp(argv[1], "write") && strcmp(argv[1], "check"))) {
		fprintf(stderr, "usage: promise write|check DIR NAME N\n");
		return 2;
	}
	name = argv[3];
	dir = open(argv[2], O_RDONLY | O_DIRECTORY);
	if (dir < 0 || fchdir(dir) < 0)
		die("open", argv[2]);
	n = (unsigned)strtoul(argv[4], NULL, 10);
	return argv[1][0] == 'w' ? write_steps(n, dir) : check_steps(n);
}
