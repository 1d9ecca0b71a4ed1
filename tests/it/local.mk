# SPDX-License-Identifier: LGPL-2.1-or-later
# each script is named once, here: it is run, and it is distributed
IT_TESTS =
EXTRA_DIST += tests/it/lib.sh
IT_TESTS += \
	tests/it/tap-ctl-completion.sh \
	tests/it/tap-ctl-life.sh \
	tests/it/error-lines.sh \
	tests/it/tap-ctl-errors.sh \
	tests/it/tap-ctl-dead.sh \
	tests/it/tap-ctl-names.sh \
	tests/it/tap-ctl-killed.sh \
	tests/it/tap-ctl-waits.sh \
	tests/it/tap-ctl-remarks.sh
IT_TESTS += \
	tests/it/polling.sh \
	tests/it/ring.sh \
	tests/it/merge.sh \
	tests/it/io-uring.sh \
	tests/it/takeover.sh \
	tests/it/upgrade.sh \
	tests/it/upgrade-trial.sh \
	tests/it/commit.sh \
	tests/it/commit-claim.sh \
	tests/it/commit-death.sh \
	tests/it/commit-kinds.sh \
	tests/it/redo.sh \
	tests/it/flush-unknown.sh
IT_TESTS += \
	tests/it/queues.sh \
	tests/it/reach.sh \
	tests/it/sandbox.sh \
	tests/it/sandbox-user.sh \
	tests/it/opener-stopped.sh \
	tests/it/opener-asked.sh \
	tests/it/secondary.sh \
	tests/it/two-primaries.sh \
	tests/it/audit.sh \
	tests/it/disk-words.sh

# the xenstore side, against a real xenstored
IT_TESTS += \
	tests/it/tapback-order.sh \
	tests/it/tapback-hostile.sh \
	tests/it/tapback-cycles.sh \
	tests/it/tapback-faults.sh \
	tests/it/tapback-restart.sh \
	tests/it/log-stuck.sh \
	tests/it/tapback-share.sh \
	tests/it/tapback-limit.sh \
	tests/it/tapback-moved.sh \
	tests/it/tapback-hangs.sh \
	tests/it/tapback-storm.sh \
	tests/it/tapback-lost.sh
EXTRA_DIST += tests/it/xs.sh
IT_TESTS += \
	tests/it/block-tap.sh \
	tests/it/tap-vbd.sh \
	tests/it/cdrom.sh \
	tests/it/readme.sh \
	tests/it/no-time.sh

include tests/it/nbd.mk
EXTRA_DIST += \
	tests/support/circles \
	tests/support/names

# statistics
IT_TESTS += \
	tests/it/stats.sh \
	tests/it/stats-rrdd.sh \
	tests/it/parents-cache.sh \
	tests/it/leaf-cache.sh \
	tests/it/limit.sh \
	tests/it/cbt-util.sh \
	tests/it/changed-blocks.sh \
	tests/it/mirror.sh \
	tests/it/mirror-foreign.sh \
	tests/it/mirror-truth.sh \
	tests/it/sm-migrate.sh \
	tests/it/sm-migrate-faults.sh \
	tests/it/tap-ctl-top.sh \
	tests/it/tap-ctl-metrics.sh

# what storage managers do
IT_TESTS += \
	tests/it/status-report.sh \
	tests/it/sm-coalesce.sh \
	tests/it/relink-other-host.sh \
	tests/it/sm-sequences.sh \
	tests/it/sm-many.sh
EXTRA_DIST += \
	tests/it/mirror-lib.sh \
	tests/support/nbd-between.py \
	tests/it/sm-client.py \
	tests/it/rrdd-watch.py \
	tests/it/sm-sequences.py \
	tests/it/sm-many.py
# qcow images, judged by qemu-img
IT_TESTS += \
	tests/it/qcow-read.sh \
	tests/it/qcow-storm.sh \
	tests/it/qcow-tool.sh \
	tests/it/qcow-hostile.sh \
	tests/it/qcow-cut-off.sh \
	tests/it/qcow-siblings.sh \
	tests/it/qemu-img-live.sh \
	tests/it/qcow-v1.sh \
	tests/it/qcow-bitmap.sh \
	tests/it/qcow-corrupt.sh \
	tests/it/qcow-crypt.sh \
	tests/it/qcow-lazy.sh \
	tests/it/qcow-key.sh \
	tests/it/qcow-left.sh \
	tests/it/output-full.sh
EXTRA_DIST += tests/it/qcow-lib.sh

# VHD offline
IT_TESTS += \
	tests/it/vhd-util.sh \
	tests/it/vhd-util-hand.sh \
	tests/it/vhd-util-foreign.sh \
	tests/it/vhd-util-killed.sh \
	tests/it/vhd-util-device.sh \
	tests/it/vhd-util-lvm.sh \
	tests/it/vhd-util-live.sh \
	tests/it/vhd-cut-off.sh \
	tests/it/vhd-of-others.sh \
	tests/it/vhd-siblings.sh \
	tests/it/vhd-keys.sh \
	tests/it/vhd-util-names.sh \
	tests/it/vhd-log-waits.sh \
	tests/it/redo-failed.sh \
	tests/it/redo-changed.sh

# VHDs under a tapdisk
IT_TESTS += tests/it/vhd.sh
EXTRA_DIST += \
	tests/it/vhd-util-hand.py \
	tests/it/vhd_hand.py \
	tests/it/vhd-lib-judge.js
IT_TESTS += tests/it/judge-syncs.sh
EXTRA_DIST += .shellcheckrc
# what the units leave
IT_TESTS += tests/it/units.sh tests/it/export-service.sh
# fibers, seen by gdb
IT_TESTS += tests/it/gdb-fibers.sh
EXTRA_DIST += tests/support/fibers.py

# What reads the sources, the pages and the scripts: once, in a build without sanitizers.
FORM_TESTS = \
	tests/it/includes.sh \
	tests/it/circles.sh \
	tests/it/names.sh \
	tests/it/clock.sh \
	tests/it/libc.sh \
	tests/it/man.sh \
	tests/it/completion.sh \
	tests/it/shellcheck.sh \
	tests/it/bench-report.sh \
	tests/it/format.sh \
	tests/it/rules.sh \
	tests/it/map.sh
if !SANITIZERS
TESTS += $(FORM_TESTS)
endif
EXTRA_DIST += $(FORM_TESTS)
.PHONY: check-form list-form
list-form:
	@printf '%s\n' $(FORM_TESTS)
check-form:
	$(MAKE) $(AM_MAKEFLAGS) check-TESTS check_PROGRAMS= check_SCRIPTS= TESTS="$(FORM_TESTS)"

TESTS += $(IT_TESTS)
EXTRA_DIST += $(IT_TESTS)
