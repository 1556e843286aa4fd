//! Tenants as a label, bounded in number.

use std::collections::HashSet;

use metrics::counter;
use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::usage::Usage;

/// What tenants beyond the bound are called.
const OTHER: &str = "other";

/// The tenants that have a series of their own: those that came first. Which they are does not change until the process
/// ends, so that no series jumps.
pub(crate) struct TenantLabels {
    most: usize,
    known: Mutex<HashSet<TenantId>>,
}

impl TenantLabels {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// The value of the label `tenant`.
    pub(super) fn label(&self, tenant: &TenantId) -> String {
        let mut known = self.known.lock();
        if known.contains(tenant) {
            return tenant.to_string();
        }
        if known.len() < self.most {
            known.insert(tenant.clone());
            return tenant.to_string();
        }
        OTHER.to_owned()
    }

    /// Counts what a tenant has used of language models.
    pub(crate) fn called_models(&self, tenant: &TenantId, usage: &Usage) {
        let tenant = self.label(tenant);
        counter!("weir_tenant_llm_calls_total", "tenant" => tenant.clone()).increment(usage.llm_calls);
        counter!("weir_tenant_llm_tokens_total", "tenant" => tenant.clone(), "of" => "prompt")
            .increment(usage.llm_prompt_tokens);
        counter!("weir_tenant_llm_tokens_total", "tenant" => tenant.clone(), "of" => "answer")
            .increment(usage.llm_answer_tokens);
        counter!("weir_tenant_llm_cost_micros_total", "tenant" => tenant).increment(usage.llm_cost_micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_tenants_have_a_name() {
        let labels = TenantLabels::new(2);
        let label = |name: &str| labels.label(&name.parse().unwrap());
        assert_eq!((label("a"), label("b")), ("a".into(), "b".into()));
        assert_eq!(label("c"), OTHER);
        assert_eq!(label("b"), "b");
        assert_eq!(TenantLabels::new(0).label(&TenantId::single()), OTHER);
    }
}
