/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tests/support/vhd-trial.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "drivers/vhd/vhd-check.h"

struct td_err err;
char dir[64];
unsigned long seed;
static char made[512];
static uint64_t rng;

uint32_t rnd(uint32_t below)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)(rng >> 32) % below;
}

void setup(void)
{
	const char *s = getenv("VHD_SEED");

	/* thousands of small files: in memory, where there is any */
	strcpy(dir, access("/dev/shm", W_OK) == 0 ? "/dev/shm/vhd-image.XXXXXX"
						  : "/tmp/vhd-image.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	seed = s ? strtoul(s, NULL, 10) : (unsigned long)getpid() * 2654435761u % 1000000007u;
	rng = seed * 0x9e3779b97f4a7c15u + 1;
	printf("seed %lu (VHD_SEED repeats it)\n", seed);
	fflush(stdout);
}

void teardown(void)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.')
			unlinkat(dirfd(d), e->d_name, 0);
	closedir(d);
	rmdir(dir);
}

const char *in_dir(const char *name)
{
	snprintf(made, sizeof made, "%s/%s", dir, name);
	return made;
}

/* --- checks --- */

static void no_finding(const char *what, bool fatal, void *arg)
{
	if (fatal)
		snprintf(arg, 512, "%s", what);
}

static void no_good(const char *path, void *arg)
{
}

void check_image(const char *path, unsigned flags, const char *when)
{
	char what[512] = "";
	struct vhd_stats s;

	vhd_check(path, flags | VHD_CHECK_NO_TIME, no_finding, no_good, what, &s, NULL);
	ck_assert_msg(!*what, "seed %lu: %s: %s", seed, when, what);
}

/* The whole disk, through the chain. */
uint8_t *content(const char *path, uint64_t *size)
{
	struct vhd_image *v;
	uint8_t *b;

	err.code = 0;
	ok(vhd_image_open(path, VHD_LOOK | VHD_CHAIN, &v, &err));
	*size = v->size;
	b = malloc(v->size);
	ck_assert_ptr_nonnull(b);
	ok(vhd_image_read(v, b, 0, v->size, &err));
	vhd_image_close(v);
	return b;
}

void same_content(const char *path, const uint8_t *want, uint64_t size, const char *when)
{
	uint64_t got_size;
	uint8_t *got = content(path, &got_size);

	ck_assert_msg(got_size == size, "seed %lu: %s: %s has %llu bytes instead of %llu", seed,
		      when, path, (unsigned long long)got_size, (unsigned long long)size);
	for (uint64_t i = 0; i < size; i++)
		if (got[i] != want[i]) /* an assertion a byte would take minutes */
			ck_abort_msg("seed %lu: %s: %s differs at byte %llu (sector %llu): %02x "
				     "instead of %02x",
				     seed, when, path, (unsigned long long)i,
				     (unsigned long long)i / 512, got[i], want[i]);
	free(got);
}

/* Random runs of sectors, each sector with a number of its own. */
static void scribble(struct vhd_image *v, uint8_t *model, unsigned runs)
{
	static uint8_t buf[64 * 512];

	while (runs--) {
		uint64_t sectors = v->size / 512, first = rnd((uint32_t)sectors),
			 n = 1 + rnd(rnd(4) ? 8 : 63);

		if (n > sectors - first)
			n = sectors - first;
		for (uint64_t i = 0; i < n * 512; i += 4) {
			uint32_t x = i % 512 ? (uint32_t)(first * 512 + i) : rnd(UINT32_MAX);

			memcpy(buf + i, &x, 4);
		}
		ok(vhd_image_write(v, buf, first * 512, n * 512, &err));
		if (model)
			memcpy(model + first * 512, buf, n * 512);
	}
}

void write_some(const char *path, uint8_t *model, unsigned runs)
{
	struct vhd_image *v;

	ok(vhd_image_open(path, VHD_WRITE | VHD_CHAIN, &v, &err));
	scribble(v, model, runs);
	ok(vhd_image_flush(v, &err));
	vhd_image_close(v);
}
