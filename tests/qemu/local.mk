# SPDX-License-Identifier: LGPL-2.1-or-later
# `make check-qemu': QEMU's own I/O tests over our NBD server; it fetches them, so apart from `make check'.  T='001 002' runs some.
EXTRA_DIST += tests/qemu/run tests/qemu/server
.PHONY: check-qemu
check-qemu: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/tests/qemu/run'
