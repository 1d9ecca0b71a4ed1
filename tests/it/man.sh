# SPDX-License-Identifier: LGPL-2.1-or-later
# The man pages: mandoc finds nothing, each program has one, what they refer to is there, each command and option is described, and at 80
# and 120 columns every table is a table and no line is wider than the page.
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

# item PAGE COMMAND: the sentences about a command, without its heading
item()
{
	awk -v c="$2" '/^\.(It Cm|El)/ { on = $3 == c; heading = 1 }
		heading { heading = /\\$/; next }
		on' "$1"
}
flags() { "$1" "$2" -h | sed -n 's/^  -\([a-zA-Z]\), --[a-z-]*  .*/\1/p' | grep -v h; }

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
			[ "$name" = vhd-util ] || continue
			for letter in $(flags "$program" "$cmd"); do # which a heading does not explain
				grep -qE "^\.(Pq |Op )?Fl $letter( |$)" <(item "$page" "$cmd") ||
					fail "$page: $cmd -$letter is in no sentence"
			done
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

# --- at 80 and 120 columns ------------------------------------------------------------------------------------------------------
# misshapen PAGE: what is wrong with the page's form, nothing if it is good.  A row of a table is a line of the source with two or more
# gaps of two blanks; it has to be a line of the page too.  The cells of a row of a column list begin on one line.
misshapen()
{
	local width text row pattern

	for width in 80 120; do
		text=$(mandoc -Tascii -O width=$width "$1" | sed 's/.\x08//g')
		awk -v w=$width 'length > w { print "wider than " w ": " $0 }' <<<"$text"
		while IFS= read -r row; do
			sed 's/^ *//' <<<"$text" | grep -qxF -- "$row" || echo "at $width columns a row is no line: $row"
		done < <(sed '/^[.'\'']/d; s/\\&//g; s/\\e/\\/g' "$1" | grep -E '[^ ]  +[^ ].*[^ ]  +[^ ]')
		while IFS= read -r row; do
			pattern=$(sed 's/^\.It //; s/ Ta / /g; s/[]$*.^[]/./g; s/  */.*/g' <<<"$row")
			grep -q -- "$pattern" <<<"$text" || echo "at $width columns a row is broken: $row"
		done < <(grep '^\.It .* Ta ' "$1")
	done
}
for page in $pages; do
	found=$(misshapen "$page")
	[ -z "$found" ] || fail "$page: $found"
done
# and these it finds
planted() # WHAT TEXT
{
	printf '.Dd November 28, 2026\n.Dt X 7\n.Os\n.Sh NAME\n.Nm x\n.Nd y\n.Sh DESCRIPTION\n%b\n' "$2" >"$WORK/x.7"
	has "planted: $1" "$(misshapen "$WORK/x.7")" "$1"
}
planted "wider than 80" ".Bd -literal\n$(printf '%076d' 1)\n.Ed"
planted "no line: none  bypassed  yes" "mode  cache  shared\nnone  bypassed  yes"
planted "row is broken" '.Bl -column mode cache\n.It none Ta bypassed by O_DIRECT Ta yes\n.El'
exit 0
