# SPDX-License-Identifier: LGPL-2.1-or-later
include tests/unit/nbd.mk
include tests/unit/rbd.mk

# messages and the control client
if HAVE_CHECK
check_PROGRAMS += tests/unit/test-msg tests/unit/test-ctl-client
TESTS += tests/unit/test-msg tests/unit/test-ctl-client
endif
tests_unit_test_msg_SOURCES = tests/unit/test-msg.c
tests_unit_test_msg_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_msg_LDADD = $(TD_LIBS) $(CHECK_LIBS)
tests_unit_test_ctl_client_SOURCES = tests/unit/test-ctl-client.c
tests_unit_test_ctl_client_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_ctl_client_LDADD = $(TD_LIBS) $(CHECK_LIBS)

if HAVE_CHECK
# lib, drivers, and the tapdisk from the cache layer to a disk's life
UNIT_PARTS = \
	tests/unit/test-cache \
	tests/unit/test-cache-barrier \
	tests/unit/test-cache-cancel \
	tests/unit/test-cache-space \
	tests/unit/test-cache-storm \
	tests/unit/test-blkif \
	tests/unit/test-blkif-hostile \
	tests/unit/test-blkif-indirect \
	tests/unit/test-blkif-poll \
	tests/unit/test-blkif-window \
	tests/unit/test-blkif-persist \
	tests/unit/test-blkif-memory \
	tests/unit/test-blkif-limit \
	tests/unit/test-limit \
	tests/unit/test-changed \
	tests/unit/test-leaf-cache \
	tests/unit/test-commit \
	tests/unit/test-mirror \
	tests/unit/test-mirror-part \
	tests/unit/test-inflight \
	tests/unit/test-align \
	tests/unit/test-io \
	tests/unit/test-io-real \
	tests/unit/test-merge \
	tests/unit/test-file \
	tests/unit/test-file-hosts \
	tests/unit/test-vbd \
	tests/unit/test-vbd-pause \
	tests/unit/test-vbd-commit \
	tests/unit/test-vbd-left \
	tests/unit/test-vbd-record \
	tests/unit/test-server \
	tests/unit/test-vbd-give \
	tests/unit/test-vbd-ring \
	tests/unit/test-lane \
	tests/unit/test-lane-space \
	tests/unit/test-bytes \
	tests/unit/test-list \
	tests/unit/test-fiber \
	tests/unit/test-request \
	tests/unit/test-options \
	tests/unit/test-extent \
	tests/unit/test-iov \
	tests/unit/test-clock \
	tests/unit/test-redo \
	tests/unit/test-redo-left \
	tests/unit/test-redo-whose \
	tests/unit/test-redo-deaths \
	tests/unit/test-tls-relay \
	tests/unit/test-syncmark \
	tests/unit/test-log \
	tests/unit/test-opener \
	tests/unit/test-opener-whose \
	tests/unit/test-opener-named \
	tests/unit/test-opener-hostile \
	tests/unit/test-sandbox \
	tests/unit/test-sandbox-calls \
	tests/unit/test-sandbox-network \
	tests/unit/test-sandbox-ring \
	tests/unit/test-sandbox-path
check_PROGRAMS += $(UNIT_PARTS)
TESTS += $(UNIT_PARTS)
UNIT_PARTS_LIBS = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_cache_storm_SOURCES = \
	tests/unit/test-cache-storm.c \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_cache_storm_LDADD = $(UNIT_PARTS_LIBS)
TEST_RING = \
	tests/support/test-ring.c \
	tests/support/test-ring.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_blkif_SOURCES = tests/unit/test-blkif.c $(TEST_RING)
tests_unit_test_blkif_hostile_SOURCES = tests/unit/test-blkif-hostile.c $(TEST_RING)
tests_unit_test_blkif_hostile_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_indirect_SOURCES = tests/unit/test-blkif-indirect.c $(TEST_RING)
tests_unit_test_blkif_indirect_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_poll_SOURCES = \
	tests/unit/test-blkif-poll.c \
	tests/support/fake-clock.h \
	$(TEST_RING)
tests_unit_test_blkif_poll_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_window_SOURCES = tests/unit/test-blkif-window.c tests/support/suite.h
tests_unit_test_blkif_window_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_limit_SOURCES = tests/unit/test-blkif-limit.c $(TEST_RING)
tests_unit_test_blkif_limit_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_changed_SOURCES = \
	tests/unit/test-changed.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_changed_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_commit_SOURCES = \
	tests/unit/test-commit.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_commit_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_leaf_cache_SOURCES = \
	tests/unit/test-leaf-cache.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_leaf_cache_LDADD = $(UNIT_PARTS_LIBS)
TEST_MIRROR = \
	tests/support/test-mirror.h \
	tests/support/on-fiber.h \
	tests/support/suite.h \
	tests/support/wall-clock.h
tests_unit_test_mirror_SOURCES = tests/unit/test-mirror.c $(TEST_MIRROR)
tests_unit_test_mirror_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_mirror_part_SOURCES = tests/unit/test-mirror-part.c $(TEST_MIRROR)
tests_unit_test_mirror_part_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_limit_SOURCES = tests/unit/test-limit.c tests/support/suite.h
tests_unit_test_limit_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_persist_SOURCES = tests/unit/test-blkif-persist.c $(TEST_RING)
tests_unit_test_blkif_persist_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_memory_SOURCES = \
	tests/unit/test-blkif-memory.c \
	tests/support/blkif-front.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_blkif_memory_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_inflight_SOURCES = tests/unit/test-inflight.c $(TEST_RING)
tests_unit_test_inflight_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_blkif_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_align_SOURCES = \
	tests/unit/test-align.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_align_LDADD = $(UNIT_PARTS_LIBS)
TEST_IO = \
	tests/support/test-io.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_io_SOURCES = tests/unit/test-io.c $(TEST_IO)
tests_unit_test_io_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_io_real_SOURCES = tests/unit/test-io-real.c $(TEST_IO)
tests_unit_test_io_real_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_merge_SOURCES = \
	tests/unit/test-merge.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_merge_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_file_SOURCES = \
	tests/unit/test-file.c \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_file_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_file_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=open,--wrap=__open_2,--wrap=stat,--wrap=fstatfs
tests_unit_test_file_hosts_SOURCES = \
	tests/unit/test-file-hosts.c \
	tests/support/suite.h
tests_unit_test_file_hosts_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_file_hosts_LDFLAGS = $(AM_LDFLAGS) -Wl,--wrap=fstatfs,--wrap=flock,--wrap=fcntl,--wrap=fcntl64,--wrap=td_log_to_daemon
TEST_VBD = \
	tests/support/test-vbd.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_vbd_SOURCES = tests/unit/test-vbd.c $(TEST_VBD)
tests_unit_test_vbd_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_pause_SOURCES = tests/unit/test-vbd-pause.c $(TEST_VBD)
tests_unit_test_vbd_pause_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_commit_SOURCES = tests/unit/test-vbd-commit.c $(TEST_VBD)
tests_unit_test_vbd_commit_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_left_SOURCES = tests/unit/test-vbd-left.c $(TEST_VBD)
tests_unit_test_vbd_left_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_record_SOURCES = tests/unit/test-vbd-record.c $(TEST_VBD)
tests_unit_test_vbd_record_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_server_SOURCES = tests/unit/test-server.c tests/support/suite.h
tests_unit_test_server_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_give_SOURCES = tests/unit/test-vbd-give.c $(TEST_VBD)
tests_unit_test_vbd_give_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_vbd_ring_SOURCES = tests/unit/test-vbd-ring.c $(TEST_VBD)
tests_unit_test_vbd_ring_LDADD = $(UNIT_PARTS_LIBS)
TEST_LANE = \
	tests/support/test-lane.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_lane_SOURCES = tests/unit/test-lane.c $(TEST_LANE)
tests_unit_test_lane_space_SOURCES = tests/unit/test-lane-space.c $(TEST_LANE)
tests_unit_test_lane_space_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_lane_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_extent_SOURCES = \
	tests/unit/test-extent.c \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_extent_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_syncmark_SOURCES = tests/unit/test-syncmark.c tests/support/suite.h
tests_unit_test_syncmark_LDADD = $(UNIT_PARTS_LIBS)
REDO_LOG = \
	tests/support/redo-log.h \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_redo_SOURCES = tests/unit/test-redo.c $(REDO_LOG)
tests_unit_test_redo_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_redo_left_SOURCES = tests/unit/test-redo-left.c $(REDO_LOG)
tests_unit_test_redo_left_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_redo_whose_SOURCES = tests/unit/test-redo-whose.c $(REDO_LOG)
tests_unit_test_redo_whose_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_tls_relay_SOURCES = tests/unit/test-tls-relay.c
tests_unit_test_tls_relay_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_redo_deaths_SOURCES = tests/unit/test-redo-deaths.c $(REDO_LOG)
tests_unit_test_redo_deaths_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_iov_SOURCES = tests/unit/test-iov.c tests/support/suite.h
tests_unit_test_iov_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_log_SOURCES = tests/unit/test-log.c tests/support/suite.h
tests_unit_test_log_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_clock_SOURCES = \
	tests/unit/test-clock.c \
	lib/io/clock-libc.c \
	tests/support/suite.h
tests_unit_test_clock_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_bytes_SOURCES = tests/unit/test-bytes.c tests/support/suite.h
tests_unit_test_bytes_LDADD = $(CHECK_LIBS)
tests_unit_test_list_SOURCES = tests/unit/test-list.c tests/support/suite.h
tests_unit_test_list_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_fiber_SOURCES = \
	tests/unit/test-fiber.c \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/stacks.h \
	tests/support/suite.h
tests_unit_test_fiber_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_request_SOURCES = \
	tests/unit/test-request.c \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_request_LDADD = $(UNIT_PARTS_LIBS)
TEST_OPENER = tests/support/test-opener.h tests/support/suite.h
tests_unit_test_opener_SOURCES = tests/unit/test-opener.c $(TEST_OPENER)
tests_unit_test_opener_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_opener_whose_SOURCES = tests/unit/test-opener-whose.c $(TEST_OPENER)
tests_unit_test_opener_whose_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_opener_named_SOURCES = tests/unit/test-opener-named.c $(TEST_OPENER)
tests_unit_test_opener_named_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_opener_hostile_SOURCES = tests/unit/test-opener-hostile.c $(TEST_OPENER)
tests_unit_test_opener_hostile_LDADD = $(UNIT_PARTS_LIBS)
TEST_SANDBOX = tests/support/test-sandbox.h tests/support/suite.h
tests_unit_test_sandbox_SOURCES = tests/unit/test-sandbox.c $(TEST_SANDBOX)
tests_unit_test_sandbox_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_sandbox_calls_SOURCES = tests/unit/test-sandbox-calls.c $(TEST_SANDBOX)
tests_unit_test_sandbox_calls_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_sandbox_network_SOURCES = tests/unit/test-sandbox-network.c $(TEST_SANDBOX)
tests_unit_test_sandbox_network_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_sandbox_ring_SOURCES = tests/unit/test-sandbox-ring.c $(TEST_SANDBOX)
tests_unit_test_sandbox_ring_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_sandbox_path_SOURCES = tests/unit/test-sandbox-path.c $(TEST_SANDBOX)
tests_unit_test_sandbox_path_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_options_SOURCES = tests/unit/test-options.c tests/support/suite.h
tests_unit_test_options_LDADD = $(UNIT_PARTS_LIBS)
TEST_CACHE = \
	tests/support/test-cache.h \
	tests/support/test-image.c \
	tests/support/test-image.h \
	tests/support/suite.h
tests_unit_test_cache_SOURCES = tests/unit/test-cache.c $(TEST_CACHE)
tests_unit_test_cache_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_cache_barrier_SOURCES = tests/unit/test-cache-barrier.c $(TEST_CACHE)
tests_unit_test_cache_barrier_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_cache_cancel_SOURCES = tests/unit/test-cache-cancel.c $(TEST_CACHE)
tests_unit_test_cache_cancel_LDADD = $(UNIT_PARTS_LIBS)
tests_unit_test_cache_space_SOURCES = tests/unit/test-cache-space.c $(TEST_CACHE)
tests_unit_test_cache_space_LDADD = $(UNIT_PARTS_LIBS)
endif

if HAVE_CHECK
# the ring's bytes, and the memory transport
check_PROGRAMS += tests/unit/test-blkif-abi tests/unit/test-xport-mem
TESTS += tests/unit/test-blkif-abi tests/unit/test-xport-mem
endif
tests_unit_test_blkif_abi_SOURCES = tests/unit/test-blkif-abi.c
tests_unit_test_blkif_abi_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_xport_mem_SOURCES = tests/unit/test-xport-mem.c
tests_unit_test_xport_mem_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)

# tapback's device
if HAVE_CHECK
if HAVE_XEN
check_PROGRAMS += tests/unit/test-device
TESTS += tests/unit/test-device
endif
endif
tests_unit_test_device_SOURCES = tests/unit/test-device.c tests/support/suite.h
tests_unit_test_device_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_device_LDADD = $(TAPBACK_LIBS) $(CHECK_LIBS)

# xl's disk syntax
if HAVE_CHECK
check_PROGRAMS += tests/unit/test-xl-disk
TESTS += tests/unit/test-xl-disk
endif
tests_unit_test_xl_disk_SOURCES = \
	tests/unit/test-xl-disk.c \
	control/attach/xl-disk.c \
	control/attach/xl-disk.h
tests_unit_test_xl_disk_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_xl_disk_LDADD = $(TD_LIBS) $(CHECK_LIBS)

if HAVE_CHECK
# what a disk has done, and where others read it
check_PROGRAMS += tests/unit/test-stats
TESTS += tests/unit/test-stats
endif
tests_unit_test_stats_SOURCES = tests/unit/test-stats.c tests/support/suite.h
tests_unit_test_stats_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)

# the VHD driver
if HAVE_CHECK
check_PROGRAMS += tests/unit/test-vhd tests/unit/test-vhd-refused tests/unit/test-vhd-model tests/unit/test-vhd-relink
TESTS += tests/unit/test-vhd tests/unit/test-vhd-refused tests/unit/test-vhd-model tests/unit/test-vhd-relink
endif
VHD_TEST_PARTS = \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/vhd-make.c \
	tests/support/vhd-make.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
tests_unit_test_vhd_model_SOURCES = \
	tests/unit/test-vhd-model.c \
	tests/support/model.c \
	tests/support/model.h \
	$(VHD_TEST_PARTS)
tests_unit_test_vhd_model_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
# VHD offline: the power is cut by linking its writes to the test
if HAVE_CHECK
check_PROGRAMS += \
	tests/unit/test-vhd-image \
	tests/unit/test-vhd-cuts \
	tests/unit/test-vhd-resize \
	tests/unit/test-vhd-format
TESTS += \
	tests/unit/test-vhd-image \
	tests/unit/test-vhd-cuts \
	tests/unit/test-vhd-resize \
	tests/unit/test-vhd-format
endif
tests_unit_test_vhd_format_SOURCES = tests/unit/test-vhd-format.c tests/support/suite.h
tests_unit_test_vhd_format_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_vhd_format_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CHECK_LIBS)
VHD_IMAGE_PARTS = \
	tests/support/vhd-trial.c \
	tests/support/vhd-trial.h \
	tests/support/cut-calls.c \
	tests/support/cut-calls.h \
	tests/support/suite.h
VHD_IMAGE_WRAPS = $(AM_LDFLAGS) -Wl,--wrap=pwrite,--wrap=pwrite64,--wrap=fdatasync,--wrap=fsync,--wrap=ftruncate,--wrap=ftruncate64
tests_unit_test_vhd_image_SOURCES = tests/unit/test-vhd-image.c $(VHD_IMAGE_PARTS)
tests_unit_test_vhd_image_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_vhd_image_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CHECK_LIBS)
tests_unit_test_vhd_image_LDFLAGS = $(VHD_IMAGE_WRAPS)
tests_unit_test_vhd_cuts_SOURCES = tests/unit/test-vhd-cuts.c $(VHD_IMAGE_PARTS)
tests_unit_test_vhd_cuts_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_vhd_cuts_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CHECK_LIBS)
tests_unit_test_vhd_cuts_LDFLAGS = $(VHD_IMAGE_WRAPS)
tests_unit_test_vhd_resize_SOURCES = tests/unit/test-vhd-resize.c $(VHD_IMAGE_PARTS)
tests_unit_test_vhd_resize_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_vhd_resize_LDADD = drivers/libdrivers.a $(TD_LIBS) $(CHECK_LIBS)
tests_unit_test_vhd_resize_LDFLAGS = $(VHD_IMAGE_WRAPS)
TEST_VHD = tests/support/test-vhd.h tests/support/drive.h $(VHD_TEST_PARTS)
tests_unit_test_vhd_SOURCES = tests/unit/test-vhd.c $(TEST_VHD)
tests_unit_test_vhd_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_vhd_refused_SOURCES = tests/unit/test-vhd-refused.c $(TEST_VHD)
tests_unit_test_vhd_refused_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_vhd_relink_SOURCES = \
	tests/unit/test-vhd-relink.c \
	tests/support/drive.h \
	$(VHD_TEST_PARTS)
tests_unit_test_vhd_relink_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)

# what an open makes durable, of every format
if HAVE_CHECK
check_PROGRAMS += tests/unit/test-settle
TESTS += tests/unit/test-settle
endif
tests_unit_test_settle_SOURCES = \
	tests/unit/test-settle.c \
	tests/support/drive.h \
	$(VHD_TEST_PARTS)
tests_unit_test_settle_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)

# formats over the log of their changes
if HAVE_CHECK
check_PROGRAMS += tests/unit/test-redo-format
TESTS += tests/unit/test-redo-format
endif
tests_unit_test_redo_format_SOURCES = \
	tests/unit/test-redo-format.c \
	tests/support/drive.h \
	$(VHD_TEST_PARTS)
tests_unit_test_redo_format_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)

# the bytes of qcow2
if HAVE_CHECK
check_PROGRAMS += \
	tests/unit/test-qcow-format \
	tests/unit/test-qcow \
	tests/unit/test-qcow-order \
	tests/unit/test-qcow-relink \
	tests/unit/test-qcow-model
TESTS += \
	tests/unit/test-qcow-format \
	tests/unit/test-qcow \
	tests/unit/test-qcow-order \
	tests/unit/test-qcow-relink \
	tests/unit/test-qcow-model
endif
QCOW_TEST_PARTS = \
	tests/support/fault-io.c \
	tests/support/fault-io.h \
	tests/support/on-fiber.h \
	tests/support/suite.h
TEST_QCOW = \
	tests/support/test-qcow.h \
	tests/support/drive.h \
	$(QCOW_TEST_PARTS)
tests_unit_test_qcow_SOURCES = tests/unit/test-qcow.c $(TEST_QCOW)
tests_unit_test_qcow_order_SOURCES = tests/unit/test-qcow-order.c $(TEST_QCOW)
tests_unit_test_qcow_order_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_qcow_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_qcow_relink_SOURCES = \
	tests/unit/test-qcow-relink.c \
	tests/support/drive.h \
	$(QCOW_TEST_PARTS)
tests_unit_test_qcow_relink_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_qcow_model_SOURCES = \
	tests/unit/test-qcow-model.c \
	tests/support/model.c \
	tests/support/model.h \
	$(QCOW_TEST_PARTS)
tests_unit_test_qcow_model_LDADD = $(TAPDISK_LIBS) $(CHECK_LIBS)
tests_unit_test_qcow_format_SOURCES = tests/unit/test-qcow-format.c tests/support/suite.h
tests_unit_test_qcow_format_CPPFLAGS = $(AM_CPPFLAGS) $(CHECK_CFLAGS)
tests_unit_test_qcow_format_LDADD = $(DRIVERS_LIBS) $(TD_LIBS) $(CHECK_LIBS)
