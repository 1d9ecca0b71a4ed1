# SPDX-License-Identifier: LGPL-2.1-or-later
sbin_PROGRAMS += control/td-qcow
control_td_qcow_SOURCES = control/td-qcow.c control/td-qcow.h control/td-qcow-commit.c control/td-qcow-create.c control/td-qcow-show.c
control_td_qcow_LDADD = $(DRIVERS_LIBS) $(TD_LIBS)
