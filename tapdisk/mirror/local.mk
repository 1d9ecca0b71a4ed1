# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/mirror/mirror-copy.c \
	tapdisk/mirror/mirror-full.c \
	tapdisk/mirror/mirror-inside.h \
	tapdisk/mirror/mirror-order.c \
	tapdisk/mirror/mirror.c \
	tapdisk/mirror/mirror.h
