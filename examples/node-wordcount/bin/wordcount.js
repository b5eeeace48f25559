#!/usr/bin/env node
import { createReadStream } from "node:fs";
import { parseArgs } from "node:util";
import { Counter, countStream } from "../src/wordcount.js";

const USAGE = "usage: wordcount [--json] [--top N] [FILE]";

function fail(message) {
  console.error(`wordcount: ${message}\n${USAGE}`);
  process.exit(2);
}

function options() {
  try {
    const { values, positionals } = parseArgs({
      options: { json: { type: "boolean" }, top: { type: "string", default: "0" } },
      allowPositionals: true,
    });
    if (positionals.length > 1) fail("more than one file");
    if (!/^\d+$/.test(values.top)) fail(`--top takes a number, not '${values.top}'`);
    return { json: values.json, top: Number(values.top), file: positionals[0] };
  } catch (error) {
    return fail(error.message);
  }
}

const { json, top, file } = options();
const counter = new Counter();
try {
  const totals = await countStream(file ? createReadStream(file) : process.stdin, counter);
  const words = counter.top(top);
  if (json) console.log(JSON.stringify({ ...totals, top: words }));
  else {
    console.log(`${totals.lines} lines, ${totals.words} words, ${totals.characters} characters`);
    for (const { word, count } of words) console.log(`${String(count).padStart(8)}  ${word}`);
  }
} catch (error) {
  fail(error.message);
}
