// Texts of many kinds through our tokenizer and through the original (npm tiktoken), each alone:
// every token must be the same. The last line is `N passed, N failed`.
//   node equality.mjs DRIVER [all|some]
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads';
import { get_encoding } from 'tiktoken';

import { encodeWhole, ranksOf } from './reference.mjs';
import { amounts, kinds } from './texts.mjs';

const ENCODINGS = ['o200k_base', 'cl100k_base'];
const BATCH_BYTES = 8 << 20;
const SHOWN_MAX = 5;

// Texts behind their lengths, as our driver reads them.
class Batch {
  buffer = Buffer.allocUnsafeSlow(BATCH_BYTES);
  texts = [];
  size = 0;

  clear() {
    this.texts = [];
    this.size = 0;
  }

  // Whether there was room for it.
  add(text) {
    if (this.size + 4 + text.length * 3 > BATCH_BYTES) return false;
    const bytes = this.buffer.write(text, this.size + 4, 'utf8');
    this.buffer.writeUInt32LE(bytes, this.size);
    this.size += 4 + bytes;
    this.texts.push(text);
    return true;
  }

  // The driver's answers one after the other, each the count before its tokens.
  encode(driver, encoding) {
    const { status, error, stderr, stdout } = spawnSync(driver, ['encode', encoding], {
      input: this.buffer.subarray(0, this.size),
      maxBuffer: 1 << 30,
    });
    if (error || status !== 0) throw error ?? new Error(String(stderr));
    return new Uint32Array(stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + stdout.length));
  }
}

function isEqual(expected, numbers, at) {
  if (numbers[at] !== expected.length) return false;
  for (let i = 0; i < expected.length; i++) if (numbers[at + 1 + i] !== expected[i]) return false;
  return true;
}

class Comparison {
  texts = 0;
  failed = 0;
  batch = new Batch();

  constructor(driver, encoding, print) {
    this.driver = driver;
    this.encoding = encoding;
    this.print = print;
  }

  // How many of the batch's texts differ.
  compareBatch(original) {
    const numbers = this.batch.encode(this.driver, this.encoding);
    let failed = 0;
    let at = 0;
    for (const text of this.batch.texts) {
      const expected = original(text);
      const end = at + 1 + numbers[at];
      if (!isEqual(expected, numbers, at) && ++failed <= SHOWN_MAX)
        this.print(`${this.encoding}: ${JSON.stringify(text).slice(0, 200)} is ` +
          `${numbers.subarray(at + 1, end).slice(0, 20)}, not ${expected.slice(0, 20)}`);
      at = end;
    }
    if (at !== numbers.length) throw new Error(`${numbers.length} numbers where ${at} answer the texts`);
    return failed;
  }

  compare(name, source, original) {
    const began = performance.now();
    let texts = 0;
    let bytes = 0;
    let failed = 0;

    const flush = () => {
      failed += this.compareBatch(original);
      texts += this.batch.texts.length;
      bytes += this.batch.size - 4 * this.batch.texts.length;
      this.batch.clear();
    };
    for (const text of source) {
      if (this.batch.add(text)) continue;
      flush();
      if (!this.batch.add(text)) throw new Error(`a text of ${text.length} characters`);
    }
    flush();
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    this.print(`${this.encoding.padEnd(12)} ${name.padEnd(32)} ${String(texts).padStart(8)} texts ` +
      `${(bytes / 1e6).toFixed(2).padStart(7)} MB ${seconds.padStart(6)} s${failed === 0 ? '' : ` ${failed} FAILED`}`);
    this.texts += texts;
    this.failed += failed;
  }
}

// The original's time grows with the square of a piece, so a megabyte is held against a plain merge
// of the whole piece, which is itself held against the original first.
function compareLetters(comparison, letters, original) {
  const ranks = ranksOf(comparison.encoding);
  const whole = (text) => encodeWhole(ranks, Buffer.from(text, 'utf8'));

  for (const letter of letters) {
    const text = letter.repeat(3000);
    if (String(original(text)) !== String(whole(text))) throw new Error(`the plain merge is wrong for ${letter}`);
  }
  comparison.compare('10,000 of one letter', letters.map((letter) => letter.repeat(10000)), original);
  comparison.compare('1 MB of one letter (plain merge)',
    letters.map((letter) => letter.repeat(Math.ceil(1e6 / Buffer.byteLength(letter)))), whole);
}

function compareEncoding({ driver, amount, encoding }) {
  const comparison = new Comparison(driver, encoding, (line) => parentPort.postMessage({ line }));
  const tiktoken = get_encoding(encoding);
  const original = (text) => tiktoken.encode_ordinary(text);

  for (const [name, texts] of kinds(amounts[amount])) comparison.compare(name, texts, original);
  compareLetters(comparison, amounts[amount].letters, original);
  tiktoken.free();
  parentPort.postMessage({ texts: comparison.texts, failed: comparison.failed });
}

// An encoding a thread.
function start(driver, amount, encoding) {
  return new Promise((resolve, reject) => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: { driver, amount, encoding } });
    worker.on('message', (message) => {
      if (message.line !== undefined) console.log(message.line);
      else resolve(message);
    });
    worker.on('error', reject);
  });
}

if (isMainThread) {
  const [driver, amount = 'all'] = process.argv.slice(2);
  if (!Object.hasOwn(amounts, amount)) {
    console.error(`tokens: TEXTS is one of ${Object.keys(amounts).join(', ')}`);
    process.exit(2);
  }
  const results = await Promise.all(ENCODINGS.map((encoding) => start(driver, amount, encoding)));
  const texts = results.reduce((sum, result) => sum + result.texts, 0);
  const failed = results.reduce((sum, result) => sum + result.failed, 0);
  console.log(`${texts - failed} passed, ${failed} failed`);
  process.exitCode = failed === 0 && texts > 0 ? 0 : 1;
} else {
  compareEncoding(workerData);
}
