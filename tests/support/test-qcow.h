/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* A qcow2 on a simulated store (drive.h), and what its driver has of it. */
#ifndef TESTS_TEST_QCOW_H
#define TESTS_TEST_QCOW_H

#include "drivers/qcow/qcow-image.h"
#include "drivers/qcow/qcow.h"
#include "tests/support/drive.h"
#include "tests/support/suite.h"

#define CLUSTER (64u << 10)
#define SIZE    (64 * MIB)

static inline void create_it(void *arg)
{
	ck_assert_msg(qcow_image_create("/a.qcow2", arg, fio.io, &err) == 0, "%s", err.text);
}

static inline void create(struct qcow_create o)
{
	o.size = o.size ? o.size : SIZE;
	o.version = o.version ? o.version : 3;
	o.cluster_bits = 16;
	o.refcount_order = 4;
	fio.grows = true;
	fault_io_file(&fio, "/a.qcow2", 0);
	on_fiber(loop, create_it, &o);
}

static inline void open_new(void)
{
	begin();
	create((struct qcow_create){.size = SIZE});
	open_leaf("qcow2:/a.qcow2");
}

/* Upon a raw disk whose sectors say where they are. */
static inline void open_upon_raw(unsigned version)
{
	struct fault_file *raw;

	begin();
	raw = fault_io_file(&fio, "/base.img", SIZE);
	for (uint64_t i = 0; i < SIZE; i++)
		raw->data[i] = (uint8_t)(1 + i / 512 % 251);
	create((struct qcow_create){
		.version = version, .backing = "base.img", .backing_format = "raw"});
	open_leaf("qcow2:/a.qcow2");
}

struct checking {
	struct qcow_check c;
	int rc;
};

static inline void check_it(void *arg)
{
	struct checking *c = arg;

	c->rc = qcow_image_check("/a.qcow2", &c->c, fio.io, &err);
}

static inline void close_sound(void)
{
	struct checking c = {.rc = 0};

	close_leaf();
	on_fiber(loop, check_it, &c);
	ck_assert_int_eq(c.rc, 0);
	ck_assert_uint_eq(c.c.corruptions, 0);
	ck_assert_uint_eq(c.c.leaks, 0);
	end();
}

static inline struct qcow *driver(void)
{
	return leaf->priv;
}

/* Where a byte of the disk stands in the file; 0: nowhere. */
static inline uint64_t place_of(uint64_t off)
{
	struct qcow_run run;

	qcow_map(driver(), off, 512, &run);
	return run.kind == QCOW_RUN_DATA ? run.host : 0;
}

static inline uint64_t first_l2(void)
{
	return driver()->l1.entry[0] & QCOW_OFFSET;
}

static inline bool is_l2(const struct fault_record *r)
{
	return r->op == TD_IO_WRITE && r->off >= first_l2() && r->off < first_l2() + CLUSTER;
}

static inline bool is_count(const struct fault_record *r)
{
	return r->op == TD_IO_WRITE && r->off >= driver()->ref.entry[0] &&
	       r->off < driver()->ref.entry[0] + CLUSTER;
}

/* The tables of the disk's beginning are in memory, and there is an L2 table. */
static inline void warm(void)
{
	ok(TD_WRITE, mem, SIZE / 2 - CLUSTER, CLUSTER, 0);
	ok(TD_FLUSH, NULL, 0, 0, 0);
	ok(TD_READ, mem, 0, 512, 0);
	memset(mem, 0xab, MIB);
	fault_io_clear(&fio);
}

#endif
