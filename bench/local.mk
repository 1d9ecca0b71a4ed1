# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_PROGRAMS += bench/ringbench
bench_ringbench_SOURCES = bench/ringbench.c tests/support/guest.c tests/support/guest.h
bench_ringbench_LDADD = $(TAPDISK_LIBS)
EXTRA_DIST += bench/run bench/nbd bench/qcow
.PHONY: bench bench-nbd bench-qcow
bench: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/run'
bench-nbd: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/nbd'
EXTRA_DIST += bench/vhd
.PHONY: bench-vhd
bench-vhd: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/vhd'
bench-qcow: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/qcow'
noinst_PROGRAMS += bench/reconnect
bench_reconnect_SOURCES = bench/reconnect.c tests/support/guest.c tests/support/guest.h
bench_reconnect_LDADD = $(TAPDISK_LIBS)
EXTRA_DIST += bench/scale bench/xen
.PHONY: bench-scale bench-xen
bench-xen: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/xen'
bench-scale: all
	@top_srcdir='$(abs_top_srcdir)' top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/scale'
