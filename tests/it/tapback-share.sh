# SPDX-License-Identifier: LGPL-2.1-or-later
# One disk, several rings: those of one machine's domains, and those of a read-only disk's readers; nobody else's.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/tests/it/xs.sh" || exit 99
xs_start
standin_start 1
tapback_start --timeout=2

# D: as the hotplug script shares it, all with one minor
shared()
{
	disk "$1" script=/x
	wait_key "$(be "$1")/state" 2
	put "$(be "$1")" "physical-device-path=$TAPDISK_CONTROL_DIR/nbd${standin[1]}.7" hotplug-status=connected
	guest_ring "$1"
}
last() { grep '"op":"connect"' "$WORK/log.1" | tail -1; }

# a guest, and its stub domain
put /local/domain/1 vm=/vm/11111111-1111-1111-1111-111111111111
put /local/domain/2 target=1 vm=/vm/22222222-2222-2222-2222-222222222222
shared 2/51712
wait_key "$(be 2/51712)/state" 4
has "the first is beside nobody" "$(last)" '"beside":false'
shared 1/51712
wait_key "$(be 1/51712)/state" 4
has "the guest beside its stub domain" "$(last)" '"beside":true'
# the same guest, as it arrives on this host
put /local/domain/3 vm=/vm/11111111-1111-1111-1111-111111111111
shared 3/51712
wait_key "$(be 3/51712)/state" 4
has "the guest beside itself" "$(last)" '"beside":true'
# another guest, one without a name, and another device of the same guest
put /local/domain/4 vm=/vm/44444444-4444-4444-4444-444444444444
for d in 4/51712 5/51712 1/51728; do
	shared $d
	wait_key "$(be $d)/state" 5
	has "$d" "$(last)" '"beside":false'
	has "$d" "$(get "$(be $d)/tapdisk-error")" "a ring is connected already"
done
# both at the same moment: neither had a ring when the other was looked at
put /local/domain/11 vm=/vm/11
put /local/domain/12 target=11 vm=/vm/12
for d in 11/51712 12/51712; do
	disk $d script=/x
	wait_key "$(be $d)/state" 2
done
for i in 1 2 3; do
	tapback_freeze
	for d in 11/51712 12/51712; do
		put "$(be $d)" "physical-device-path=$TAPDISK_CONTROL_DIR/nbd${standin[1]}.8" hotplug-status=connected
		guest_ring $d
	done
	kill -CONT $TAPBACK
	for d in 11/51712 12/51712; do wait_key "$(be $d)/state" 4; done
	for d in 11/51712 12/51712; do
		guest $d state=6
		wait_key "$(be $d)/state" 6
		guest $d state=1
		wait_key "$(be $d)/state" 2
	done
done
# one goes: the others stay
put "$(be 2/51712)" online=0 state=5
guest 2/51712 state=6
wait_key "$(be 2/51712)/state" 6
stays "$(be 1/51712)/state" 4
# one breaks: it alone is closed
r() { echo "{\"domid\": $1, \"devid\": 51712, \"state\": \"$2\", \"reason\": \"it ran away\"}"; }
echo "{\"event\": {\"minor\": 7, \"state\": 0, \"rings\": [$(r 1 connected), $(r 3 broken)]}}" >"$WORK/conf.1"
kill -USR1 "${standin[1]}"
wait_key "$(be 3/51712)/state" 5
is "the other" "$(get "$(be 1/51712)/state") $(get "$(be 1/51712)/tapdisk-state")" "4 running"
