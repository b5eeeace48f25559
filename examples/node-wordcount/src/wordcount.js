// Counts text that comes in pieces. A word is a run of letters, marks and digits, with single
// apostrophes or hyphens inside it.

const WORD = /[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*/gu;
const SPACE = /\s/u;

export class Counter {
  #open = "";
  #frequencies = new Map();
  lines = 0;
  words = 0;
  characters = 0;

  /** Count a piece of text. A word that reaches its end waits for the next piece. */
  add(text) {
    for (const char of text) {
      this.characters += 1;
      if (char === "\n") this.lines += 1;
    }
    const joined = this.#open + text;
    let cut = joined.length;
    while (cut > 0 && !SPACE.test(joined[cut - 1])) cut -= 1;
    this.#count(joined.slice(0, cut));
    this.#open = joined.slice(cut);
    return this;
  }

  /** Count what waits and give the totals. */
  end() {
    this.#count(this.#open);
    this.#open = "";
    const { lines, words, characters } = this;
    return { lines, words, characters, distinct: this.#frequencies.size };
  }

  /** The `limit` most frequent words; equal ones in the order of the alphabet. */
  top(limit) {
    return [...this.#frequencies]
      .sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
      .slice(0, limit)
      .map(([word, count]) => ({ word, count }));
  }

  #count(text) {
    for (const [word] of text.matchAll(WORD)) {
      const key = word.normalize("NFC").toLowerCase();
      this.words += 1;
      this.#frequencies.set(key, (this.#frequencies.get(key) ?? 0) + 1);
    }
  }
}

/** Count a whole text. */
export function count(text) {
  return new Counter().add(text).end();
}

/** Count a readable stream of bytes as UTF-8, wherever its chunks happen to be cut. */
export async function countStream(stream, counter = new Counter()) {
  const decoder = new TextDecoder();
  for await (const chunk of stream) counter.add(decoder.decode(chunk, { stream: true }));
  counter.add(decoder.decode());
  return counter.end();
}
