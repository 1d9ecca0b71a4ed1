# SPDX-License-Identifier: LGPL-2.1-or-later
# disks for guests: tap-vbd, and the hotplug script
if HAVE_XEN
sbin_PROGRAMS += bin/tap-vbd
endif
bin_tap_vbd_SOURCES = \
	control/attach/tap-vbd.c \
	control/attach/toolstack.c \
	control/attach/toolstack.h \
	control/attach/media.c \
	control/attach/media.h \
	control/attach/xl-disk.c \
	control/attach/xl-disk.h \
	control/store.c \
	control/store.h
bin_tap_vbd_CPPFLAGS = $(AM_CPPFLAGS) -DXENSCRIPTDIR='"$(xenscriptdir)"'
bin_tap_vbd_CFLAGS = $(AM_CFLAGS) $(XENSTORE_CFLAGS)
bin_tap_vbd_LDADD = $(TD_LIBS) $(XENSTORE_LIBS)

# libvirt's hook: an administrator links it into /etc/libvirt/hooks
dist_pkgdata_SCRIPTS = control/attach/libvirt-hook
xenscript_SCRIPTS = bin/block-tap
bin/block-tap: $(srcdir)/control/attach/block-tap.in Makefile
	$(AM_V_GEN)$(MKDIR_P) bin && sed -e 's|@sbindir[@]|$(sbindir)|g' -e 's|@bindir[@]|$(bindir)|g' \
		$(srcdir)/control/attach/block-tap.in >$@.tmp && chmod +x $@.tmp && mv $@.tmp $@
EXTRA_DIST += control/attach/block-tap.in
CLEANFILES += bin/block-tap
