# SPDX-License-Identifier: LGPL-2.1-or-later
# Fuzzers: one source a target.  They are built where sanitizers see what they find.
FUZZERS = tests/fuzz/ring tests/fuzz/vhd tests/fuzz/qcow2 tests/fuzz/qcow
EXTRA_PROGRAMS = $(FUZZERS)
if LIBFUZZER
FUZZ_MAIN = tests/fuzz/libfuzzer.c tests/fuzz/assert.c tests/fuzz/fuzz.h
FUZZ_LINK = $(AM_LDFLAGS) -fsanitize=fuzzer
else
FUZZ_MAIN = tests/fuzz/driver.c tests/fuzz/assert.c tests/fuzz/fuzz.h
FUZZ_LINK = $(AM_LDFLAGS)
endif
EXTRA_DIST += tests/fuzz/driver.c tests/fuzz/libfuzzer.c tests/fuzz/run
tests_fuzz_ring_SOURCES = tests/fuzz/ring.c $(FUZZ_MAIN) $(TEST_RING) tests/support/blkif-front.h
tests_fuzz_ring_LDADD = $(TAPDISK_LIBS)
tests_fuzz_ring_LDFLAGS = $(FUZZ_LINK)

FUZZ_IMAGE = \
	tests/fuzz/image.c \
	tests/fuzz/image.h \
	tests/support/drive.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h
tests_fuzz_vhd_SOURCES = tests/fuzz/vhd.c $(FUZZ_MAIN) $(FUZZ_IMAGE) tests/support/vhd-make.c tests/support/vhd-make.h
tests_fuzz_vhd_LDADD = $(TAPDISK_LIBS)
tests_fuzz_vhd_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_qcow2_SOURCES = tests/fuzz/qcow2.c $(FUZZ_MAIN) $(FUZZ_IMAGE)
tests_fuzz_qcow2_LDADD = $(TAPDISK_LIBS)
tests_fuzz_qcow2_LDFLAGS = $(FUZZ_LINK)
tests_fuzz_qcow_SOURCES = tests/fuzz/qcow.c $(FUZZ_MAIN) $(FUZZ_IMAGE)
tests_fuzz_qcow_LDADD = $(TAPDISK_LIBS)
tests_fuzz_qcow_LDFLAGS = $(FUZZ_LINK)

# T="ring ...": these targets alone; TIME: seconds for each
check-fuzz:
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' MAKE='$(MAKE)' TIME='$(TIME)' T='$(T)' \
		bash '$(abs_top_srcdir)/tests/fuzz/run' $(FUZZERS)
.PHONY: check-fuzz
