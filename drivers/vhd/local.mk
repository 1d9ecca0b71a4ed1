# SPDX-License-Identifier: LGPL-2.1-or-later
# the bytes
drivers_libdrivers_a_SOURCES += \
	drivers/vhd/vhd-bat.c \
	drivers/vhd/vhd-format.c \
	drivers/vhd/vhd-format.h \
	drivers/vhd/vhd-layout.c \
	drivers/vhd/vhd-name.c \
	drivers/vhd/vhd-relink-plan.c \
	drivers/vhd/vhd-relink.h
# the driver
drivers_libdrivers_a_SOURCES += \
	drivers/vhd/vhd-alloc.c \
	drivers/vhd/vhd-clear.c \
	drivers/vhd/vhd-commit.c \
	drivers/vhd/vhd-crypt.c \
	drivers/vhd/vhd-end.c \
	drivers/vhd/vhd-io.c \
	drivers/vhd/vhd-map.c \
	drivers/vhd/vhd-parent.c \
	drivers/vhd/vhd-piece.c \
	drivers/vhd/vhd-redo.c \
	drivers/vhd/vhd-relink.c \
	drivers/vhd/vhd.c \
	drivers/vhd/vhd.h
# VHD offline
drivers_libdrivers_a_SOURCES += \
	drivers/vhd/vhd-beneath.c \
	drivers/vhd/vhd-check.c \
	drivers/vhd/vhd-check.h \
	drivers/vhd/vhd-create.c \
	drivers/vhd/vhd-image-log.c \
	drivers/vhd/vhd-image-parent.c \
	drivers/vhd/vhd-image-write.c \
	drivers/vhd/vhd-image.c \
	drivers/vhd/vhd-image.h \
	drivers/vhd/vhd-journal.c \
	drivers/vhd/vhd-move.c \
	drivers/vhd/vhd-reparent.c \
	drivers/vhd/vhd-resize.c
