  /** Characters from which a page's text layer is trusted. */
  minChars = settings.getOr("min-chars", 200);
====
  /**
   * A page is read by its text layer, or by OCR if it is a picture; an empty one is kept and not searched.
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
   * A page has three attempts; then the others go on without it.
   * @param {import("weir-sdk").Failure} failure
   * @returns {import("weir-sdk").Verdict}
   */
  failed(failure) {
    return failure.attempt < 3 ? { tag: "retry-after", val: 500 } : { tag: "skip-page" };
  }
