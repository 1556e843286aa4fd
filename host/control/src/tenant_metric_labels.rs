//! Values of the metric label `tenant`: a bounded number of tenants have their own value, all others share `other`.

use std::collections::HashSet;

use metrics::counter;
use parking_lot::Mutex;
use weir_core::TenantId;
use weir_core::usage::Usage;

/// Label value of all tenants beyond the limit.
const OTHER_TENANTS_LABEL: &str = "other";

/// The tenants with a label value of their own: the first ones seen. The set only grows while the process runs, so that no time
/// series changes its meaning.
pub struct TenantMetricLabels {
    max_tenants: usize,
    labeled_tenants: Mutex<HashSet<TenantId>>,
}

impl TenantMetricLabels {
    pub(crate) fn new(max_tenants: usize) -> Self {
        Self {
            max_tenants,
            labeled_tenants: Mutex::default(),
        }
    }

    /// Returns the value of the label `tenant`.
    pub(crate) fn metric_label_of_tenant(&self, tenant: &TenantId) -> String {
        let mut labeled_tenants = self.labeled_tenants.lock();
        if labeled_tenants.contains(tenant) {
            return tenant.to_string();
        }
        if labeled_tenants.len() < self.max_tenants {
            labeled_tenants.insert(tenant.clone());
            return tenant.to_string();
        }
        OTHER_TENANTS_LABEL.to_owned()
    }

    /// Counts a request that was refused because of a quota.
    pub(crate) fn count_quota_refusal(&self, tenant: &TenantId, quota: &'static str) {
        counter!("weir_quota_refusals_total", "tenant" => self.metric_label_of_tenant(tenant), "quota" => quota)
            .increment(1);
    }

    /// Counts calls, tokens and cost of a tenant's use of language models.
    pub fn count_llm_usage(&self, tenant: &TenantId, usage: &Usage) {
        let tenant = self.metric_label_of_tenant(tenant);
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
        let labels = TenantMetricLabels::new(2);
        let label = |name: &str| labels.metric_label_of_tenant(&name.parse().unwrap());
        assert_eq!((label("a"), label("b")), ("a".into(), "b".into()));
        assert_eq!(label("c"), OTHER_TENANTS_LABEL);
        assert_eq!(label("b"), "b");
        assert_eq!(
            TenantMetricLabels::new(0).metric_label_of_tenant(&TenantId::default_tenant()),
            OTHER_TENANTS_LABEL
        );
    }
}
