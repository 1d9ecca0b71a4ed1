# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += drivers/libdrivers.a
drivers_libdrivers_a_SOURCES = drivers/drivers.c drivers/drivers.h drivers/cipher.c drivers/cipher.h drivers/empty.c drivers/null.c drivers/raw.c \
	drivers/vhd-format.c drivers/vhd-format.h drivers/vhd-bat.c drivers/vhd-name.c
# VHD offline
drivers_libdrivers_a_SOURCES += drivers/vhd-beneath.c drivers/vhd-image.c drivers/vhd-image.h drivers/vhd-image-log.c drivers/vhd-image-parent.c drivers/vhd-image-write.c \
	drivers/vhd-create.c drivers/vhd-reparent.c drivers/vhd-resize.c drivers/vhd-journal.c drivers/vhd-move.c drivers/vhd-check.c drivers/vhd-check.h
# VHD
drivers_libdrivers_a_SOURCES += drivers/vhd.c drivers/vhd.h \
	drivers/vhd-alloc.c \
	drivers/vhd-clear.c \
	drivers/vhd-commit.c \
	drivers/vhd-redo.c \
	drivers/vhd-crypt.c \
	drivers/vhd-end.c \
	drivers/vhd-io.c \
	drivers/vhd-map.c \
	drivers/vhd-parent.c \
	drivers/vhd-piece.c
# qcow2
drivers_libdrivers_a_SOURCES += drivers/qcow.c drivers/qcow.h \
	drivers/qcow-bitmap.c \
	drivers/qcow-check.c drivers/qcow-check.h drivers/qcow-checking.h drivers/qcow-check-count.c drivers/qcow-check-mend.c \
	drivers/qcow-create.c \
	drivers/qcow-crypt.c \
	drivers/qcow-discard.c drivers/qcow-end.c \
	drivers/qcow-flush.c \
	drivers/qcow-format.c drivers/qcow-format.h \
	drivers/qcow-image.c drivers/qcow-image.h \
	drivers/qcow-luks.c drivers/qcow-luks.h \
	drivers/qcow-map.c \
	drivers/qcow-open.c \
	drivers/qcow-page.c \
	drivers/qcow-part.c \
	drivers/qcow-read.c \
	drivers/qcow-reap.c \
	drivers/qcow-refblock.c \
	drivers/qcow-refcount.c drivers/qcow-refcount.h \
	drivers/qcow-snapshot.c \
	drivers/qcow-write.c \
	drivers/qcow-zip.c
# NBD, as a client
drivers_libdrivers_a_SOURCES += drivers/nbd.c drivers/nbd.h drivers/nbd-fence.c drivers/nbd-greet.c drivers/nbd-left.c drivers/nbd-wire.c
# what a program that stands on the drivers links, before TD_LIBS
DRIVERS_LIBS = drivers/libdrivers.a $(ZLIB_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS)
