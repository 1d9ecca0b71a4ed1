# SPDX-License-Identifier: LGPL-2.1-or-later
# shellcheck shell=bash
# Sourced by quickstart: what its `check' and `check --all' run, one part after another or beside it, and how the parts add up.
# It has from there src, build, jobs, the lists of packages, say, die, as_root, install_packages and build_in.
lab_cache=${XENLAB_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tapdisk-xenlab}
passed=0 failed=0 skipped=0

# What failed, and why, told together at the end: what was printed in between may be long, or cut off.
reason() { echo "$*" | cut -c1-300 >>"$build/reasons"; }

# Adds up what automake's harness said in the log of a `make check'.
add_up() # NAME LOG EXIT-CODE HOW-MANY-PASSED-WHEN-RUN-AGAIN
{
	local p f s

	p=$(sed -n 's/^# \(PASS\|XFAIL\): *//p' "$2" | awk '{ n += $1 } END { print n + 0 }')
	f=$(sed -n 's/^# \(FAIL\|XPASS\|ERROR\): *//p' "$2" | awk '{ n += $1 } END { print n + 0 }')
	s=$(sed -n 's/^# SKIP: *//p' "$2" | awk '{ n += $1 } END { print n + 0 }')
	[ "$3" = 0 ] || [ "$f" != 0 ] || { f=1; tail -n 15 "$2"; }
	p=$((p + $4)) f=$((f - $4))
	no_time_for "$2"
	grep -E '^(FAIL|ERROR|SKIP): ' "$2" || true
	[ "$f" = 0 ] || reason "make check, $1: $(sed -nE 's/^(FAIL|ERROR): //p' "$2" | sort -u | tr '\n' ' ')"
	echo "   $1: $p passed, $f failed, $s skipped"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# Takes those that tests/support/in-time has not begun out of the list of those that skipped, and names them.
no_time_for() # LOG
{
	local t names=''

	while read -r t; do
		! grep -qs '^SKIP: no time was left' "${1%/*}/${t%.sh}.log" || { names+=" ${t##*/}"; sed -i "s,^SKIP: $t\$,no time: $t," "$1"; }
	done < <(sed -n 's/^SKIP: //p' "$1")
	[ -z "$names" ] || echo "   no time was left for $(wc -w <<<"$names") tests:$names"
}

declare -A left_out
# Whether SKIP leaves this part out; told and counted once.
skipping() # PART
{
	[[ " ${SKIP:-} " = *" $1 "* ]] || return 1
	[ -n "${left_out[$1]:-}" ] || { echo "   left out: $1"; skipped=$((skipped + 1)); }
	left_out[$1]=1
}

declare -A beside_pid

# Runs a part beside what follows, so that both processors have something to do; `joined' tells what it said, and adds up.
beside() # NAME COMMAND...
{
	local name=$1

	shift
	say "beside what follows: $name"
	rm -f "$build/beside-${name// /-}.counts"
	apart "$name" "$@" >"$build/beside-${name// /-}.out" 2>&1 &
	beside_pid[$name]=$!
}
apart() # NAME COMMAND...: with counts of its own
{
	local name=$1

	shift
	passed=0 failed=0 skipped=0
	"$@"
	echo "$passed $failed $skipped" >"$build/beside-${name// /-}.counts"
}
joined() # NAME
{
	local p f s

	quiet "$build/beside-${1// /-}.follow" tail --pid="${beside_pid[$1]}" -s 0.2 -n +1 -f "$build/beside-${1// /-}.out" # shows that it goes on
	wait "${beside_pid[$1]}" 2>/dev/null || true # bash may have forgotten it
	sed '/^   \.\.\. /d' "$build/beside-${1// /-}.out"
	read -r p f s <"$build/beside-${1// /-}.counts" || {
		echo "   $1 has ended without a result"
		reason "$1 has ended without a result"
		p=0 f=1 s=0
	}
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
}

# Under a limit of time, and with sanitizers: unit tests, for which most of that time is, what looks at the sources alone, and then scripts; others
# of them first with each commit.  With sanitizers, which have nothing to see in sources, the other way round: what one build has no time for comes
# first in the other.
in_order() # NAME DIR: two calls, as automake's harness begins with scripts
{
	local all form units scripts until=${TESTS_UNTIL:-} now=$EPOCHSECONDS backwards=cat rc=0

	[ "$1" = plain ] || backwards=tac
	all=$(make -s -C "$2" list-tests | grep '^tests/') && form=$(make -s -C "$2" list-form | grep '^tests/') || return 1
	units=$(grep -v '\.sh$' <<<"$all" | shuffled "$src" | $backwards)
	scripts=$(grep '\.sh$' <<<"$all" | grep -vxF "$form" | shuffled "$src" | $backwards)
	[ "$1" != plain ] || scripts=$form$'\n'$scripts
	[ -z "$until" ] || TESTS_UNTIL=$((now + (until - now) * 6 / 10))
	make -C "$2" -j$((2 * jobs)) check TESTS="$(tr '\n' ' ' <<<"$units")" || rc=$?
	TESTS_UNTIL=$until
	make -C "$2" -j$((2 * jobs)) check-TESTS TESTS="$(tr '\n' ' ' <<<"$scripts")" || rc=$?
	return $rc
}

# Tests mostly wait, so that more of them run at once than there are processors.
make_check() # NAME DIR [PERCENT-OF-WITHIN]
{
	local rc t again=0 how=(make -C "$2" -j$((2 * jobs)) check)

	say "make check, $1"
	rc=0
	[ -z "${WITHIN:-}" ] && [ "$1" = plain ] || how=(in_order "$1" "$2")
	TESTS_UNTIL=$(by "${3:-100}") quiet "$2/check.out" "${how[@]}" || rc=$?
	for t in $(failures "$2/check.out"); do told "$2" "$t"; done
	[ $rc = 0 ] || once_more "$2"
	add_up "$1" "$2/check.out" $rc $again
}

failures() { sed -nE 's/^(FAIL|ERROR): (tests\/[^ ]*).*/\2/p' "$1" | sort -u; }
told() # DIR TEST
{
	echo "--- $2"
	tail -n 60 "$1/${2%.sh}.log" | sed 's/^/   | /'
}

# Tests of tests/it have to do with many processes on a machine that may be held up.  What failed of them, if it is little, is run once more,
# one by one; both outcomes are told, and it counts as failed when it fails again.  Never a unit test.  Adds to $again.
once_more() # DIR
{
	local t tests

	tests=$(failures "$1/check.out" | sed -n '/^tests\/it\//p')
	[ -n "$tests" ] && [ "$(wc -w <<<"$tests")" -le 3 ] || return 0
	for t in $tests; do
		say "once more: $t"
		if quiet "$1/again.out" make -C "$1" check TESTS="$t"; then
			echo "   failed, and passed when it was run again: $t"
			again=$((again + 1))
			sed -i -E "s,^(FAIL|ERROR): $t,once: $t," "$1/check.out"
		else
			told "$1" "$t"
		fi
	done
}

# All that automake checks of a tarball: a build apart from read-only sources, some tests there, install, uninstall, nothing left.
from_tarball()
{
	local log=$build/distcheck.out

	say "make distcheck: the tarball builds, tests, installs and uninstalls"
	quiet "$log" make -C "$build" -j"$jobs" distcheck \
		TESTS="tests/unit/test-list tests/unit/test-options tests/it/tap-ctl-life.sh tests/it/block-tap.sh tests/it/includes.sh" ||
		{ echo "   distcheck failed: $log"; tail -n 15 "$log"; reason "distcheck: $(tail -n 1 "$log")"; failed=$((failed + 1)); return; }
	passed=$((passed + 1))
}

# The Debian package, from the tarball that distcheck has made.
packaged()
{
	local dir=$build/deb rc=0

	say "the Debian package: build, lintian, installation, upgrade, removal"
	if ! { rm -rf "$dir" && mkdir -p "$dir/src" && tar -xJf "$build"/tapdisk-*.tar.xz -C "$dir/src" --strip-components=1 &&
		(cd "$dir/src" && DEB_BUILD_OPTIONS="nocheck parallel=$jobs" quiet ../build.out dpkg-buildpackage -us -uc -b); }; then
		echo "   the package does not build: $dir/build.out"
		tail -n 15 "$dir/build.out"
		reason "the package: $(tail -n 1 "$dir/build.out")"
		failed=$((failed + 1))
		return
	fi
	quiet "$dir/lintian.out" lintian --allow-root --fail-on error "$dir"/*.changes ||
		{ echo "   lintian finds errors:"; grep '^E:' "$dir/lintian.out"; reason "lintian: $(grep -m1 '^E:' "$dir/lintian.out")"; failed=$((failed + 1)); return; }
	sed -n 's/^[EW]:/   &/p' "$dir/lintian.out"
	passed=$((passed + 1))
	as_root "$src/tests/deb/run" "$dir"/tapdisk_*.deb >"$dir/install.out" 2>&1 || rc=$?
	case $rc in
	0) passed=$((passed + 1)) ;;
	77) skipped=$((skipped + 1)); tail -n 1 "$dir/install.out" ;;
	*)
		failed=$((failed + 1))
		reason "tests/deb/run: $(tail -n 1 "$dir/install.out")"
		cat "$dir/install.out"
		;;
	esac
}

# The RPM package, from that tarball too.
packaged_rpm()
{
	local log=$build/rpm.out rc=0

	say "the RPM package: build, installation in the place of blktap, upgrade, removal"
	quiet "$log" as_root "$src/tests/rpm/run" "$build"/tapdisk-*.tar.xz || rc=$?
	case $rc in
	0) passed=$((passed + 1)) ;;
	77) skipped=$((skipped + 1)); tail -n 1 "$log" ;;
	*) failed=$((failed + 1)); reason "tests/rpm/run: $(tail -n 1 "$log")"; tail -n 30 "$log" ;;
	esac
}

# One boot of the lab; sets p and f, and prints all that was said of what failed: the machine it failed on may be gone when somebody asks.
lab() # LOG PERCENT-OF-WITHIN [CASE...]
{
	local log=$1 until

	until=$(by "$2")
	shift 2
	quiet "$log" as_root nice -n -10 env XENLAB_CACHE="$lab_cache" ${XENLAB_OUT:+XENLAB_OUT="$XENLAB_OUT"} TESTS_UNTIL="$until" make -C "$build" check-xen T="$*" XEN="$xen" CUTS= || true # CUTS are its own, not the crash lab's; the log says what failed
	p=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\1/p' "$log" | tail -n 1)
	f=$(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed.*/\2/p' "$log" | tail -n 1)
	[ -n "$p" ] || { tail -n 15 "$log"; p=0 f=1; }
	awk '/^# \[[0-9]+ s\] [a-z0-9-]+ \.\.\.$/ { said = "" } { said = said "   | " $0 "\n" } /^ok / { said = "" }
		/^(not ok|FAIL)/ { printf "%s", said; said = "" }' "$log"
}

# Everything in there is emulated, and runs against limits of time.  What failed, if it is little, is run once more, by itself on a fresh Xen,
# and both outcomes are told; it counts as failed when it fails again.
on_xen() # VERSION [CASE...]
{
	local xen=$1 log=$build/check-xen-$1.out p f first again left

	shift
	say "make check-xen XEN=$xen${*:+ T=\"$*\"}: Xen, dom0 and guests in QEMU; minutes"
	# shellcheck disable=SC2046
	[ $# != 0 ] || [ -z "${WITHIN:-}" ] || [ "$xen" != 4.20 ] || set -- $(from_another "$src" "$("$src/tests/xen/run" --list)")
	lab "$log" 85 "$@"
	first=$p
	left=$(sed -n 's/^# no time was left for //p' "$log" | tr '\n' ' ')
	[ -z "$left" ] || echo "   no time was left for $(wc -w <<<"$left") cases: $left"
	skipped=$((skipped + $(wc -w <<<"$left")))
	again=$(sed -n 's/^not ok \([a-z0-9-]*\).*/\1/p' "$log" | sort -u)
	if [ "$f" != 0 ] && [ -n "$again" ] && [ "$(wc -w <<<"$again")" -le 5 ]; then
		say "once more, on a fresh Xen: $(tr '\n' ' ' <<<"$again")"
		log=$log.again
		# shellcheck disable=SC2086
		lab "$log" 130 $again
		p=$((first + p))
	fi
	[ "$f" = 0 ] || {
		grep '^not ok' "$log"
		reason "check-xen XEN=$xen: $(sed -n 's/^# \([a-z0-9-]*: .*\)/\1/p; s/^\(not ok .*\)/(\1)/p' "$log" | tr '\n' ' ')"
	}
	echo "   check-xen, Xen $xen: $p passed, $f failed"
	passed=$((passed + p)) failed=$((failed + f))
}

# Xen Orchestra's VHD code, which judges our chains; without a network its test skips.
judges()
{
	export VHD_LIB=$build/judges/node_modules

	[ ! -d "$VHD_LIB/vhd-lib" ] || return 0
	command -v npm >/dev/null || install_packages nodejs npm
	say "installing vhd-lib in $build/judges"
	quiet "$build/judges.out" npm install --no-audit --no-fund --ignore-scripts --prefix "$build/judges" vhd-lib@0.7.2 ||
		echo "   vhd-lib could not be had: $(tail -n 1 "$build/judges.out")"
}

# Deaths, histories of a host, power cuts, and a part of the planted bugs.  These labs keep a clock of their own: they take the processor time
# that is left beside the tests whose limits are of real time.
crash_lab() # CUTS BUGS [KILLS [FORMAT]]: less than all formats have is no round, so that a short run is of one
{
	local p=0 f=0

	say "make check-crash: deaths, histories, power cuts; minutes"
	one_crash_lab check-crash-kills 40 KILLS="${3:-}" T="${4:-}"
	one_crash_lab check-crash-host 60 T="${4:-}"
	one_crash_lab check-crash-cuts 90 CUTS="$1" BUGS="$2" T="${4:-}"
	echo "   check-crash: $p passed, $f failed"
	passed=$((passed + p)) failed=$((failed + f))
}
one_crash_lab() # TARGET PERCENT-OF-WITHIN VARIABLE=VALUE...: adds to p and f
{
	local log=$build/$1.out counts ok='' bad='' rc=0

	# PATIENCE: beside all tests, at that priority, a tapdisk may have no processor for minutes
	quiet "$log" nice -n 19 env PATIENCE=10 TESTS_UNTIL="$(by "$2")" make -C "$build" "$1" "${@:3}" || rc=$?
	counts=$(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed.*/\1 \2/p' "$log" | tail -n 1)
	[ $rc = 0 ] || {
		grep -E -A12 '^(VIOLATION|not seen|TROUBLE)' "$log" | head -60 || tail -n 15 "$log"
		reason "$1: $(grep -m3 -E '^(VIOLATION|not seen|TROUBLE)' "$log" | tr '\n' ' ')"
	}
	sed -nE 's/^(missing|skipped|no time was left|[0-9]+ (cuts|histories|kills)[, ])/   &/p' "$log"
	read -r ok bad <<<"$counts"
	[ $rc = 0 ] || [ "${bad:-0}" != 0 ] || bad=1 # it has ended without a result, or without a word about it
	p=$((p + ${ok:-0})) f=$((f + ${bad:-0}))
}

# Bytes of strangers, each target for a minute, in the build with sanitizers.
fuzzers()
{
	local log=$build/check-fuzz.out

	say "make check-fuzz: a minute for each target"
	if quiet "$log" nice -n 19 env TESTS_UNTIL="$(by 90)" make -C "$build-san" check-fuzz TIME=60; then
		sed -n 's/^[a-z0-9-]*: [0-9]* inputs, .*/   &/p; s/^no time was left for .*/   &/p' "$log"
		passed=$((passed + 1))
	else
		grep -B40 -A10 -m1 REPORT "$log" || tail -n 15 "$log"
		reason "check-fuzz: $(grep -B2 -m1 REPORT "$log" | tr '\n' ' ')"
		failed=$((failed + 1))
	fi
}

# The tarball, and both packages of it.
packages()
{
	renice -n 10 -p $BASHPID >/dev/null
	from_tarball
	skipping deb || packaged
	skipping rpm || ! in_time 80 "the RPM package" || packaged_rpm
}

# Before two makes at once would write the same objects.
tests_programs()
{
	quiet "$build/programs.out" make -C "$build" -j"$jobs" check TESTS= ||
		{ grep -m5 -iE 'error|Killed' "$build/programs.out" >&2; die "the tests' programs could not be built: $build/programs.out"; }
}

# What a newcomer waits for: it is meant to take ten minutes at most on two processors.
check_short()
{
	# shellcheck disable=SC2046,SC2086
	install_packages $packages -- $test_packages $(lab_packages)
	say "building in $build"
	timed=1
	rm -f "$build/reasons"
	build_in "$build"
	skipping xen || beside lab prepare_lab 4.20
	tests_programs
	skipping crash || beside crash crash_lab 6000 no 60 raw-file
	make_check plain "$build"
	skipping crash || joined crash
	skipping xen || joined lab
	skipping xen || on_xen 4.20 quick
	result
}

# Under a limit of time, Xen 4.17, of which four cases are run, has its turn with each fourth commit.
xens() { if [ -z "${WITHIN:-}" ] || [[ $(commit_of "$src") = [0-3]* ]]; then echo 4.17 4.20; else echo 4.20; fi; }

check_all()
{
	local xen

	# shellcheck disable=SC2046,SC2086
	install_packages $packages $package_tools -- $test_packages $(lab_packages) $(cluster_packages)
	say "building in $build"
	timed=1
	rm -f "$build/reasons"
	build_in "$build" --enable-werror
	judges
	skipping sanitizers || beside build-san build_sanitized
	# shellcheck disable=SC2046
	skipping xen || beside lab prepare_lab $(xens)
	tests_programs
	# at the lowest priority, from the start on: most tests wait
	skipping crash || beside crash crash_lab "${CUTS:-40000}" '--sample 12'
	make_check plain "$build" 42
	skipping dist || beside packages packages
	if ! skipping sanitizers; then
		joined build-san
		[ -x "$build-san/tapdisk/tapdisk" ] || die "the build with sanitizers failed: see above"
	fi
	skipping sanitizers || make_check sanitizers "$build-san" 66
	# the lab takes longest, and does not keep its limits of time beside tests: what is beside it takes what it leaves
	skipping sanitizers || beside fuzzers fuzzers
	if ! skipping xen; then
		joined lab
		for xen in $(xens); do
			! in_time 80 "Xen $xen" || on_xen "$xen"
		done
	fi
	skipping cluster || ! in_time 92 "the cluster lab" || on_cluster
	skipping dist || joined packages
	skipping sanitizers || joined fuzzers
	skipping crash || joined crash
	result
}

# The pair of cases that says most: two hosts, GFS2 on a DRBD with two primaries, without and with the page cache between.
on_cluster()
{
	local log=$build/check-cluster.out rc=0

	say "make check-cluster: none, which is sound, and writeback, which is not"
	quiet "$log" nice -n -10 make -C "$build" check-cluster T='none writeback' LIMIT=900 SLOW=1 || rc=$?
	sed -n 's/^\(gfs2 .*\)/   \1/p' "$log"
	case $rc in
	0) passed=$((passed + 2)) ;;
	*)
		failed=$((failed + 1))
		tail -n 20 "$log"
		reason "check-cluster: $(sed -n 's/^FAIL: //p' "$log" | tail -n 1)"
		;;
	esac
}

# What the labs boot, out of Debian's packages, and this tree's package: network and disk more than processor.
prepare_lab() # VERSION...
{
	local v log

	for v in "$@"; do
		log=$build/lab-$v.out
		say "the lab of Xen $v: two Debians, and the package built in one of them"
		{ as_root env XEN="$v" XENLAB_CACHE="$lab_cache" "$src/tests/xen/build" &&
			as_root env XEN="$v" XENLAB_CACHE="$lab_cache" "$src/tests/xen/package"; } >"$log" 2>&1 </dev/null ||
			{ tail -n 15 "$log"; reason "the lab of Xen $v: $(tail -n 1 "$log")"; failed=$((failed + 1)); }
	done
}

build_sanitized()
{
	say "building with sanitizers in $build-san"
	build_in "$build-san" --enable-sanitizers --enable-werror
}

result()
{
	[ ! -s "$build/reasons" ] || { say "what failed:"; sed 's/^/   /' "$build/reasons"; }
	[ -z "$timed" ] || say "all parts have ended"
	echo "$passed passed, $failed failed, $skipped skipped"
	[ $failed = 0 ] && [ $passed != 0 ]
}
