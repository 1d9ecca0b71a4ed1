# SPDX-License-Identifier: LGPL-2.1-or-later
# What a dead tapdisk had answered and not written to its image yet: nobody loses it by looking or tidying up, whoever opens the image
# has it put there first, and it is put into no other state of the image than the one it belongs to.
. "$top_srcdir/tests/it/lib.sh"

guest() { timeout 250 "$top_builddir/tests/support/tdguest" "$pid" "$minor" "$@"; }
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
td_qcow() { "$top_builddir/bin/td-qcow" "$@"; }
left() { (cd "$TAPDISK_CONTROL_DIR" && find . ! -type d | sort | tr '\n' ' '); }
IMG=

make() # FORMAT
{
	rm -f "$WORK"/img.*
	case $1 in
	vhd) vhd_util create -n "$WORK/img.vhd" -s 64 ;;
	vhd-key) vhd_util create -n "$WORK/img.vhd" -s 64 && head -c 64 /dev/urandom >"$WORK/img,aes-xts-plain,512.key" &&
		vhd_util key -s -n "$WORK/img.vhd" -k "$WORK/img,aes-xts-plain,512.key" ;;
	qcow2) td_qcow create "$WORK/img.qcow2" 64M >/dev/null ;;
	qcow2-lazy) td_qcow create -o lazy_refcounts=on "$WORK/img.qcow2" 64M >/dev/null ;;
	qcow2-v2) td_qcow create -o compat=0.10 "$WORK/img.qcow2" 64M >/dev/null ;;
	qcow2-luks) echo -n secret | td_qcow create -E -o encrypt.format=luks,encrypt.iter-time=10 "$WORK/img.qcow2" 64M >/dev/null ;;
	esac || fail "cannot make a $1"
	IMG=$WORK/img.${1%-*} TYPE=${1%-*} KEY=
	case $1 in
	vhd-key) KEY="$WORK/img,aes-xts-plain,512.key" ;;
	qcow2-luks) echo -n secret >"$WORK/pass" && KEY=$WORK/pass ;;
	esac
}

open_it() # ARG...
{
	marker=$(tap_ctl create -a "$TYPE:$IMG" ${KEY:+-E} "$@" <"${KEY:-/dev/null}") || fail "create $TYPE:$IMG"
	minor=${marker##*-} pid=$(cat "$marker")
}

# An acknowledged write that no flush follows, and a death.  Its guest leaves before: nothing but the log is left of it.
dead() # OFF LEN SEED
{
	guest write "$1" "$2" "$3" >"$WORK/said" || fail "write: $(cat "$WORK/said")"
	kill -KILL "$pid"
	until_true 10 gone "$pid"
}

sound()
{
	if [ "$TYPE" = vhd ]; then expect 0 vhd_util check -n "$IMG"; else expect 0 td_qcow check "$IMG"; fi
}

there() # WHAT OFF LEN SEED: in an image that is opened anew
{
	open_it
	guest verify "$2" "$3" "$4" || fail "$1: what was acknowledged is gone"
	tap_ctl destroy -p "$pid" -m "$minor" || fail "$1: destroy"
	sound
	tap_ctl list >/dev/null
	is "$1: left" "$(left)" ""
}

AT=4194304 LEN=9437184
for format in ${FORMATS:-vhd vhd-key qcow2 qcow2-lazy qcow2-v2 qcow2-luks}; do
	# --- list, and after it another disk of the same image
	make $format
	open_it
	dead $AT $LEN 1
	expect 0 tap_ctl list
	is "$format: a dead tapdisk's disk is not in the list" "$OUT" ""
	open_it
	[ $format = qcow2-v2 ] || has "$format: its number is not given to another" "$minor" 1
	guest verify $AT $LEN 1 || fail "$format: create after list"
	tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
	tap_ctl list >/dev/null
	is "$format: swept when it holds nothing any more" "$(left)" ""

	# --- each way to take it away
	for how in free close destroy settle; do
		make $format
		open_it
		dead $AT $LEN 2
		case $how in
		free) expect 0 tap_ctl free -m "$minor" ;;
		settle) expect 0 tap_ctl settle -m "$minor" && tap_ctl list ;;
		*) expect 0 tap_ctl $how -p "$pid" -m "$minor" ;;
		esac
		there "$format: $how" $AT $LEN 2
	done

	# --- a successor, and one that dies as well, twice
	make $format
	open_it
	dead $AT $LEN 3
	[ -z "$KEY" ] || expect 126 tap_ctl revive -m "$minor"
	[ -z "$KEY" ] || has "$format: without its key" "$ERR" "-E"
	for i in 0 1; do # each leaves something new
		pid=$(tap_ctl revive -m "$minor" ${KEY:+-E} <"${KEY:-/dev/null}") || fail "$format: revive"
		guest verify $AT $LEN 3 || fail "$format: revive"
		dead $((AT + LEN + i * 65536)) 65536 4
		[ $format = qcow2-v2 ] || tap_ctl list >/dev/null # which sweeps one that holds nothing
	done
	pid=$(tap_ctl revive -m "$minor" ${KEY:+-E} <"${KEY:-/dev/null}") || fail "$format: revive"
	guest verify $AT $LEN 3 && guest verify $((AT + LEN)) 131072 4 || fail "$format: the second successor"
	tap_ctl destroy -p "$pid" -m "$minor" || fail destroy
	there "$format: successors" $AT $LEN 3

	# --- another disk in between, which dies as well: two logs of one image
	make $format
	open_it
	dead $AT $LEN 5
	first=$minor
	open_it
	guest verify $AT $LEN 5 || fail "$format: a second disk"
	dead 0 65536 6
	pid=$(tap_ctl revive -m "$first" ${KEY:+-E} <"${KEY:-/dev/null}") || fail "$format: revive of the first"
	second=$minor minor=$first
	guest verify $AT $LEN 5 && guest verify 0 65536 6 || fail "$format: two logs"
	tap_ctl destroy -p "$pid" -m "$first" || fail destroy
	expect 0 tap_ctl free -m "$second"
	there "$format: two logs" $AT $LEN 5
done
