# SPDX-License-Identifier: LGPL-2.1-or-later
# The power-cut lab.
CRASHLAB_JUDGE = tests/crash/pages.c tests/crash/pages.h tests/crash/rng.h tests/crash/trace.c tests/crash/trace.h tests/crash/disk.c \
	tests/crash/disk.h tests/crash/judge.c tests/crash/judge.h
check_PROGRAMS += tests/crash/crashlab
tests_crash_crashlab_SOURCES = tests/crash/lab.c tests/crash/campaign.c tests/crash/campaign.h tests/crash/stack.c tests/crash/stack.h \
	tests/crash/ring.c tests/crash/ring.h tests/crash/sim.c tests/crash/sim.h tests/crash/work.c tests/crash/work.h \
	tests/crash/formats.c tests/crash/formats.h tests/crash/clock.c tests/crash/clock.h $(CRASHLAB_JUDGE)
tests_crash_crashlab_LDADD = $(TAPDISK_LIBS)
TESTS += tests/crash/lab.sh
EXTRA_DIST += tests/crash/lab.sh
