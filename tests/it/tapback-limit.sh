# SPDX-License-Identifier: LGPL-2.1-or-later
# Limits of a disk as keys of its backend directory: said when the guest connects, and at each change from then on; over deaths of the
# daemon and of the tapdisk; and what a tapdisk refuses is told.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
for n in 1 2; do standin_start $n; done
tapback_start --timeout=2
D=1/51712 B=$(be 1/51712)
said() { sed -n 's/.*"op":"limit".*"options":\(\[[^]]*\]\).*/\1/p' "$WORK/log.$1" | tr '\n' ' '; } # N
says() { [ "$(said "$1")" = "$2" ]; }
expect_said() # N WHAT
{
	until_true 20 says "$1" "$2" || fail "tapdisk $1 has been told $(said "$1"), not $2"
}
again() { : >"$WORK/log.1"; }

# with keys from the beginning, as a toolstack has them that has no hotplug script of ours
disk $D script=/x limit-iops=500 limit-bytes-write=10M
wait_key $B/state 2
hotplug $D "${standin[1]}"
guest_ring $D
wait_key $B/state 4
guest $D state=4
expect_said 1 '["limit-iops=500","limit-bytes-write=10M"] '

# live: what is changed is said, and nothing else
again
xenstore-write $B/limit-iops 200
expect_said 1 '["limit-iops=200"] '
again
xenstore-rm $B/limit-iops
expect_said 1 '["limit-iops=0"] '
again
xenstore-write $B/limit-iops-read 7 $B/limit-burst 1000
until_true 20 says 1 '["limit-iops-read=7","limit-burst=1000"] ' || says 1 '["limit-iops-read=7"] ["limit-burst=1000"] ' || fail "$(said 1)"
again
xenstore-rm $B/limit-burst
expect_said 1 '["limit-burst=100"] '
again
xenstore-write $B/limit none # lifts all, and the others are in force again
expect_said 1 '["limit=none","limit-iops-read=7","limit-bytes-write=10M"] '

# what it refuses is told, and not said again
again
echo '{"fail": {"limit": [22, "limit-iops=many: say a number"]}}' >"$WORK/conf.1"
xenstore-write $B/limit-iops many
wait_key $B/limit-error "limit-iops=many: say a number"
stays $B/state 4
is "said once" "$(said 1)" '["limit-iops=many"] '
echo '{}' >"$WORK/conf.1"
again
xenstore-write $B/limit-iops 9
expect_said 1 '["limit-iops=9"] '
wait_key $B/limit-error -

# a daemon that starts says nothing that was said, so that `tap-ctl limit' stays in force; nor does a frontend that starts again
again
tapback_stop KILL
tapback_start --timeout=2
wait_asked 1 info
stays $B/state 4
xenstore-write $B/limit-bytes 1M
expect_said 1 '["limit-bytes=1M"] '
again
guest $D state=6
wait_key $B/state 6
guest $D state=1
wait_key $B/state 2
guest_ring $D
wait_key $B/state 4
stays $B/state 4
is "a frontend that starts again" "$(said 1)" ""

# changed while the tapdisk hangs, it is said as soon as it answers
echo '{"hang": ["limit"]}' >"$WORK/conf.1"
again
xenstore-write $B/limit-iops 11
wait_asked 1 limit
echo '{}' >"$WORK/conf.1"
twice() { [ "$(grep -c '"op":"limit"' "$WORK/log.1")" -ge 2 ]; }
until_true 60 twice
stays $B/state 4

# a disk without any is not asked about
D=2/51712 B=$(be 2/51712)
disk_up $D 2
is "no limits" "$(said 2)" ""
exit 0
