# SPDX-License-Identifier: LGPL-2.1-or-later
# Words for disks whose toolstack has none: libvirt's cache=, by its hook; tap-ctl mode; and which of them counts.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"
cd "$WORK" || exit 99

export TAPDISK_DISKS=$WORK/run:$WORK/etc TAPDISK_CONF=$WORK/conf
echo "cache = writethrough" >conf
truncate -s 8M a.img b.img c.img "d [1] # x.img"
ln -s a.img link.img
hook() # OPERATION MOMENT: with guest.xml
{
	python3 "$top_srcdir/control/attach/libvirt-hook" g "$1" "$2" - <guest.xml
}
guest() # DISK...: as `virsh dumpxml' of libvirt 9.0 shows a Xen PV guest
{
	cat >guest.xml <<-XML
		<domain type='xen' id='3'>
		  <name>g</name>
		  <uuid>b4a5f2b0-5a8c-4a86-8c0e-6f1f6f0f8a11</uuid>
		  <memory unit='KiB'>524288</memory>
		  <os>
		    <type arch='x86_64' machine='xenpv'>linux</type>
		    <kernel>/srv/vmlinuz</kernel>
		  </os>
		  <on_poweroff>destroy</on_poweroff>
		  <devices>
		$(printf '%s\n' "$@")
		    <console type='pty'>
		      <target type='xen' port='0'/>
		    </console>
		  </devices>
		</domain>
	XML
}
disk() # FILE DRIVER'S ATTRIBUTES [MORE]
{
	printf "<disk type='file' device='disk'><driver %s/><source file='%s'/><target dev='xvda' bus='xen'/>%s</disk>" "$2" "$1" "${3:-}"
}
mode() # FILE WORD...: the mode that it is opened with, in $MODE
{
	local marker file=$1

	shift
	marker=$(tap_ctl create -a "aio:$WORK/$file" "$@") || fail "create $file $*"
	MODE=$(tap_ctl list --json -m "${marker##*-}" | sed -n 's/.*"mode": "\([a-z]*\)".*/\1/p')
	expect 0 tap_ctl destroy -p "$(cat "$marker")" -m "${marker##*-}"
}
opens() # FILE MODE WORD...
{
	local want=$2 file=$1

	shift 2
	mode "$file" "$@"
	is "$file $*" "$MODE" "$want"
}

# --- libvirt
opens a.img writethrough
for cache in none writeback directsync unsafe writethrough; do
	guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='$cache'")" "$(disk "$WORK/b.img" "name='qemu' type='raw' cache='writeback'")"
	expect 0 hook prepare begin
	is "libvirt's own file" "$(cat run/* | grep -c '^\[')" 1
	opens a.img "$cache"
	opens link.img "$cache"
	opens b.img writethrough
done
# the disk's own word counts first
opens a.img none -o cache=none
expect 0 hook started begin
expect 0 hook stopped end
expect 0 hook release end
is "after the guest" "$(entries run)" ""
opens a.img writethrough
# `default' is the host's mode, and a new start forgets what the last one said
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='none'")"
expect 0 hook start begin
opens a.img none
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='default'")"
expect 0 hook start begin
opens a.img writethrough
# a cluster's disk
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='none'" "<shareable/>")"
expect 0 hook start begin
has "shareable" "$(cat run/*)" "shared = yes"
opens a.img none
# a name with all that a file of words has a meaning for; XML's entities
guest "$(disk "$WORK/d [1] # x.img" "name='tap' type='raw' cache='none'")" "$(disk "$WORK/c.img" "name=\"tap\" cache='&#110;one'")"
expect 0 hook start begin
opens "d [1] # x.img" none
opens c.img none
# what xl's target may say, libvirt's source may say too, and hands it on as it is
guest "$(disk "cache=none:aio:sector-size=512:$WORK/link.img" "name='tap' type='vhd' cache='none'")" "$(disk "qcow2:$WORK/c.img" "name='tap' type='raw' cache='directsync'")"
expect 0 hook start begin
is "the files in such sources" "$(grep -h '^\[' run/*)" "[$WORK/a.img]
[$WORK/c.img]"
opens a.img none
opens c.img directsync
guest "$(disk "cache=none:$WORK/a.img" "name='tap' type='raw' cache='default'")" "$(disk "$WORK/c.img" "name='tap' type='qcow2'")"
expect 0 hook start begin
is "nothing to say" "$(entries run)" ""
# what cannot be: stderr and a failure, which virsh shows
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='fast'")"
expect 1 hook prepare begin
has "an unknown mode" "$ERR" "disk xvda: cache='fast': the modes are none, writethrough"
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='writeback'" "<shareable/>")"
expect 1 hook prepare begin
has "shared and cached" "$ERR" "<shareable/> needs cache='none'"
guest "<disk type='network' device='disk'><driver name='tap' cache='none'/><source protocol='rbd' name='p/i'/><target dev='xvda'/></disk>"
expect 1 hook prepare begin
has "no file" "$ERR" "no file or block device of this host"
for source in "nbd:$WORK/a.sock" "nbd://host/a" "rbd:p/i" "cache=none" "$WORK/new
line"; do
	guest "$(disk "$(sed ':a; N; s/\n/\&#10;/; ta' <<<"$source
" | sed 's/&#10;$//')" "name='tap' cache='none'")"
	expect 1 hook prepare begin
	has "source $source" "$ERR" "no file or block device of this host"
done
guest "$(disk "cache=none:$WORK/a.img" "name='tap' type='raw' cache='writeback'")"
expect 1 hook prepare begin
has "two modes" "$ERR" "cache='writeback' of its driver, and cache=none in its source"
# libvirt gives it to QEMU, and says nothing of the mode
guest "$(disk "$WORK/c.img" "name='tap' type='qcow2' cache='none'")"
expect 1 hook prepare begin
has "QEMU's" "$ERR" "write type='raw' and <source file='qcow2:/PATH'/>"
echo "<domain>" >guest.xml
expect 1 hook prepare begin
has "no XML" "$ERR" "cannot be read"
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='none'")"
expect 0 hook release end

# --- tap-ctl mode
expect 0 tap_ctl mode -a link.img -o cache=directsync -o on-enospc=report
opens a.img directsync
opens link.img directsync
opens b.img writethrough
opens a.img none -o cache=none
expect 0 tap_ctl mode
is "the list" "$OUT" "$WORK/a.img: cache=directsync on-enospc=report"
expect 0 tap_ctl mode -a "raw:$WORK/a.img" -o cache=none
opens a.img none
# libvirt's guest comes first while it runs
guest "$(disk "$WORK/a.img" "name='tap' type='raw' cache='writeback'")"
expect 0 hook start begin
opens a.img writeback
expect 0 hook release end
opens a.img none
# a pause with words keeps to it; a successor has what its disk was opened with, whatever is said since
marker=$(tap_ctl create -a "aio:$WORK/a.img") || fail create
minor=${marker##*-}
kill -KILL "$(cat "$marker")"
until_true 5 gone "$(cat "$marker")"
expect 0 tap_ctl mode -a a.img -o cache=writeback -o sector-size=4096
expect 0 tap_ctl revive -m "$minor"
pid=$OUT
has "a successor" "$(tap_ctl list --json -m "$minor")" '"mode": "none"'
expect 0 tap_ctl pause -p "$pid" -m "$minor"
expect 0 tap_ctl unpause -p "$pid" -m "$minor" -o on-enospc=report
has "unpaused" "$(tap_ctl list --json -m "$minor")" '"mode": "writeback"'
expect 0 tap_ctl destroy -p "$pid" -m "$minor"
expect 0 tap_ctl mode -a a.img -o reconnect-limit=no -o connections=8
is "words for a server" "$(tap_ctl mode)" "$WORK/a.img: reconnect-limit=no connections=8"
opens a.img writethrough
expect 0 tap_ctl mode -a a.img --clear
is "cleared" "$(entries etc)" ""
opens a.img writethrough
expect 2 tap_ctl mode -a a.img --clear
for wrong in cache=fast cache= colour=red unsafe=maybe request-timeout=soon request-timeout=no reconnect-limit= reconnect-limit=yes parents=no data-file=/x; do
	expect 22 tap_ctl mode -a a.img -o "$wrong"
done
expect 22 tap_ctl mode -a a.img -o cache=unsafe
has "the second word" "$ERR" "unsafe=yes"
expect 22 tap_ctl mode -a a.img
expect 22 tap_ctl mode -o cache=none
is "nothing of it" "$(entries etc)" ""

# --- a file that makes no sense opens no disk that it could mean: a default is never guessed
for text in "cache = none" "[a.img]" "[$WORK/a.img]\ncache" "[$WORK/a.img]\ncache = fast" "[$WORK/a.img]\nparents = no"; do
	printf '%b\n' "$text" >etc/x.conf
	expect 22 tap_ctl create -a "aio:$WORK/a.img"
	has "$text" "$ERR" "etc/x.conf"
done
printf '[%s]\ncache = none\n' "$WORK/a.img" >etc/x.conf
printf '[%s]\ncache = writeback\n' "$WORK/a.img" >etc/y.conf
expect 22 tap_ctl create -a "aio:$WORK/a.img"
has "two files" "$ERR" "say different things"
cp etc/x.conf etc/y.conf
opens a.img none
opens b.img writethrough
exit 0
