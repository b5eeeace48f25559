import assert from "node:assert/strict";
import { test } from "node:test";
import { Counter, countStream } from "../src/wordcount.js";
import { essay } from "../fixtures/essay.js";

test("a word that is cut between two pieces is one word", () => {
  const counter = new Counter().add("wor").add("d and wo").add("rd");
  assert.equal(counter.end().words, 3);
  assert.deepEqual(counter.top(1), [{ word: "word", count: 2 }]);
});

test("characters whose bytes are cut in two are still one", async () => {
  const bytes = new TextEncoder().encode("größe 🙂 größe");
  const single = Array.from(bytes, (byte) => Uint8Array.of(byte));
  const totals = await countStream(single);
  assert.deepEqual(totals, { lines: 0, words: 2, characters: 13, distinct: 1 });
});

const TEXT = essay(200_000);

test("two hundred thousand words are all counted", () => {
  const totals = new Counter().add(TEXT).end();
  assert.equal(totals.words, 200_000);
  assert.equal(totals.lines, 200_000 / 10);
});

for (const size of [7, 1000, 65_536]) {
  test(`pieces of ${size} bytes give the same counts as the whole`, async () => {
    const part = size < 100 ? TEXT.slice(0, 200_000) : TEXT;
    const bytes = new TextEncoder().encode(part);
    const pieces = function* () {
      for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
    };
    assert.deepEqual(await countStream(pieces()), new Counter().add(part).end());
  });
}

test("frequencies add up to the number of words", () => {
  const counter = new Counter().add(TEXT);
  const { words, distinct } = counter.end();
  const top = counter.top(Infinity);
  assert.equal(top.length, distinct);
  assert.equal(top.reduce((sum, { count }) => sum + count, 0), words);
  assert.ok(top.every(({ count }, at) => at === 0 || count <= top[at - 1].count));
});
