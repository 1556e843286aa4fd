  /** Number of pages of the document. */
  pages = 0;
  /** Number of finished pages. */
  done = 0;
  /** Whether to send an update for each page. */
  eachPage = settings.getOr("each-page", true);
====
  /**
   * Reports the number of finished pages.
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
