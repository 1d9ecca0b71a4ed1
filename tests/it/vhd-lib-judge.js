// SPDX-License-Identifier: LGPL-2.1-or-later
// What npm's vhd-lib, Xen Orchestra's VHD code, makes of our images.
//   synth OUT LEAF... ROOT   writes what the chain shows as one dynamic VHD
//   merge PARENT CHILD       merges the child into the parent, as a coalesce
//   chain PARENT CHILD       names the parent in the child
'use strict'
const fs = require('fs')
const { createSyntheticStream, mergeVhd, chainVhd } = require('vhd-lib')

const handler = {
  openFile: (path, flags) => fs.promises.open(path, flags),
  closeFile: file => file.close(),
  async with(file, flags, fn) {
    if (typeof file !== 'string') return fn(file)
    const f = await fs.promises.open(file, flags)
    try {
      return await fn(f)
    } finally {
      await f.close()
    }
  },
  getSize: file => handler.with(file, 'r', async f => (await f.stat()).size),
  read: (file, buffer, position) => handler.with(file, 'r', f => f.read(buffer, 0, buffer.length, position)),
  write: (file, buffer, position) => handler.with(file, 'r+', f => f.write(buffer, 0, buffer.length, position)),
  type: 'local',
}

async function main([what, ...args]) {
  if (what === 'synth') {
    const stream = await createSyntheticStream(handler, args.slice(1))
    await new Promise((resolve, reject) =>
      stream.on('error', reject).pipe(fs.createWriteStream(args[0])).on('error', reject).on('finish', resolve)
    )
  } else if (what === 'merge') {
    await mergeVhd(handler, args[0], handler, args[1])
  } else if (what === 'chain') {
    await chainVhd(handler, args[0], handler, args[1], true)
  } else {
    throw new Error('synth, merge or chain')
  }
}

main(process.argv.slice(2)).catch(e => {
  console.error(e)
  process.exit(1)
})
