# SPDX-License-Identifier: LGPL-2.1-or-later
# `make check-cluster' boots two hosts with DRBD between them in QEMU: minutes, so apart from `make check'.  T='rule none' runs some cases.
# With XEN=1 both hosts have Xen, and the members of the cluster are guests.
EXTRA_DIST += \
	tests/cluster/README \
	tests/cluster/agent \
	tests/cluster/build \
	tests/cluster/dom0-init \
	tests/cluster/dom0-lib \
	tests/cluster/fence \
	tests/cluster/fs.py \
	tests/cluster/guest-lib \
	tests/cluster/host-lib \
	tests/cluster/image-lib \
	tests/cluster/lab.py \
	tests/cluster/looks.py \
	tests/cluster/member-lib \
	tests/cluster/migrate.py \
	tests/cluster/nbd-device.c \
	tests/cluster/nfs-lib \
	tests/cluster/node-init \
	tests/cluster/packages \
	tests/cluster/ocfs2-lib \
	tests/cluster/run \
	tests/cluster/vif-lab \
	tests/cluster/xen-build \
	tests/cluster/xen.py
.PHONY: check-cluster
check-cluster: all
	@build=build; [ -z '$(XEN)' ] || build=xen-build; \
		bash '$(abs_top_srcdir)/tests/cluster/'"$$build" '$(abs_top_builddir)' '$(abs_top_builddir)/tests/cluster/out' && \
		XEN='$(XEN)' python3 '$(abs_top_srcdir)/tests/cluster/run' '$(abs_top_builddir)/tests/cluster/out' $(T)
clean-local: clean-cluster
.PHONY: clean-cluster
clean-cluster:
	rm -rf tests/cluster/out
