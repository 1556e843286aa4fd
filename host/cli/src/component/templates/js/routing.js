  /** Minimum number of characters in a page's text layer; with fewer, the text layer is not used. */
  minChars = settings.getOr("min-chars", 200);
====
  /**
   * Uses the text layer if it is long enough, otherwise OCR if images cover at least 10 % of the page. Other pages are
   * stored but not searchable.
   * @param {string} document
   * @param {import("weir-sdk").PageFacts} page
   * @returns {import("weir-sdk").PageRoute}
   */
  page(document, page) {
    let reading = "nothing";
    if (page.textChars >= this.minChars) reading = "text-layer";
    else if (page.imageCoverage >= 0.1) reading = "ocr";
    else log.info(`page ${page.number} is empty`);
    return { reading, embed: reading !== "nothing", store: true, labels: [] };
  }

  /**
   * Attempts each page up to three times, then skips it.
   * @param {import("weir-sdk").Failure} failure
   * @returns {import("weir-sdk").Verdict}
   */
  failed(failure) {
    return failure.attempt < 3 ? { tag: "retry-after", val: 500 } : { tag: "skip-page" };
  }
