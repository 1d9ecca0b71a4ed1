# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += drivers/libdrivers.a
drivers_libdrivers_a_SOURCES = drivers/drivers.c drivers/drivers.h drivers/null.c drivers/raw.c \
	drivers/vhd-format.c drivers/vhd-format.h drivers/vhd-bat.c drivers/vhd-name.c
