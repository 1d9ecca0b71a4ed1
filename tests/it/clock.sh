# SPDX-License-Identifier: LGPL-2.1-or-later
# Durations and deadlines are measured by a clock that nobody sets: a host's NTP must not time requests out, nor hold anything up.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

# looks DIRECTORY: each look at the host's clock, but for those by which a date is shown or stored
looks()
{
	cd "$1" && grep -rnE --include='*.[ch]' '\<(ev_time|ev_now|time|gettimeofday)\(|CLOCK_REALTIME' tapdisk drivers lib control |
		grep -vE 'vhd_time\(time\(NULL\)\)|since_date = time\(NULL\)|^control/tap-ctl/tap-ctl-top\.c:|^[^:]*:[0-9]*:/?[ \t]*\*|/\*.*ev_now\(\)'
}
is "looks at the host's clock: use td_clock_s()" "$(looks "$top_srcdir")" ""

mkdir -p "$WORK/t/tapdisk" "$WORK/t/drivers" "$WORK/t/lib" "$WORK/t/control"
echo 'double until = ev_time() + 5;' >"$WORK/t/tapdisk/x.c"
echo 'until = time(NULL);' >"$WORK/t/control/y.c"
is "planted ones" "$(looks "$WORK/t" | wc -l)" 2
