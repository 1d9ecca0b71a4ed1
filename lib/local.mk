# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += lib/libtd.a
lib_libtd_a_SOURCES = \
	lib/bytes.h \
	lib/changed-log.h \
	lib/conf.c \
	lib/conf.h \
	lib/ctl-client.c \
	lib/ctl-client.h \
	lib/ctl-dir.c \
	lib/ctl-dir.h \
	lib/dial.c \
	lib/dial.h \
	lib/disk-words.c \
	lib/disk-words.h \
	lib/json-get.c \
	lib/json-get.h \
	lib/keep.c \
	lib/keep.h \
	lib/kill.h \
	lib/log-out.c \
	lib/log-out.h \
	lib/log.c \
	lib/marker.c \
	lib/marker.h \
	lib/msg.c \
	lib/msg.h \
	lib/nbd-proto.h \
	lib/nbd-uri.c \
	lib/nbd-uri.h \
	lib/output.c \
	lib/output.h \
	lib/pass-fd.c \
	lib/pass-fd.h \
	lib/passed.c \
	lib/passed.h \
	lib/path.c \
	lib/path.h \
	lib/peers.c \
	lib/peers.h \
	lib/proc.c \
	lib/proc.h \
	lib/readers.c \
	lib/readers.h \
	lib/redo-apply.c \
	lib/redo-find.c \
	lib/redo-inside.h \
	lib/redo.c \
	lib/redo.h \
	lib/seccomp.c \
	lib/seccomp.h \
	lib/settle.c \
	lib/settle.h \
	lib/shm-dir.c \
	lib/shm-dir.h \
	lib/sibling.c \
	lib/sibling.h \
	lib/syncmark.c \
	lib/syncmark.h \
	lib/zeroes.c \
	lib/zeroes.h
include lib/io/local.mk
include lib/fiber/local.mk
include lib/tls/local.mk
# what a program that stands on lib links
TD_LIBS = lib/libtd.a $(JANSSON_LIBS) $(EV_LIBS) $(AIO_LIBS) $(URING_LIBS)
