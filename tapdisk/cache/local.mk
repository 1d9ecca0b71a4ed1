# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/cache/cache-barrier.c \
	tapdisk/cache/cache-flush.c \
	tapdisk/cache/cache-inside.h \
	tapdisk/cache/cache-cancel.c \
	tapdisk/cache/cache-mode.c \
	tapdisk/cache/cache-space.c \
	tapdisk/cache/cache.c \
	tapdisk/cache/cache.h \
	tapdisk/cache/lane.c \
	tapdisk/cache/lane.h
