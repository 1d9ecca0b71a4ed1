# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_LIBRARIES += drivers/libdrivers.a
drivers_libdrivers_a_SOURCES = \
	drivers/cipher.c \
	drivers/cipher.h \
	drivers/drivers.c \
	drivers/drivers.h \
	drivers/empty.c \
	drivers/null.c \
	drivers/raw.c
include drivers/vhd/local.mk
include drivers/qcow/local.mk
include drivers/nbd/local.mk
include drivers/rbd/local.mk
# what a program that stands on the drivers links, before TD_LIBS
DRIVERS_LIBS = drivers/libdrivers.a $(ZLIB_LIBS) $(ZSTD_LIBS) $(CRYPTO_LIBS)
