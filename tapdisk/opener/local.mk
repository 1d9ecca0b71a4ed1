# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/opener/opener.c \
	tapdisk/opener/opener.h \
	tapdisk/opener/opener-calls.c \
	tapdisk/opener/opener-calls.h \
	tapdisk/opener/opener-host.c \
	tapdisk/opener/opener-rights.c \
	tapdisk/opener/opener-rights.h \
	tapdisk/opener/opener-serve.c
