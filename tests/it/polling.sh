# SPDX-License-Identifier: LGPL-2.1-or-later
# Who is polled: a ring that says nothing, unless the host's configuration says no; a ring that asks, in any case; one that says 0, never.
. "$top_srcdir/tests/it/lib.sh"

bench="$top_builddir/bench/ringbench"
conf="$WORK/tapdisk.conf"
export TAPDISK_CONF="$conf"
number() { tap_ctl stats -p "$pid" -m "$minor" 2>/dev/null | tr -d ' \n' | sed -n "s/.*\"$1\":\[\{0,1\}\([0-9]*\).*/\1/p"; } # COUNTER
more() { local n; n=$(number "$1"); [ "${n:-0}" -gt "$2" ]; }                                                            # COUNTER N
with() # CONFIGURATION OPTION...: a disk, and a guest that keeps it busy however busy the host is
{
	echo "$1" >"$conf"
	local marker
	marker=$(tap_ctl create -a null:1G) || fail "create"
	minor=${marker##*-}
	pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p')
	"$bench" --seconds 600 --depth 1 --idle 0 "${@:2}" "$pid" "$minor" >/dev/null &
	guest=$!
}
gone() { kill $guest; wait $guest 2>/dev/null || true; expect 0 tap_ctl destroy -f -p "$pid" -m "$minor"; }

with ""
until_true 3 more polled 0
gone
with "polling = no" --polling 200
until_true 3 more polled 0
gone
with "polling = no"
until_true 3 more secs 16000
is "polled, where the host says no" "$(number polled)" 0
gone
with "polling = yes" --polling 0
until_true 3 more secs 16000
is "polled, where the ring says no" "$(number polled)" 0
gone
echo "polling = sometimes" >"$conf"
expect 22 tap_ctl create -a null:1G
has "the reason" "$ERR" "polling"
