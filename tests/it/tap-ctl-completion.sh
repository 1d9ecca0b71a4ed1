# SPDX-License-Identifier: LGPL-2.1-or-later
# The completion against the program: every command and every option that it offers is one that tap-ctl takes.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/doc/tap-ctl.bash-completion" || fail "the completion does not load"

# complete_line WORD...: what the last word is completed to, in $COMPREPLY
complete_line()
{
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMP_LINE="$*"
	COMP_POINT=${#COMP_LINE}
	COMPREPLY=()
	_tap_ctl 2>/dev/null
}

# the program that the completion asks for pids
PATH=$top_builddir/bin:$PATH

complete_line tap-ctl ""
[ ${#COMPREPLY[@]} -ge 14 ] || fail "commands: ${COMPREPLY[*]}"
for cmd in "${COMPREPLY[@]}"; do
	case $cmd in
	-*) expect 0 tap_ctl "$cmd" ;;
	*) expect 0 tap_ctl "$cmd" --help ;;
	esac
done
expect 0 tap_ctl --help
COMMANDS=$(printf '%s\n' "$OUT" | sed -n 's/^  \([a-z]*\) .*/\1/p')
[ "$(printf '%s\n' "$COMMANDS" | wc -l)" -ge 13 ] || fail "commands in the help: $COMMANDS"
for cmd in $COMMANDS; do
	complete_line tap-ctl "$cmd"
	is "completion of $cmd" "${COMPREPLY[0]:-}" "$cmd"
	complete_line tap-ctl "$cmd" -
	OPTS="${COMPREPLY[*]:-}"
	expect 0 tap_ctl help "$cmd"
	for opt in $OPTS; do
		has "options of $cmd" "$OUT" " $opt"
	done
	# and what is in the help is offered
	for opt in $(printf '%s\n' "$OUT" | grep -v 'without effect' | sed -n 's/^ .* \(--[a-z-]*\) .*/\1/p'); do
		has "completion of $cmd" " $OPTS " " $opt "
	done
done
complete_line tap-ctl create -o cache=write
is "cache modes" "${COMPREPLY[*]}" "writethrough writeback"
complete_line tap-ctl cl
is "cl" "${COMPREPLY[*]}" close
: >"$WORK/disk.img"
complete_line tap-ctl create -a "aio:$WORK/di"
is "files" "${COMPREPLY[*]}" "$WORK/disk.img"

# every type of image, as the program itself counts them, and every option of a disk
run tap_ctl create -a nonsense:/x
types=$(sed -n 's/.*the types are //p' <<<"$ERR" | tr -d ,)
[ "$(wc -w <<<"$types")" -ge 8 ] || fail "types: $ERR"
expect 0 tap_ctl help create
help=$OUT
complete_line tap-ctl create -a ""
for type in $types; do
	grep -qw "$type" <<<"$help" || fail "help create does not tell of the type $type"
	has "types that are offered" " ${COMPREPLY[*]} " " $type: "
	grep -q "^\.It Cm .*\b$type\b" "$top_srcdir/doc/tapdisk.8" || fail "tapdisk(8) does not tell of the type $type"
done
run tap_ctl create -a "aio:$WORK/disk.img" -o nonsense=1
options=$(sed -n 's/.*the options are //p' <<<"$ERR" | tr -d ,)
complete_line tap-ctl create -o ""
for option in $options; do
	case " ${COMPREPLY[*]} " in *" $option="*) ;; *) fail "the option $option is not offered" ;; esac
	grep -qE "^\.It Cm (.* , Cm )?$option\b" "$top_srcdir/doc/tapdisk-disk.7" || fail "tapdisk-disk(7) does not tell of $option"
done
for page in tapdisk.8 tap-ctl.8; do
	grep -q "^\.Xr tapdisk-disk 7" "$top_srcdir/doc/$page" || fail "$page does not name the page of these words"
done
for type in vhd qcow2 qcow nbd; do
	complete_line tap-ctl create -a "$type:$WORK/di"
	is "files of $type" "${COMPREPLY[*]}" "$WORK/disk.img"
done

truncate -s 1M "$WORK/disk.img"
expect 0 tap_ctl create -a "aio:$WORK/disk.img"
P=$(procs tapdisk)
complete_line tap-ctl close -p ""
is "pids" "${COMPREPLY[*]}" "$P"
complete_line tap-ctl close -m ""
is "minors" "${COMPREPLY[*]}" 0
expect 0 tap_ctl destroy -p "$P" -m 0
exit 0
