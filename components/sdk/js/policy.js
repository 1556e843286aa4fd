// Exports a policy and calls its methods.
//
// A component is initialized at build time, without a host. So the policy is instantiated at the first call of a job: its constructor may
// read settings, and its fields are the job's memory.

const defaultDocumentRoute = () => ({
  collection: "default",
  lane: "bulk",
  models: { ocr: null, textEmbedding: null },
  labels: [],
});

export function policy(Policy) {
  let instance;
  const getInstance = () => (instance ??= new Policy());
  return {
    batching: {
      plan: (situation) => getInstance().plan(situation),
    },
    routing: {
      document: (facts) => getInstance().document?.(facts) ?? defaultDocumentRoute(),
      page: (document, facts) => getInstance().page(document, facts),
      failed: (failure) => getInstance().failed?.(failure) ?? { tag: "fail-document" },
    },
    chunking: {
      passages: (source) => getInstance().passages(source),
      summarize: (section) => getInstance().summarize?.(section) ?? { tag: "none" },
    },
    progress: {
      observe: (atMillis, event) => getInstance().observe(atMillis, event),
    },
  };
}
