// From the host's call to the policy's method.
//
// A component is initialized when it is built, long before there is a host to ask, so the policy itself is made at the first
// call of a job: its constructor may read settings, and what it keeps in its fields is that job's memory.

const nowhereInParticular = () => ({
  collection: "default",
  lane: "bulk",
  models: { ocr: null, textEmbedding: null },
  labels: [],
});

export function policy(Policy) {
  let made;
  const the = () => (made ??= new Policy());
  return {
    batching: {
      plan: (situation) => the().plan(situation),
    },
    routing: {
      document: (facts) => the().document?.(facts) ?? nowhereInParticular(),
      page: (document, facts) => the().page(document, facts),
      failed: (failure) => the().failed?.(failure) ?? { tag: "fail-document" },
    },
    chunking: {
      passages: (source) => the().passages(source),
      summarize: (section) => the().summarize?.(section) ?? { tag: "none" },
    },
    progress: {
      observe: (atMillis, event) => the().observe(atMillis, event),
    },
  };
}
