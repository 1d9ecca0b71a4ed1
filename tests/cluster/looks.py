# SPDX-License-Identifier: LGPL-2.1-or-later
"""What one host sees of what the other has written and synced."""
import os

from lab import Failed

ROUNDS = int(os.environ.get("ROUNDS", 4))
CACHED = ("writeback", "writethrough")


def looks(a, b, rounds=ROUNDS, first=0, limit=30):
    """One host writes a file, or makes a name, and syncs it; the other looks.  The looks that were wrong, how many there were, and
    whether one hangs."""
    wrong, n = [], 0
    for i in range(first, first + rounds):
        writer, reader = (a, b) if i % 2 == 0 else (b, a)
        word = "v%d-%s" % (i, writer.name)
        for what, write, read, want in (
                ("file", "put file " + word, "get file", [word + "x512"]),
                ("name", "'mkdir -p /mnt/d && echo %s >/mnt/d/%s && sync /mnt/d/%s'" % (word, word, word),
                 "'cat /mnt/d/%s; ls /mnt/d | wc -l'" % word, [word, str(i + 1)])):
            said = writer.ask(writer.member("within %d %s" % (limit, write)))[0]
            got = reader.ask(reader.member("within %d %s" % (limit, read)))[0]
            n += 1
            if said or got.split() != want:
                wrong.append("%s: %s wrote %s%s; %s reads: %s" % (what, writer.name, word, " (and was told: %s)" % said if said else "",
                                                                 reader.name, " ".join(got.split()) or "nothing"))
            if "(hangs)" in said + got:
                return wrong, n, True
    return wrong, n, False


def right_looks(a, b, rounds=ROUNDS, first=0, limit=30):
    wrong, n, _ = looks(a, b, rounds, first, limit)
    if wrong:
        raise Failed("%d of %d looks are wrong: %s" % (len(wrong), n, wrong[0]))
    return first + rounds
