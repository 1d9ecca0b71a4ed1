# SPDX-License-Identifier: LGPL-2.1-or-later
# the driver for Ceph, as far as it needs no cluster
if HAVE_CHECK
if HAVE_RBD
check_PROGRAMS += tests/unit/test-rbd
TESTS += tests/unit/test-rbd
endif
endif
tests_unit_test_rbd_SOURCES = tests/unit/test-rbd.c tests/support/suite.h
tests_unit_test_rbd_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
