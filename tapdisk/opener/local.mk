# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/opener/opener.c \
	tapdisk/opener/opener.h \
	tapdisk/opener/opener-calls.c \
	tapdisk/opener/opener-calls.h \
	tapdisk/opener/opener-datagram.c \
	tapdisk/opener/opener-datagram.h \
	tapdisk/opener/opener-dial.c \
	tapdisk/opener/opener-host.c \
	tapdisk/opener/opener-inside.h \
	tapdisk/opener/opener-job.c \
	tapdisk/opener/opener-job.h \
	tapdisk/opener/opener-named.c \
	tapdisk/opener/opener-parent.c \
	tapdisk/opener/opener-places.c \
	tapdisk/opener/opener-record.c \
	tapdisk/opener/opener-rights.c \
	tapdisk/opener/opener-rights.h \
	tapdisk/opener/opener-seal.c \
	tapdisk/opener/opener-seen.c \
	tapdisk/opener/opener-serve.c
