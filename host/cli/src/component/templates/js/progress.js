  /**
   * Numbers of finished and of requested pages of each document that the job processes now.
   * @type {Map<string, { done: number, pages: number }>}
   */
  documents = new Map();
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
    if (tag === "document-started") this.documents.set(val.document, { done: val.alreadyDone, pages: val.pages });
    if (tag === "document-done" || tag === "document-failed") this.documents.delete(val.document);
    if (tag !== "page-done") return [];
    const counts = this.documents.get(val.document) ?? { done: 0, pages: 0 };
    counts.done += 1;
    this.documents.set(val.document, counts);
    if (!this.eachPage) return [];
    return [
      {
        document: val.document,
        percent: (100 * counts.done) / Math.max(counts.pages, counts.done),
        message: `${counts.done} of ${counts.pages} pages`,
        secondsLeft: null,
      },
    ];
  }
