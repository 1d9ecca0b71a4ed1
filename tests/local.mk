# SPDX-License-Identifier: LGPL-2.1-or-later
# Programs and scripts that `make check' runs: each folder lists its own.
# the labs' tests take longest: they begin first, so that no core waits for them at the end
include tests/crash/local.mk
include tests/fuzz/local.mk
include tests/unit/local.mk
include tests/it/local.mk
include tests/support/local.mk
include tests/ceph/local.mk
include tests/cluster/local.mk
include tests/xen/local.mk
include tests/qemu/local.mk
TEST_EXTENSIONS = .sh
LOG_COMPILER = bash '$(abs_top_srcdir)/tests/support/in-time'
SH_LOG_COMPILER = $(LOG_COMPILER)
.PHONY: list-tests
list-tests:
	@printf '%s\n' $(TESTS)
AM_TESTS_ENVIRONMENT = CK_DEFAULT_TIMEOUT=200; export CK_DEFAULT_TIMEOUT; top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)'; export top_srcdir top_builddir;
