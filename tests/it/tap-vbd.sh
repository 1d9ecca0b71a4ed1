# SPDX-License-Identifier: LGPL-2.1-or-later
# tap-vbd with a real xenstored, tapback, block-tap, tap-ctl and tapdisk; the guest is scripted.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
export TAP_CTL=$top_builddir/bin/tap-ctl
vbd() { "$top_builddir/bin/tap-vbd" -t 100 -s "$top_builddir/bin/block-tap" "$@"; }
nothing_left()
{
	is "tapdisks left" "$(tap_ctl list)$(procs tapdisk)" ""
	is "directories left" "$(xenstore-list "$(be ${1%/*})" 2>/dev/null)$(get "$(fe $1)/state")" "-"
	is "error left" "$(get /local/domain/0/error/backend/vbd3/$1/error)" -
}
img=$WORK/a.img
truncate -s 8M "$img"
put /local/domain/3 name=guest three=3
D=3/51728 B=$(be 3/51728) F=$(fe 3/51728)
spec="format=raw,vdev=xvdb,access=rw,cache=writeback,target=$img"

# --- nobody serves it
expect 110 vbd -t 1 attach 3 "$spec"
has "no daemon" "$ERR" "tapback"
nothing_left $D
tapback_start

# --- a guest that does not look yet: attached, and detached at once
expect 0 vbd attach guest "$spec"
has "no guest yet" "$ERR" "has not taken notice"
is "both directories" "$(get $B/state) $(get $B/frontend) $(get $B/frontend-id) $(get $B/mode) $(get $B/params) $(get $B/type)" \
	"2 $F 3 w aio:cache=writeback:$img vbd3"
is "frontend" "$(get $F/state) $(get $F/backend) $(get $F/backend-id) $(get $F/virtual-device)" "1 $B 0 51728"
is "owners" "$(xenstore-ls -p $B | sed -n 's/.*params.*(\(.*\))/\1/p') $(xenstore-ls -p $F | sed -n 's/^state.*(\(.*\))/\1/p')" \
	"n0,r3 n3,r0"
has "list" "$(vbd list)" "xvdb"
has "list of one" "$(vbd list guest)" "$img"
case $(vbd list | wc -l) in 2) ;; *) fail "list: $(vbd list)" ;; esac
expect 17 vbd attach 3 "$spec"
is "the first is still there" "$(get $B/state)" 2
expect 0 vbd detach guest xvdb
nothing_left $D

# --- the words for staying awake
expect 0 vbd attach guest "polling-duration=200,polling-idle-threshold=20,$spec"
is "keys" "$(get $B/polling-duration) $(get $B/polling-idle-threshold)" "200 20"
expect 0 vbd detach guest xvdb
nothing_left $D

# --- limits, and the other words of a disk
expect 0 vbd attach guest "limit-iops=100,limit-bytes-write=10M,two-primaries=yes,request-timeout=7,connections=3,mirror-timeout=9,$spec"
is "params" "$(get $B/params)" "aio:limit-iops=100:limit-bytes-write=10M:two-primaries=yes:request-timeout=7:connections=3:mirror-timeout=9:cache=writeback:$img"
disk=$(tap_ctl list --json)
has "limits" "$(tap_ctl limit -p "$(sed -n 's/.*"pid": \([0-9]*\).*/\1/p' <<<"$disk")" -m "$(sed -n 's/.*"minor": \([0-9]*\).*/\1/p' <<<"$disk")")" "limit-iops=100"
expect 0 vbd detach guest xvdb
nothing_left $D

# --- a guest that connects: this tapdisk has no Xen to map grants with, so its own text comes out, and all is cleaned up
(
	until_true 5 key_is $B/state 2
	guest_ring $D
) &
expect 5 vbd attach 3 "$spec"
wait $!
has "why" "$ERR" "cannot be connected: "
echo "the tapdisk's own text: $ERR"
[ -e /dev/xen/gntdev ] || has "the tapdisk's own text" "$ERR" "gr"
nothing_left $D

# --- a busy guest does not let go: said, and its ring goes on; then it is forced
standin_start 1
disk_up $D 1
expect 16 vbd -t 1 detach 3 xvdb
has "busy" "$ERR" "has not released xvdb"
case " $(asked 1)" in *disconnect*) fail "a busy ring was disconnected" ;; esac
expect 0 vbd -f -t 1 detach 3 51728
until_true 5 grep -q disconnect "$WORK/log.1" # with its directory gone, the ring goes too
kill -KILL "${standin[1]}"
until_true 5 gone "${standin[1]}"
tap_ctl list >/dev/null
nothing_left $D

# --- refused
refused() # CODE WHY DOMAIN SPEC
{
	expect "$1" vbd -t 60 attach "$3" "$4"
	has "$4" "$ERR" "$2"
	nothing_left $D
}
refused 2 "no domain" nobody "$spec"
refused 2 "no domain" 17 "$spec"
refused 22 "no vdev" 3 "$img"
refused 22 "from 0 to 10000" 3 "polling-duration=10001,$spec"
refused 22 "from 0 to 100" 3 "polling-idle-threshold=half,$spec"
refused 22 "unknown key" 3 "colour=red,$spec"
refused 5 "$WORK/none" 3 "vdev=xvdb,target=$WORK/none"
refused 5 "unsafe" 3 "vdev=xvdb,cache=unsafe,target=$img"
expect 2 "$top_builddir/bin/tap-vbd" -s "$WORK/no-script" attach 3 "$spec"
nothing_left $D
expect 19 vbd detach 3 xvdb
expect 22 vbd detach 3 nonsense
expect 22 vbd attach 3
expect 22 vbd
expect 0 vbd --help
XENSTORED_RUNDIR=$WORK/nowhere expect 2 vbd list
has "no xenstored" "$ERR" "xenstored"
