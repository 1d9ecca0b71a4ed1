# SPDX-License-Identifier: LGPL-2.1-or-later
# NBD, as a client
drivers_libdrivers_a_SOURCES += \
	drivers/nbd/nbd-again.c \
	drivers/nbd/nbd-chunk.c \
	drivers/nbd/nbd-command.c \
	drivers/nbd/nbd-connect.c \
	drivers/nbd/nbd-fence.c \
	drivers/nbd/nbd-greet.c \
	drivers/nbd/nbd-keep.c \
	drivers/nbd/nbd-left.c \
	drivers/nbd/nbd-more.c \
	drivers/nbd/nbd-more.h \
	drivers/nbd/nbd-reply.c \
	drivers/nbd/nbd-server.c \
	drivers/nbd/nbd-silent.c \
	drivers/nbd/nbd-spread.c \
	drivers/nbd/nbd-status.c \
	drivers/nbd/nbd-under.c \
	drivers/nbd/nbd-wire.c \
	drivers/nbd/nbd-wire.h \
	drivers/nbd/nbd.c \
	drivers/nbd/nbd.h
