# SPDX-License-Identifier: LGPL-2.1-or-later
# All but main() is a library too, so that tests can link a part of it.
noinst_LIBRARIES += tapdisk/libtapdisk.a
tapdisk_libtapdisk_a_SOURCES = \
	tapdisk/blkif.c tapdisk/blkif.h tapdisk/blkif-ring.h tapdisk/blkif-check.c tapdisk/blkif-copy.c tapdisk/blkif-poll.c tapdisk/blkif-persist.c tapdisk/blkif-connect.c tapdisk/blkif-takeover.c \
	tapdisk/blkif-abi.c tapdisk/blkif-abi.h \
	tapdisk/cache.c tapdisk/cache.h tapdisk/cache-inside.h tapdisk/cache-barrier.c tapdisk/cache-flush.c tapdisk/cache-leave.c tapdisk/cache-mode.c tapdisk/cache-space.c \
	tapdisk/chain.c tapdisk/chain.h \
	tapdisk/ctl.c tapdisk/ctl.h tapdisk/ctl-ops.c tapdisk/ctl-ops.h tapdisk/ctl-move.c tapdisk/ctl-ring.c \
	tapdisk/handover.c tapdisk/handover.h \
	tapdisk/histogram.c tapdisk/histogram.h \
	tapdisk/inflight.c tapdisk/inflight.h \
	tapdisk/lane.c tapdisk/lane.h \
	tapdisk/nbd.c tapdisk/nbd.h tapdisk/nbd-conn.c tapdisk/nbd-conn.h tapdisk/nbd-cmd.c tapdisk/nbd-reply.c tapdisk/nbd-status.c tapdisk/nbd-passed.c \
	tapdisk/nbd-handshake.c tapdisk/nbd-handshake.h \
	tapdisk/options.c tapdisk/options.h \
	tapdisk/queue.c tapdisk/queue.h \
	tapdisk/record.c tapdisk/record.h \
	tapdisk/server.c tapdisk/server.h \
	tapdisk/settle.c tapdisk/settle.h \
	tapdisk/shm.c tapdisk/shm.h \
	tapdisk/syncmark.c tapdisk/syncmark.h \
	tapdisk/stats.c tapdisk/stats.h \
	tapdisk/stall.c tapdisk/stall.h \
	tapdisk/vbd.c tapdisk/vbd.h tapdisk/vbd-image.c tapdisk/vbd-state.c tapdisk/vbd-ring.c tapdisk/vbd-move.c tapdisk/vbd-inside.h \
	tapdisk/xport-mem.c tapdisk/xport-xen.c
tapdisk_libtapdisk_a_CFLAGS = $(AM_CFLAGS) $(XEN_CFLAGS)
TAPDISK_LIBS = tapdisk/libtapdisk.a $(DRIVERS_LIBS) $(TD_LIBS) $(XEN_LIBS)

libexec_PROGRAMS += tapdisk/tapdisk
tapdisk_tapdisk_SOURCES = tapdisk/main.c lib/clock-libc.c
tapdisk_tapdisk_LDADD = $(TAPDISK_LIBS)
