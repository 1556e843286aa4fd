  /** Pages of the document, and those of them that are done. */
  pages = 0;
  done = 0;
  /** Whether the pages are told one by one. */
  eachPage = settings.getOr("each-page", true);
====
  /**
   * So many of so many pages.
   * @param {number} atMillis
   * @param {import("weir-sdk").Event} event
   * @returns {import("weir-sdk").Update[]}
   */
  observe(atMillis, { tag, val }) {
    if (tag === "document-started") {
      this.pages = val.pages;
      this.done = val.alreadyDone;
    }
    if (tag !== "page-done" || !this.eachPage) return [];
    this.done += 1;
    return [
      {
        document: val.document,
        percent: (100 * this.done) / Math.max(this.pages, this.done),
        message: `${this.done} of ${this.pages} pages`,
        secondsLeft: null,
      },
    ];
  }
