# SPDX-License-Identifier: LGPL-2.1-or-later
tapdisk_libtapdisk_a_SOURCES += \
	tapdisk/ctl/ctl-move.c \
	tapdisk/ctl/ctl-ops.c \
	tapdisk/ctl/ctl-ops.h \
	tapdisk/ctl/ctl-report.c \
	tapdisk/ctl/ctl-report.h \
	tapdisk/ctl/ctl-commit.c \
	tapdisk/ctl/ctl-limit.c \
	tapdisk/ctl/ctl-relink.c \
	tapdisk/ctl/ctl-ring.c \
	tapdisk/ctl/ctl-show.c \
	tapdisk/ctl/ctl-stats.c \
	tapdisk/ctl/ctl-stats.h \
	tapdisk/ctl/ctl-words.c \
	tapdisk/ctl/ctl.c \
	tapdisk/ctl/ctl.h \
	tapdisk/ctl/handover.c \
	tapdisk/ctl/handover.h
