  /** Maximum length of a passage in bytes. */
  passageBytes = settings.within("passage-bytes", 900, 50, 100_000);
====
  /**
   * Fills each passage with as many lines as fit.
   * @param {import("weir-sdk").PassageSource} source
   * @returns {import("weir-sdk").Range[]}
   */
  passages({ text }) {
    const at = offsets(text);
    const passages = [];
    let start = 0;
    for (const line of text.split("\n")) {
      const range = { start: at[start], end: at[start + line.length] };
      const last = passages.at(-1);
      if (last && range.end - last.start <= this.passageBytes) last.end = range.end;
      else if (line.trim() !== "") passages.push(range);
      start += line.length + 1;
    }
    return passages;
  }
