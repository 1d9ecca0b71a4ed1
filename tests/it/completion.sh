# SPDX-License-Identifier: LGPL-2.1-or-later
# The completion of cbt-util, tapback, tap-vbd, td-qcow and vhd-util, against the programs.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
. "$top_srcdir/doc/programs.bash-completion" || fail "the completion does not load"
PATH=$top_builddir/bin:$PATH

# complete_line FUNCTION WORD...: what the last word is completed to, in $GOT
complete_line()
{
	local fn=$1

	shift
	COMP_WORDS=("$@")
	COMP_CWORD=$(($# - 1))
	COMPREPLY=()
	$fn 2>/dev/null
	GOT=" ${COMPREPLY[*]:-} "
}

: >"$WORK/disk.vhd"
if [ -x "$top_builddir/bin/tapback" ]; then
	complete_line _tapback tapback --
	for opt in --name --pidfile --order --timeout --no-barrier; do has "tapback" "$GOT" " $opt "; done
	complete_line _tapback tapback --order = l
	is "--order=l" "$GOT" " libxl "
	complete_line _tapback tapback --when-lost = h
	is "--when-lost=h" "$GOT" " hold hold: "
	complete_line _tapback tapback -n v
	is "-n v" "$GOT" " vbd3 vbd "
	complete_line _tap_vbd tap-vbd a
	is "tap-vbd a" "$GOT" " attach "
	complete_line _tap_vbd tap-vbd --f
	is "tap-vbd --f" "$GOT" " --force "
	complete_line _tap_vbd tap-vbd attach 7 "$WORK/di"
	is "a file" "$GOT" " $WORK/disk.vhd "
fi
if [ -x "$top_builddir/bin/vhd-util" ]; then
	complete_line _vhd_util vhd-util ""
	for cmd in create snapshot query coalesce scan; do has vhd-util "$GOT" " $cmd "; done
	for cmd in "${COMPREPLY[@]}"; do
		expect 0 vhd-util "$cmd" --help
		complete_line _vhd_util vhd-util "$cmd" --
		for opt in "${COMPREPLY[@]}"; do has "options of $cmd" "$OUT" "$opt"; done
	done
	complete_line _vhd_util vhd-util create --s
	is "vhd-util create --s" "$GOT" " --size "
	complete_line _vhd_util vhd-util check -n "$WORK/di"
	is "vhd-util's files" "$GOT" " $WORK/disk.vhd "
fi
complete_line _cbt_util cbt-util ""
is "cbt-util" "$GOT" " create get set coalesce --help "
complete_line _cbt_util cbt-util coalesce -
is "cbt-util coalesce -" "$GOT" " -c -p "
complete_line _cbt_util cbt-util get -n "$WORK/di"
is "cbt-util's files" "$GOT" " $WORK/disk.vhd "
if [ -x "$top_builddir/bin/td-qcow" ]; then
	complete_line _td_qcow td-qcow ""
	for cmd in create snapshot info check resize commit map; do has td-qcow "$GOT" " $cmd "; done
	complete_line _td_qcow td-qcow resize -
	is "td-qcow resize -" "$GOT" " --shrink -E "
	complete_line _td_qcow td-qcow info "$WORK/di"
	is "td-qcow's files" "$GOT" " $WORK/disk.vhd "
fi
exit 0
