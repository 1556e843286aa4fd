  /** Resolution of page images in dots per inch. */
  dpi = settings.within("dpi", 150, 36, 600);
====
  /**
   * Plans batches of eight pages. The last batch is embedded without delay.
   * @param {import("weir-sdk").Situation} situation
   * @returns {import("weir-sdk").Batch}
   */
  plan(situation) {
    const pages = Math.min(situation.remainingPages, 8);
    const last = pages === situation.remainingPages;
    return { pages, dpi: this.dpi, lingerMillis: last ? 0 : 500, queueCapacity: 8 };
  }
