# SPDX-License-Identifier: LGPL-2.1-or-later
noinst_PROGRAMS += bench/ringbench bench/reconnect
bench_ringbench_SOURCES = \
	bench/ringbench.c \
	tests/support/guest.c \
	tests/support/guest.h
bench_ringbench_LDADD = $(TAPDISK_LIBS)
bench_reconnect_SOURCES = \
	bench/reconnect.c \
	tests/support/guest.c \
	tests/support/guest.h
bench_reconnect_LDADD = $(TAPDISK_LIBS)
EXTRA_DIST += \
	bench/README \
	bench/run \
	bench/report \
	bench/lib.sh \
	bench/ring \
	bench/null \
	bench/engines \
	bench/quick \
	bench/nbd \
	bench/nbd-client \
	bench/rbd \
	bench/vhd \
	bench/qcow \
	bench/scale \
	bench/sandbox \
	bench/copies \
	bench/xen \
	bench/results.md \
	bench/results.svg

# Each writes bench/report.md and bench/report.svg; bench/README.
BENCH = @top_builddir='$(abs_top_builddir)' bash '$(abs_top_srcdir)/bench/run'
.PHONY: bench bench-all bench-engines bench-quick bench-nbd bench-nbd-client bench-rbd bench-vhd bench-qcow bench-scale bench-sandbox bench-copies bench-xen
bench: all
	$(BENCH) ring null
bench-all: all
	$(BENCH) ring null engines nbd nbd-client rbd vhd qcow scale sandbox copies
bench-engines: all
	$(BENCH) engines
bench-quick: all
	$(BENCH) quick
bench-nbd: all
	$(BENCH) nbd
bench-nbd-client: all
	$(BENCH) nbd-client
bench-rbd: all
	$(BENCH) rbd
bench-vhd: all
	$(BENCH) vhd
bench-qcow: all
	$(BENCH) qcow
bench-scale: all
	$(BENCH) scale
bench-sandbox: all
	$(BENCH) sandbox
bench-copies: all
	$(BENCH) copies
bench-xen: all
	$(BENCH) xen
CLEANFILES += bench/report.tsv bench/report.md bench/report.svg
