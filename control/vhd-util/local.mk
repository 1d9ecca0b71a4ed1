# SPDX-License-Identifier: LGPL-2.1-or-later
bin_PROGRAMS += bin/vhd-util
bin_vhd_util_SOURCES = \
	control/vhd-util/vhd-util-change.c \
	control/vhd-util/vhd-util-move.c \
	control/vhd-util/vhd-util-key.c \
	control/vhd-util/vhd-util-lvm.c \
	control/vhd-util/vhd-util-query.c \
	control/vhd-util/vhd-util-read.c \
	control/vhd-util/vhd-util-relink.c \
	control/vhd-util/vhd-util-scan.c \
	control/vhd-util/vhd-util-scan.h \
	control/vhd-util/vhd-util.c \
	control/vhd-util/vhd-util.h
bin_vhd_util_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
bin_vhd_util_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CRYPTO_LIBS)
