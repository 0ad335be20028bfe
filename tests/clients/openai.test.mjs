// The official openai package against a running gateway: what its users would notice.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const baseURL = `${process.env.XROUTER_URL}/v1`;
const client = new OpenAI({ baseURL, apiKey: process.env.XROUTER_KEY, maxRetries: 0 });
// One for each dialect that a provider may speak: a client must not notice which it is.
const models = ["gigachat/GigaChat-2", "openai/gpt", "anthropic/claude"];
const [model] = models;
const ask = (content) => [{ role: "user", content }];

const weather = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Current weather in a city",
    parameters: {
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
    },
  },
};

for (const model of models) {
  test(`${model}: a plain completion has text and usage`, async () => {
    const answer = await client.chat.completions.create({ model, messages: ask("Hello") });
    assert.equal(answer.object, "chat.completion");
    assert.ok(answer.choices[0].message.content.length > 0);
    assert.equal(answer.choices[0].finish_reason, "stop");
    const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
    assert.equal(prompt_tokens + completion_tokens, total_tokens);
    assert.match(answer._request_id, /^req_[0-9a-f]{32}$/);
  });

  test(`${model}: a stream ends by itself and its usage comes last`, async () => {
    const stream = await client.chat.completions.create({
      model,
      messages: ask("[[words:25]] please"),
      stream: true,
      stream_options: { include_usage: true },
    });
    let text = "";
    let finish = null;
    let usage = null;
    for await (const chunk of stream) {
      text += chunk.choices[0]?.delta?.content ?? "";
      finish = chunk.choices[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    assert.ok(text.split(" ").length >= 20);
    assert.equal(finish, "stop");
    assert.ok(usage.completion_tokens > 0);
  });

  test(`${model}: tools: a call, its result, and the final answer`, async () => {
    const messages = ask("Please use get_weather");
    const first = await client.chat.completions.create({ model, messages, tools: [weather] });
    const call = first.choices[0].message.tool_calls[0];
    assert.equal(first.choices[0].finish_reason, "tool_calls");
    assert.equal(call.function.name, "get_weather");
    assert.deepEqual(Object.keys(JSON.parse(call.function.arguments)), ["city"]);
    messages.push(first.choices[0].message);
    messages.push({ role: "tool", tool_call_id: call.id, content: "7 degrees, rain" });
    const second = await client.chat.completions.create({ model, messages, tools: [weather] });
    assert.match(second.choices[0].message.content, /7 degrees, rain/);
  });

  test(`${model}: tools in a stream arrive through the SDK's accumulator`, async () => {
    const runner = client.chat.completions.stream({
      model,
      messages: ask("Please use get_weather"),
      tools: [weather],
    });
    const answer = await runner.finalChatCompletion();
    assert.equal(answer.choices[0].message.tool_calls[0].function.name, "get_weather");
  });

  test(`${model}: an aborted stream stops at once`, async () => {
    const stream = await client.chat.completions.create({
      model,
      messages: ask("[[words:2000]] [[chunk_ms:20]]"),
      stream: true,
    });
    let chunks = 0;
    for await (const _ of stream) {
      chunks += 1;
      if (chunks === 3) stream.controller.abort();
    }
    assert.ok(chunks >= 3 && chunks < 100);
  });
}

test("a wrong key is an AuthenticationError", async () => {
  const wrong = new OpenAI({ baseURL, apiKey: "sk-xr-wrong", maxRetries: 0 });
  await assert.rejects(wrong.chat.completions.create({ model, messages: ask("x") }), (e) => {
    assert.ok(e instanceof OpenAI.AuthenticationError);
    assert.equal(e.code, "invalid_api_key");
    return true;
  });
});

test("an unknown model is a NotFoundError that names the parameter", async () => {
  await assert.rejects(
    client.chat.completions.create({ model: "gpt-99", messages: ask("x") }),
    (e) => e instanceof OpenAI.NotFoundError && e.param === "model",
  );
});

test("a bad field is a BadRequestError that names it", async () => {
  await assert.rejects(
    client.chat.completions.create({ model, messages: ask("x"), temperature: 9 }),
    (e) => e instanceof OpenAI.BadRequestError && e.param === "temperature",
  );
});

test("a provider that dies in the middle is an error, not a short answer", async () => {
  const stream = await client.chat.completions.create({
    model,
    messages: ask("[[words:50]] [[sim:cut:4]]"),
    stream: true,
  });
  await assert.rejects(async () => {
    for await (const _ of stream) void _;
  }, OpenAI.APIError);
});

test("retries obey x-should-retry and succeed", async () => {
  const patient = new OpenAI({ baseURL, apiKey: process.env.XROUTER_KEY, maxRetries: 2 });
  const answer = await patient.chat.completions.create({
    model,
    messages: ask(`[[sim:fail:1:503]] ${process.pid}`),
  });
  assert.ok(answer.choices[0].message.content.length > 0);
});

test("models are listed and found by id", async () => {
  const ids = [];
  for await (const m of client.models.list()) ids.push(m.id);
  assert.ok(ids.includes(model));
  assert.equal((await client.models.retrieve(model)).id, model);
});

test("the older completions answer, plain and streamed", async () => {
  const fields = { model, prompt: "[[words:4]]", max_tokens: 64 };
  const answer = await client.completions.create(fields);
  assert.equal(answer.object, "text_completion");
  assert.equal(answer.choices[0].finish_reason, "stop");
  let text = "";
  for await (const chunk of await client.completions.create({ ...fields, stream: true }))
    text += chunk.choices[0]?.text ?? "";
  assert.equal(text, answer.choices[0].text);
});

test("embeddings are numbers, though the client asks for base64", async () => {
  const { data, usage } = await client.embeddings.create({
    model: "vectors",
    input: ["one", "two", "one"],
  });
  assert.equal(data.length, 3);
  assert.deepEqual(data[0].embedding, data[2].embedding);
  const length = Math.hypot(...data[1].embedding);
  assert.ok(Math.abs(length - 1) < 1e-5, `${length}`);
  assert.ok(usage.prompt_tokens > 0 && usage.total_tokens === usage.prompt_tokens);
});
