# SPDX-License-Identifier: LGPL-2.1-or-later
# systemd's units, and the directory that it makes at boot.
UNITS_MADE = control/tapdisk-metrics.service
if HAVE_XEN
UNITS_MADE += control/tapback.service control/tapback@.service
endif
$(UNITS_MADE): Makefile
	$(AM_V_GEN)$(MKDIR_P) control && sed -e 's|@sbindir[@]|$(sbindir)|g' '$(srcdir)/$@.in' >$@.tmp && mv $@.tmp $@
control/tapdisk-metrics.service: $(srcdir)/control/tapdisk-metrics.service.in
control/tapback.service: $(srcdir)/control/tapback.service.in
control/tapback@.service: $(srcdir)/control/tapback@.service.in
EXTRA_DIST += control/tapdisk-metrics.service.in control/tapback.service.in control/tapback@.service.in
CLEANFILES += $(UNITS_MADE)

if HAVE_SYSTEMD
systemdsystemunit_DATA = $(UNITS_MADE)
dist_systemdsystemunit_DATA = control/tapdisk-metrics.timer
dist_tmpfiles_DATA = control/tapdisk.conf
else
EXTRA_DIST += control/tapdisk-metrics.timer control/tapdisk.conf
endif
