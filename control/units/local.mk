# SPDX-License-Identifier: LGPL-2.1-or-later
# systemd's units, and the directory that it makes at boot.
UNITS_MADE = control/units/tapdisk-metrics.service control/units/tapdisk-export@.service
if HAVE_XEN
UNITS_MADE += control/units/tapback.service control/units/tapback@.service
endif
$(UNITS_MADE): Makefile
	$(AM_V_GEN)$(MKDIR_P) control/units && sed -e 's|@sbindir[@]|$(sbindir)|g' '$(srcdir)/$@.in' >$@.tmp && mv $@.tmp $@
control/units/tapdisk-metrics.service: $(srcdir)/control/units/tapdisk-metrics.service.in
control/units/tapdisk-export@.service: $(srcdir)/control/units/tapdisk-export@.service.in
control/units/tapback.service: $(srcdir)/control/units/tapback.service.in
control/units/tapback@.service: $(srcdir)/control/units/tapback@.service.in
EXTRA_DIST += \
	control/units/tapdisk-metrics.service.in \
	control/units/tapdisk-export@.service.in \
	control/units/tapback.service.in \
	control/units/tapback@.service.in
CLEANFILES += $(UNITS_MADE)

if HAVE_SYSTEMD
systemdsystemunit_DATA = $(UNITS_MADE)
dist_systemdsystemunit_DATA = control/units/tapdisk-metrics.timer
dist_tmpfiles_DATA = control/units/tapdisk.conf
else
EXTRA_DIST += control/units/tapdisk-metrics.timer control/units/tapdisk.conf
endif
