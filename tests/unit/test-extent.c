/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What a chain shows of its holes, and what a file says of its own. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/file.h"
#include "td/block.h"
#include "tests/support/on-fiber.h"
#include "tests/support/suite.h"

/* An image whose extents are a string: one letter for 512 bytes: D data, Z zeroes with space, H a
 * hole, P its parent's. */
static int letters(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		   int max)
{
	const char *map = image->priv;
	int n = 0;

	while (len && n < max) {
		char c = map[off / 512];
		uint64_t l = 0;

		while (l < len && map[(off + l) / 512] == c)
			l += 512;
		out[n++] = (struct td_extent){off, l,
					      c == 'D'   ? 0
					      : c == 'Z' ? TD_EXTENT_ZERO
					      : c == 'H' ? TD_EXTENT_HOLE | TD_EXTENT_ZERO
							 : TD_EXTENT_PARENT};
		off += l;
		len -= l;
	}
	return n;
}

static int failing(struct td_image *image, uint64_t off, uint64_t len, struct td_extent *out,
		   int max)
{
	return -EIO;
}

static const struct td_driver told = {.name = "told", .extents = letters},
			      fails = {.name = "fails", .extents = failing},
			      silent = {.name = "silent"};

static struct td_image image(const struct td_driver *d, const char *map, struct td_image *backing)
{
	return (struct td_image){.magic = TD_IMAGE_MAGIC,
				 .driver = d,
				 .priv = (void *)map,
				 .backing = backing,
				 .info = {.size = strlen(map) * 512}};
}

/* The same letters for what a chain shows, as far as `max' extents reach. */
static const char *shows(struct td_image *leaf, uint64_t off, uint64_t len, int max)
{
	static char text[4096];
	struct td_extent e[64];
	uint64_t at = off;
	int n = td_extents(leaf, off, len, e, max);
	char *p = text;

	ck_assert_int_ge(n, 1);
	ck_assert_int_le(n, max);
	for (int i = 0; i < n; i++) {
		ck_assert_uint_eq(e[i].off, at);
		ck_assert_uint_gt(e[i].len, 0);
		ck_assert(!i || e[i].flags != e[i - 1].flags);
		at += e[i].len;
		ck_assert_uint_le(at, off + len);
		memset(p,
		       !e[i].flags                     ? 'D'
		       : e[i].flags == TD_EXTENT_ZERO  ? 'Z'
		       : e[i].flags & TD_EXTENT_PARENT ? 'P'
						       : 'H',
		       e[i].len / 512);
		p += e[i].len / 512;
	}
	*p = 0;
	return text;
}

START_TEST(chain_shows_parents)
{
	struct td_image root = image(&told, "DDHHPPZZ", NULL),
			mid = image(&told, "PPPPPPPPPPPP", &root),
			leaf = image(&told, "DPDPDPDPHPPPPPZD", &mid);

	ck_assert_str_eq(shows(&leaf, 0, 16 * 512, 64), "DDDHDHDZHHHHHHZD");
	ck_assert_str_eq(shows(&leaf, 512 * 3, 512 * 5, 64), "HDHDZ");
	/* hole of its own, parents' and beyond the parents' end: one */
	ck_assert_str_eq(shows(&leaf, 512 * 8, 512 * 6, 1), "HHHHHH");
}
END_TEST

START_TEST(chain_ends_early_when_there_is_no_room)
{
	struct td_image leaf = image(&told, "DDHHDDHH", NULL);

	ck_assert_str_eq(shows(&leaf, 0, 8 * 512, 1), "DD");
	ck_assert_str_eq(shows(&leaf, 0, 8 * 512, 3), "DDHHDD");
}
END_TEST

START_TEST(chain_more_pieces_than_one_question_takes)
{
	char map[601];
	struct td_image root, leaf;

	for (int i = 0; i < 600; i++)
		map[i] = i & 1 ? 'P' : 'D';
	map[600] = 0;
	root = image(&silent, map, NULL);
	leaf = image(&told, map, &root);
	ck_assert_uint_eq(strlen(shows(&leaf, 0, 600 * 512, 2)), 600); /* all data: one extent */
	ck_assert_ptr_null(strchr(shows(&leaf, 0, 600 * 512, 2), 'H'));
}
END_TEST

START_TEST(chain_driver_that_cannot_tell_is_data)
{
	struct td_image a = image(&silent, "HHHH", NULL), b = image(&fails, "HHHH", NULL),
			leaf = image(&told, "PPZZ", &b);

	ck_assert_str_eq(shows(&a, 0, 4 * 512, 64), "DDDD");
	ck_assert_str_eq(shows(&b, 0, 4 * 512, 64), "DDDD");
	ck_assert_str_eq(shows(&leaf, 0, 4 * 512, 64), "DDZZ");
}
END_TEST

static char path[] = "/var/tmp/td-extent.XXXXXX";

static void file_main(void *arg)
{
	struct td_io *io = arg;
	struct td_extent e[8];
	struct td_file *f;
	struct td_err err = {0};

	ck_assert_int_eq(td_file_open(io, path, 0, &f, &err), 0);
	ck_assert_int_eq(td_file_extents(f, 0, 4 << 20, e, 8), 3);
	ck_assert_uint_eq(e[0].len, 1 << 20);
	ck_assert_uint_eq(e[0].flags, TD_EXTENT_HOLE | TD_EXTENT_ZERO);
	ck_assert_uint_eq(e[1].off, 1 << 20);
	ck_assert_uint_eq(e[1].len, 1 << 20);
	ck_assert_uint_eq(e[1].flags, 0);
	ck_assert_uint_eq(e[2].off, 2 << 20);
	ck_assert_uint_eq(e[2].len, 2 << 20);
	ck_assert_uint_eq(e[2].flags, TD_EXTENT_HOLE | TD_EXTENT_ZERO);
	ck_assert_int_eq(td_file_extents(f, (1 << 20) + 512, 4096, e, 8), 1);
	ck_assert_uint_eq(e[0].len, 4096);
	ck_assert_uint_eq(e[0].flags, 0);
	ck_assert_int_eq(td_file_extents(f, 0, 4 << 20, e, 1), 1);
	td_file_close(f);
}

START_TEST(file_tells_its_holes)
{
	struct ev_loop *loop = ev_loop_new(0);
	struct td_io *io;
	struct td_err err = {0};
	int fd = mkstemp(path);
	char *data = malloc(1 << 20);

	memset(data, 0x5a, 1 << 20);
	ck_assert_int_eq(ftruncate(fd, 4 << 20), 0);
	ck_assert_int_eq(pwrite(fd, data, 1 << 20, 1 << 20), 1 << 20);
	free(data);
	if (lseek(fd, 0, SEEK_DATA) == 1 << 20) { /* else a file system that keeps no holes */
		ck_assert_int_eq(td_io_new(loop, "threads", false, &io, &err), 0);
		on_fiber(loop, file_main, io);
		td_io_free(io);
	}
	close(fd);
	unlink(path);
	ev_loop_destroy(loop);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("extent");

	SUITE_ADD(s, chain_shows_parents);
	SUITE_ADD(s, chain_ends_early_when_there_is_no_room);
	SUITE_ADD(s, chain_more_pieces_than_one_question_takes);
	SUITE_ADD(s, chain_driver_that_cannot_tell_is_data);
	SUITE_ADD(s, file_tells_its_holes);
	return suite_run(s);
}
