#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# The systemd units take what they can: systemd reads them and finds little exposed; and with the capabilities that they leave, tap-ctl
# revives a tapdisk, and writes the metrics.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
cd "$top_builddir" || exit 99
units=$(ls control/units/*.service)

if command -v systemd-analyze >/dev/null && systemd-analyze security --help 2>/dev/null | grep -q -e --offline; then
	for u in $units; do
		# the programs are not installed; an instance has a name
		name=$(basename "${u/@./@vbd.}")
		sed 's|^\(Exec[A-Za-z]*\)=[^ ]*|\1=/bin/true|' "$u" >"$WORK/$name"
		limit=60
		[ "$name" != tapdisk-metrics.service ] || limit=20
		[ "$name" != tapdisk-export@vbd.service ] || limit=30
		expect 0 systemd-analyze security --offline=true --threshold=$limit "$WORK/$name"
		run systemd-analyze verify --man=no "$WORK/$name"
		is "$name" "$(printf '%s' "$ERR" | grep -c "$name.*\(Unknown\|Failed to parse\|Invalid\)")" 0
	done
fi
# a tapdisk calls openat2, and opens what the host mounts later
for u in $units; do
	case $u in *tapback*)
		is "$u: what a tapdisk needs" "$(grep -cE '^(RestrictSUIDSGID|ProtectSystem|ProtectHome|PrivateTmp|PrivateDevices|PrivateMounts)=|^SystemCallFilter=.*@mount' "$u")" 0
		is "$u: a tapdisk's namespaces" "$(grep -c '^RestrictNamespaces=mnt net ipc$' "$u")" 1
		is "$u: disks on other hosts" "$(grep -c '^RestrictAddressFamilies=.*AF_INET AF_INET6' "$u")" 1
		;;
	esac
done

[ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || skip "capabilities are root's to give up, with setpriv"
with_those_of() # UNIT CMD...
{
	local caps

	caps=$(sed -n 's/^CapabilityBoundingSet=//p' "control/units/$1" | tr '[:upper:]\n' '[:lower:] ' | sed 's/ *$//; s/cap_/+/g; s/ /,/g')
	[ -n "$caps" ] || fail "$1 limits no capabilities"
	setpriv --no-new-privs --bounding-set="-all,$caps" "${@:2}"
}
truncate -s 1M "$WORK/a.img"
expect 0 tap_ctl create -a "aio:$WORK/a.img" -o cache=writeback
sandbox() { "$top_builddir/bin/tap-ctl" list --json | sed -n 's/.*"sandbox": "\([^"]*\)".*/\1/p'; }
whole=$(sandbox)
if [ -e control/units/tapback.service ]; then
	pid=$(procs tapdisk)
	kill -KILL "$pid"
	until_true 5 gone "$pid"
	expect 0 with_those_of tapback.service "$top_builddir/bin/tap-ctl" revive -m 0
	pid=$(procs tapdisk)
	# its sandbox is as whole as that of one that nobody limits
	is "the sandbox of a successor" "$(sandbox)" "$whole"
	"$top_builddir/tests/support/tdguest" "$pid" 0 write 0 4096 1 >/dev/null || fail "a ring"
	expect 0 with_those_of tapback.service "$top_builddir/bin/tap-ctl" upgrade --all -f
fi
expect 0 with_those_of tapdisk-metrics.service "$top_builddir/bin/tap-ctl" metrics -f "$WORK/tapdisk.prom"
has "the metrics" "$(cat "$WORK/tapdisk.prom")" 'minor="0"'
with_those_of tapdisk-export@.service "$top_builddir/bin/tap-ctl" export -m 0 -l 127.0.0.1:0 >"$WORK/uri" 2>"$WORK/export.log" &
front=$!
at_exit "kill $front 2>/dev/null"
until_true 10 test -s "$WORK/uri"
port=$(sed 's/.*:\([0-9]*\).*/\1/' "$WORK/uri")
is "an exported disk's greeting" "$(head -c 8 <"/dev/tcp/127.0.0.1/$port")" NBDMAGIC
kill $front
expect 0 tap_ctl destroy -p "$(tap_ctl list -m 0 | sed -n 's/^pid=\([0-9]*\) .*/\1/p')" -m 0
