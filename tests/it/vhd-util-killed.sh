# SPDX-License-Identifier: LGPL-2.1-or-later
# vhd-util killed at each of its writing system calls: a resize is reverted to the very bytes of before; whatever else was killed left a
# good image, or none.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99

command -v strace >/dev/null || skip "no strace"
export ASAN_OPTIONS=detect_leaks=0 # which does not work under ptrace
cd "$WORK" || exit 1
vhd_util() { "$top_builddir/bin/vhd-util" "$@"; }
strace -o log -e trace=pwrite64 true 2>/dev/null || skip "strace may not trace here"

# killed CALL N ARG...: runs vhd-util, which is killed as it enters its Nth CALL; false when it came to its end before
killed()
{
	local call=$1 n=$2 rc

	shift 2
	{ # bash tells of each kill
		strace -f -o log -e trace="$call" -e inject="$call:signal=KILL:when=$n" "$top_builddir/bin/vhd-util" "$@" >out 2>&1
		rc=$?
	} 2>/dev/null
	[ $rc = 137 ] && return 0
	[ $rc = 0 ] || fail "$*, with $call $n: exit code $rc: $(cat out)"
	return 1
}

# at_each RESTORE JUDGE ARG...: RESTORE makes the files, JUDGE looks at what a kill left
at_each()
{
	local restore=$1 judge=$2 call n all=0

	shift 2
	for call in pwrite64 fdatasync fsync ftruncate unlink fallocate; do
		n=1
		$restore
		while killed $call $n "$@"; do
			$judge "$call $n"
			n=$((n + 1)) all=$((all + 1))
			$restore
		done
	done
	[ $all -ge 3 ] || fail "$*: killed only $all times"
	echo "$1: killed at $all calls"
}

# data for the images: a block and a part of another
head -c 2500000 /dev/urandom >data && truncate -s 4M data
expect 0 vhd_util snapshot -n t.vhd -p data -m
expect 0 vhd_util coalesce -n t.vhd -o dyn.orig
expect 0 vhd_util create -n fix.orig -s 4 -r
dd if=data of=fix.orig conv=notrunc bs=1M count=4 2>/dev/null
rm t.vhd

# --- resize: to a new table, within the table, of a fixed disk ---
restore_resize() { rm -f j && cp $orig x.vhd; }
judge_resize()
{
	if [ $orig = dyn.orig ]; then
		expect 0 vhd_util check -n x.vhd -i
		vhd_util read -n x.vhd -r 0 -c 8192 | cmp -s - data || fail "after $1 it shows something else"
	fi
	if [ -e j ]; then
		expect 0 vhd_util revert -n x.vhd -j j
		[ ! -e j ] || fail "revert leaves the journal, after $1"
		cmp -s x.vhd $orig || fail "reverted after $1, it is another file: $(cmp x.vhd $orig 2>&1)"
	elif ! cmp -s x.vhd $orig; then
		expect 0 vhd_util query -n x.vhd -v
		is "without a journal it is done, $1" "$OUT" "$size"
	fi
}
for case in "dyn.orig 2000" "dyn.orig 1100" "fix.orig 6"; do
	read -r orig size <<<"$case"
	at_each restore_resize judge_resize resize -n x.vhd -s $size -j j
done

# --- a revert that is killed is begun again ---
orig=dyn.orig size=2000
restore_revert()
{
	restore_resize
	killed unlink 1 resize -n x.vhd -s $size -j j || fail "no unlink in a resize"
}
judge_revert()
{
	if [ -e j ]; then
		expect 0 vhd_util revert -n x.vhd -j j
	fi
	cmp -s x.vhd $orig || fail "reverted after a revert killed at $1, it is another file"
}
at_each restore_revert judge_revert revert -n x.vhd -j j

# --- create, snapshot: a good image, or none ---
restore_new() { rm -f new.vhd; cp dyn.orig x.vhd; }
judge_new()
{
	run vhd_util check -n new.vhd -t
	[ "$RC" = 0 ] || [ "$RC" = 22 ] || [ "$RC" = 2 ] || fail "after $1: check says $RC: $ERR"
	rm -f new.vhd
}
at_each restore_new judge_new create -n new.vhd -s 100
at_each restore_new judge_new create -n new.vhd -s 4 -r
at_each restore_new judge_new snapshot -n new.vhd -p x.vhd

# --- coalesce, modify -p, set, fill: the same data all the time ---
restore_chain()
{
	cp dyn.orig x.vhd
	rm -f c.vhd
	vhd_util snapshot -n c.vhd -p x.vhd && vhd_util modify -n c.vhd -p data2 -m && vhd_util fill -n c.vhd && vhd_util modify -n c.vhd -p x.vhd
}
judge_chain()
{
	rm -f shown
	expect 0 vhd_util copy -n c.vhd -o shown
	cmp -s shown data2 || fail "after $1 the child shows something else: $(cmp shown data2 2>&1)"
	for f in x.vhd c.vhd; do
		expect 0 vhd_util repair -n $f
		expect 0 vhd_util check -n $f -t
	done
	rm shown
	expect 0 vhd_util copy -n c.vhd -o shown
	cmp -s shown data2 || fail "after $1 and a repair the child shows something else"
}
rm -f new.vhd # it would stand on x.vhd too
head -c 4M /dev/urandom >data2
at_each restore_chain judge_chain coalesce -n c.vhd
at_each restore_chain judge_chain modify -n c.vhd -p x.vhd
at_each restore_chain judge_chain set -n c.vhd -f hidden -v 1
exit 0
