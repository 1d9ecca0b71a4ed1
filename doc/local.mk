# SPDX-License-Identifier: LGPL-2.1-or-later
dist_man_MANS += doc/tapdisk.8 doc/tapdisk.conf.5
tapdiskconfdir = $(sysconfdir)/tapdisk
# What an administrator has written there stays: a cache mode must not fall back to the default because of an installation.
EXTRA_DIST += doc/tapdisk.conf
install-data-local:
	$(MKDIR_P) '$(DESTDIR)$(tapdiskconfdir)'
	test -e '$(DESTDIR)$(tapdiskconfdir)/tapdisk.conf' || $(INSTALL_DATA) '$(srcdir)/doc/tapdisk.conf' '$(DESTDIR)$(tapdiskconfdir)/tapdisk.conf'
uninstall-local:
	! cmp -s '$(srcdir)/doc/tapdisk.conf' '$(DESTDIR)$(tapdiskconfdir)/tapdisk.conf' || rm -f '$(DESTDIR)$(tapdiskconfdir)/tapdisk.conf'
dist_man_MANS += doc/tap-ctl.8
# installed under the commands' names, which is how bash finds them
EXTRA_DIST += doc/tap-ctl.bash-completion doc/programs.bash-completion
bashcompletion_DATA = \
	doc/bash-completion/tap-ctl \
	doc/bash-completion/cbt-util \
	doc/bash-completion/tapback \
	doc/bash-completion/tap-vbd \
	doc/bash-completion/td-qcow \
	doc/bash-completion/vhd-util
CLEANFILES += $(bashcompletion_DATA)
dist_man_MANS += doc/cbt-util.8 doc/td-qcow.8
doc/bash-completion/tap-ctl: $(srcdir)/doc/tap-ctl.bash-completion
	$(AM_V_GEN)$(MKDIR_P) doc/bash-completion && cp $(srcdir)/doc/tap-ctl.bash-completion $@
doc/bash-completion/cbt-util doc/bash-completion/tapback doc/bash-completion/tap-vbd doc/bash-completion/td-qcow doc/bash-completion/vhd-util: $(srcdir)/doc/programs.bash-completion
	$(AM_V_GEN)$(MKDIR_P) doc/bash-completion && cp $(srcdir)/doc/programs.bash-completion $@
dist_man_MANS += doc/vhd-util.8
dist_man_MANS += \
	doc/tapback.8 \
	doc/tap-vbd.8 \
	doc/block-tap.7 \
	doc/tapdisk-cache.7 \
	doc/tapdisk-disk.7
EXTRA_DIST += doc/pool
