# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/blkif/blkif-abi.c \
	tapdisk/blkif/blkif-abi.h \
	tapdisk/blkif/blkif-check.c \
	tapdisk/blkif/blkif-connect.c \
	tapdisk/blkif/blkif-copy.c \
	tapdisk/blkif/blkif-idle.c \
	tapdisk/blkif/blkif-layout.h \
	tapdisk/blkif/blkif-persist.c \
	tapdisk/blkif/blkif-poll.c \
	tapdisk/blkif/blkif-poll.h \
	tapdisk/blkif/blkif-ring.h \
	tapdisk/blkif/blkif-takeover.c \
	tapdisk/blkif/blkif-window.c \
	tapdisk/blkif/blkif.c \
	tapdisk/blkif/blkif.h \
	tapdisk/blkif/inflight.c \
	tapdisk/blkif/inflight.h \
	tapdisk/blkif/xport-mem.c \
	tapdisk/blkif/xport-xen.c
