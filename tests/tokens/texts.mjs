// The texts on which our tokenizer must equal the original: the same ones in every run.
// TOKENS_SEED is where the numbers of the random ones begin.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const prose = JSON.parse(readFileSync(join(here, 'prose.json'), 'utf8'));

// How much of each kind: `all` is the claim, `some` what a change is checked with.
export const amounts = {
  all: {
    codePointStep: 1,
    mixed: 50000,
    fileStep: 1,
    parts: 300, // of each paragraph
    longBytes: [2047, 2048, 2049, 4096, 6001],
    longRandom: 12, // of each alphabet
    letters: ['a', ' ', 'ё', 'Z', '中', '='],
  },
  some: {
    codePointStep: 16,
    mixed: 5000,
    fileStep: 4,
    parts: 30,
    longBytes: [2047, 2048, 2049, 4096],
    longRandom: 2,
    letters: ['a', ' ', 'ё'],
  },
};

// xorshift32
let state = Number(process.env.TOKENS_SEED ?? 20240517) >>> 0 || 1;
function random(below) {
  state ^= state << 13;
  state ^= state >>> 17;
  state ^= state << 5;
  return (state >>> 0) % below;
}
const pick = (list) => list[random(list.length)];

// The class of each code point as our split knows it: characters.bin is the number of the block of
// each 128 code points, then the blocks.
function classes() {
  const file = readFileSync(join(root, 'usage', 'vocabularies', 'characters.bin'));
  const blocks = 0x110000 / 128;
  const all = Buffer.alloc(0x110000);
  for (let i = 0; i < blocks; i++) file.copy(all, i * 128, blocks + file[i] * 128, blocks + (file[i] + 1) * 128);
  return all;
}

// Each step-th, and both ends of every run of one class.
function* codePoints(step) {
  const all = classes();
  for (let c = 0; c < 0x110000; c++) {
    if (c >= 0xd800 && c <= 0xdfff) continue; // halves of pairs
    if (c % step === 0 || all[c] !== all[c - 1] || all[c] !== all[c + 1]) yield c;
  }
}

function* eachCodePoint({ codePointStep }) {
  for (const c of codePoints(codePointStep)) {
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

function* mixedTexts({ mixed }) {
  for (let i = 0; i < mixed; i++) yield mixedText();
}

const languages = { '.c': 'C', '.h': 'C', '.py': 'Python', '.mjs': 'JavaScript', '.js': 'JavaScript',
  '.ts': 'TypeScript', '.sh': 'shell', '.sql': 'SQL', '.json': 'JSON', '.md': 'Markdown' };

function* filesUnder(directory, depth) {
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isFile()) yield path;
    else if (entry.isDirectory() && depth > 0 && !/^(\.git|build.*|node_modules|seeds|var)$/.test(entry.name))
      yield* filesUnder(path, depth - 1);
  }
}

// Each file whole, and cut into pieces of some lines.
function* sourceCode(language, { fileStep }) {
  const places = [root, join(here, 'node_modules', 'tiktoken')];
  const files = places.flatMap((place) => [...filesUnder(place, 4)]).filter((path) => languages[extname(path)] === language);
  for (let i = 0; i < files.length; i += fileStep) {
    const text = readFileSync(files[i], 'utf8');
    if (text.length > 300000) continue;
    yield text;
    const lines = text.split('\n');
    for (let at = 0; at < lines.length; at += 15) yield lines.slice(at, at + 15).join('\n');
  }
}

// The paragraphs, parts of them between any two places, and their words in another order.
function* proseOf(language, { parts }) {
  for (const text of prose[language]) {
    const letters = [...text];
    const words = text.split(' ');
    yield text;
    yield text.toUpperCase();
    yield text.normalize('NFD');
    for (let i = 0; i < parts; i++) {
      const begin = random(letters.length);
      yield letters.slice(begin, begin + 1 + random(80)).join('');
      yield Array.from({ length: 30 }, () => pick(words)).join(pick([' ', ' ', '  ', '\n', '']));
    }
  }
}

// Pieces longer than a window (2,048 bytes): our encoder goes through these in parts.
function* longPieces({ longBytes, longRandom }) {
  const repeated = ['a', 'A', ' ', 'ё', '\n', '=', '/', 'あ', '😀', '\u0301', 'ab', 'aA', 'the', ' \n', '\u3000', '-=', 'ой'];
  for (const unit of repeated)
    for (const bytes of longBytes) {
      const count = Math.ceil(bytes / Buffer.byteLength(unit));
      yield unit.repeat(count);
      yield `${unit.repeat(count)}x ${unit.repeat(count)}1`;
    }
  for (const alphabet of alphabets.slice(0, 6).concat([alphabets[9], alphabets[11]]))
    for (let i = 0; i < longRandom; i++) {
      const few = Array.from({ length: 2 + random(4) }, () => pick(alphabet));
      const unit = Array.from({ length: 3 + random(400) }, () => pick(few)).join('');
      yield Array.from({ length: 2500 + random(1500) }, () => pick(alphabet)).join('');
      yield Array.from({ length: 2500 + random(1500) }, () => pick(few)).join('');
      yield unit.repeat(Math.ceil(5000 / unit.length));
    }
  const words = prose.english.concat(prose.russian).join('').replace(/[^\p{L}]/gu, '');
  for (let i = 0; i < 2 * longRandom; i++) yield words.slice(random(200)) + words.slice(random(200)) + words;
}

// [name, texts] of each kind.
export function* kinds(amount) {
  yield ['code points, four contexts', eachCodePoint(amount)];
  yield ['random mixed', mixedTexts(amount)];
  for (const language of new Set(Object.values(languages))) yield [`source code, ${language}`, sourceCode(language, amount)];
  for (const language of Object.keys(prose)) yield [`prose, ${language}`, proseOf(language, amount)];
  yield ['pieces longer than a window', longPieces(amount)];
}
