# SPDX-License-Identifier: LGPL-2.1-or-later
# All but main() is a library too, so that tests can link a part of it.
noinst_LIBRARIES += tapdisk/libtapdisk.a
tapdisk_libtapdisk_a_SOURCES = \
	tapdisk/chain.c \
	tapdisk/changed.c \
	tapdisk/changed.h \
	tapdisk/commit.c \
	tapdisk/commit.h \
	tapdisk/chain.h \
	tapdisk/leaf-cache.c \
	tapdisk/limit.c \
	tapdisk/leaf-cache.h \
	tapdisk/limit.h \
	tapdisk/namespaces.c \
	tapdisk/namespaces.h \
	tapdisk/options.c \
	tapdisk/options.h \
	tapdisk/parent-disk.h \
	tapdisk/parent-disk.c \
	tapdisk/queue.c \
	tapdisk/queue.h \
	tapdisk/server.c \
	tapdisk/server.h
include tapdisk/opener/local.mk
include tapdisk/sandbox/local.mk
include tapdisk/ctl/local.mk
include tapdisk/vbd/local.mk
include tapdisk/blkif/local.mk
include tapdisk/nbd/local.mk
include tapdisk/cache/local.mk
include tapdisk/mirror/local.mk
include tapdisk/stats/local.mk
tapdisk_libtapdisk_a_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
TAPDISK_LIBS = tapdisk/libtapdisk.a $(TLS_LIBS) $(DRIVERS_LIBS) $(TD_LIBS) $(XEN_LIBS)

libexec_PROGRAMS += tapdisk/tapdisk
tapdisk_tapdisk_SOURCES = tapdisk/main.c
if TURN_CLOCK
tapdisk_tapdisk_SOURCES += lib/io/clock-libc.c
endif
tapdisk_tapdisk_LDADD = $(TAPDISK_LIBS)
