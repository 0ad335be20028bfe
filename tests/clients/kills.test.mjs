// The official openai package with its default retries while workers are killed: every call that
// reached the provider is billed for what it was, every answer is in the ledger.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import OpenAI from "openai";

const { XROUTER_URL, XROUTER_KEY, XROUTERCTL, SIM_URL } = process.env;
const baseURL = `${XROUTER_URL}/v1`;
const model = "gigachat/GigaChat-2";
const ctl = (...args) => JSON.parse(execFileSync(XROUTERCTL, [...args, "--json"]));
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function until(condition, what) {
  for (let i = 0; i < 500; i++) {
    const value = await condition();
    if (value) return value;
    await pause(20);
  }
  assert.fail(`${what} did not come true`);
}

const workers = () =>
  ctl("stat").processes.filter((p) => p.role === "worker" && p.state === "ready");

// One killed worker; returns when another has taken its place.
async function killOne() {
  const count = workers().length;
  const { pid } = workers()[0];
  process.kill(pid, "SIGKILL");
  await until(() => {
    const now = workers();
    return now.length === count && now.every((p) => p.pid !== pid);
  }, "another worker");
}

async function journal() {
  const text = await (await fetch(`${SIM_URL}/__sim/log`)).text();
  return text.trim().split("\n").map(JSON.parse);
}

test("workers die under the SDK: answers come, and the ledger is the provider's journal", async () => {
  const key = ctl("key", "create", "--name", "sdk-kills").key;
  const client = new OpenAI({ baseURL, apiKey: key });
  const answers = [];
  let failed = 0;
  let done = false;
  const loops = Array.from({ length: 8 }, async () => {
    while (!done) {
      try {
        answers.push(
          await client.chat.completions.create({
            model,
            messages: [{ role: "user", content: "[[words:12]] [[chunk_ms:10]] hello" }],
          }),
        );
      } catch {
        failed++;
      }
    }
  });
  for (let i = 0; i < 4; i++) {
    const seen = answers.length;
    await until(() => answers.length > seen + 4, "answers");
    await killOne();
  }
  done = true;
  await Promise.all(loops);
  assert.equal(failed, 0, "two retries are enough for a worker that is back in milliseconds");

  const told = new Map((await journal()).map((entry) => [entry.request_id, entry]));
  for (const { _request_id: id, usage } of answers) {
    const headers = { authorization: `Bearer ${key}` };
    const row = await until(async () => {
      const answer = await fetch(`${baseURL}/generation?id=${id}`, { headers });
      return answer.status === 200 && (await answer.json()).data;
    }, `the row of ${id}`);
    const entry = told.get(id);
    assert.equal(row.tokens_prompt, entry.prompt_tokens);
    assert.equal(row.tokens_completion, entry.completion_tokens);
    assert.equal(row.tokens_completion, usage.completion_tokens);
  }
  // What the dead had begun is billed at most for what the provider sent.
  const total = await until(() => {
    const sums = ctl("usage", "--key", "sdk-kills").total;
    return sums.requests >= answers.length && sums;
  }, "all rows");
  const sent = [...told.values()].reduce((sum, entry) => sum + entry.completion_tokens, 0);
  const delivered = answers.reduce((sum, { usage }) => sum + usage.completion_tokens, 0);
  assert.ok(total.tokens_output >= delivered && total.tokens_output <= sent);
  execFileSync(XROUTERCTL, ["ledger", "verify"]);
});

test("what is not worth a retry is not retried", async () => {
  const before = ctl("stat").counters.requests_total;
  const eager = new OpenAI({ baseURL, apiKey: `${XROUTER_KEY.slice(0, -4)}AAAA`, maxRetries: 5 });
  const messages = [{ role: "user", content: "Hello" }];
  await assert.rejects(eager.chat.completions.create({ model, messages }), OpenAI.AuthenticationError);
  const poor = ctl("key", "create", "--name", "poor", "--credits", "0").key;
  const penniless = new OpenAI({ baseURL, apiKey: poor, maxRetries: 5 });
  await assert.rejects(
    penniless.chat.completions.create({ model, messages }),
    (error) => error.status === 402 && error.code === "insufficient_credits",
  );
  assert.equal(ctl("stat").counters.requests_total - before, 2);
});
