  /** Resolution of page images. */
  dpi = settings.within("dpi", 150, 36, 600);
====
  /**
   * Eight pages at a time; the last ones wait for nothing.
   * @param {import("weir-sdk").Situation} situation
   * @returns {import("weir-sdk").Batch}
   */
  plan(situation) {
    const pages = Math.min(situation.remainingPages, 8);
    const last = pages === situation.remainingPages;
    return { pages, dpi: this.dpi, lingerMillis: last ? 0 : 500, queueCapacity: 8 };
  }
