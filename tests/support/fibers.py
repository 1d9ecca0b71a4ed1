# SPDX-License-Identifier: LGPL-2.1-or-later
"""For gdb: where each fiber of a tapdisk waits.

    gdb -iex 'set sysroot /' -p PID -batch -ex 'source tests/support/fibers.py' -ex fibers

A fiber is no thread: gdb does not know of its stack.  It has a mapping of its own, whose first pages may not be touched, and a struct
td_fiber in the heap that points to it; what it was doing stands in that struct's ctx.  On x86-64, of a live process (gdb changes the
registers of the thread for each backtrace, and puts them back).
"""
import re
import struct

import gdb


def mappings():
    text = gdb.execute("info proc mappings", to_string=True)
    for line in text.splitlines():
        m = re.match(r"\s*0x([0-9a-f]+)\s+0x([0-9a-f]+)\s+0x[0-9a-f]+\s+0x[0-9a-f]+\s+(.*)", line)
        if m:
            yield int(m.group(1), 16), int(m.group(2), 16), m.group(3)


def fibers():
    """Each struct td_fiber: found by the address of its mapping, which it holds beside that of the stack in it"""
    kind = gdb.lookup_type("struct td_fiber")
    fields = {f.name: f.bitpos // 8 for f in kind.fields()}
    maps = list(mappings())
    memory = gdb.selected_inferior()
    for begin, end, rest in maps:
        if not rest.startswith("---p"):
            continue
        for low, high, flags in maps:
            if not flags.startswith("rw") or "/" in flags:
                continue
            at = low
            while at < high:
                hit = memory.search_memory(at, high - at, struct.pack("<QQ", begin, end))
                if hit is None:
                    break
                yield gdb.Value(hit - fields["map"]).cast(kind.pointer())
                at = hit + 8


class Fibers(gdb.Command):
    """fibers: a backtrace of each fiber that waits"""

    def __init__(self):
        super().__init__("fibers", gdb.COMMAND_STACK)

    def invoke(self, arg, from_tty):
        count = 0
        for f in fibers():
            if f["ended"] or not f["waiting"]:
                continue
            count += 1
            print("fiber %s, begun by %s:" % (f, f["fn"]))
            kept = {r: gdb.parse_and_eval("(unsigned long)$" + r) for r in ("rsp", "rbp", "rip", "rbx", "r12", "r13", "r14", "r15")}
            index = {"r12": 4, "r13": 5, "r14": 6, "r15": 7, "rbp": 10, "rbx": 11, "rsp": 15, "rip": 16}
            regs = {r: int(f["ctx"]["uc_mcontext"]["gregs"][i]) for r, i in index.items()}
            try:
                for r, v in regs.items():
                    gdb.execute("set $%s = %d" % (r, v))
                print(gdb.execute("backtrace", to_string=True))
            finally:
                gdb.execute("select-frame 0")
                for r, v in kept.items():
                    gdb.execute("set $%s = %d" % (r, int(v)))
        print("%d fibers wait" % count)


Fibers()
