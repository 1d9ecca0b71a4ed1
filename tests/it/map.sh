# SPDX-License-Identifier: LGPL-2.1-or-later
# HACKING's map has each source of the product in its room, once, and no other.
# Each file that HACKING or a README names is there.
. "${top_srcdir:-$(dirname "$0")/../..}/tests/it/lib.sh" || exit 99
command -v python3 >/dev/null || skip "python3 is not installed"

cat >"$WORK/map" <<'P'
import glob, re

ROOMS = ("lib", "drivers", "tapdisk", "control")
# by a build, or by a reader
MADE = ("tapdisk/tapdisk", "tests/crash/crashlab", "tests/crash/hostlab", "bench/report.md",
        "drivers/NAME.c")
there = {p.rsplit(".", 1)[0] for top in ROOMS for p in glob.glob(top + "/**/*.c", recursive=True)}
said, room = [], None
for line in open("HACKING"):
    if line.startswith("Who may include"):
        break
    if m := re.match(r"    ([a-z][a-z/-]*/)(\s|$)", line):
        room = m[1]
    elif room and room.startswith(ROOMS) and (m := re.match(r"      ([a-z][\w., -]*?)(  |$)", line)):
        said += [room + n for n in m[1].split(", ") if not n.endswith(".h")]
bad = [f"{p}: twice" for p in sorted(set(said)) if said.count(p) > 1]
bad += [f"{p}.c has no line" for p in sorted(there - set(said))]
bad += [f"{p}: there is none" for p in sorted(set(said) - there) if not glob.glob(p + "*")]
FILE = r"(?<![\w./-])((?:include|lib|drivers|tapdisk|control|tests|bench|doc)/[\w./-]*[\w])"
for doc in ["HACKING", "README"] + sorted(glob.glob("tests/*/README") + glob.glob("bench/README")):
    for name in sorted(set(re.findall(FILE, open(doc).read() if glob.glob(doc) else ""))):
        if not any(glob.glob(at + name + tail) for at in ("", doc.rpartition("/")[0] + "/")
                   for tail in ("", ".*")) and "/out" not in name and name not in MADE:
            bad.append(f"{doc}: {name}: there is no such file")
print("\n".join(bad))
P

# what no makefile names is missing in the tarball, and nobody who builds in the tree notices
cat >"$WORK/tarball" <<'P'
import glob, os, re

text = "".join(open(p).read() for p in glob.glob("**/*.mk", recursive=True) + glob.glob("*.am"))
named = set(re.findall(r"(?:\$\(srcdir\)/)?([\w.+@-]+(?:/[\w.+@-]+)+)", text))
for p in sorted(p for top in ("include", "lib", "drivers", "tapdisk", "control", "tests", "bench")
                for end in ("[ch]", "sh", "py", "js", "hex")
                for p in glob.glob(f"{top}/**/*.{end}", recursive=True)):
    at = p
    while at and at not in named:
        at = os.path.dirname(at)
    if not at:
        print(f"{p}: no makefile names it")
P

mkdir -p "$WORK/tree/lib/io" && cd "$WORK/tree" || exit 99
touch lib/a.c lib/b.c lib/io/c.c
printf '    lib/       what\n      a         one\n      c, a      two\n\n    lib/io/   that\n      c         three\n\nSee lib/io/c, lib/b.c, lib/d.c.\n' >HACKING
run python3 "$WORK/map"
is "planted faults" "$OUT" "lib/a: twice
lib/b.c has no line
lib/c: there is none
HACKING: lib/d.c: there is no such file"

echo "x = lib/a.c \$(srcdir)/lib/io" >lib/local.mk
run python3 "$WORK/tarball"
is "a planted file" "$OUT" "lib/b.c: no makefile names it"

cd "$top_srcdir" || exit 99
run python3 "$WORK/tarball"
is "files of the tarball" "$RC $OUT" "0 "
run python3 "$WORK/map"
is "the map of the tree" "$RC $OUT" "0 "
