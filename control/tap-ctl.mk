# SPDX-License-Identifier: LGPL-2.1-or-later
sbin_PROGRAMS += control/tap-ctl
control_tap_ctl_SOURCES = control/tap-ctl.c control/tap-ctl.h \
	control/tap-ctl-args.c \
	control/tap-ctl-ask.c control/tap-ctl-ask.h \
	control/tap-ctl-create.c \
	control/tap-ctl-disk.c \
	control/tap-ctl-list.c \
	control/tap-ctl-marker.c \
	control/tap-ctl-metrics.c \
	control/tap-ctl-rate.c control/tap-ctl-rate.h \
	control/tap-ctl-place.c control/tap-ctl-revive.c control/tap-ctl-settle.c control/tap-ctl-upgrade.c \
	control/tap-ctl-rows.c control/tap-ctl-rows.h \
	control/tap-ctl-screen.c control/tap-ctl-screen.h \
	control/tap-ctl-spawn.c \
	control/tap-ctl-top.c
control_tap_ctl_LDADD = $(TD_LIBS)
