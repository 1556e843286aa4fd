//! Failing providers, as reported by jobs that wait for them.

use serde::{Deserialize, Serialize};

use crate::error::ErrorInfo;

/// A provider that has not responded for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderFailureInfo {
    /// Name of the provider, as in the settings.
    pub provider: String,
    /// Start of the first failed request since the last response, in milliseconds since 1970.
    pub since_millis: u64,
    /// Its last error.
    pub error: ErrorInfo,
}

impl ProviderFailureInfo {
    /// Returns the provider, its error and how long it has been failing, in one line. `now_millis` is since 1970.
    pub fn describe_failure(&self, now_millis: u64) -> String {
        let seconds = now_millis.saturating_sub(self.since_millis) / 1000;
        format!(
            "{} has failed for {seconds} s: {}",
            self.provider, self.error.message
        )
    }
}
