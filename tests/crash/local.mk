# SPDX-License-Identifier: LGPL-2.1-or-later
# The power-cut lab.
CRASHLAB_JUDGE = \
	tests/crash/pages.c \
	tests/crash/pages.h \
	tests/crash/rng.h \
	tests/crash/trace.c \
	tests/crash/trace.h \
	tests/crash/disk.c \
	tests/crash/disk.h \
	tests/crash/changed-check.c \
	tests/crash/changed-check.h \
	tests/crash/judge.c \
	tests/crash/judge.h
check_PROGRAMS += tests/crash/crashlab
tests_crash_crashlab_SOURCES = \
	tests/crash/lab.c \
	tests/crash/campaign.c \
	tests/crash/campaign.h \
	tests/crash/stack.c \
	tests/crash/stack.h \
	tests/crash/ring.c \
	tests/crash/ring.h \
	tests/crash/sim.c \
	tests/crash/sim.h \
	tests/crash/work.c \
	tests/crash/work.h \
	tests/crash/formats.c \
	tests/crash/formats.h \
	tests/crash/clock.c \
	tests/crash/clock.h \
	tests/crash/process.c \
	tests/crash/process.h \
	$(CRASHLAB_JUDGE)
tests_crash_crashlab_LDADD = $(TAPDISK_LIBS)
TESTS += tests/crash/lab.sh

# The simulated host: the lab's own are memory, threads and clock; what has TD_KILL() in it, and the log of changes, whose size the lab
# chooses, are compiled once more.
check_PROGRAMS += tests/crash/hostlab
tests_crash_hostlab_SOURCES = \
	tests/crash/host-lab.c \
	tests/crash/host.c \
	tests/crash/host.h \
	tests/crash/host-inside.h \
	tests/crash/host-process.c \
	tests/crash/host-guest.c \
	tests/crash/host-changed.c \
	tests/crash/host-commit.c \
	tests/crash/host-mirror.c \
	tests/crash/host-joined.c \
	tests/crash/host-disk.c \
	tests/crash/host-tool.c \
	tests/crash/host-move.c \
	tests/crash/host-grow.c \
	tests/crash/host-outside.c \
	tests/crash/history.c \
	tests/crash/history.h \
	tests/crash/stand-in.c \
	tests/crash/stand-in.h \
	tests/crash/image-check.c \
	tests/crash/image-check.h \
	tests/crash/bitmap-check.c \
	tests/crash/bitmap-check.h \
	tests/crash/stack.c \
	tests/crash/stack.h \
	tests/crash/ring.c \
	tests/crash/ring.h \
	tests/crash/sim.c \
	tests/crash/sim.h \
	tests/crash/work.h \
	tests/crash/formats.c \
	tests/crash/formats.h \
	tests/crash/clock.c \
	tests/crash/clock.h \
	tests/crash/process.c \
	tests/crash/process.h \
	$(CRASHLAB_JUDGE) \
	lib/io/io.c \
	lib/redo.c \
	lib/redo-apply.c \
	lib/redo-find.c \
	tapdisk/blkif/blkif.c \
	tapdisk/blkif/blkif-takeover.c \
	tapdisk/cache/cache-barrier.c \
	tapdisk/cache/cache-flush.c \
	control/tap-ctl/tap-ctl-file.c \
	control/tap-ctl/tap-ctl-minor.c \
	control/tap-ctl/tap-ctl-settle.c
tests_crash_hostlab_CPPFLAGS = $(AM_CPPFLAGS) -DTD_KILL_POINTS -DTD_REDO_BYTES=crash_redo_bytes -include tests/crash/redo-bytes.h \
	-DCRASH_SRC='"$(abs_top_srcdir)"'
tests_crash_hostlab_LDADD = $(TAPDISK_LIBS)
TESTS += tests/crash/host.sh
EXTRA_DIST += \
	tests/crash/host.sh \
	tests/crash/redo-bytes.h \
	tests/crash/vhd-blocks

# The kill lab: what has TD_KILL() in it is compiled once more, with it.
check_PROGRAMS += tests/crash/killlab
tests_crash_killlab_SOURCES = \
	tests/crash/kill-lab.c \
	tests/crash/kill-disk.c \
	tests/crash/kill-disk.h \
	tests/crash/kill-guest.c \
	tests/crash/kill-guest.h \
	tests/crash/rng.h \
	tests/support/guest.c \
	tests/support/guest.h \
	lib/io/io.c \
	lib/io/io-aio.c \
	lib/io/workers.c \
	lib/io/file-op.c \
	tapdisk/blkif/blkif.c \
	tapdisk/blkif/blkif-takeover.c \
	tapdisk/cache/cache-barrier.c \
	tapdisk/cache/cache-flush.c \
	tapdisk/mirror/mirror-copy.c \
	tapdisk/mirror/mirror-full.c \
	tapdisk/vbd/vbd-mirror.c \
	tapdisk/vbd/record.c
if HAVE_URING
tests_crash_killlab_SOURCES += lib/io/io-uring.c
endif
tests_crash_killlab_CPPFLAGS = $(AM_CPPFLAGS) -DTD_KILL_POINTS
tests_crash_killlab_LDADD = $(TAPDISK_LIBS)
TESTS += tests/crash/kill.sh
EXTRA_DIST += tests/crash/kill.sh tests/crash/kills
EXTRA_DIST += tests/crash/lab.sh
EXTRA_DIST += tests/crash/plant tests/crash/README

# CC, and what compiles one source and links crashlab with it in front of the libraries, for tests/crash/plant
CRASH_ENV = HOST_OBJECTS='$(tests_crash_hostlab_OBJECTS)' HOST_FLAGS='$(tests_crash_hostlab_CPPFLAGS)' KILL_OBJECTS='$(tests_crash_killlab_OBJECTS)' SRC='$(abs_top_srcdir)' CC='$(CC)' \
	FLAGS='$(DEFS) $(DEFAULT_INCLUDES) $(INCLUDES) $(AM_CPPFLAGS) $(CPPFLAGS) $(AM_CFLAGS) $(XEN_CFLAGS) $(CFLAGS)' \
	LINK='$(AM_LDFLAGS) $(LDFLAGS) $(tests_crash_crashlab_OBJECTS) @ $(tests_crash_crashlab_LDADD) $(LIBS)' \
	CUTS_LINK='$(VHD_IMAGE_WRAPS) $(LDFLAGS) $(tests_unit_test_vhd_resize_OBJECTS) @ $(tests_unit_test_vhd_resize_LDADD) $(LIBS)' \
	UNIT_LINK='$(AM_LDFLAGS) $(LDFLAGS) tests/unit/UNIT.o tests/support/test-image.o tests/support/fault-io.o tests/support/vhd-make.o tests/support/test-ring.o tests/support/nbd-flaky.o @ $(UNIT_PARTS_LIBS) $(LIBS)'

# whose bugs the lab cannot see: its disk is in one thread, and has no log of changes
if HAVE_CHECK
CRASH_UNITS = \
	tests/unit/test-syncmark \
	tests/unit/test-vhd \
	tests/unit/test-vhd-refused \
	tests/unit/test-vhd-resize \
	tests/unit/test-vhd-relink \
	tests/unit/test-redo \
	tests/unit/test-redo-left \
	tests/unit/test-redo-whose \
	tests/unit/test-qcow \
	tests/unit/test-qcow-order \
	tests/unit/test-cache-space \
	tests/unit/test-limit \
	tests/unit/test-changed \
	tests/unit/test-leaf-cache \
	tests/unit/test-commit \
	tests/unit/test-mirror \
	tests/unit/test-mirror-part \
	tests/unit/test-qcow-relink \
	tests/unit/test-blkif-limit \
	tests/unit/test-blkif-memory \
	tests/unit/test-blkif-poll \
	tests/unit/test-blkif-window \
	tests/unit/test-lane \
	tests/unit/test-lane-space \
	tests/unit/test-redo-format \
	tests/unit/test-io \
	tests/unit/test-io-real \
	tests/unit/test-cache \
	tests/unit/test-settle \
	tests/unit/test-inflight \
	tests/unit/test-vbd-left \
	tests/unit/test-vbd-record \
	tests/unit/test-server \
	tests/unit/test-vbd-pause \
	tests/unit/test-vbd-commit \
	tests/unit/test-vbd \
	tests/unit/test-nbd \
	tests/unit/test-nbd-conn \
	tests/unit/test-nbd-chunk \
	tests/unit/test-align \
	tests/unit/test-nbd-left \
	tests/unit/test-nbd-again \
	tests/unit/test-nbd-return \
	tests/unit/test-nbd-more \
	tests/unit/test-opener \
	tests/unit/test-opener-whose \
	tests/unit/test-opener-named \
	tests/unit/test-sandbox \
	tests/unit/test-sandbox-calls \
	tests/unit/test-sandbox-network \
	tests/unit/test-sandbox-path
endif

# BUGS=NAME or BUGS='--sample 8'
.PHONY: check-crash-bugs
check-crash-bugs: tests/crash/crashlab tests/crash/hostlab tests/crash/killlab $(CRASH_UNITS)
	@$(CRASH_ENV) python3 '$(abs_top_srcdir)/tests/crash/plant' $(BUGS)
clean-local: clean-crash
.PHONY: clean-crash
clean-crash:
	rm -rf tests/crash/planted tests/crash/out
EXTRA_DIST += $(srcdir)/tests/crash/bugs

# KILLS=10000, T=FORMAT: see the top of tests/crash/kills
.PHONY: check-crash-kills
check-crash-kills: all tests/crash/killlab
	@KILLS='$(KILLS)' T='$(T)' python3 '$(abs_top_srcdir)/tests/crash/kills'

# HISTORIES=1000000, T=FORMAT: see the top of tests/crash/histories
.PHONY: check-crash-host
check-crash-host: all tests/crash/hostlab
	@HISTORIES='$(HISTORIES)' T='$(T)' python3 '$(abs_top_srcdir)/tests/crash/histories'
EXTRA_DIST += tests/crash/histories

# CUTS=1000000, T=FORMAT, BUGS=no: see the top of tests/crash/run
.PHONY: check-crash check-crash-cuts
check-crash: check-crash-kills check-crash-host check-crash-cuts
check-crash-cuts: all tests/crash/crashlab tests/crash/hostlab tests/crash/killlab $(CRASH_UNITS)
	@$(CRASH_ENV) CUTS='$(CUTS)' T='$(T)' BUGS='$(BUGS)' python3 '$(abs_top_srcdir)/tests/crash/run'
EXTRA_DIST += tests/crash/run tests/crash/report.py
