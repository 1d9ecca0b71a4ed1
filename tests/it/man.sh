# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages: mandoc finds nothing, each program has one, what they refer to is there, and each command and option is told.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v mandoc >/dev/null || skip "mandoc is not installed"
cd "$top_srcdir/doc" || fail "no doc/"

pages=$(ls -- *.[1-9]) || fail "no pages"
# of the matters of style: pages are not yet installed when they are looked at, and what others' manuals there are is not ours to say
found=$(mandoc -Tlint -W style $pages 2>/dev/null | grep -v 'referenced manual not found\|input text line longer than 80 bytes\|missing man.*page')
[ -z "$found" ] || fail "mandoc: $found"

for page in $pages; do
	while read -r ref; do
		case $ref in
		tap* | td-* | block-tap.* | vhd-util.*) [ -f "$ref" ] || fail "$page refers to $ref, which is not there" ;;
		esac
	done < <(sed -n 's/^\.Xr \([^ ]*\) \([1-9]\).*/\1.\2/p' "$page")
done

# has_page PROGRAM: prints its page
has_page()
{
	local p

	for p in "$1".[1-9]; do
		[ -f "$p" ] && { echo "$p"; return; }
	done
	fail "there is no man page of $1"
}

for program in "$top_builddir"/tapdisk/tapdisk "$top_builddir"/bin/*; do
	[ -x "$program" ] && [ -f "$program" ] || continue
	name=${program##*/}
	page=$(has_page "$name") || exit 1
	text=$(mandoc -Tascii "$page" | sed 's/.\x08//g')
	case $name in
	block-tap) ;; # a script that takes no options
	tap-ctl | vhd-util)
		for cmd in $("$program" --help 2>&1 </dev/null | sed -n 's/^  \([a-z]*\)  *[a-z].*/\1/p'); do
			grep -qw -- "$cmd" <<<"$text" || fail "$page does not tell of the command $cmd"
		done
		;;
	*)
		for opt in $("$program" --help 2>&1 </dev/null | grep -o -- '--[a-z][a-z-]*' | sort -u); do
			case $opt in
			--help | --version) ;;
			*) # by this name or by its letter
				letter=$("$program" --help 2>&1 </dev/null | sed -n "s/.*\\(-[a-zA-Z]\\), $opt.*/\\1/p" | head -1)
				grep -qE -- "$opt${letter:+|(^|[^-a-z])$letter}" <<<"$text" || fail "$page does not tell of $opt"
				;;
			esac
		done
		;;
	esac
done
exit 0
