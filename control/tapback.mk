# SPDX-License-Identifier: LGPL-2.1-or-later
if HAVE_XEN
sbin_PROGRAMS += control/tapback
endif
control_tapback_SOURCES = control/tapback.c \
	control/master.c control/master.h \
	control/device.c control/device.h \
	control/ring.c \
	control/backend.c control/backend.h \
	control/frontend.c control/frontend.h \
	control/features.c control/features.h \
	control/tapdisk-call.c control/tapdisk-call.h \
	control/store.c control/store.h
control_tapback_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS)
control_tapback_LDADD = $(TD_LIBS) $(XENSTORE_LIBS)
