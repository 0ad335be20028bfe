// Byte pair encoding of one piece as a whole, plainly: the ranks of tiktoken's data, all pairs in
// one heap.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);

export function ranksOf(encoding) {
  const data = JSON.parse(readFileSync(require.resolve(`tiktoken/encoders/${encoding}.json`), 'utf8'));
  const ranks = new Map();
  for (const line of data.bpe_ranks.split('\n')) {
    const [, first, ...tokens] = line.split(' ');
    tokens.forEach((token, i) => ranks.set(Buffer.from(token, 'base64').toString('latin1'), Number(first) + i));
  }
  return ranks;
}

// Entries are rank * 2^26 + begin, so the lowest is the leftmost pair of the lowest rank.
const PLACES = 2 ** 26;

function push(heap, entry) {
  let at = heap.length;
  heap.push(entry);
  while (at > 0 && heap[(at - 1) >> 1] > entry) {
    heap[at] = heap[(at - 1) >> 1];
    at = (at - 1) >> 1;
  }
  heap[at] = entry;
}

function pop(heap) {
  const top = heap[0];
  const entry = heap.pop();
  let at = 0;
  if (heap.length === 0) return top;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1] < heap[child]) child++;
    if (heap[child] >= entry) break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = entry;
  return top;
}

export function encodeWhole(ranks, bytes) {
  const text = bytes.toString('latin1');
  const known = ranks.get(text);
  if (known !== undefined) return [known];

  const next = Int32Array.from({ length: text.length }, (_, i) => i + 1);
  const before = Int32Array.from({ length: text.length }, (_, i) => i - 1);
  const current = new Int32Array(text.length).fill(-1);
  const heap = [];
  const renew = (begin) => {
    const middle = next[begin];
    const rank = middle < text.length ? ranks.get(text.slice(begin, next[middle])) : undefined;
    current[begin] = rank ?? -1;
    if (rank !== undefined) push(heap, rank * PLACES + begin);
  };

  for (let i = 0; i < text.length; i++) renew(i);
  while (heap.length > 0) {
    const entry = pop(heap);
    const begin = entry % PLACES;
    if (current[begin] !== Math.floor(entry / PLACES)) continue;
    const middle = next[begin];
    next[begin] = next[middle];
    current[middle] = -1;
    if (next[begin] < text.length) before[next[begin]] = begin;
    renew(begin);
    if (before[begin] >= 0) renew(before[begin]);
  }
  const ids = [];
  for (let at = 0; at < text.length; at = next[at]) ids.push(ranks.get(text.slice(at, next[at])));
  return ids;
}
