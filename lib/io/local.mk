# SPDX-License-Identifier: LGPL-2.1-or-later
# files, engines, and memory in pieces; clock-libc.c belongs to programs (--enable-turn-clock), not to the library
lib_libtd_a_SOURCES += \
	lib/io/align.c \
	lib/io/clock.c \
	lib/io/clock.h \
	lib/io/extent.c \
	lib/io/file-op.c \
	lib/io/file-lock.c \
	lib/io/file-open.c \
	lib/io/file.c \
	lib/io/file.h \
	lib/io/io-aio.c \
	lib/io/io-engines.h \
	lib/io/io-threads.c \
	lib/io/io-uring.h \
	lib/io/io.c \
	lib/io/iov.c \
	lib/io/iov.h \
	lib/io/merge.c \
	lib/io/merge.h \
	lib/io/budget.c \
	lib/io/budget.h \
	lib/io/pool.c \
	lib/io/pool.h \
	lib/io/reach.c \
	lib/io/reach.h \
	lib/io/request.c \
	lib/io/workers.c \
	lib/io/workers.h
if HAVE_URING
lib_libtd_a_SOURCES += lib/io/io-uring.c
endif
