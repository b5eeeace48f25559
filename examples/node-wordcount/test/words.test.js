import assert from "node:assert/strict";
import { test } from "node:test";
import { count, Counter } from "../src/wordcount.js";

test("an empty text has nothing to count", () => {
  assert.deepEqual(count(""), { lines: 0, words: 0, characters: 0, distinct: 0 });
});

test("lines are counted by their ends", () => {
  assert.equal(count("one\ntwo\nthree").lines, 2);
  assert.equal(count("one\r\ntwo\r\n").lines, 2);
});

test("an emoji is one character", () => {
  assert.equal(count("a🙂b").characters, 3);
});

test("punctuation separates words and is none", () => {
  assert.equal(count("Hello, world! -- (really?)").words, 3);
});

test("apostrophes and hyphens stay inside a word", () => {
  assert.equal(count("don't re-enter the mother-in-law’s house").words, 5);
});

test("words of any script are words", () => {
  assert.equal(count("naïve Straße привет नमस्ते ١٢٣").words, 5);
});

test("upper case and composed letters are the same word", () => {
  const counter = new Counter().add("Café CAFÉ cafe\u0301 ");
  assert.deepEqual(counter.top(5), [{ word: "café", count: 3 }]);
});

test("the most frequent words come first, equal ones by the alphabet", () => {
  const counter = new Counter().add("b a c b a d b ");
  assert.deepEqual(counter.top(3), [
    { word: "b", count: 3 },
    { word: "a", count: 2 },
    { word: "c", count: 1 },
  ]);
});
