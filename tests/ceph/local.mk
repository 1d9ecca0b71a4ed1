# SPDX-License-Identifier: LGPL-2.1-or-later
# `make check-ceph' starts a Ceph of one node: minutes, so apart from `make check'.  T='lock death' runs some cases.
EXTRA_DIST += tests/ceph/README tests/ceph/ceph-one tests/ceph/host-cases tests/ceph/image-cases tests/ceph/run
.PHONY: check-ceph
check-ceph: all tests/support/tdguest$(EXEEXT) tests/support/tdsurvive$(EXEEXT) tests/support/xsnox.so
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' T='$(T)' bash '$(abs_top_srcdir)/tests/ceph/run' || \
		{ rc=$$?; [ $$rc = 77 ] && echo 'check-ceph: skipped' || exit $$rc; }
