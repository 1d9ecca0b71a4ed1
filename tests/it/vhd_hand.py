# SPDX-License-Identifier: LGPL-2.1-or-later
"""VHDs made by hand, from the specification and from nothing of ours: for tests that need images which no tool makes."""
import struct
import uuid

SECTOR = 512
UNUSED = 0xFFFFFFFF
FIXED, DYNAMIC, DIFF = 2, 3, 4


def checksum(b, at):
    return ~(sum(b) - sum(b[at:at + 4])) & 0xFFFFFFFF


def footer(size, kind, ident, creator=b'win ', version=0x000A0000, /, offset=512, geometry=(100, 4, 17), **change):
    f = dict(cookie=b'conectix', features=2, format=0x10000, offset=offset if kind != FIXED else 2 ** 64 - 1, time=1, creator=creator,
             version=version, os=b'Wi2k', orig=size, size=size, cyl=geometry[0], heads=geometry[1], spt=geometry[2], type=kind, sum=None,
             uuid=ident, saved=0, hidden=0)
    f.update(change)
    b = bytearray(struct.pack('>8sIIQI4sI4sQQHBBII16sBB', f['cookie'], f['features'], f['format'], f['offset'], f['time'], f['creator'],
                              f['version'], f['os'], f['orig'], f['size'], f['cyl'], f['heads'], f['spt'], f['type'], 0, f['uuid'],
                              f['saved'], f['hidden']).ljust(512, b'\0'))
    struct.pack_into('>I', b, 64, checksum(b, 64) if f['sum'] is None else f['sum'])
    return bytes(b)


def header(entries, block, table, parent=b'\0' * 16, parent_name='', locators=(), /, **change):
    h = dict(cookie=b'cxsparse', offset=2 ** 64 - 1, table=table, version=0x10000, entries=entries, block=block, sum=None, time=1)
    h.update(change)
    b = bytearray(1024)
    struct.pack_into('>8sQQIII', b, 0, h['cookie'], h['offset'], h['table'], h['version'], h['entries'], h['block'])
    struct.pack_into('>16sI', b, 40, parent, h['time'])
    name = parent_name.encode('utf-16-be')[:512]
    b[64:64 + len(name)] = name
    for i, (code, space, length, off) in enumerate(locators):
        struct.pack_into('>4sIIIQ', b, 576 + 24 * i, code, space, length, 0, off)
    struct.pack_into('>I', b, 36, checksum(b, 36) if h['sum'] is None else h['sum'])
    return bytes(b)


class Hand:
    """One image.  sectors: {sector number: 512 bytes}; names: [(code, bytes of the locator, 'sectors' | 'bytes')]."""

    def __init__(self, size, kind=DYNAMIC, block=4096, sectors=None, names=(), parent=b'\0' * 16, parent_name='', entries=None,
                 end=True, footer_change=None, header_change=None, first_block=None, creator=b'win ', version=0x000A0000, table=None):
        self.size, self.kind, self.block, self.sectors = size, kind, block, sectors or {}
        self.names, self.parent, self.parent_name = names, parent, parent_name
        self.entries = entries if entries is not None else -(-size // block)
        self.end, self.fc, self.hc = end, footer_change or {}, header_change or {}
        self.uuid = uuid.uuid4().bytes
        self.creator, self.version = creator, version
        self.bat = {}

    def bytes(self):
        foot = footer(self.size, self.kind, self.uuid, self.creator, self.version, **self.fc)
        if self.kind == FIXED:
            data = bytearray(self.size)
            for s, b in self.sectors.items():
                data[s * SECTOR:(s + 1) * SECTOR] = b
            return bytes(data) + foot
        table = 1536
        at = table + -(-4 * self.entries // SECTOR) * SECTOR
        locators, blobs = [], []
        for code, blob, unit in self.names:
            space = -(-len(blob) // SECTOR) * SECTOR
            locators.append((code, space // SECTOR if unit == 'sectors' else space, len(blob), at))
            blobs.append(blob.ljust(space, b'\0'))
            at += space
        per = self.block // SECTOR
        bitmap_bytes = -(-(-(-per // 8)) // SECTOR) * SECTOR
        bat = [UNUSED] * self.entries
        data = b''
        for n in sorted({s // per for s in self.sectors}):
            bat[n] = at // SECTOR
            bits, body = bytearray(bitmap_bytes), bytearray(self.block)
            for s in range(n * per, (n + 1) * per):
                if s in self.sectors:
                    i = s - n * per
                    bits[i // 8] |= 0x80 >> i % 8
                    body[i * SECTOR:(i + 1) * SECTOR] = self.sectors[s]
            data += bytes(bits) + bytes(body)
            at += bitmap_bytes + self.block
        for n, entry in self.bat.items():
            bat[n] = entry
        table_bytes = struct.pack('>%dI' % len(bat), *bat)
        table_bytes = table_bytes.ljust(-(-len(table_bytes) // SECTOR) * SECTOR, b'\xff')
        head = header(self.entries, self.block, table, self.parent, self.parent_name, locators, **self.hc)
        return foot + head + table_bytes + b''.join(blobs) + data + (foot if self.end else b'')

    def write(self, path):
        with open(path, 'wb') as f:
            f.write(self.bytes())
        return self

    def shows(self, below=b''):
        """What a guest must see."""
        out = bytearray(below[:self.size].ljust(self.size, b'\0'))
        for s, b in self.sectors.items():
            out[s * SECTOR:(s + 1) * SECTOR] = b
        return bytes(out)
