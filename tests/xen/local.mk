# SPDX-License-Identifier: LGPL-2.1-or-later
# `make check-xen' boots a real Xen with real guests in QEMU: minutes, so apart from `make check'.  T=NAME runs one case.
EXTRA_DIST += tests/xen/README tests/xen/packages tests/xen/build tests/xen/run tests/xen/demo \
	tests/xen/dom0/init tests/xen/dom0/main tests/xen/dom0/lib.sh tests/xen/domu/init tests/xen/domu/lib tests/xen/domu/load.c \
	tests/xen/domu/promise.c tests/xen/domu/aioload.c tests/xen/qemu tests/xen/profile tests/xen/cases/queues.sh tests/xen/cases/bench.sh tests/xen/hosts tests/xen/host-init tests/xen/powercut tests/xen/cases/powercut.sh \
	tests/xen/cases/nbd.sh tests/xen/cases/modes.sh tests/xen/cases/devices.sh tests/xen/cases/hotplug.sh tests/xen/cases/stats.sh tests/xen/xentop \
	tests/xen/cases/load.sh tests/xen/cases/vhd.sh tests/xen/cases/qcow.sh tests/xen/cases/media.sh tests/xen/cases/toolstacks.sh \
	tests/xen/cases/queues.sh tests/xen/cases/discard.sh tests/xen/cases/moves.sh tests/xen/cases/faults.sh tests/xen/cases/demo.sh
.PHONY: check-xen
check-xen: all
	@top_builddir='$(abs_top_builddir)' $(SHELL) -c 'exec bash "$$0" $(T)' '$(abs_top_srcdir)/tests/xen/run'
clean-local: clean-xen
.PHONY: clean-xen
clean-xen:
	rm -rf tests/xen/out
