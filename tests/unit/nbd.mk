# SPDX-License-Identifier: LGPL-2.1-or-later
# the NBD server, and the sockets that are passed
if HAVE_CHECK
check_PROGRAMS += \
	tests/unit/test-nbd \
	tests/unit/test-nbd-conn \
	tests/unit/test-nbd-handshake \
	tests/unit/test-passed \
	tests/unit/test-nbd-left \
	tests/unit/test-nbd-again \
	tests/unit/test-nbd-return \
	tests/unit/test-nbd-more \
	tests/unit/test-parent-disk \
	tests/unit/test-nbd-uri \
	tests/unit/test-nbd-chunk
TESTS += \
	tests/unit/test-nbd \
	tests/unit/test-nbd-conn \
	tests/unit/test-nbd-handshake \
	tests/unit/test-passed \
	tests/unit/test-nbd-left \
	tests/unit/test-nbd-again \
	tests/unit/test-nbd-return \
	tests/unit/test-nbd-more \
	tests/unit/test-parent-disk \
	tests/unit/test-nbd-uri \
	tests/unit/test-nbd-chunk
endif
TEST_NBD = \
	tests/support/test-nbd.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_nbd_SOURCES = tests/unit/test-nbd.c $(TEST_NBD)
tests_unit_test_nbd_conn_SOURCES = \
	tests/unit/test-nbd-conn.c \
	tests/support/stacks.h \
	$(TEST_NBD)
tests_unit_test_nbd_conn_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_nbd_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_nbd_handshake_SOURCES = tests/unit/test-nbd-handshake.c tests/support/suite.h
tests_unit_test_nbd_handshake_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_passed_SOURCES = tests/unit/test-passed.c tests/support/suite.h
tests_unit_test_passed_LDADD = $(TD_LIBS) $(CHECK_LIBS)
tests_unit_test_nbd_left_SOURCES = \
	tests/unit/test-nbd-left.c \
	tests/support/on-fiber.h \
	tests/support/suite.h \
	tests/support/wall-clock.h
tests_unit_test_nbd_left_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
TEST_NBD_AWAY = \
	tests/support/nbd-away.h \
	tests/support/nbd-drive.h \
	tests/support/nbd-flaky.c \
	tests/support/nbd-flaky.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_nbd_return_SOURCES = tests/unit/test-nbd-return.c $(TEST_NBD_AWAY)
tests_unit_test_nbd_return_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS) -lpthread
tests_unit_test_nbd_again_SOURCES = tests/unit/test-nbd-again.c $(TEST_NBD_AWAY)
tests_unit_test_nbd_again_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS) -lpthread
tests_unit_test_nbd_more_SOURCES = \
	tests/unit/test-nbd-more.c \
	tests/support/nbd-drive.h \
	tests/support/nbd-flaky.c \
	tests/support/nbd-flaky.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_nbd_more_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS) -lpthread
tests_unit_test_parent_disk_SOURCES = \
	tests/unit/test-parent-disk.c \
	tests/support/nbd-flaky.c \
	tests/support/nbd-flaky.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_parent_disk_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS) -lpthread
tests_unit_test_nbd_uri_SOURCES = tests/unit/test-nbd-uri.c tests/support/suite.h
tests_unit_test_nbd_uri_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_nbd_chunk_SOURCES = tests/unit/test-nbd-chunk.c tests/support/suite.h
tests_unit_test_nbd_chunk_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
