# SPDX-License-Identifier: LGPL-2.1-or-later
# `make check-xen' boots a real Xen with real guests in QEMU: minutes, so apart from `make check'.
# T=NAME runs one case, XEN=4.17 is Debian 12's Xen.  The product is built anew, as a package, in
# a Debian of that Xen's: nothing of this build is used.
EXTRA_DIST += \
	tests/xen/README \
	tests/xen/packages \
	tests/xen/env \
	tests/xen/build \
	tests/xen/ceph \
	tests/xen/package \
	tests/xen/run \
	tests/xen/demo \
	tests/xen/initramfs-init \
	tests/xen/host-init \
	tests/xen/hosts \
	tests/xen/powercut \
	tests/xen/profile \
	tests/xen/dom0-root \
	tests/xen/dom0/bootloader \
	tests/xen/dom0/init \
	tests/xen/dom0/intruder.c \
	tests/xen/dom0/lib.sh \
	tests/xen/dom0/main \
	tests/xen/dom0/save-helper \
	tests/xen/domu/aioload.c \
	tests/xen/domu/init \
	tests/xen/domu/lib \
	tests/xen/domu/load.c \
	tests/xen/domu/promise.c \
	tests/xen/cases/bench.sh \
	tests/xen/cases/commit.sh \
	tests/xen/cases/demo.sh \
	tests/xen/cases/devices.sh \
	tests/xen/cases/discard.sh \
	tests/xen/cases/faults.sh \
	tests/xen/cases/hotplug.sh \
	tests/xen/cases/hvm.sh \
	tests/xen/cases/intruder.sh \
	tests/xen/cases/libvirt.sh \
	tests/xen/cases/load.sh \
	tests/xen/cases/media.sh \
	tests/xen/cases/mirror.sh \
	tests/xen/cases/modes.sh \
	tests/xen/cases/moves.sh \
	tests/xen/cases/nbd.sh \
	tests/xen/cases/powercut.sh \
	tests/xen/cases/qcow.sh \
	tests/xen/cases/queues.sh \
	tests/xen/cases/rbd.sh \
	tests/xen/cases/stats.sh \
	tests/xen/cases/toolstacks.sh \
	tests/xen/cases/vhd.sh \
	tests/xen/cases/xl.sh
.PHONY: check-xen
check-xen:
	@XEN='$(XEN)' top_builddir='$(abs_top_builddir)' $(SHELL) -c 'exec bash "$$0" $(T)' '$(abs_top_srcdir)/tests/xen/run'
clean-local: clean-xen
.PHONY: clean-xen
clean-xen:
	rm -rf tests/xen/out
