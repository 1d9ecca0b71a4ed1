# SPDX-License-Identifier: LGPL-2.1-or-later
# The xenstore side: tapback, tap-vbd, and the hotplug script.
if HAVE_XEN
sbin_PROGRAMS += control/tapback control/tap-vbd
endif
control_tapback_SOURCES = control/tapback.c \
	control/master.c control/master.h \
	control/device.c control/device.h \
	control/ring.c control/ring-page.c control/ring-page.h \
	control/watchdog.c control/watchdog.h \
	control/revive.c control/revive.h \
	control/backend.c control/backend.h \
	control/frontend.c control/frontend.h \
	control/machine.c control/machine.h \
	control/features.c control/features.h \
	control/tapdisk-call.c control/tapdisk-call.h \
	control/store.c control/store.h
control_tapback_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS) $(XEN_CFLAGS)
control_tapback_LDADD = $(TD_LIBS) $(XENSTORE_LIBS) $(XEN_LIBS)

control_tap_vbd_SOURCES = control/tap-vbd.c \
	control/vbd-dirs.c control/vbd-dirs.h \
	control/vbd-media.c control/vbd-media.h \
	control/xl-disk.c control/xl-disk.h \
	control/store.c control/store.h
control_tap_vbd_CPPFLAGS = $(AM_CPPFLAGS) -DXENSCRIPTDIR='"$(xenscriptdir)"'
control_tap_vbd_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS)
control_tap_vbd_LDADD = $(TD_LIBS) $(XENSTORE_LIBS)

xenscript_SCRIPTS = control/block-tap
control/block-tap: $(srcdir)/control/block-tap.in Makefile
	$(AM_V_GEN)$(MKDIR_P) control && sed -e 's|@sbindir[@]|$(sbindir)|g' -e 's|@bindir[@]|$(bindir)|g' \
		$(srcdir)/control/block-tap.in >$@.tmp && chmod +x $@.tmp && mv $@.tmp $@
EXTRA_DIST += control/block-tap.in
CLEANFILES += control/block-tap
