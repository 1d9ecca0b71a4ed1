# SPDX-License-Identifier: LGPL-2.1-or-later

# a guest without Xen
noinst_PROGRAMS += tests/support/tdguest
tests_support_tdguest_SOURCES = \
	tests/support/tdguest.c \
	tests/support/tdguest.h \
	tests/support/tdguest-load.c \
	tests/support/tdguest-stream.c \
	tests/support/tdguest-pairs.c \
	tests/support/tdguest-hostile.c \
	tests/support/guest.c \
	tests/support/guest.h
tests_support_tdguest_LDADD = $(TAPDISK_LIBS)

# a guest whose tapdisks are killed
check_PROGRAMS += tests/support/tdsurvive
tests_support_tdsurvive_SOURCES = \
	tests/support/tdsurvive.c \
	tests/support/guest.c \
	tests/support/guest.h
tests_support_tdsurvive_LDADD = $(TAPDISK_LIBS)
check_PROGRAMS += tests/support/tdqueues
tests_support_tdqueues_SOURCES = \
	tests/support/tdqueues.c \
	tests/support/guest.c \
	tests/support/guest.h
tests_support_tdqueues_LDADD = $(TAPDISK_LIBS)

# the xenstore side: xenstored without Xen, and a tapdisk without a disk
EXTRA_DIST += tests/support/xsnox.c tests/support/blkif-front.h
if HAVE_XEN
check_PROGRAMS += tests/support/tapdisk-standin
check_PROGRAMS += tests/support/tdstorm
check_SCRIPTS += \
	tests/support/xsnox.so \
	tests/support/xenmem.so
endif
tests_support_tapdisk_standin_SOURCES = tests/support/tapdisk-standin.c
tests_support_tapdisk_standin_LDADD = $(TD_LIBS)
# loaded into a program that is not ours: without the sanitizers
tests/support/xsnox.so: $(srcdir)/tests/support/xsnox.c
	$(AM_V_CCLD)$(MKDIR_P) tests/support && $(CC) -std=gnu11 -D_GNU_SOURCE -include config.h -I. $(WARN_FLAGS) $(XEN_CFLAGS) $(CFLAGS) -fPIC -shared \
		-o $@ $(srcdir)/tests/support/xsnox.c -ldl
# a guest of Xen's transport without Xen, and what shows its memory to a tapdisk
EXTRA_DIST += tests/support/xenmem.c
tests_support_tdstorm_SOURCES = \
	tests/support/tdstorm.c \
	tests/support/xenmem.h \
	tests/support/guest.c \
	tests/support/guest.h
tests_support_tdstorm_LDADD = $(TAPDISK_LIBS)
tests/support/xenmem.so: $(srcdir)/tests/support/xenmem.c $(srcdir)/tests/support/xenmem.h
	$(AM_V_CCLD)$(MKDIR_P) tests/support && $(CC) -std=gnu11 -D_GNU_SOURCE -I$(srcdir) $(WARN_FLAGS) $(XEN_CFLAGS) $(CFLAGS) -fPIC -shared \
		-o $@ $(srcdir)/tests/support/xenmem.c
CLEANFILES += \
	tests/support/xsnox.so \
	tests/support/xenmem.so

# an image through the drivers, without a process around them
check_PROGRAMS += tests/support/tdimg
tests_support_tdimg_SOURCES = tests/support/tdimg.c
tests_support_tdimg_LDADD = $(TAPDISK_LIBS)

# tapdisks that hang or die at a certain point: loaded into them
check_SCRIPTS += \
	tests/support/stuck-sync.so \
	tests/support/signal-after.so \
	tests/support/file-trouble.so \
	tests/support/false-sync.so
EXTRA_DIST += \
	tests/support/stuck-sync.c \
	tests/support/signal-after.c \
	tests/support/file-trouble.c \
	tests/support/false-sync.c
tests/support/%.so: $(srcdir)/tests/support/%.c
	$(AM_V_CC)$(MKDIR_P) tests/support && $(CC) -Wall -Wextra -Werror -O2 -fPIC -shared -o $@ $< -ldl
CLEANFILES += \
	tests/support/stuck-sync.so \
	tests/support/signal-after.so \
	tests/support/file-trouble.so \
	tests/support/false-sync.so

# what scripts share, and what judges by strace whether a promise was kept
EXTRA_DIST += \
	tests/support/errtrap.sh \
	tests/support/progress.sh \
	tests/support/in-time \
	tests/support/within.sh \
	tests/support/check.sh \
	tests/support/judge-syncs \
	tests/support/traced-tapdisk
