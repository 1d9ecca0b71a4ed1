# SPDX-License-Identifier: LGPL-2.1-or-later
# Numbered rules (C1, PG2): each begins a line of its own in the comment at the
# top of its file, so that a formatter has not made one paragraph of them; and
# HACKING's index names each letter, with the file that has it.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

cat >"$WORK/rules" <<'P'
import glob, re, sys

def rules(path):
    """The rules of a file, and those that it speaks of before its first code."""
    top = re.split(r"^(?:#include|struct|enum|static) ", open(path).read(), 1, re.M)[0]
    mine = re.findall(r"^ \* ([A-Z]{1,2}\d+)\b", top, re.M)
    letters = {re.sub(r"\d", "", r) for r in mine}
    return mine, letters, re.findall(r"\b(?=[A-Z])([A-Z]{1,2})(\d+)\b", top)

bad, of = [], {}
for path in sorted(p for top in ("include", "lib", "drivers", "tapdisk", "control", "tests")
                   for p in glob.glob(top + "/**/*.[ch]", recursive=True)):
    mine, letters, spoken = rules(path)
    letters = {x for x in letters if x + "1" in mine}
    bad += [f"{path}: {r} begins two lines" for r in sorted(set(mine)) if mine.count(r) > 1
            and re.sub(r"\d", "", r) in letters]
    bad += [f"{path}: {x}{n} does not begin a line" for x, n in sorted(set(spoken))
            if x in letters and x + n not in mine]
    for x in letters:
        of.setdefault(x, []).append((path, mine))
text = open("HACKING").read()
index = dict(re.findall(r"^    ([A-Z]{1,2}) {1,3}\S.*  ([a-z]+/\S+\.[ch])$", text, re.M))
labs = {"D": "tests/crash/disk.h", "I": "tests/crash/judge.h", "KG": "tests/crash/kill-guest.h"}
index.update({x: p for x, p in labs.items() if of.get(x)})
for x, path in sorted(index.items()):
    if path not in [p for p, _ in of.get(x, [])]:
        bad.append(f"HACKING: {path} has no rules {x}")
for x, files in sorted(of.items()):
    bad += [f"HACKING: no word of the rules {x} of {p}" for p, _ in files if index.get(x) != p]
for x, n in sorted(set(re.findall(r"\b([A-Z]{1,2})(\d+)\b", text))):
    if x in index and x + n not in dict(of.get(x, [])).get(index[x], []):
        bad.append(f"HACKING: there is no rule {x}{n} in {index[x]}")
print("\n".join(bad))
if len(index) < 20 and not sys.argv[1:]:
    print("HACKING: its index was not found")
P

# it sees rules in one paragraph, and an index that is wrong
mkdir -p "$WORK/tree/lib" && cd "$WORK/tree" || exit 99
printf '/*\n * Z1 one. Z2 two.\n * Z3 three\n */\n#include "z.h"\n' >lib/z.c
printf '/*\n * Y1 one\n * Y2 two, as Y1 says\n */\n' >lib/y.c
printf '    Y   a letter    lib/y.c\n    X   another     lib/x.c\n\nRules Y1-Y3.\n' >HACKING
run python3 "$WORK/rules" planted
is "planted faults" "$OUT" "lib/z.c: Z2 does not begin a line
HACKING: lib/x.c has no rules X
HACKING: no word of the rules Z of lib/z.c
HACKING: there is no rule Y3 in lib/y.c"

cd "$top_srcdir" || exit 99
run python3 "$WORK/rules"
is "the rules of the tree" "$RC $OUT" "0 "
