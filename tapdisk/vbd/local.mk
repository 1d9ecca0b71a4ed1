# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/vbd/peers.c \
	tapdisk/vbd/peers.h \
	tapdisk/vbd/record.c \
	tapdisk/vbd/record.h \
	tapdisk/vbd/settle.c \
	tapdisk/vbd/settle.h \
	tapdisk/vbd/stall.c \
	tapdisk/vbd/stall.h \
	tapdisk/vbd/vbd-commit-chain.c \
	tapdisk/vbd/vbd-commit-check.c \
	tapdisk/vbd/vbd-commit.c \
	tapdisk/vbd/vbd-commit.h \
	tapdisk/vbd/vbd-image.c \
	tapdisk/vbd/vbd-rest.c \
	tapdisk/vbd/vbd-inside.h \
	tapdisk/vbd/vbd-mirror.c \
	tapdisk/vbd/vbd-move.c \
	tapdisk/vbd/vbd-ring.c \
	tapdisk/vbd/vbd-state.c \
	tapdisk/vbd/vbd.c \
	tapdisk/vbd/vbd.h
