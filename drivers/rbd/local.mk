# SPDX-License-Identifier: LGPL-2.1-or-later
# Ceph's block devices; the library is opened when it is needed, and not linked
RBD_SOURCES = \
	drivers/rbd/rbd-cache.c \
	drivers/rbd/rbd-call.c \
	drivers/rbd/rbd-cluster.c \
	drivers/rbd/rbd-crypt.c \
	drivers/rbd/rbd-extents.c \
	drivers/rbd/rbd-handle.c \
	drivers/rbd/rbd-io.c \
	drivers/rbd/rbd-left.c \
	drivers/rbd/rbd-lib.c \
	drivers/rbd/rbd-lock.c \
	drivers/rbd/rbd-size.c \
	drivers/rbd/rbd-spec.c \
	drivers/rbd/rbd.c \
	drivers/rbd/rbd.h
if HAVE_RBD
drivers_libdrivers_a_SOURCES += $(RBD_SOURCES)
else
EXTRA_DIST += $(RBD_SOURCES)
endif
