// How fast text is counted, by ours and by the original (npm tiktoken, WebAssembly): the best of
// several rounds each, in turns, on one core. Loading is not part of it.
//   node tokens.mjs DRIVER
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

const driver = process.argv[2];
const tests = join(import.meta.dirname, '..');
const { get_encoding } = createRequire(join(tests, 'tokens', 'package.json'))('tiktoken');
const prose = JSON.parse(readFileSync(join(tests, 'tokens', 'prose.json'), 'utf8'));
const ROUNDS = Number(process.env.BENCH_ROUNDS ?? 5);

let state = 1;
function random(below) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return Math.floor((state / 2 ** 32) * below);
}

// Sentences of the language's words in another order each.
function text(language, bytes) {
  const words = prose[language].join(' ').split(' ');
  const parts = [];
  for (let size = 0; size < bytes; ) {
    const length = 6 + random(12);
    const sentence = `${Array.from({ length }, () => words[random(words.length)]).join(' ')}. `;
    parts.push(sentence);
    size += Buffer.byteLength(sentence);
  }
  return parts.join('');
}

function code() {
  const directory = join(tests, '..', 'common');
  const files = readdirSync(directory).filter((name) => name.endsWith('.c'));
  return files.map((name) => readFileSync(join(directory, name), 'utf8')).join('\n');
}

function timeOurs(encoding, input, rounds) {
  const { status, stdout, stderr } = spawnSync(driver, ['time', encoding, String(rounds)], { input });
  if (status !== 0) throw new Error(String(stderr));
  const [tokens, nanoseconds] = String(stdout).split(' ').map(Number);
  return { tokens, seconds: nanoseconds / 1e9 };
}

function timeOriginal(tiktoken, input) {
  const began = performance.now();
  const tokens = tiktoken.encode_ordinary(input).length;
  return { tokens, seconds: (performance.now() - began) / 1000 };
}

function row(name, encoding, ours, original, size) {
  const speed = (seconds) => `${(size / 1e6 / seconds).toFixed(1)} MB/s`.padStart(11);
  console.log(`${encoding.padEnd(12)} ${name.padEnd(16)} ${speed(ours)} ${speed(original)} ` +
    `${(original / ours).toFixed(1).padStart(7)} x`);
}

const samples = [...Object.keys(prose).map((language) => [`${language}`, text(language, 1e6)]), ['source code', code()]];

console.log('vocabulary   text                    ours    original   faster');
for (const encoding of ['o200k_base', 'cl100k_base']) {
  const tiktoken = get_encoding(encoding);
  for (const [name, sample] of samples) {
    let ours = Infinity;
    let original = Infinity;
    for (let round = 0; round < ROUNDS; round++) {
      const a = timeOurs(encoding, sample, 3);
      const b = timeOriginal(tiktoken, sample);
      if (a.tokens !== b.tokens) throw new Error(`${name}: ${a.tokens} tokens, ${b.tokens} in the original`);
      ours = Math.min(ours, a.seconds);
      original = Math.min(original, b.seconds);
    }
    row(name, encoding, ours, original, Buffer.byteLength(sample));
  }
  tiktoken.free();
}

for (const [name, input] of [['letter a', 'a'.repeat(1e6)], ['space', ' '.repeat(1e6)], ['letter ё', 'ё'.repeat(5e5)]])
  for (const encoding of ['o200k_base', 'cl100k_base'])
    console.log(`1 MB of one ${name.padEnd(9)} ${encoding.padEnd(12)} ${(timeOurs(encoding, input, 3).seconds * 1000).toFixed(0).padStart(5)} ms`);
for (const [language, letters] of [['english', 1024], ['russian', 560], ['chinese', 341]]) {
  const kilobyte = prose[language].join(' ').repeat(5).slice(0, letters);
  for (const encoding of ['o200k_base', 'cl100k_base']) {
    const { tokens, seconds } = timeOurs(encoding, kilobyte, 1000);
    console.log(`1 KB of ${language.padEnd(9)} ${encoding.padEnd(12)} ${String(Buffer.byteLength(kilobyte)).padStart(5)} bytes ` +
      `${String(tokens).padStart(5)} tokens ${(seconds * 1e6).toFixed(1).padStart(6)} us`);
  }
}
