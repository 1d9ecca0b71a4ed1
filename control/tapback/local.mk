# SPDX-License-Identifier: LGPL-2.1-or-later
# the backend daemon
if HAVE_XEN
sbin_PROGRAMS += bin/tapback
noinst_LIBRARIES += control/tapback/libtapback.a
endif
bin_tapback_SOURCES = control/tapback/tapback.c
bin_tapback_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS) $(XEN_CFLAGS)
TAPBACK_LIBS = control/tapback/libtapback.a $(TD_LIBS) $(XENSTORE_LIBS) $(XEN_LIBS)
bin_tapback_LDADD = $(TAPBACK_LIBS)
# all but main(), for the daemon and its unit test
control_tapback_libtapback_a_SOURCES = \
	control/tapback/backend.c \
	control/tapback/backend.h \
	control/tapback/device-fail.c \
	control/tapback/device-limit.c \
	control/tapback/device-node.c \
	control/tapback/device.c \
	control/tapback/device.h \
	control/tapback/publish.c \
	control/tapback/publish.h \
	control/tapback/frontend.c \
	control/tapback/frontend.h \
	control/tapback/same-machine.c \
	control/tapback/same-machine.h \
	control/tapback/tapdisk-death.c \
	control/tapback/devices.c \
	control/tapback/devices.h \
	control/tapback/revive.c \
	control/tapback/revive.h \
	control/tapback/ring-page.c \
	control/tapback/ring-page.h \
	control/tapback/tapdisk-link.c \
	control/tapback/tapdisk-call.c \
	control/tapback/tapdisk-call.h \
	control/tapback/watchdog.c \
	control/tapback/watchdog.h \
	control/store.c \
	control/store.h
control_tapback_libtapback_a_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS) $(XEN_CFLAGS)
