# SPDX-License-Identifier: LGPL-2.1-or-later
dist_man_MANS += doc/tapdisk.8 doc/tapdisk.conf.5
tapdiskconfdir = $(sysconfdir)/tapdisk
dist_tapdiskconf_DATA = doc/tapdisk.conf
