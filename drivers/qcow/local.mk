# SPDX-License-Identifier: LGPL-2.1-or-later
drivers_libdrivers_a_SOURCES += \
	drivers/qcow/qcow-bitmap.c \
	drivers/qcow/qcow-check-count.c \
	drivers/qcow/qcow-check-mend.c \
	drivers/qcow/qcow-check.c \
	drivers/qcow/qcow-check.h \
	drivers/qcow/qcow-checking.h \
	drivers/qcow/qcow-create.c \
	drivers/qcow/qcow-crypt.c \
	drivers/qcow/qcow-discard.c \
	drivers/qcow/qcow-end.c \
	drivers/qcow/qcow-flush.c \
	drivers/qcow/qcow-format.c \
	drivers/qcow/qcow-format.h \
	drivers/qcow/qcow-image.c \
	drivers/qcow/qcow-image.h \
	drivers/qcow/qcow-image-inside.h \
	drivers/qcow/qcow-image-commit.c \
	drivers/qcow/qcow-image-map.c \
	drivers/qcow/qcow-image-resize.c \
	drivers/qcow/qcow-luks.c \
	drivers/qcow/qcow-luks.h \
	drivers/qcow/qcow-map.c \
	drivers/qcow/qcow-open.c \
	drivers/qcow/qcow-page.c \
	drivers/qcow/qcow-part.c \
	drivers/qcow/qcow-read.c \
	drivers/qcow/qcow-reap.c \
	drivers/qcow/qcow-refblock.c \
	drivers/qcow/qcow-refcount.c \
	drivers/qcow/qcow-refcount.h \
	drivers/qcow/qcow-snapshot.c \
	drivers/qcow/qcow-write.c \
	drivers/qcow/qcow-zip.c \
	drivers/qcow/qcow.c \
	drivers/qcow/qcow.h
