# SPDX-License-Identifier: LGPL-2.1-or-later
"""For gdb: where each fiber of a tapdisk waits.

    gdb -iex 'set sysroot /' -p PID -batch -ex 'source tests/support/fibers.py' -ex fibers

A fiber is no thread: gdb does not know of its stack.  It has a mapping of its own, whose first pages may not be touched, and a struct
td_fiber in the heap that points to it; what it was doing stands in that struct's `here', which setjmp() filled.  On x86-64 with glibc, of a
live process (gdb changes the registers of the thread for each backtrace, and puts them back).
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


def registers(f):
    """What setjmp() kept; three of them are hidden: turned, and mixed with a secret of the process"""
    kept = f["here"]["at"][0]["__jmpbuf"]
    secret = struct.unpack("<Q", gdb.selected_inferior().read_memory(int(gdb.parse_and_eval("$fs_base")) + 0x30, 8))[0]
    regs = {}
    for i, r in enumerate(("rbx", "rbp", "r12", "r13", "r14", "r15", "rsp", "rip")):
        v = int(kept[i]) & (1 << 64) - 1
        if r in ("rbp", "rsp", "rip"):
            v = (v >> 17 | v << 47) & (1 << 64) - 1
            v ^= secret
        regs[r] = v
    return regs


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
            try:
                for r, v in registers(f).items():
                    gdb.execute("set $%s = %d" % (r, v))
                print(gdb.execute("backtrace", to_string=True))
            finally:
                gdb.execute("select-frame 0")
                for r, v in kept.items():
                    gdb.execute("set $%s = %d" % (r, int(v)))
        print("%d fibers wait" % count)


Fibers()
