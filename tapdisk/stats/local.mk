# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/stats/histogram.c \
	tapdisk/stats/histogram.h \
	tapdisk/stats/shm.c \
	tapdisk/stats/shm.h \
	tapdisk/stats/stats.c \
	tapdisk/stats/stats.h
