// How fast text is counted, by ours and by the original (npm tiktoken, WebAssembly), in turns, each
// on one core; the best of several rounds, because a busy machine only ever slows things down.
//   node tokens.mjs DRIVER
// BENCH_ROUNDS is how many rounds. Ends with 1 if a figure is missed.
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const driver = process.argv[2];
const tests = join(dirname(fileURLToPath(import.meta.url)), '..');
const { get_encoding } = createRequire(join(tests, 'tokens', 'package.json'))('tiktoken');
const prose = JSON.parse(readFileSync(join(tests, 'tokens', 'prose.json'), 'utf8'));
const ENCODINGS = ['o200k_base', 'cl100k_base'];
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);
const STARTS = 20;
const FASTER_MIN = 2;
const LETTERS_LIMIT_MS = 1000;
const START_LIMIT_MS = 50;
const KILOBYTE_LIMIT_US = 20;

let state = 1;
function random(below) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

// The language's words (phrases, where it has no spaces) in another order.
function shuffled(language, bytes) {
  const words = prose[language].join(' ').split(/(?<=[ ，。；：？！、])/u);
  const parts = [];
  for (let size = 0; size < bytes; ) {
    const line = Array.from({ length: 6 + random(60) }, () => words[random(words.length)]).join('').concat('\n');
    parts.push(line);
    size += Buffer.byteLength(line);
  }
  return parts.join('');
}

function filesOf(directory, ending) {
  const names = readdirSync(join(tests, '..', directory)).filter((name) => name.endsWith(ending));
  return names.map((name) => readFileSync(join(tests, '..', directory, name), 'utf8')).join('\n');
}

let missed = 0;
function verdict(isReached, limit) {
  if (!isReached) missed++;
  return `${isReached ? 'pass' : 'MISS'} (${limit})`;
}

// The best of the rounds of one process.
function timeOurs(encoding, input, rounds) {
  const { status, error, stdout, stderr } = spawnSync(driver, ['time', encoding, String(rounds)], { input });
  if (error || status !== 0) throw error ?? new Error(String(stderr));
  const [tokens, nanoseconds] = String(stdout).split(' ').map(Number);
  return { tokens, seconds: nanoseconds / 1e9 };
}

// Of several processes: where their memory lies in the caches makes a difference, too.
function bestOfOurs(encoding, input, rounds) {
  const times = Array.from({ length: ROUNDS }, () => timeOurs(encoding, input, rounds));
  return times.reduce((best, time) => (time.seconds < best.seconds ? time : best));
}

function timeOriginal(tiktoken, input) {
  const began = performance.now();
  const tokens = tiktoken.encode_ordinary(input).length;
  return { tokens, seconds: (performance.now() - began) / 1000 };
}

function benchThroughput(encoding, tiktoken, name, sample) {
  const size = Buffer.byteLength(sample);
  const speed = (seconds) => `${(size / 1e6 / seconds).toFixed(1)} MB/s`.padStart(11);
  let ours = Infinity;
  let original = Infinity;

  for (let round = 0; round < ROUNDS; round++) {
    const a = timeOurs(encoding, sample, 3);
    const b = timeOriginal(tiktoken, sample);
    if (a.tokens !== b.tokens) throw new Error(`${name}: ${a.tokens} tokens, ${b.tokens} in the original`);
    ours = Math.min(ours, a.seconds);
    original = Math.min(original, b.seconds);
  }
  console.log(`${encoding.padEnd(12)} ${name.padEnd(16)} ${speed(ours)} ${speed(original)} ` +
    `${(original / ours).toFixed(1).padStart(7)} x  ${verdict(original / ours >= FASTER_MIN, `at least ${FASTER_MIN}`)}`);
}

function benchLetters(encoding, letter) {
  const input = letter.repeat(Math.ceil(1e6 / Buffer.byteLength(letter)));
  const ms = bestOfOurs(encoding, input, 3).seconds * 1000;
  console.log(`1 MB of "${letter}"       ${encoding.padEnd(12)} ${ms.toFixed(0).padStart(7)} ms  ` +
    verdict(ms < LETTERS_LIMIT_MS, `under ${LETTERS_LIMIT_MS}`));
}

function benchKilobyte(encoding, language) {
  let text = prose[language].join(' ').repeat(5);
  text = Buffer.from(text).subarray(0, 1024).toString().replace(/\ufffd$/u, '');
  const { tokens, seconds } = bestOfOurs(encoding, text, 10000);
  console.log(`1 KB of ${language.padEnd(8)}  ${encoding.padEnd(12)} ${(seconds * 1e6).toFixed(1).padStart(7)} us  ` +
    `${verdict(seconds * 1e6 < KILOBYTE_LIMIT_US, `under ${KILOBYTE_LIMIT_US}`)}, ${tokens} tokens`);
}

// There is nothing to load, but pages to be touched: a process from its start to its end, with one
// count; the slowest of several.
function benchStart(encoding) {
  let process = 0;
  let count = 0;
  for (let i = 0; i < STARTS; i++) {
    const began = performance.now();
    const { seconds } = timeOurs(encoding, prose.english.join(' '), 1);
    process = Math.max(process, performance.now() - began);
    count = Math.max(count, seconds * 1000);
  }
  console.log(`a fresh process   ${encoding.padEnd(12)} ${process.toFixed(1).padStart(7)} ms  ` +
    `${verdict(process < START_LIMIT_MS, `under ${START_LIMIT_MS}`)}, ${count.toFixed(2)} ms its first count`);
}

const samples = [
  ...Object.keys(prose).map((language) => [language, shuffled(language, 1e6)]),
  ['documents', filesOf('docs', '.md')],
  ['source code', filesOf('common', '.c')],
];

console.log('vocabulary   text                    ours    original   faster');
for (const encoding of ENCODINGS) {
  const tiktoken = get_encoding(encoding);
  for (const [name, sample] of samples) benchThroughput(encoding, tiktoken, name, sample);
  tiktoken.free();
}
console.log();
for (const letter of ['a', ' ', 'ё']) for (const encoding of ENCODINGS) benchLetters(encoding, letter);
for (const language of ['english', 'russian', 'chinese'])
  for (const encoding of ENCODINGS) benchKilobyte(encoding, language);
for (const encoding of ENCODINGS) benchStart(encoding);
console.log(missed === 0 ? '\nall figures reached' : `\n${missed} figures missed`);
process.exitCode = missed === 0 ? 0 : 1;
