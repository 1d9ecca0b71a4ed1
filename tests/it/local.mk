# SPDX-License-Identifier: LGPL-2.1-or-later
EXTRA_DIST += tests/it/lib.sh
TESTS += tests/it/tap-ctl-completion.sh tests/it/tap-ctl-life.sh tests/it/tap-ctl-errors.sh tests/it/tap-ctl-dead.sh tests/it/tap-ctl-names.sh tests/it/tap-ctl-killed.sh tests/it/tap-ctl-remarks.sh
EXTRA_DIST += tests/it/tap-ctl-completion.sh tests/it/tap-ctl-life.sh tests/it/tap-ctl-errors.sh tests/it/tap-ctl-dead.sh tests/it/tap-ctl-names.sh tests/it/tap-ctl-killed.sh tests/it/tap-ctl-remarks.sh
TESTS += tests/it/ring.sh tests/it/merge.sh tests/it/io-uring.sh tests/it/takeover.sh tests/it/upgrade.sh tests/it/upgrade-trial.sh tests/it/redo.sh tests/it/flush-unknown.sh
EXTRA_DIST += tests/it/ring.sh tests/it/merge.sh tests/it/io-uring.sh tests/it/takeover.sh tests/it/upgrade.sh tests/it/upgrade-trial.sh tests/it/redo.sh tests/it/flush-unknown.sh
TESTS += tests/it/queues.sh tests/it/reach.sh tests/it/sandbox.sh tests/it/two-primaries.sh tests/it/audit.sh tests/it/disk-words.sh
EXTRA_DIST += tests/it/queues.sh tests/it/reach.sh tests/it/sandbox.sh tests/it/two-primaries.sh tests/it/audit.sh tests/it/disk-words.sh

# the xenstore side, against a real xenstored
TAPBACK_TESTS = tests/it/tapback-order.sh tests/it/tapback-hostile.sh tests/it/tapback-faults.sh tests/it/tapback-restart.sh \
	tests/it/log-stuck.sh tests/it/tapback-share.sh tests/it/tapback-moved.sh tests/it/tapback-hangs.sh tests/it/tapback-lost.sh
TESTS += $(TAPBACK_TESTS)
EXTRA_DIST += tests/it/xs.sh $(TAPBACK_TESTS)
HOTPLUG_TESTS = tests/it/block-tap.sh tests/it/tap-vbd.sh tests/it/cdrom.sh tests/it/readme.sh
TESTS += $(HOTPLUG_TESTS)
EXTRA_DIST += $(HOTPLUG_TESTS)

include tests/it/nbd.mk
# who may include whom
INCLUDE_TESTS = tests/it/includes.sh tests/it/circles.sh tests/it/names.sh tests/it/libc.sh
TESTS += $(INCLUDE_TESTS)
EXTRA_DIST += $(INCLUDE_TESTS) tests/support/circles tests/support/names

# statistics
STATS_TESTS = tests/it/stats.sh tests/it/tap-ctl-top.sh tests/it/tap-ctl-metrics.sh
TESTS += $(STATS_TESTS)
EXTRA_DIST += $(STATS_TESTS)

# what storage managers do
TESTS += tests/it/sm-sequences.sh tests/it/sm-many.sh
EXTRA_DIST += tests/it/sm-sequences.sh tests/it/sm-many.sh tests/it/sm-client.py tests/it/sm-sequences.py tests/it/sm-many.py
# qcow images, judged by qemu-img
QCOW_TESTS = tests/it/qcow-read.sh tests/it/qcow-storm.sh tests/it/qcow-tool.sh tests/it/qcow-hostile.sh tests/it/qcow-cut-off.sh tests/it/qcow-siblings.sh tests/it/qcow-v1.sh tests/it/qcow-bitmap.sh \
	tests/it/qcow-corrupt.sh tests/it/qcow-crypt.sh tests/it/qcow-lazy.sh tests/it/qcow-key.sh tests/it/qcow-left.sh tests/it/output-full.sh
TESTS += $(QCOW_TESTS)
EXTRA_DIST += tests/it/qcow-lib.sh $(QCOW_TESTS)

# VHD offline
VHD_UTIL_TESTS = tests/it/vhd-util.sh tests/it/vhd-util-hand.sh tests/it/vhd-util-foreign.sh tests/it/vhd-util-killed.sh tests/it/vhd-util-device.sh tests/it/vhd-util-lvm.sh tests/it/vhd-util-live.sh \
	tests/it/vhd-cut-off.sh tests/it/vhd-of-others.sh tests/it/vhd-siblings.sh tests/it/vhd-keys.sh tests/it/vhd-util-names.sh tests/it/vhd-log-waits.sh tests/it/redo-failed.sh
TESTS += $(VHD_UTIL_TESTS)
EXTRA_DIST += $(VHD_UTIL_TESTS)

# what is said of the programs, against the programs
WORDS_TESTS = tests/it/man.sh tests/it/completion.sh
TESTS += $(WORDS_TESTS)
EXTRA_DIST += $(WORDS_TESTS)
# VHDs under a tapdisk
TESTS += tests/it/vhd.sh
EXTRA_DIST += tests/it/vhd.sh
EXTRA_DIST += tests/it/vhd-util-hand.py tests/it/vhd_hand.py tests/it/vhd-lib-judge.js
TESTS += tests/it/judge-syncs.sh
EXTRA_DIST += tests/it/judge-syncs.sh
# every script of ours
TESTS += tests/it/shellcheck.sh
EXTRA_DIST += tests/it/shellcheck.sh .shellcheckrc
# the benches' report
TESTS += tests/it/bench-report.sh
EXTRA_DIST += tests/it/bench-report.sh
# fibers, seen by gdb
TESTS += tests/it/gdb-fibers.sh
EXTRA_DIST += tests/it/gdb-fibers.sh tests/support/fibers.py
# the formatter's file is true
TESTS += tests/it/format.sh
EXTRA_DIST += tests/it/format.sh
