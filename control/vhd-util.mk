# SPDX-License-Identifier: LGPL-2.1-or-later
bin_PROGRAMS += control/vhd-util
control_vhd_util_SOURCES = control/vhd-util.c control/vhd-util.h \
	control/vhd-util-change.c \
	control/vhd-util-key.c \
	control/vhd-util-lvm.c \
	control/vhd-util-query.c \
	control/vhd-util-read.c \
	control/vhd-util-scan.c control/vhd-util-scan.h
control_vhd_util_CFLAGS = $(AM_CFLAGS) $(CRYPTO_CFLAGS)
control_vhd_util_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CRYPTO_LIBS)
