# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images made by hand: how others write parents' names, unusual but good files, and every field with a bad value."""
import os
import random
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from vhd_hand import DIFF, DYNAMIC, FIXED, SECTOR, UNUSED, Hand, footer  # noqa: E402

TOOL = os.environ['top_builddir'] + '/bin/vhd-util'
seed = int(os.environ.get('VHD_SEED', random.randrange(1 << 30)))
rng = random.Random(seed)
failures = 0


def fail(text):
    global failures
    failures += 1
    print('FAIL:', text, file=sys.stderr)


def run(*args):
    p = subprocess.run([TOOL, *args], capture_output=True, timeout=60)
    if p.returncode < 0 or b'Sanitizer' in p.stderr or b'runtime error' in p.stderr:
        fail('%s died: %d %s' % (' '.join(args), p.returncode, p.stderr[-2000:].decode('utf-8', 'replace')))
    return p


def expect(what, rc, *args):
    p = run(*args)
    if p.returncode != rc:
        fail('%s: %s: exit code %d instead of %d: %s' % (what, ' '.join(args), p.returncode, rc, p.stderr.decode('utf-8', 'replace')))
    if rc and p.stderr.count(b'\n') != 1 and args[0] != 'check':
        fail('%s: not one line of text: %r' % (what, p.stderr))
    return p.stdout


def shows(what, path, want):
    got = expect(what, 0, 'copy', '-n', path, '-s')
    if got != want:
        at = next((i for i in range(min(len(got), len(want))) if got[i] != want[i]), min(len(got), len(want)))
        fail('%s: %s shows something else from byte %d on (%d bytes, wanted %d)' % (what, path, at, len(got), len(want)))


def noise(n, total):
    return {s: rng.randbytes(SECTOR) for s in rng.sample(range(total), n)}


SIZE = 300 * SECTOR


def names():
    """A parent is found by each kind of name, its space in sectors or in bytes."""
    parent = Hand(SIZE, sectors=noise(60, 300)).write('parent.vhd')
    odd = Hand(SIZE, sectors=noise(60, 300)).write('Ünï ćode 𝔘 %41.vhd')
    here = os.getcwd()
    cases = {
        'W2ru': (b'W2ru', '.\\parent.vhd'.encode('utf-16-le'), parent),
        'W2ru, no dot': (b'W2ru', 'parent.vhd'.encode('utf-16-le'), parent),
        'W2ru, up and down': (b'W2ru', ('..\\%s\\parent.vhd' % os.path.basename(here)).encode('utf-16-le'), parent),
        'W2ku, drive': (b'W2ku', ('C:' + here.replace('/', '\\') + '\\parent.vhd').encode('utf-16-le'), parent),
        'W2ku, with NUL': (b'W2ku', (here + '/parent.vhd\0').encode('utf-16-le'), parent),
        'MacX': (b'MacX', b'file://./parent.vhd', parent),
        'MacX, absolute': (b'MacX', ('file://' + here + '/parent.vhd').encode(), parent),
        'MacX, localhost': (b'MacX', ('file://localhost' + here + '/parent.vhd').encode(), parent),
        'MacX, escaped': (b'MacX', b'file://./pa%72ent.vhd', parent),
        'W2ru, surrogates': (b'W2ru', '.\\Ünï ćode 𝔘 %41.vhd'.encode('utf-16-le'), odd),
        'MacX, UTF-8 escaped': (b'MacX', ('file://./' + 'Ünï ćode 𝔘 %2541.vhd').encode(), odd),
        'Wi2r': (b'Wi2r', b'.\\parent.vhd', parent),
    }
    for what, (code, blob, of) in cases.items():
        for unit in ('sectors', 'bytes'):
            child = Hand(SIZE, DIFF, sectors=noise(40, 300), names=[(code, blob, unit)], parent=of.uuid).write('child.vhd')
            shows('%s in %s' % (what, unit), 'child.vhd', child.shows(of.shows()))
            expect('%s in %s' % (what, unit), 0, 'check', '-n', 'child.vhd', '-p', '-t')
    # a name that leads nowhere does not hide one that does; and the header's alone is enough
    child = Hand(SIZE, DIFF, sectors=noise(40, 300), parent=parent.uuid, names=[
        (b'W2ku', 'D:\\gone\\away.vhd'.encode('utf-16-le'), 'bytes'), (b'Mac ', b'\0\1alias', 'sectors'),
        (b'W2ru', '.\\parent.vhd'.encode('utf-16-le'), 'sectors')]).write('child.vhd')
    shows('three names', 'child.vhd', child.shows(parent.shows()))
    child = Hand(SIZE, DIFF, sectors=noise(40, 300), parent=parent.uuid, parent_name='parent.vhd').write('child.vhd')
    shows('the name in the header', 'child.vhd', child.shows(parent.shows()))
    # names that are no text
    for what, blob in {'lone surrogate': b'\x00\xd8a\0', 'odd length': b'.', 'too long': 'x'.encode('utf-16-le') * 8000}.items():
        Hand(SIZE, DIFF, parent=parent.uuid, names=[(b'W2ru', blob, 'bytes')]).write('child.vhd')
        expect(what, 2, 'query', '-n', 'child.vhd', '-p')
    # another file of that name is not the parent
    Hand(SIZE, DIFF, parent=b'x' * 16, names=[(b'W2ru', '.\\parent.vhd'.encode('utf-16-le'), 'bytes')]).write('child.vhd')
    expect('another uuid', 22, 'copy', '-n', 'child.vhd', '-s')
    expect('another uuid', 22, 'check', '-n', 'child.vhd')
    expect('another uuid, ignored', 0, 'check', '-n', 'child.vhd', '-I', '-t')
    # itself, and a ring
    me = Hand(SIZE, DIFF, names=[(b'W2ru', '.\\child.vhd'.encode('utf-16-le'), 'bytes')])
    me.parent = me.uuid
    me.write('child.vhd')
    expect('its own parent', 40, 'copy', '-n', 'child.vhd', '-s')
    expect('its own parent', 40, 'check', '-n', 'child.vhd', '-p', '-t')


def unusual():
    """Good files that only others make."""
    for block in (512, 1024, 4096, 65536, 1 << 20, 2 << 20, 16 << 20):
        total = 3 * block // SECTOR + 5
        h = Hand(total * SECTOR, block=block, sectors=noise(min(total, 50), total)).write('x.vhd')
        shows('blocks of %d' % block, 'x.vhd', h.shows())
        expect('blocks of %d' % block, 0, 'check', '-n', 'x.vhd')
    h = Hand(SIZE, sectors=noise(90, 300), entries=5000).write('x.vhd')
    shows('a table beyond the disk', 'x.vhd', h.shows())
    h = Hand(SIZE, sectors=noise(90, 300), entries=5000)
    h.bat = {4000: 0, 4001: 7}  # entries that the disk does not use
    shows('garbage beyond the disk', h.write('x.vhd') and 'x.vhd', h.shows())
    expect('resize over garbage', 0, 'resize', '-n', 'x.vhd', '-s', '15', '-f')
    shows('resize over garbage', 'x.vhd', h.shows().ljust(15 << 20, b'\0'))
    h = Hand(SIZE, sectors=noise(90, 300), footer_change=dict(cyl=1, heads=1, spt=1)).write('x.vhd')
    shows('current_size against CHS', 'x.vhd', h.shows())
    h = Hand(SIZE, sectors=noise(90, 300), footer_change=dict(cyl=65535, heads=16, spt=255)).write('x.vhd')
    shows('current_size against a larger CHS', 'x.vhd', h.shows())
    h = Hand(SIZE, FIXED, sectors=noise(90, 300)).write('x.vhd')
    shows('fixed', 'x.vhd', h.shows())
    # an end footer lost
    h = Hand(SIZE, sectors=noise(90, 300), end=False).write('x.vhd')
    shows('no footer at the end', 'x.vhd', h.shows())
    expect('no footer at the end', 22, 'check', '-n', 'x.vhd')
    expect('no footer at the end, ignored', 0, 'check', '-n', 'x.vhd', '-i')
    expect('no footer at the end', 0, 'repair', '-n', 'x.vhd')
    expect('repaired', 0, 'check', '-n', 'x.vhd')
    shows('repaired', 'x.vhd', h.shows())
    # the copy at the start lost
    h.end = True
    b = bytearray(h.bytes())
    b[:512] = bytes(512)
    open('x.vhd', 'wb').write(b)
    expect('no copy at the start', 22, 'check', '-n', 'x.vhd')
    for args in (('fill',), ('modify', '-z'), ('set', '-f', 'hidden', '-v', '1'), ('resize', '-s', '9', '-j', 'j')):
        expect('no copy at the start', 22, args[0], '-n', 'x.vhd', *args[1:])
    if open('x.vhd', 'rb').read() != b:
        fail('what has no copy of its footer was changed')
    expect('no copy at the start', 0, 'repair', '-n', 'x.vhd')
    expect('repaired', 0, 'check', '-n', 'x.vhd')
    shows('repaired', 'x.vhd', h.shows())
    # the first tap tools did not count `hidden' in the checksum
    h = Hand(SIZE, sectors=noise(90, 300), creator=b'tap\0', version=0x00010001)
    b = bytearray(h.bytes())
    b[85] = b[len(b) - 512 + 85] = 1
    open('x.vhd', 'wb').write(b)
    shows('an old tap footer, hidden', 'x.vhd', h.shows())
    # a guest of a fixed disk writes a footer into its first sector: nothing of it is believed
    forged = Hand(SIZE, sectors={0: b'x' * SECTOR}).bytes()[:512]
    Hand(SIZE, FIXED, sectors={0: forged}).write('x.vhd')
    expect('a forged first sector', 22, 'query', '-n', 'x.vhd', '-v')


def malformed():
    """Each field of footer, header, table and locators: refused, with a reason that names the file, by every command."""
    sectors = {0: b'a' * SECTOR, 100: b'b' * SECTOR, 299: b'c' * SECTOR}
    footers = {
        'cookie': [b'conectiX'], 'format': [0, 0x20000, 0xFFFFFFFF], 'offset': [0, 511, 513, 1 << 40, 2 ** 63, 2 ** 64 - 1],
        'size': [0, 1, 511, SIZE + 1, 0xFF000000 * 512 + 512, 2 ** 63, 2 ** 64 - 512], 'type': [0, 1, 5, 6, 0xFFFFFFFF], 'sum': [0, 1],
    }
    headers = {
        'cookie': [b'cxsparsE'], 'table': [0, 511, 512, 513, 1 << 20, 2 ** 63, 2 ** 64 - 512, 2 ** 64 - 1],
        'version': [0, 0x20000], 'entries': [0, 1, 37, 1 << 20, 0xFFFFFFFF],
        'block': [0, 1, 511, 513, 4095, 3 * 4096, 1 << 31, 0xFFFFFFFF], 'sum': [0, 1],
    }
    files = [('footer %s=%r' % (k, v), Hand(SIZE, sectors=sectors, footer_change={k: v}).bytes()) for k, l in footers.items() for v in l]
    files += [('header %s=%r' % (k, v), Hand(SIZE, sectors=sectors, header_change={k: v}).bytes()) for k, l in headers.items() for v in l]
    files += [('fixed size=%r' % v, Hand(SIZE, FIXED, footer_change={'size': v}).bytes()) for v in (0, 1, SIZE + 512, 2 ** 63, 2 ** 64 - 512)]
    for what, entry in {'the footer': 0, 'the header': 1, 'the header, behind': 2, 'the table': 3, 'nowhere': 0xFFFFFFFE, 'behind the end': 1000,
                        'another block': 6, 'into another block': 5}.items():
        h = Hand(SIZE, sectors=sectors)
        h.bat = {20: entry}
        files.append(('an entry into ' + what, h.bytes()))
    h = Hand(SIZE, sectors=sectors)
    same = struct.unpack_from('>I', h.bytes(), 1536)[0]
    h.bat = {20: same}
    files.append(('two entries on one block', h.bytes()))
    for what, change in {'beyond the end': (b'W2ru', 512, 20, 1 << 30), 'longer than its space': (b'W2ru', 1, 513, 2048),
                         'wrapping': (b'W2ru', 1, 20, 2 ** 64 - 100), 'over the table': (b'W2ru', 1, 20, 1536),
                         'over the header': (b'W2ru', 0x80000000, 20, 0)}.items():
        b = bytearray(Hand(SIZE, DIFF, sectors=sectors, names=[(b'W2ru', b'a\0', 'bytes')]).bytes())
        struct.pack_into('>4sIIIQ', b, 512 + 576, *change[:3], 0, change[3])
        struct.pack_into('>I', b, 512 + 36, ~(sum(b[512:1536]) - sum(b[548:552])) & 0xFFFFFFFF)
        files.append(('a locator ' + what, bytes(b)))
    whole = Hand(SIZE, sectors=sectors).bytes()
    files += [('cut to %d' % n, whole[:n]) for n in (0, 1, 511, 512, 1024, 1535, 1536, 1600)]
    for what, b in files:
        for args in (('query', '-vspfd', '-n'), ('check', '-p', '-n'), ('read', '-p', '-b', '0', '-n'), ('repair', '-n'), ('fill', '-n'),
                     ('modify', '-z', '-n')):
            with open('bad.vhd', 'wb') as f:
                f.write(b)
            p = run(*args, 'bad.vhd')
            if p.returncode == 0:
                fail('%s: %s takes it' % (what, args[0]))
            if b'bad.vhd' not in p.stderr:
                fail('%s: %s does not name the file: %r' % (what, args[0], p.stderr))
            if open('bad.vhd', 'rb').read() != b:
                fail('%s: %s changes what it refuses' % (what, args[0]))


def batmap():
    """The batmap against the bitmaps."""
    expect('create', 0, 'create', '-n', 'm.vhd', '-s', '8')
    open('m.raw', 'wb').write(rng.randbytes(8 << 20))
    expect('child', 0, 'snapshot', '-n', 'c.vhd', '-p', 'm.raw', '-m')
    expect('fill', 0, 'fill', '-n', 'c.vhd')
    good = bytearray(open('c.vhd', 'rb').read())
    want = open('m.raw', 'rb').read()
    open('m.raw', 'wb').write(bytes(8 << 20))
    shows('filled', 'c.vhd', want)
    off = struct.unpack_from('>Q', good, 2048 + 8)[0]
    bat = struct.unpack_from('>4I', good, 1536)

    def put(b):
        struct.pack_into('>I', b, 2048 + 24, ~sum(b[off:off + 512]) & 0xFFFFFFFF)
        open('c.vhd', 'wb').write(b)

    b = bytearray(good)
    b[bat[1] * 512 + 100] = 0
    put(b)
    p = run('check', '-n', 'c.vhd', '-t')
    if p.returncode != 22 or b'batmap says that block 1 is whole' not in p.stderr:
        fail('a batmap that claims too much: %d %r' % (p.returncode, p.stderr))
    expect('not looked at', 0, 'check', '-n', 'c.vhd', '-B', '-t')
    expect('repair', 0, 'repair', '-n', 'c.vhd')
    expect('repaired', 0, 'check', '-n', 'c.vhd', '-t')
    b = bytearray(good)
    b[off] ^= 0x10
    open('c.vhd', 'wb').write(b)
    p = run('check', '-n', 'c.vhd', '-t')
    if p.returncode != 22 or b'checksum of its batmap' not in p.stderr:
        fail('a batmap with a bad checksum: %d %r' % (p.returncode, p.stderr))
    shows('a batmap with a bad checksum', 'c.vhd', want)


def noise_files(n):
    """Random changes of the metadata: whatever it is then, nothing dies of it, and a look changes nothing."""
    base = [bytearray(Hand(SIZE, sectors=noise(30, 300)).bytes()),
            bytearray(Hand(SIZE, DIFF, sectors=noise(30, 300), names=[(b'W2ru', '.\\parent.vhd'.encode('utf-16-le'), 'sectors')],
                           parent_name='parent.vhd').bytes())]
    for _ in range(n):
        b = bytearray(rng.choice(base))
        for _ in range(rng.randrange(1, 6)):
            b[rng.choice((rng.randrange(86), 512 + rng.randrange(64), 512 + 576 + rng.randrange(48), 1536 + rng.randrange(152)))] = rng.randrange(256)
        if rng.randrange(4):  # with good checksums more of it is believed
            struct.pack_into('>I', b, 64, ~(sum(b[:512]) - sum(b[64:68])) & 0xFFFFFFFF)
            struct.pack_into('>I', b, 512 + 36, ~(sum(b[512:1536]) - sum(b[548:552])) & 0xFFFFFFFF)
        open('noise.vhd', 'wb').write(b)
        run('check', '-n', 'noise.vhd', '-p')
        if open('noise.vhd', 'rb').read() != b:
            fail('check changes the image')
        run(rng.choice(('repair', 'fill')), '-n', 'noise.vhd')


print('seed', seed, '(VHD_SEED repeats it)')
with tempfile.TemporaryDirectory(prefix='vhd-hand.') as work:
    os.chdir(work)
    for part in (names, unusual, malformed, batmap):
        part()
    noise_files(int(os.environ.get('VHD_NOISE', 60)))
    os.chdir('/')
sys.exit(failures != 0)
