# SPDX-License-Identifier: LGPL-2.1-or-later
sbin_PROGRAMS += bin/cbt-util
bin_cbt_util_SOURCES = \
	control/cbt-util/cbt-log.c \
	control/cbt-util/cbt-log.h \
	control/cbt-util/cbt-util.c
bin_cbt_util_LDADD = $(TD_LIBS)
