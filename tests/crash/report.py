# SPDX-License-Identifier: LGPL-2.1-or-later
"""The lab's result for people: report.md, and report.svg with the same table."""
import os
import time
from xml.sax.saxutils import escape

NAME_W, CELL_W, ROW_H = 190, 150, 26


def short(n):
    return "%.1fM" % (n / 1e6) if n >= 1e6 else "%.0fk" % (n / 1e3) if n >= 1e4 else str(n)


def cell(lab, fmt, mode):
    row = lab.count.get((fmt, mode))
    return None if not row else {"runs": row[0], "cuts": row[1], "faults": row[2], "violations": row[3]}


def markdown(lab, modes, formats, unsafe, bugs):
    out = ["# Power cuts", "", "%s: %d disks as a power cut may have left them, each opened again and judged; %d violations." % (
        time.strftime("%Y-%m-%d"), lab.cuts, lab.violations), "",
        "In each cell: cuts / faults made / violations.  What is judged: tests/crash/README.", "",
        "| format | " + " | ".join(modes) + " |", "|---|" + "---|" * len(modes)]
    for fmt in formats:
        cells = []
        for mode in modes:
            c = cell(lab, fmt, mode)
            cells.append("skipped" if fmt in lab.skipped else "-" if not c else "%d / %d / %s" % (
                c["cuts"], c["faults"], "**%d**" % c["violations"] if c["violations"] else "0"))
        out.append("| %s | %s |" % (fmt, " | ".join(cells)))
    for fmt in lab.missing:
        out.append("| %s |%s" % (fmt, " missing |" * len(modes)))
    out += ["", "cache=unsafe, which promises nothing, is seen to lose data: " +
            ", ".join("%s %s" % (f, "yes" if seen else "**no**") for f, seen in unsafe) + "."]
    if bugs:
        out += ["", "## Planted bugs: %d of %d seen" % bugs[:2], "", "| bug | what it does | seen as |", "|---|---|---|"]
        out += ["| %s | %s | %s |" % tuple(f.replace("|", "/") for f in row) for row in bugs[3]]
    return "\n".join(out) + "\n"


def text(x, y, what, anchor="start", extra=""):
    return '<text x="%d" y="%d" text-anchor="%s" %s>%s</text>' % (x, y, anchor, extra, escape(what))


def svg(lab, modes, formats, bugs):
    rows = formats + lab.missing
    width, height = NAME_W + CELL_W * len(modes) + 20, ROW_H * (len(rows) + 3) + 30
    out = ['<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">' % (width, height),
           '<rect width="100%" height="100%" fill="white"/>',
           text(10, 22, "%d power cuts, %d violations" % (lab.cuts, lab.violations), extra='font-size="16" font-weight="bold"')]
    for i, mode in enumerate(modes):
        out.append(text(NAME_W + CELL_W * i + CELL_W // 2, 50, mode, "middle", 'font-weight="bold"'))
    for r, fmt in enumerate(rows):
        y = 60 + ROW_H * r
        out.append(text(10, y + 17, fmt))
        for i, mode in enumerate(modes):
            c = cell(lab, fmt, mode)
            colour, what = ("#dddddd", "missing" if fmt in lab.missing else "skipped") if not c else \
                ("#e06666", "%d violations in %s" % (c["violations"], short(c["cuts"]))) if c["violations"] else \
                ("#b6d7a8", "%s cuts, %s faults" % (short(c["cuts"]), short(c["faults"])))
            out.append('<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>' % (NAME_W + CELL_W * i, y, CELL_W - 3, ROW_H - 3, colour))
            out.append(text(NAME_W + CELL_W * i + CELL_W // 2, y + 16, what, "middle"))
    if bugs:
        out.append(text(10, 60 + ROW_H * len(rows) + 22, "planted bugs: the judge saw %d of %d" % bugs[:2], extra='font-weight="bold"'))
    return "\n".join(out + ["</svg>"]) + "\n"


def write(directory, lab, modes, formats, unsafe, bugs):
    with open(os.path.join(directory, "report.md"), "w", encoding="utf-8") as f:
        f.write(markdown(lab, modes, formats, unsafe, bugs))
    with open(os.path.join(directory, "report.svg"), "w", encoding="utf-8") as f:
        f.write(svg(lab, modes, formats, bugs))
