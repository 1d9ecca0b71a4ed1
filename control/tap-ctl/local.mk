# SPDX-License-Identifier: LGPL-2.1-or-later
sbin_PROGRAMS += bin/tap-ctl
bin_tap_ctl_SOURCES = \
	control/tap-ctl/tap-ctl-args.c \
	control/tap-ctl/tap-ctl-ask.c \
	control/tap-ctl/tap-ctl-ask.h \
	control/tap-ctl/tap-ctl-audit-kernel.c \
	control/tap-ctl/tap-ctl-audit-print.c \
	control/tap-ctl/tap-ctl-audit.c \
	control/tap-ctl/tap-ctl-audit.h \
	control/tap-ctl/tap-ctl-commit.c \
	control/tap-ctl/tap-ctl-create.c \
	control/tap-ctl/tap-ctl-disk.c \
	control/tap-ctl/tap-ctl-export-client.c \
	control/tap-ctl/tap-ctl-export-disk.c \
	control/tap-ctl/tap-ctl-export-listen.c \
	control/tap-ctl/tap-ctl-export.c \
	control/tap-ctl/tap-ctl-export.h \
	control/tap-ctl/tap-ctl-file.c \
	control/tap-ctl/tap-ctl-list.c \
	control/tap-ctl/tap-ctl-minor.c \
	control/tap-ctl/tap-ctl-metrics.c \
	control/tap-ctl/tap-ctl-mode.c \
	control/tap-ctl/tap-ctl-place.c \
	control/tap-ctl/tap-ctl-rate.c \
	control/tap-ctl/tap-ctl-rate.h \
	control/tap-ctl/tap-ctl-revive.c \
	control/tap-ctl/tap-ctl-rows.c \
	control/tap-ctl/tap-ctl-rows.h \
	control/tap-ctl/tap-ctl-screen.c \
	control/tap-ctl/tap-ctl-screen.h \
	control/tap-ctl/tap-ctl-settle.c \
	control/tap-ctl/tap-ctl-spawn.c \
	control/tap-ctl/tap-ctl-top.c \
	control/tap-ctl/tap-ctl-upgrade.c \
	control/tap-ctl/tap-ctl.c \
	control/tap-ctl/tap-ctl.h
bin_tap_ctl_LDADD = $(TLS_LIBS) $(TD_LIBS) $(CRYPTO_LIBS)
