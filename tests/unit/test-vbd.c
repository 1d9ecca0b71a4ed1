/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A disk's life (the diagram at the top of tapdisk/vbd/vbd.c), with a ring and without, on a
 * simulated store and on real files. */
#include "lib/json-get.h"
#include "tapdisk/vbd/record.h"
#include "tests/support/test-vbd.h"

/* --- states --- */

START_TEST(states_are_those_that_clients_know)
{
	begin();
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert_int_eq(DO(.what = CLOSE), -ENODEV);
	ck_assert_int_eq(DO(.what = PAUSE), -ENODEV);
	ck_assert_int_eq(DO(.what = UNPAUSE), -ENODEV);
	ck_assert_int_eq(DO(.what = RESIZE), -ENODEV);
	ck_assert_int_eq(DO(.what = CONNECT), -ENODEV);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_int_eq(DO(.what = OPEN), -EALREADY);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = OPEN), -EALREADY);
	ck_assert_uint_eq(vbd_state(v), 0x2a);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:gone"), -ENOENT);
	ck_assert_uint_eq(vbd_state(v), 0x22a);
	ck_assert_str_eq(v->spec, "aio:disk");
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(DO(.what = UNPAUSE, .spec = "aio:other"), -EBUSY);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	end();
}
END_TEST

START_TEST(an_open_that_fails_leaves_the_disk_closed)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:gone"), -ENOENT);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "bogus:disk"), -ENOENT);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "vdi:disk"), -ENOSYS);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "disk"), -EINVAL);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:"), -EINVAL);
	fault_io_file(&fio, "odd", 1000);
	fault_io_file(&fio, "empty", 0);
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:odd"), -EINVAL);
	ck_assert_ptr_nonnull(strstr(err.text, "multiple of 512"));
	ck_assert_int_eq(DO(.what = OPEN, .spec = "aio:empty"), -EINVAL);
	ck_assert_uint_eq(vbd_state(v), 0x2);
	ck_assert(!vbd_busy(v));
	end();
}
END_TEST

START_TEST(a_paused_disk_can_be_closed)
{
	begin();
	ck_assert_int_eq(DO(.what = OPEN), 0);
	ck_assert_int_eq(DO(.what = PAUSE), 0);
	ck_assert_int_eq(DO(.what = CLOSE), 0);
	ck_assert_int_eq(DO(.what = OPEN), 0);
	end();
}
END_TEST

START_TEST(the_mode_decides_what_a_close_flushes)
{
	static const struct {
		const char *mode;
		bool ro;
		unsigned syncs;
	} t[] = {{"writeback", false, 1},
		 {"writethrough", false, 1},
		 {"unsafe", false, 0},
		 {"writeback", true, 0}};

	for (unsigned i = 0; i < 4; i++) {
		begin();
		ck_assert_int_eq(DO(.what = OPEN, .mode = t[i].mode, .read_only = t[i].ro), 0);
		fault_io_clear(&fio);
		ck_assert_int_eq(DO(.what = CLOSE), 0);
		ck_assert_uint_eq(fio.nlog, t[i].syncs);
		end();
	}
}
END_TEST

/* --- the rest --- */

START_TEST(a_resize_grows)
{
	begin_connected();
	nchanged = 0;
	ck_assert_int_eq(DO(.what = RESIZE), 0);
	ck_assert(nchanged == 0 && v->disk.sectors == SECTORS);
	ck_assert_int_eq(
		fio.io->ops->truncate(fio.io, (int)(file - fio.file), SECTORS * 1024 + 100), 0);
	put(BLKIF_READ, SECTORS, 1);
	ck_assert_uint_eq(answers(), 1);
	ck_assert_int_eq(g.last, BLKIF_ERROR); /* not before it is told */
	ck_assert_int_eq(DO(.what = RESIZE), 0);
	ck_assert(nchanged == 1 && v->disk.sectors == SECTORS * 2);
	put(BLKIF_READ, SECTORS, 1);
	ck_assert_uint_eq(answers(), 2);
	ck_assert_int_eq(g.last, BLKIF_OKAY);
	ck_assert_int_eq(fio.io->ops->truncate(fio.io, (int)(file - fio.file), SECTORS * 512), 0);
	ck_assert_int_eq(DO(.what = RESIZE), -EINVAL);
	ck_assert_uint_eq(v->disk.sectors, SECTORS * 2);
	end();
}
END_TEST

static void begin_direct(uint32_t block)
{
	begin();
	fio.off_align = block;
	queue.direct = fio.io;
}

static void end_direct(void)
{
	queue.direct = NULL;
	end();
}

/* Two hosts' read-modify-writes of one block would undo each other. */
START_TEST(hosts_share_a_disk_in_blocks_of_its_store_only)
{
	static const struct {
		uint32_t block;
		unsigned sector;
		bool read_only;
		int rc;
		const char *text;
	} t[] = {{512, 0, false, 0, NULL},
		 {512, 4096, false, 0, NULL},
		 {4096, 0, false, -EINVAL, "sector-size=4096"},
		 {4096, 512, false, -EINVAL, "sector-size=4096"},
		 {4096, 4096, false, 0, NULL},
		 {4096, 0, true, 0, NULL},
		 {8192, 4096, false, -EINVAL, "8192 bytes, and no guest has sectors as large"}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		begin_direct(t[i].block);
		ck_assert_int_eq(DO(.what = OPEN, .mode = "none", .shared = true,
				    .sector_size = t[i].sector, .read_only = t[i].read_only),
				 t[i].rc);
		if (t[i].text)
			ck_assert_msg(strstr(err.text, t[i].text) != NULL, "%s", err.text);
		end_direct();
	}
}
END_TEST

START_TEST(a_guest_of_a_shared_disk_writes_whole_blocks_or_nothing)
{
	static const struct {
		bool shared;
		unsigned sector, n;
		int status;
	} t[] = {{true, 8, 8, BLKIF_OKAY},  {true, 8, 1, BLKIF_ERROR}, {true, 9, 8, BLKIF_ERROR},
		 {true, 8, 7, BLKIF_ERROR}, {false, 8, 1, BLKIF_OKAY}, {false, 9, 8, BLKIF_OKAY}};

	for (unsigned i = 0; i < sizeof t / sizeof *t; i++) {
		begin_direct(4096);
		ck_assert_int_eq(DO(.what = OPEN, .mode = "directsync", .shared = t[i].shared,
				    .sector_size = 4096),
				 0);
		ck_assert_int_eq(DO(.what = CONNECT), 0);
		put_write(t[i].sector, t[i].n);
		ck_assert_uint_eq(answers(), 1);
		ck_assert_int_eq(g.last, t[i].status);
		ck_assert_uint_eq(vbd_state(v), 0); /* which is no failure of the disk's */
		put(BLKIF_READ, 9, 1);
		ck_assert_uint_eq(answers(), 2);
		ck_assert_int_eq(g.last, BLKIF_OKAY);
		end_direct();
	}
}
END_TEST

START_TEST(operations_at_once_run_one_after_the_other)
{
	struct call c[] = {{.what = OPEN},   {.what = PAUSE}, {.what = UNPAUSE}, {.what = OPEN},
			   {.what = PAUSE},  {.what = CLOSE}, {.what = CLOSE},   {.what = OPEN},
			   {.what = RESIZE}, {.what = PAUSE}};
	static const int rc[] = {0, 0, 0, -EALREADY, 0, 0, -ENODEV, 0, 0, 0};
	unsigned n = sizeof c / sizeof *c;

	for (int round = 0; round < 20; round++) {
		begin();
		for (unsigned i = 0; i < n; i++)
			begin_call(&c[i]);
		for (unsigned i = 0; i < n; i++) {
			ck_assert_int_eq(end_call(&c[i]), rc[i]);
			ck_assert_uint_eq(c[i].order, i + 1);
			c[i].order = 0;
		}
		ck_assert_uint_eq(vbd_state(v), 0x2a);
		end();
	}
}
END_TEST

START_TEST(pauses_at_random_under_load_answer_every_write)
{
	unsigned n = 0;

	srand(11);
	begin_connected();
	fio.reorder = true;
	for (unsigned round = 0; round < 400; round++) {
		for (unsigned i = (unsigned)rand() % 8; i && g.prod - g.cons < 32; i--, n++)
			put(rand() % 6   ? BLKIF_WRITE
			    : rand() % 2 ? BLKIF_FLUSH_DISKCACHE
					 : BLKIF_WRITE_BARRIER,
			    (unsigned)rand() % 2000, 1);
		turns(rand() % 4);
		if (rand() % 3 == 0) {
			ck_assert_int_eq(DO(.what = PAUSE), 0);
			turns(rand() % 3);
			ck_assert_int_eq(DO(.what = UNPAUSE), 0);
		}
		answers();
		ck_assert_int_eq(g.last, BLKIF_OKAY);
	}
	for (int i = 0; i < 100; i++)
		answers();
	ck_assert_uint_eq(g.cons, n);
	end();
}
END_TEST

/* The same life on real files, with the engines that go with them. */
START_TEST(a_life_on_a_real_file)
{
	char path[] = "test-vbd.XXXXXX", spec[64];
	int fd = mkstemp(path), tries = 0;
	char *back = malloc(4096);

	ck_assert_int_eq(ftruncate(fd, 1 << 20), 0);
	snprintf(spec, sizeof spec, "raw:%s", path);
	for (const struct td_cache_mode *m = td_cache_modes; m->name; m++) {
		begin();
		fault_io_free(&fio);
		queue.buffered = NULL;
		int rc = DO(.what = OPEN, .spec = spec, .mode = m->name);
		if (rc == -EINVAL && (m->file_flags & TD_FILE_DIRECT)) {
			ck_assert_ptr_nonnull(strstr(err.text, "O_DIRECT"));
			goto next; /* a file system without it */
		}
		ck_assert_int_eq(rc, 0);
		ck_assert_int_eq(DO(.what = CONNECT), 0);
		memset(g.page, 'a' + tries, 4096);
		put(BLKIF_WRITE, 64, 1);
		while (!answers())
			usleep(1000);
		ck_assert_int_eq(DO(.what = PAUSE), 0);
		put(BLKIF_FLUSH_DISKCACHE, 0, 0);
		ck_assert_int_eq(DO(.what = UNPAUSE), 0);
		while (answers() < 2)
			usleep(1000);
		ck_assert(g.cons == 2 && g.last == BLKIF_OKAY);
		ck_assert_int_eq(pread(fd, back, 4096, 32768), 4096);
		ck_assert_mem_eq(back, g.page, 4096);
		tries++;
	next:
		if (v->spec)
			ck_assert_int_eq(DO(.what = FORCE), 0);
		vbd_free(v);
		queue_fini(&queue);
		ev_loop_destroy(loop);
		close(g.kick);
	}
	ck_assert_int_ge(tries, 3);
	free(back);
	close(fd);
	unlink(path);
}
END_TEST

static void reopen_paused(void *arg)
{
	struct vbd_options o = {.mode = td_cache_mode_find("writeback")};
	struct vbd_past past = {
		.paused = true,
		.sectors = SECTORS,
		.job = {.node = "node", .base = "aio:base", .state = VBD_JOB_RUNNING}};

	*(int *)arg = vbd_reopen(v, "aio:disk", &o, &past, &err);
}

/* Nobody would begin it again, and who waits for its end would wait for ever. */
START_TEST(a_commit_of_a_disk_that_is_paused_in_its_new_process_has_failed)
{
	struct vbd_job_told told;
	int rc = 1;

	begin();
	on_fiber(loop, reopen_paused, &rc);
	ck_assert_int_eq(rc, 0);
	ck_assert_int_eq(vbd_commit_query(v, &told, &err), -ECANCELED);
	ck_assert_int_eq(DO(.what = UNPAUSE), 0);
	ck_assert_int_eq(vbd_commit_query(v, &told, &err), -ECANCELED);
	end();
}
END_TEST

static void reopen_failed(void *arg)
{
	struct vbd_options o = {.mode = td_cache_mode_find("writeback")};
	struct vbd_past past = {.paused = true,
				.sectors = SECTORS,
				.job = {.node = "node",
					.base = "aio:base",
					.state = VBD_JOB_FAILED,
					.err = -EIO,
					/* as of a name that a buffer's end has cut */
					.text = "cannot read /srv/gr\xc3\xbc\xc3"}};

	*(int *)arg = vbd_reopen(v, "aio:disk", &o, &past, &err);
}

/* Else a successor would know of no job, and who asks it take that for its good end. */
START_TEST(a_job_whose_error_is_cut_within_a_character_stays_in_the_record)
{
	json_t *o;
	int rc = 1;

	begin();
	on_fiber(loop, reopen_failed, &rc);
	ck_assert_int_eq(rc, 0);
	o = record_json(v);
	ck_assert_ptr_nonnull(o);
	ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "commit"), "state")),
			 "failed");
	ck_assert_str_eq(json_string_value(json_object_get(json_object_get(o, "commit"), "text")),
			 "cannot read /srv/gr\xc3\xbc");
	json_decref(o);
	end();
}
END_TEST

START_TEST(text_of_any_origin_can_be_told)
{
	static const char *const text[][2] = {
		{"plain", "plain"},        {"", ""},           {"gr\xc3\xbcn", "gr\xc3\xbcn"},
		{"gr\xfcn", "gr?n"},       {"a\xe2\x82", "a"}, {"a\xf0\x9f\x92", "a"},
		{"\xed\xa0\x80z", "???z"}, {"\xff", "?"}};

	for (unsigned i = 0; i < sizeof text / sizeof *text; i++) {
		json_t *o = td_json_told(text[i][0]);

		ck_assert_ptr_nonnull(o);
		ck_assert_str_eq(json_string_value(o), text[i][1]);
		json_decref(o);
	}
}
END_TEST

enum { VBD_ENTRIES = 18 };

START_TEST(a_disk_that_is_gone_is_noticed_by_each_entry)
{
	static struct vbd gone;
	const struct vbd_options o = {0};
	const struct td_relink to = {0};
	const struct vbd_past past = {0};
	double began;

	switch (_i) {
	case 0:
		vbd_busy(&gone);
		break;
	case 1:
		vbd_free(&gone);
		break;
	case 2:
		vbd_open(&gone, "aio:disk", &o, &err);
		break;
	case 3:
		vbd_reopen(&gone, "aio:disk", &o, &past, &err);
		break;
	case 4:
		vbd_close(&gone, false, 0, &err);
		break;
	case 5:
		vbd_pause(&gone, 0, &err);
		break;
	case 6:
		vbd_unpause(&gone, NULL, NULL, &err);
		break;
	case 7:
		vbd_resize(&gone, &err);
		break;
	case 8:
		vbd_relink(&gone, "", &to, &err);
		break;
	case 9:
		vbd_connect(&gone, NULL, 0, "mem", NULL, 0, &err);
		break;
	case 10:
		vbd_disconnect(&gone, 1, 1, &err);
		break;
	case 11:
		vbd_give(&gone, &began, &err);
		break;
	case 12:
		vbd_taken(&gone, 1);
		break;
	case 13:
		vbd_take_back(&gone);
		break;
	case 14:
		vbd_stay(&gone);
		break;
	case 15:
		vbd_ring(&gone);
		break;
	case 16:
		vbd_state(&gone);
		break;
	case 17:
		vbd_reason(&gone);
		break;
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("vbd");

	SUITE_ADD(s, states_are_those_that_clients_know);
	SUITE_ADD(s, an_open_that_fails_leaves_the_disk_closed);
	SUITE_ADD(s, a_paused_disk_can_be_closed);
	SUITE_ADD(s, the_mode_decides_what_a_close_flushes);
	SUITE_ADD(s, a_resize_grows);
	SUITE_ADD(s, hosts_share_a_disk_in_blocks_of_its_store_only);
	SUITE_ADD(s, a_guest_of_a_shared_disk_writes_whole_blocks_or_nothing);
	SUITE_ADD(s, operations_at_once_run_one_after_the_other);
	SUITE_ADD(s, pauses_at_random_under_load_answer_every_write);
	SUITE_ADD(s, a_life_on_a_real_file);
	SUITE_ADD(s, a_commit_of_a_disk_that_is_paused_in_its_new_process_has_failed);
	SUITE_ADD(s, a_job_whose_error_is_cut_within_a_character_stays_in_the_record);
	SUITE_ADD(s, text_of_any_origin_can_be_told);
	SUITE_ADD_LOOP_ABORT(s, a_disk_that_is_gone_is_noticed_by_each_entry, VBD_ENTRIES);
	return suite_run(s);
}
