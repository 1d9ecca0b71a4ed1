# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/nbd/nbd-after.c \
	tapdisk/nbd/nbd-cmd.c \
	tapdisk/nbd/nbd-conn.c \
	tapdisk/nbd/nbd-conn.h \
	tapdisk/nbd/nbd-handshake.c \
	tapdisk/nbd/nbd-handshake.h \
	tapdisk/nbd/nbd-passed.c \
	tapdisk/nbd/nbd-reply.c \
	tapdisk/nbd/nbd-status.c \
	tapdisk/nbd/nbd-turn.c \
	tapdisk/nbd/nbd.c \
	tapdisk/nbd/nbd.h
