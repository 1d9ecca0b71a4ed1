# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += lib/libtd.a
lib_libtd_a_SOURCES = lib/align.c \
	lib/await.c lib/await.h \
	lib/bytes.h \
	lib/clock.c lib/clock.h \
	lib/conf.c lib/conf.h \
	lib/ctl-client.c lib/ctl-client.h \
	lib/extent.c \
	lib/fiber.c lib/fiber.h lib/fiber-lock.c lib/fiber-lock.h \
	lib/file.c lib/file.h lib/file-kernel.c \
	lib/io.c lib/io-aio.c lib/io-threads.c lib/io-engines.h \
	lib/iov.c lib/iov.h \
	lib/kill.h lib/log.c lib/log-out.c lib/log-out.h \
	lib/merge.c lib/merge.h \
	lib/msg.c lib/msg.h \
	lib/nbd-proto.h \
	lib/output.c lib/output.h \
	lib/passed.c lib/passed.h \
	lib/path.c lib/path.h \
	lib/pool.c lib/pool.h \
	lib/readers.c lib/readers.h \
	lib/proc.c lib/proc.h \
	lib/redo.c lib/redo.h lib/redo-inside.h lib/redo-apply.c lib/redo-find.c lib/request.c \
	lib/settle.c lib/settle.h lib/shm-dir.c lib/shm-dir.h \
	lib/sibling.c lib/sibling.h \
	lib/workers.c lib/workers.h
if HAVE_URING
lib_libtd_a_SOURCES += lib/io-uring.c
endif
# what a program that stands on lib links
TD_LIBS = lib/libtd.a $(JANSSON_LIBS) $(EV_LIBS) $(AIO_LIBS) $(URING_LIBS)
