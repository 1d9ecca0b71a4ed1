# SPDX-License-Identifier: LGPL-2.1-or-later

# a guest without Xen
noinst_PROGRAMS += tests/support/tdguest
tests_support_tdguest_SOURCES = tests/support/tdguest.c tests/support/tdguest.h tests/support/tdguest-load.c \
	tests/support/tdguest-hostile.c tests/support/guest.c tests/support/guest.h
tests_support_tdguest_LDADD = $(TAPDISK_LIBS)
