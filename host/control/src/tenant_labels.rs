//! Label values of tenants, bounded in number.

use std::collections::HashSet;

use metrics::counter;
use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::usage::Usage;

/// Label value of all tenants beyond the limit.
const OTHER_TENANTS_LABEL: &str = "other";

/// The tenants with a label value of their own: the first ones seen. The set only grows while the process runs, so that no time
/// series changes its meaning.
pub struct TenantLabels {
    max_tenants: usize,
    labeled_tenants: Mutex<HashSet<TenantId>>,
}

impl TenantLabels {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            max_tenants: most,
            labeled_tenants: Mutex::default(),
        }
    }

    /// Returns the value of the label `tenant`.
    pub(crate) fn label_of(&self, tenant: &TenantId) -> String {
        let mut known = self.labeled_tenants.lock();
        if known.contains(tenant) {
            return tenant.to_string();
        }
        if known.len() < self.max_tenants {
            known.insert(tenant.clone());
            return tenant.to_string();
        }
        OTHER_TENANTS_LABEL.to_owned()
    }

    /// Counts a request that was refused because of a quota.
    pub(crate) fn count_quota_refusal(&self, tenant: &TenantId, quota: &'static str) {
        counter!("weir_quota_refusals_total", "tenant" => self.label_of(tenant), "quota" => quota)
            .increment(1);
    }

    /// Counts calls, tokens and cost of a tenant's use of language models.
    pub fn count_llm_usage(&self, tenant: &TenantId, usage: &Usage) {
        let tenant = self.label_of(tenant);
        counter!("weir_tenant_llm_calls_total", "tenant" => tenant.clone()).increment(usage.llm_calls);
        counter!("weir_tenant_llm_tokens_total", "tenant" => tenant.clone(), "type" => "prompt")
            .increment(usage.llm_prompt_tokens);
        counter!("weir_tenant_llm_tokens_total", "tenant" => tenant.clone(), "type" => "completion")
            .increment(usage.llm_answer_tokens);
        counter!("weir_tenant_llm_cost_micros_total", "tenant" => tenant).increment(usage.llm_cost_micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_tenants_have_their_own_label() {
        let labels = TenantLabels::new(2);
        let label = |name: &str| labels.label_of(&name.parse().unwrap());
        assert_eq!((label("a"), label("b")), ("a".into(), "b".into()));
        assert_eq!(label("c"), OTHER_TENANTS_LABEL);
        assert_eq!(label("b"), "b");
        assert_eq!(
            TenantLabels::new(0).label_of(&TenantId::default_tenant()),
            OTHER_TENANTS_LABEL
        );
    }
}
