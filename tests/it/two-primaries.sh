# SPDX-License-Identifier: LGPL-2.1-or-later
# A disk whose DRBD peer is Primary too: refused where a host keeps some of it in its memory, watched while it is open; and not where a
# live migration needs it.  The roles come from files of the test, in the form of DRBD's own.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
cd "$WORK" || exit 99

truncate -s 8M a.img
"$top_builddir/bin/vhd-util" create -n v.vhd -s 8 || fail vhd-util
# the file's device stands on a logical volume, and that on DRBD's device 3
export TAPDISK_HOST_ROOT=$WORK/host
device=$(stat -c %Hd:%Ld a.img)
slaves=host/sys/dev/block/$device/slaves
mkdir -p "$slaves/dm-0" host/sys/dev/block/252:0/slaves/drbd3 host/proc
echo 252:0 >"$slaves/dm-0/dev"
echo 147:3 >host/sys/dev/block/252:0/slaves/drbd3/dev
roles() # DRBD-8.4's
{
	printf 'version: 8.4.11 (api:1/proto:86-101)\nsrcversion: F73C670A7EC572DB9CF3E5B \n' >host/proc/drbd.new
	printf ' 2: cs:Connected ro:Primary/Primary ds:UpToDate/UpToDate C r-----\n    ns:18620 nr:0 dw:149652 oos:0\n' >>host/proc/drbd.new
	[ -z "$1" ] || printf ' 3: cs:%s ro:%s ds:UpToDate/%s C %s-----\n    ns:18620 nr:0\n' "$2" "$1" "${3:-UpToDate}" "${4:-r}" >>host/proc/drbd.new
	mv host/proc/drbd.new host/proc/drbd
}
find_pid() { pid=$(tap_ctl list -m "$minor" | sed -n 's/^pid=\([0-9]*\) .*/\1/p'); }
create() # TYPE:PATH WORD...: pid, minor
{
	local marker

	marker=$(tap_ctl create -a "$@") || fail "create $*"
	minor=${marker##*-}
	find_pid
}
destroy() { expect 0 tap_ctl destroy -p "$pid" -m "$minor"; }
reason() { tap_ctl list --json -m "$minor" | sed -n 's/.*"reason": "\([^"]*\)".*/\1/p'; }
says() { case $(reason) in *"Primary on the other host"*) ;; *) return 1 ;; esac }
says_nothing() { [ -z "$(reason)" ]; }

# --- at the open
roles Primary/Primary Connected
for mode in writeback writethrough unsafe; do
	expect 16 tap_ctl create -a "aio:$WORK/a.img" -o cache=$mode -o unsafe=yes
	has "$mode" "$ERR" "DRBD's device 3 is Primary on the other host too"
	has "$mode: a way out" "$ERR" "drbdadm secondary"
	has "$mode: another" "$ERR" "cache=none"
done
# a format has its metadata in memory in every mode
expect 16 tap_ctl create -a "vhd:$WORK/v.vhd" -o cache=none
has "a VHD" "$ERR" "the metadata of vhd"
is "nothing is left" "$(tap_ctl list)" ""
# a live migration, raw, with none or directsync: both are Primary for a while
for mode in none directsync; do
	create "aio:$WORK/a.img" -o cache=$mode
	says_nothing || fail "$mode: $(reason)"
	destroy
done
# who only reads changes nothing
create "aio:$WORK/a.img" -R -o cache=writeback
destroy
# by the word, and it says so
create "aio:$WORK/a.img" -o cache=writeback -o two-primaries=yes
says || fail "with the word: '$(reason)'"
# an open that fails after that leaves nothing of it: the disk is closed
truncate -s 1000 odd.img
marker=$(tap_ctl allocate) || fail allocate
expect 0 tap_ctl attach -p "$pid" -m "${marker##*-}"
expect 22 tap_ctl open -p "$pid" -m "${marker##*-}" -a "aio:$WORK/odd.img" -o cache=writeback -o two-primaries=yes
has "what failed" "$ERR" "multiple of 512"
has "the word was heard" "$(tap_ctl list --json -m "$minor")" two-primaries
has "a closed disk" "$(tap_ctl list --json -m "${marker##*-}")" '"state": 2'
[[ $(tap_ctl list --json -m "${marker##*-}") != *two-primaries* ]] || fail "a closed disk has two Primaries"
expect 0 tap_ctl detach -p "$pid" -m "${marker##*-}"
expect 0 tap_ctl free -m "${marker##*-}"
# its successor is not refused, and says so too
kill -KILL "$pid"
until_true 5 gone "$pid"
expect 0 tap_ctl revive -m "$minor"
pid=$OUT
says || fail "the successor: '$(reason)'"
destroy

# --- while it is open
for alone in "Primary/Secondary Connected" "Primary/Unknown WFConnection"; do
	roles $alone
	create "aio:$WORK/a.img" -o cache=writeback
	says_nothing || fail "$alone: $(reason)"
	destroy
done
roles Primary/Secondary Connected
create "aio:$WORK/a.img" -o cache=writeback
roles Primary/Primary Connected
until_true 10 says
# it goes on: the guest is not to suffer from what an admin does there; but it is not opened again
expect 0 "$top_builddir/tests/support/tdguest" "$pid" "$minor" write 0 65536 3
expect 0 tap_ctl upgrade -p "$pid"
find_pid
says || fail "after an upgrade: '$(reason)'"
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 16 tap_ctl unpause -p "$pid" -m "$minor"
has "an unpause" "$ERR" "Primary on the other host too"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -o cache=none
says_nothing || fail "with cache=none: '$(reason)'"
destroy
roles Primary/Secondary Connected
create "aio:$WORK/a.img" -o cache=writethrough
roles Primary/Primary Connected
until_true 10 says
roles Primary/Secondary Connected
until_true 10 says_nothing
destroy

# --- a shared disk whose hosts are cut off from each other: each may write what the other does not see
cut_off() { case $(reason) in *"cut off from the other host"*) ;; *) return 1 ;; esac }
roles Primary/Primary Connected
create "aio:$WORK/a.img" -o cache=none -o shared=yes
says_nothing || fail "a shared disk: $(reason)"
roles Primary/Unknown WFConnection DUnknown
until_true 10 cut_off
has "a cut link, in list" "$(tap_ctl list --json -m "$minor")" '"peer-cut-off": true'
case $(tap_ctl list --json -m "$minor") in *two-primaries*) fail "a shared disk says two-primaries" ;; esac
# its successor says so, too
kill -KILL "$pid"
until_true 5 gone "$pid"
expect 0 tap_ctl revive -m "$minor"
pid=$OUT
cut_off || fail "the successor of one that is cut off: '$(reason)'"
# the fence agent has turned the peer off; the link is back
roles Primary/Unknown WFConnection Outdated
until_true 10 says_nothing
roles Primary/Unknown StandAlone DUnknown
until_true 10 cut_off
# DRBD holds all I/O until the fence agent has ended: nothing is written yet
roles Primary/Unknown WFConnection DUnknown s
until_true 10 says_nothing
destroy
# one host alone may use its half
roles Primary/Unknown WFConnection DUnknown
create "aio:$WORK/a.img" -o cache=none
says_nothing || fail "not shared: $(reason)"
destroy

# --- DRBD 9: /proc/drbd has no roles; of several peers one is enough
printf 'version: 9.2.4 (api:2/proto:86-122)\n' >host/proc/drbd
create "aio:$WORK/a.img" -o cache=writeback # nobody tells
destroy
for peer in b c; do
	mkdir -p host/sys/kernel/debug/drbd/resources/r0/connections/$peer/0
	printf ' 3: cs:Established ro:Primary/Secondary ds:UpToDate/UpToDate C r-----\n' \
		>host/sys/kernel/debug/drbd/resources/r0/connections/$peer/0/proc_drbd
done
create "aio:$WORK/a.img" -o cache=writeback
destroy
sed -i 's|Primary/Secondary|Primary/Primary|' host/sys/kernel/debug/drbd/resources/r0/connections/c/0/proc_drbd
expect 16 tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback
has "DRBD 9" "$ERR" "DRBD's device 3 is Primary on the other host too"
exit 0
