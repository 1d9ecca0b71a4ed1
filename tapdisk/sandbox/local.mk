# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/sandbox/sandbox-filter.c \
	tapdisk/sandbox/sandbox-inside.h \
	tapdisk/sandbox/sandbox-rights.c \
	tapdisk/sandbox/sandbox.c \
	tapdisk/sandbox/sandbox.h
