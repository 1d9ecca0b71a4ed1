# SPDX-License-Identifier: LGPL-2.1-or-later
# Numbered rules (C1, PG2): each begins a line of its own in the comment at the
# top of its file, so that a formatter has not made one paragraph of them; and
# HACKING's index names each letter, with the file that has it.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

cat >"$WORK/rules" <<'P'
import glob, re, sys

# the labs' own letters, which HACKING names below its index
LABS = {"D": "tests/crash/disk.h", "I": "tests/crash/judge.h", "KG": "tests/crash/kill-guest.h"}

bad, of = [], {}
for path in sorted(p for top in ("include", "lib", "drivers", "tapdisk", "control", "tests")
                   for p in glob.glob(top + "/**/*.[ch]", recursive=True)):
    top = re.split(r"^(?:#|struct|enum|static) ?", open(path).read(), maxsplit=1, flags=re.M)[0]
    mine = re.findall(r"^ \* ([A-Z]{1,2}\d+)\b", top, re.M)
    spoken = set(re.findall(r"(?<!\w)(?<!\s-)([A-Z]{1,2})(\d+)\b", top))
    letters = {r[:-1] for r in mine if re.fullmatch(r"[A-Z]+1", r)}
    # rules whose first one has been swallowed too: three of them, within lines
    lost = {x for x, n in re.findall(r"[.;:,)] +(?:and )?([A-Z]{1,2})([123]) +[A-Za-z]", top)}
    lost = {x for x in lost - letters if {(x, "1"), (x, "2"), (x, "3")} <= spoken}
    bad += [f"{path}: {r} begins two lines" for r in sorted(set(mine))
            if mine.count(r) > 1 and r.rstrip("0123456789") in letters]
    bad += [f"{path}: {x}{n} does not begin a line" for x, n in sorted(spoken)
            if x in letters | lost and x + n not in mine]
    for x in letters:
        of.setdefault(x, {})[path] = mine
text = open("HACKING").read()
index = dict(re.findall(r"^    ([A-Z]{1,2}) {1,3}\S.*  ([a-z]+/\S+\.[ch])$", text, re.M))
if len(index) < 20 and not sys.argv[1:]:
    bad.append("HACKING: its index was not found")
index.update({} if sys.argv[1:] else LABS)
bad += [f"HACKING: {path} has no rules {x}" for x, path in sorted(index.items())
        if path not in of.get(x, {})]
bad += [f"HACKING: no word of the rules {x} of {p}" for x in sorted(of) for p in of[x]
        if index.get(x) != p and not p.startswith("tests/")]
for x, n in sorted(set(re.findall(r"(?<!\w)(?<!\s-)([A-Z]{1,2})(\d+)\b", text))):
    if x in index and x + n not in of.get(x, {}).get(index[x], []):
        bad.append(f"HACKING: there is no rule {x}{n} in {index[x]}")
print("\n".join(bad))
P

# it sees rules in one paragraph, and an index that is wrong
mkdir -p "$WORK/tree/lib" && cd "$WORK/tree" || exit 99
printf '/*\n * It is so, and W1 one; W2 two; W3 three.\n */\n#include "w.h"\n' >lib/w.c
printf '/*\n * Y1 one\n * Y2 two, as Y1 says\n */\n' >lib/y.c
printf '/*\n * Z1 one. Z2 two.\n * Z3 three\n */\n#include "z.h"\n' >lib/z.c
printf '    Y   a letter    lib/y.c\n    X   another     lib/x.c\n\nRules Y1-Y3.\n' >HACKING
run python3 "$WORK/rules" planted
is "planted faults" "$OUT" "lib/w.c: W1 does not begin a line
lib/w.c: W2 does not begin a line
lib/w.c: W3 does not begin a line
lib/z.c: Z2 does not begin a line
HACKING: lib/x.c has no rules X
HACKING: no word of the rules Z of lib/z.c
HACKING: there is no rule Y3 in lib/y.c"

cd "$top_srcdir" || exit 99
run python3 "$WORK/rules"
is "the rules of the tree" "$RC $OUT" "0 "
