/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The formats that the lab cuts: a new one is a new line in the table of formats.c.  One whose
 * driver this build does not have is reported as missing.
 */
#ifndef CRASH_FORMATS_H
#define CRASH_FORMATS_H

#include <stdbool.h>

#include "tests/crash/pages.h"
#include "tests/crash/sim.h"
#include "td/block.h"

/* A disk as it is before the run: the leaf first, then what it needs. */
struct template
{
	struct pages file[SIM_FILES];
	char name[SIM_FILES][64]; /* in the simulated disk */
	bool blockdev[SIM_FILES];
	unsigned n;
	struct td_key key; /* of one that the commands have left a file `key' for */
};

struct format {
	const char *name;
	const char *type; /* the driver's */
	uint64_t sectors; /* of the guest's disk */
	uint32_t edge;    /* sectors: block or cluster */
	uint32_t align;   /* bytes: the store's blocks under direct I/O */
	bool blockdev;
	uint32_t initial;       /* what a sector reads at first: TAG_* */
	uint64_t initial_every; /* see struct gtrace */
	const char *qemu;       /* qemu-img's name of the format; NULL: it cannot tell */
	const char *other; /* instead, commands that make the raw image `out' of the files, with a
			      program not ours; 127: it is not there */
	bool qemu_differs; /* after a cut QEMU may rightly read another of the possible values (it
			      looks at no bitmap of a VHD) */
	bool checkable;    /* qemu-img check knows it */
	/* Histories commit images of its chain while it is in use: its image "mid", or any. */
	enum { COMMITS_NONE, COMMITS_MIDDLE, COMMITS_ANY } commits;
	bool mirrored; /* histories mirror it */
	/* Its secondary, the image "copy", is a part of it: read beneath it, or standing by. */
	enum { JOINS_NOT, JOINS_READ, JOINS_STANDBY } joins;
	/* Commands that make the image "leaf" (and others) in the current directory; NULL:
	 * `sectors' of zeroes. */
	const char *create;
};

extern const struct format formats[]; /* ends with name == NULL */
/* the same, of those that the simulated host alone has */
extern const struct format formats_host[];

const struct format *format_find(const char *name);
const struct format *format_find_host(const char *name);
bool format_has_driver(const struct format *f);

/* 0, or -errno with the reason on stderr: -ENOENT when a tool is missing. */
int format_template(const struct format *f, struct template *t);
/* Makes the file of a parent: sectors, of which those with s / every odd hold TAG_INITIAL.  0 or
 * -errno. */
int format_pattern(const char *path, uint64_t sectors, uint64_t every);
/* What commands make of the file "leaf" in the current directory; 0 or -errno. */
int format_change(const struct pages *p, const char *args, struct pages *after);
void template_free(struct template *t);
/* And a log of changed blocks, of a disk of so many sectors; its place among the files, or -1. */
int template_add_log(struct template *t, uint64_t sectors);

/*
 * Has qemu-img, or f->other, look at an image: 0 sound, and tag[i] is what it reads in sector[i]; 1
 * not (text says why), -errno when it cannot be run.
 */
int format_qemu(const struct format *f, const struct template *t, const struct pages *files,
		const uint64_t *sector, uint32_t *tag, size_t n, uint64_t seed, char *text,
		size_t len);

#endif
