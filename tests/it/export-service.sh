#!/bin/bash
# SPDX-License-Identifier: LGPL-2.1-or-later
# tapdisk-export@.service under a real systemd, in namespaces of its own over this system's files: a disk is served over TLS, also after the
# export has died and after the disk's tapdisk has; and what cannot get better is not tried again.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
[ "$(id -u)" = 0 ] || skip "a systemd of its own is root's"
! grep -q "^#define TD_SANITIZED" "$top_builddir/config.h" || skip "sanitizers need what the service may not do"
[ -x /lib/systemd/systemd ] || skip "no systemd"
for tool in unshare nbdinfo nbdcopy ip; do
	command -v $tool >/dev/null || skip "no $tool"
done
mkdir "$WORK/over" && mount -t tmpfs tmpfs "$WORK/over" || skip "nothing can be mounted here"
at_exit "umount -l '$WORK/over'"
mkdir "$WORK"/over/{up,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$WORK/over/up,workdir=$WORK/over/work" "$WORK/over/root" || skip "no overlay of /"
at_exit "umount -l '$WORK/over/root'"
R=$WORK/over/root
[ -x "$top_builddir/bin/tap-ctl" ] || fail "no tap-ctl"

# --- the machine: this unit, and what uses it
mkdir "$R/td" && cp "$top_builddir/bin/tap-ctl" "$top_builddir/tapdisk/tapdisk" "$R/td/"
sed 's|^ExecStart=[^ ]*|ExecStart=/td/tap-ctl|' "$top_builddir/control/units/tapdisk-export@.service" >"$WORK/unit"
rm -rf "$R/etc/systemd/system" "$R/etc/tapdisk" "$R"/etc/tapdisk*.conf
mkdir -p "$R/etc/systemd/system"
cp "$WORK/unit" "$R/etc/systemd/system/tapdisk-export@.service"
cat >"$R/etc/systemd/system/td-test.service" <<'END'
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service
After=systemd-journald.service
SuccessAction=exit-force
FailureAction=exit-force
[Service]
Type=oneshot
ExecStart=/bin/bash /td/test
StandardOutput=file:/td/out
StandardError=file:/td/out
END
cat >"$R/td/test" <<'END'
set -eEu
trap 'echo "line $LINENO: $BASH_COMMAND: $?"; systemctl --no-pager status tapdisk-export@0; journalctl --no-pager | tail -n 60' ERR
export TAPDISK=/td/tapdisk PATH=/td:$PATH
U=tapdisk-export@0
value() { systemctl show -P "$1" "${2:-$U}"; }
until_true()
{
	for _ in {1..600}; do
		! "$@" || return 0
		sleep 0.1
	done
	echo "waited in vain for $*"
	return 1
}
is() { [ "$2" = "$3" ] || { echo "$1: '$2' instead of '$3'"; return 1; }; }
serves() { nbdinfo --size "$AT" >/td/size 2>/td/why; }
[ "$(ps -p 1 -o comm=)" = systemd ]
ip link set lo up
systemd-analyze verify --man=no "$U.service"

truncate -s 8M /td/a.img
head -c 8M /dev/urandom >/td/src
mkdir -m 700 /etc/tapdisk-keys
echo "them:$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" >/etc/tapdisk-keys/keys.psk
chmod 600 /etc/tapdisk-keys/keys.psk
AT="nbds://them@127.0.0.1:10809/?tls-psk-file=/etc/tapdisk-keys/keys.psk"
pid=$(cat "$(tap-ctl create -a aio:/td/a.img -o cache=writeback)")
echo 'OPTIONS=-l 127.0.0.1:10809 --tls-psk-file /etc/tapdisk-keys/keys.psk' >/etc/tapdisk-export.conf
systemctl start $U
until_true serves
is "the size" "$(cat /td/size)" 8388608
nbdcopy --flush /td/src "$AT"
cmp /td/src /td/a.img
echo "served"

# it dies
was=$(value MainPID)
kill -KILL "$was"
until_true eval '[ "$(value NRestarts)" = 1 ]'
until_true serves
nbdcopy "$AT" /td/back
cmp /td/src /td/back
echo "served again"

# the disk's tapdisk dies, and has a successor
is=$(value MainPID)
kill -KILL "$pid"
until_true eval '! kill -0 $pid 2>/dev/null'
pid=$(tap-ctl revive -m 0)
until_true serves
is "the service has noticed nothing" "$(value MainPID) $(value NRestarts)" "$is 1"
echo "served by another tapdisk"

# the disk is taken away
tap-ctl destroy -p "$pid" -m 0
until_true eval '[ "$(value ActiveState)" = failed ]'
is "why" "$(value ExecMainStatus)" 19
sleep 3
is "it stays so" "$(value ActiveState) $(value NRestarts)" "failed 1"
echo "ended with its disk"

# a disk that is not there, and words that make no sense
systemctl start tapdisk-export@7
until_true eval '[ "$(value ActiveState tapdisk-export@7)" = failed ]'
is "no such disk" "$(value ExecMainStatus tapdisk-export@7)" 2
echo 'OPTIONS=--no-such-word' >/etc/tapdisk-export-8.conf
systemctl start tapdisk-export@8
until_true eval '[ "$(value ActiveState tapdisk-export@8)" = failed ]'
is "no such word" "$(value ExecMainStatus tapdisk-export@8)" 22
sleep 3
is "they stay so" "$(value NRestarts tapdisk-export@7) $(value NRestarts tapdisk-export@8)" "0 0"
echo "all is well"
END

# --- it boots
cat >"$WORK/boot" <<'END'
set -e
R=$1
mount --make-rprivate /
mount -t proc proc "$R/proc"
mount -t sysfs -o ro sysfs "$R/sys"
mount -t cgroup2 cgroup2 "$R/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$R/dev"
for d in null zero full random urandom tty; do
	: >"$R/dev/$d"
	mount --bind "/dev/$d" "$R/dev/$d"
done
mkdir -m 1777 "$R/dev/shm"
mkdir "$R/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$R/dev/pts"
ln -s pts/ptmx "$R/dev/ptmx"
ln -s /proc/self/fd "$R/dev/fd"
mount -t tmpfs -o mode=755 tmpfs "$R/run"
mount -t tmpfs -o mode=1777 tmpfs "$R/tmp"
cd "$R" # a unit's own mounts need this for a root, and no chroot
mkdir -p mnt/was
pivot_root . mnt/was
exec env -i container=tapdisk PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
	bash -c 'umount -l /mnt/was && exec /lib/systemd/systemd --unit=td-test.service --show-status=false'
END
# in a control group of its own, so that what it makes of them goes with it
cgroup=
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -n "$groups" ]; then
	cgroup=$groups$(sed -n 's/^0:://p' /proc/self/cgroup)/td-it-$$
	mkdir "$cgroup" || skip "no control group can be made here"
	at_exit "find '$cgroup' -depth -type d -exec rmdir {} +"
fi
run timeout -k 10 -s KILL 280 bash -c '[ -z "$1" ] || echo $$ >"$1/cgroup.procs" || exit
	exec unshare -Cpmfnui --kill-child=KILL bash "$2" "$3"' - "$cgroup" "$WORK/boot" "$R" </dev/null
cat "$R/td/out" 2>/dev/null || skip "systemd does not run in namespaces here: $(tail -n 3 <<<"$ERR")"
grep -q "all is well" "$R/td/out" || fail "see above"
