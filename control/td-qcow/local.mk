# SPDX-License-Identifier: LGPL-2.1-or-later
sbin_PROGRAMS += bin/td-qcow
bin_td_qcow_SOURCES = \
	control/td-qcow/td-qcow-commit.c \
	control/td-qcow/td-qcow-create.c \
	control/td-qcow/td-qcow-show.c \
	control/td-qcow/td-qcow.c \
	control/td-qcow/td-qcow.h
bin_td_qcow_LDADD = $(DRIVERS_LIBS) $(TD_LIBS)
