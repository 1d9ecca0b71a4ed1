# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += lib/libtd.a
lib_libtd_a_SOURCES = lib/log.c \
	lib/msg.c lib/msg.h lib/ctl-client.c lib/ctl-client.h
# what a program that stands on lib links
TD_LIBS = lib/libtd.a $(JANSSON_LIBS) $(EV_LIBS) $(AIO_LIBS)
