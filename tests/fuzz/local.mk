# SPDX-License-Identifier: LGPL-2.1-or-later
# Fuzzers: one source a target.  They are built where sanitizers see what they find.
FUZZERS = \
	tests/fuzz/ring \
	tests/fuzz/vhd \
	tests/fuzz/qcow2 \
	tests/fuzz/qcow \
	tests/fuzz/nbd-server \
	tests/fuzz/nbd-client \
	tests/fuzz/nbd-again \
	tests/fuzz/tls \
	tests/fuzz/words \
	tests/fuzz/luks \
	tests/fuzz/control \
	tests/fuzz/opener
if HAVE_XEN
FUZZERS += tests/fuzz/xenstore
endif
# Those that count.
BULK_FUZZERS = tests/fuzz/bulk-ring tests/fuzz/bulk-lane tests/fuzz/bulk-image
if HAVE_CHECK
check_PROGRAMS += $(FUZZERS) $(BULK_FUZZERS)
TESTS += tests/fuzz/short.sh
else
EXTRA_PROGRAMS = $(FUZZERS) $(BULK_FUZZERS)
endif
if LIBFUZZER
FUZZ_MAIN = tests/fuzz/libfuzzer.c tests/fuzz/assert.c tests/fuzz/log.c tests/fuzz/fuzz.h
FUZZ_LINK = $(AM_LDFLAGS) -fsanitize=fuzzer
else
FUZZ_MAIN = tests/fuzz/driver.c tests/fuzz/ends.c tests/fuzz/ends.h tests/fuzz/mutate.c tests/fuzz/mutate.h tests/fuzz/assert.c tests/fuzz/log.c tests/fuzz/fuzz.h
FUZZ_LINK = $(AM_LDFLAGS)
endif
EXTRA_DIST += \
	tests/fuzz/README \
	tests/fuzz/driver.c \
	tests/fuzz/ends.c \
	tests/fuzz/ends.h \
	tests/fuzz/mutate.c \
	tests/fuzz/mutate.h \
	tests/fuzz/libfuzzer.c \
	tests/fuzz/plant \
	tests/fuzz/run \
	tests/fuzz/short.sh \
	$(srcdir)/tests/fuzz/bugs \
	$(srcdir)/tests/fuzz/corpus
tests_fuzz_ring_SOURCES = \
	tests/fuzz/ring.c \
	tests/fuzz/ring-model.c \
	tests/fuzz/ring-model.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN) \
	$(TEST_RING) \
	tests/support/blkif-front.h
tests_fuzz_ring_LDADD = $(TAPDISK_LIBS)
tests_fuzz_ring_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_nbd_server_SOURCES = \
	tests/fuzz/nbd-server.c \
	tests/fuzz/nbd-guest.c \
	tests/fuzz/nbd-guest.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN) \
	tests/support/test-image.c \
	tests/support/test-image.h
tests_fuzz_nbd_server_LDADD = $(TAPDISK_LIBS)
tests_fuzz_nbd_server_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_nbd_client_SOURCES = \
	tests/fuzz/nbd-client.c \
	tests/fuzz/nbd-peer.c \
	tests/fuzz/nbd-peer.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN) \
	tests/support/drive.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h
tests_fuzz_nbd_client_LDADD = $(TAPDISK_LIBS)
tests_fuzz_nbd_client_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_nbd_again_SOURCES = \
	tests/fuzz/nbd-again.c \
	tests/fuzz/nbd-volatile.c \
	tests/fuzz/nbd-volatile.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN) \
	tests/support/drive.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h
tests_fuzz_nbd_again_LDADD = $(TAPDISK_LIBS)
tests_fuzz_nbd_again_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_tls_SOURCES = \
	tests/fuzz/tls.c \
	tests/fuzz/tls-peer.c \
	tests/fuzz/tls-peer.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN)
tests_fuzz_tls_LDADD = $(TAPDISK_LIBS)
tests_fuzz_tls_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_words_SOURCES = tests/fuzz/words.c tests/fuzz/dir.c tests/fuzz/dir.h $(FUZZ_MAIN)
tests_fuzz_words_LDADD = $(TAPDISK_LIBS)
tests_fuzz_words_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_luks_SOURCES = tests/fuzz/luks.c $(FUZZ_MAIN)
tests_fuzz_luks_LDADD = $(TAPDISK_LIBS)
tests_fuzz_luks_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_xenstore_SOURCES = \
	tests/fuzz/xenstore.c \
	tests/fuzz/xs-mem.c \
	tests/fuzz/xs-mem.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN)
tests_fuzz_xenstore_LDADD = $(TAPBACK_LIBS)
tests_fuzz_xenstore_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_control_SOURCES = \
	tests/fuzz/control.c \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN) \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h
tests_fuzz_control_LDADD = $(TAPDISK_LIBS)
tests_fuzz_control_LDFLAGS = $(FUZZ_LINK)

tests_fuzz_opener_SOURCES = \
	tests/fuzz/opener.c \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(FUZZ_MAIN)
tests_fuzz_opener_LDADD = $(TAPDISK_LIBS) -ldl
tests_fuzz_opener_LDFLAGS = $(FUZZ_LINK)

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

BULK_MAIN = \
	tests/fuzz/bulk.c \
	tests/fuzz/bulk.h \
	tests/fuzz/ends.c \
	tests/fuzz/ends.h \
	tests/fuzz/fuzz.h \
	tests/fuzz/assert.c \
	tests/fuzz/log.c
tests_fuzz_bulk_ring_SOURCES = \
	tests/fuzz/bulk-ring.c \
	tests/fuzz/bulk-disk.c \
	tests/fuzz/bulk-disk.h \
	tests/fuzz/bulk-guest.c \
	tests/fuzz/bulk-guest.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(BULK_MAIN) \
	tests/support/blkif-front.h \
	tests/support/drive.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/vhd-make.c \
	tests/support/vhd-make.h
tests_fuzz_bulk_ring_LDADD = $(TAPDISK_LIBS)
tests_fuzz_bulk_lane_SOURCES = \
	tests/fuzz/bulk-lane.c \
	tests/fuzz/bulk-guest.c \
	tests/fuzz/bulk-guest.h \
	tests/fuzz/dir.c \
	tests/fuzz/dir.h \
	$(BULK_MAIN) \
	tests/support/blkif-front.h \
	tests/support/on-fiber.h
tests_fuzz_bulk_lane_LDADD = $(TAPDISK_LIBS)
tests_fuzz_bulk_image_SOURCES = \
	tests/fuzz/bulk-image.c \
	tests/fuzz/bulk-made.c \
	tests/fuzz/bulk-made.h \
	$(BULK_MAIN) \
	tests/support/drive.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/vhd-make.c \
	tests/support/vhd-make.h
tests_fuzz_bulk_image_LDADD = $(TAPDISK_LIBS)

# T="ring ...": these targets alone; TIME: seconds for each
FUZZ_RUN = @top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' MAKE='$(MAKE)' TIME='$(TIME)' T='$(T)' COUNT='$(COUNT)' SEED='$(SEED)' BUGS='$(BUGS)' \
	bash '$(abs_top_srcdir)/tests/fuzz/run'
.PHONY: check-fuzz check-fuzz-bulk check-fuzz-bugs
check-fuzz:
	$(FUZZ_RUN) $(FUZZERS)

# T=ring COUNT=1000000000 SEED=7: until so many have been counted
check-fuzz-bulk:
	$(FUZZ_RUN) --bulk $(BULK_FUZZERS)

# BUGS=NAME or BUGS='--first 1'
check-fuzz-bugs:
	$(FUZZ_RUN) --bugs $(FUZZERS)

# What compiles one source, and links a target with it in front of the libraries, for tests/fuzz/plant
FUZZ_ENV = SRC='$(abs_top_srcdir)' CC='$(CC)' LDFLAGS='$(FUZZ_LINK) $(LDFLAGS)' \
	FLAGS='$(DEFS) $(DEFAULT_INCLUDES) $(INCLUDES) $(AM_CPPFLAGS) $(CPPFLAGS) $(AM_CFLAGS) $(XENSTORE_CFLAGS) $(XEN_CFLAGS) $(CFLAGS)' \
	LINK_ring='$(tests_fuzz_ring_OBJECTS) @ $(tests_fuzz_ring_LDADD) $(LIBS)' \
	LINK_opener='$(tests_fuzz_opener_OBJECTS) @ $(tests_fuzz_opener_LDADD) $(LIBS)' \
	LINK_bulk_ring='$(tests_fuzz_bulk_ring_OBJECTS) @ $(tests_fuzz_bulk_ring_LDADD) $(LIBS)' \
	LINK_bulk_lane='$(tests_fuzz_bulk_lane_OBJECTS) @ $(tests_fuzz_bulk_lane_LDADD) $(LIBS)' \
	LINK_bulk_image='$(tests_fuzz_bulk_image_OBJECTS) @ $(tests_fuzz_bulk_image_LDADD) $(LIBS)' \
	LINK_vhd='$(tests_fuzz_vhd_OBJECTS) @ $(tests_fuzz_vhd_LDADD) $(LIBS)' \
	LINK_qcow2='$(tests_fuzz_qcow2_OBJECTS) @ $(tests_fuzz_qcow2_LDADD) $(LIBS)' \
	LINK_qcow='$(tests_fuzz_qcow_OBJECTS) @ $(tests_fuzz_qcow_LDADD) $(LIBS)' \
	LINK_luks='$(tests_fuzz_luks_OBJECTS) @ $(tests_fuzz_luks_LDADD) $(LIBS)' \
	LINK_nbd_server='$(tests_fuzz_nbd_server_OBJECTS) @ $(tests_fuzz_nbd_server_LDADD) $(LIBS)' \
	LINK_nbd_client='$(tests_fuzz_nbd_client_OBJECTS) @ $(tests_fuzz_nbd_client_LDADD) $(LIBS)' \
	LINK_nbd_again='$(tests_fuzz_nbd_again_OBJECTS) @ $(tests_fuzz_nbd_again_LDADD) $(LIBS)' \
	LINK_tls='$(tests_fuzz_tls_OBJECTS) @ $(tests_fuzz_tls_LDADD) $(LIBS)' \
	LINK_words='$(tests_fuzz_words_OBJECTS) @ $(tests_fuzz_words_LDADD) $(LIBS)' \
	LINK_control='$(tests_fuzz_control_OBJECTS) @ $(tests_fuzz_control_LDADD) $(LIBS)'
if HAVE_XEN
FUZZ_ENV += LINK_xenstore='$(tests_fuzz_xenstore_OBJECTS) @ $(tests_fuzz_xenstore_LDADD) $(LIBS)'
endif
.PHONY: fuzz-plant
fuzz-plant: $(FUZZERS) $(BULK_FUZZERS)
	@$(FUZZ_ENV) python3 '$(abs_top_srcdir)/tests/fuzz/plant' $(BUGS)
clean-local: clean-fuzz
.PHONY: clean-fuzz
clean-fuzz:
	rm -rf tests/fuzz/planted
