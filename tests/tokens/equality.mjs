// Texts of many kinds through our tokenizer and through the original (npm tiktoken): every token
// must be the same. Prints how many texts and how many differences there were.
//   node equality.mjs DRIVER
// TOKENS_TEXTS is how many random mixed texts (50,000), TOKENS_SEED where their numbers begin.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { extname, join } from 'node:path';
import { get_encoding } from 'tiktoken';

import { encodeWhole, ranksOf } from './reference.mjs';

const driver = process.argv[2];
const root = join(import.meta.dirname, '..', '..');
const texts = Number(process.env.TOKENS_TEXTS ?? 50000);
const encodings = ['o200k_base', 'cl100k_base'];
const BATCH_BYTES = 4 << 20;

// xorshift32: the same texts in every run.
let state = Number(process.env.TOKENS_SEED ?? 20240517) >>> 0 || 1;
function random(below) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}
const pick = (list) => list[random(list.length)];

function* everyCodePoint() {
  for (let c = 0; c < 0x110000; c++) {
    if (c >= 0xd800 && c <= 0xdfff) continue;
    const x = String.fromCodePoint(c);
    yield x;
    yield `a${x}b's 1${x}23`;
    yield `  ${x}${x}'LL A${x}B`;
    yield `!${x}\n ${x}/\n\u00a0${x}`;
  }
}

const alphabets = [
  [..."abcdefghijklmnopqrstuvwxyz"],
  [..."ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
  [..."абвгдеёжзийклмнопрстуфхцчшщъыьэюяАБВГДЕЁЖЗ"],
  [..."的一是不了人我在有他这为之大来以个中上们"],
  [..."ابتثجحخدذرزسشصضطظعغفقكلمنهوي" + 'ًٌٍَُِّْ'],
  [..."अआइईउऊकखगघचछजझटठडढतथदधनपफबभमयरलवशषसह" + 'ािीुूेैोौ्ं'],
  [..."0123456789٠١٢٣०१२३ⅠⅡⅢ½²③𝟘𝟙𝋀"],
  [..." \t\v\f\u0085\u00a0\u1680\u180e\u2000\u2009\u2028\u2029\u202f\u205f\u3000\ufeff"],
  ['\r', '\n', '\r\n', '\n\n', ' \n', '\n '],
  [..."'’ʼ`\"!?.,:;-_=+*/\\|()[]{}<>@#$%^&~§€₽«»…—"],
  ["'s", "'S", "'ſ", "'t", "'re", "'Ve", "'LL", "'ll", "'m", "'D", "'r", "'", "s", "ſ", "K", "İ", "ı"],
  [...'ǅǈǋᾈʰʱʲˠªºⁿ𐐀𐐨ꟼ' + '\u0300\u0301\u20dd\u0903\u{1d165}'],
  [...'😀😂❤👍🏽👩🇷🇺✅🤷' + '\u200d\ufe0f\u20e3'],
  ['\u0000', '\u0001', '\u007f', '\u0378', '\ue000', '\ufffd', '\uffff', '\u{10ffff}', '\u{1d2c0}'],
  ['<|endoftext|>', '<|endofprompt|>', '<|fim_prefix|>', '<|im_start|>', '://', '/\n/', '//\r\n'],
];

function mixedText() {
  const few = Array.from({ length: 1 + random(4) }, () => pick(alphabets));
  let text = '';
  for (let n = 1 + random(40); n > 0; n--) {
    const alphabet = random(8) === 0 ? pick(alphabets) : pick(few);
    for (let run = 1 + random(random(4) === 0 ? 30 : 5); run > 0; run--) text += pick(alphabet);
  }
  return text;
}

function* mixedTexts() {
  for (let i = 0; i < texts; i++) yield mixedText();
}

const languages = { '.c': 'C', '.h': 'C', '.py': 'Python', '.mjs': 'JavaScript', '.js': 'JavaScript',
  '.ts': 'TypeScript', '.sh': 'shell', '.sql': 'SQL', '.json': 'JSON', '.md': 'Markdown' };

function* filesUnder(directory, depth) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isFile()) yield path;
    else if (entry.isDirectory() && depth > 0 && !/^(\.git|build.*|node_modules|seeds)$/.test(entry.name))
      yield* filesUnder(path, depth - 1);
  }
}

// Each file whole, and cut into pieces of some lines.
function* sourceCode(language) {
  const places = [root, join(import.meta.dirname, 'node_modules', 'tiktoken')];
  for (const path of places.flatMap((place) => [...filesUnder(place, 4)])) {
    if (languages[extname(path)] !== language) continue;
    const text = readFileSync(path, 'utf8');
    if (text.length > 300000) continue;
    yield text;
    const lines = text.split('\n');
    for (let at = 0; at < lines.length; at += 15) yield lines.slice(at, at + 15).join('\n');
  }
}

const prose = JSON.parse(readFileSync(join(import.meta.dirname, 'prose.json'), 'utf8'));

// The paragraphs, all parts of them between two places, and their words in another order.
function* proseOf(language) {
  for (const text of prose[language]) {
    const letters = [...text];
    const words = text.split(' ');
    yield text;
    yield text.toUpperCase();
    yield text.normalize('NFD');
    for (let i = 0; i < 300; i++) {
      const begin = random(letters.length);
      yield letters.slice(begin, begin + 1 + random(80)).join('');
      yield Array.from({ length: 30 }, () => pick(words)).join(pick([' ', ' ', '  ', '\n', '']));
    }
  }
}

// Pieces longer than a window (2,048 bytes): our encoder goes through these in parts.
function* longPieces() {
  const repeated = ['a', 'A', ' ', 'ё', '\n', '=', '/', 'あ', '😀', '\u0301', 'ab', 'aA', 'the', ' \n', '\u3000', '-=', 'ой'];
  for (const unit of repeated)
    for (const bytes of [2047, 2048, 2049, 4096, 6001]) {
      const count = Math.ceil(bytes / Buffer.byteLength(unit));
      yield unit.repeat(count);
      yield `${unit.repeat(count)}x ${unit.repeat(count)}1`;
    }
  for (const alphabet of alphabets.slice(0, 6).concat([alphabets[9], alphabets[11]]))
    for (let i = 0; i < 12; i++) {
      const few = Array.from({ length: 2 + random(4) }, () => pick(alphabet));
      const unit = Array.from({ length: 3 + random(400) }, () => pick(few)).join('');
      yield Array.from({ length: 2500 + random(1500) }, () => pick(alphabet)).join('');
      yield Array.from({ length: 2500 + random(1500) }, () => pick(few)).join('');
      yield unit.repeat(Math.ceil(5000 / unit.length));
    }
  const words = prose.english.concat(prose.russian).join('').replace(/[^\p{L}]/gu, '');
  for (let i = 0; i < 20; i++) yield words.slice(random(200)) + words.slice(random(200)) + words;
}

function ours(encoding, batch) {
  const frames = batch.flatMap((text) => {
    const bytes = Buffer.from(text, 'utf8');
    const len = Buffer.alloc(4);
    len.writeUInt32LE(bytes.length);
    return [len, bytes];
  });
  const { status, error, stderr, stdout } = spawnSync(driver, ['encode', encoding], {
    input: Buffer.concat(frames),
    maxBuffer: 1 << 30,
  });
  if (error || status !== 0) throw error ?? new Error(String(stderr));
  const numbers = new Uint32Array(stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + stdout.length));
  const result = [];
  for (let at = 0; at < numbers.length; at += 1 + numbers[at])
    result.push(numbers.subarray(at + 1, at + 1 + numbers[at]));
  if (result.length !== batch.length) throw new Error(`${result.length} answers to ${batch.length} texts`);
  return result;
}

const isEqual = (a, b) => a.length === b.length && a.every((id, i) => id === b[i]);

let allTexts = 0;
let allDifferences = 0;

function compare(name, encoding, source, original) {
  const began = performance.now();
  let count = 0;
  let bytes = 0;
  let differences = 0;
  let batch = [];
  let batchBytes = 0;

  const flush = () => {
    ours(encoding, batch).forEach((got, i) => {
      if (isEqual(got, original(batch[i]))) return;
      if (++differences <= 5)
        console.log(`  differs: ${JSON.stringify(batch[i]).slice(0, 200)}: ${got.slice(0, 20)}, not ${original(batch[i]).slice(0, 20)}`);
    });
    batch = [];
    batchBytes = 0;
  };

  for (const text of source) {
    const size = Buffer.byteLength(text);
    batch.push(text);
    batchBytes += size;
    count++;
    bytes += size;
    if (batchBytes > BATCH_BYTES) flush();
  }
  if (batch.length > 0) flush();
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${encoding.padEnd(12)} ${name.padEnd(34)} ${String(count).padStart(8)} texts ` +
    `${(bytes / 1e6).toFixed(2).padStart(7)} MB ${String(differences).padStart(3)} differences ${seconds.padStart(6)} s`);
  allTexts += count;
  allDifferences += differences;
}

for (const encoding of encodings) {
  const tiktoken = get_encoding(encoding);
  const original = (text) => tiktoken.encode_ordinary(text);

  compare('every code point, four contexts', encoding, everyCodePoint(), original);
  compare('random mixed', encoding, mixedTexts(), original);
  for (const language of new Set(Object.values(languages)))
    compare(`source code, ${language}`, encoding, sourceCode(language), original);
  for (const language of Object.keys(prose)) compare(`prose, ${language}`, encoding, proseOf(language), original);
  compare('pieces longer than a window', encoding, longPieces(), original);

  // The original's time grows with the square of a piece, so a megabyte is held against a plain
  // merge of the whole piece, which is itself held against the original first.
  const ranks = ranksOf(encoding);
  const whole = (text) => encodeWhole(ranks, Buffer.from(text, 'utf8'));
  const letters = ['a', 'Z', ' ', 'ё', '中', '='];
  for (const letter of letters) {
    const text = letter.repeat(3000);
    if (!isEqual(original(text), whole(text))) throw new Error(`the plain merge is wrong for ${letter}`);
  }
  compare('10,000 of one letter', encoding, letters.map((letter) => letter.repeat(10000)), original);
  compare('1 MB of one letter (plain merge)', encoding,
    letters.map((letter) => letter.repeat(Math.ceil(1e6 / Buffer.byteLength(letter)))), whole);
  tiktoken.free();
}
console.log(`tokens: ${allTexts} texts, ${allDifferences} differences`);
process.exit(allDifferences === 0 ? 0 : 1);
