import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { essay } from "../fixtures/essay.js";

const CLI = fileURLToPath(new URL("../bin/wordcount.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "wordcount-"));
after(() => rmSync(folder, { recursive: true }));

function wordcount(args, input = "") {
  return spawnSync(process.execPath, [CLI, ...args], { input, encoding: "utf8" });
}

test("standard input is counted", () => {
  const { status, stdout } = wordcount([], "two words\n");
  assert.equal(status, 0);
  assert.equal(stdout, "1 lines, 2 words, 10 characters\n");
});

test("a large file is counted as JSON", () => {
  const file = join(folder, "essay.txt");
  writeFileSync(file, essay(100_000));
  const { status, stdout } = wordcount(["--json", "--top", "2", file]);
  const { words, top } = JSON.parse(stdout);
  assert.equal(status, 0);
  assert.equal(words, 100_000);
  assert.equal(top.length, 2);
});

test("a file that is not there is told", () => {
  const { status, stderr } = wordcount([join(folder, "nothing")]);
  assert.equal(status, 2);
  assert.match(stderr, /no such file/);
});

test("wrong options are told with the usage", () => {
  for (const args of [["--top", "many"], ["--bottom"], ["a", "b"]]) {
    const { status, stderr } = wordcount(args);
    assert.equal(status, 2);
    assert.match(stderr, /usage: wordcount/);
  }
});
