//! Providers that do not answer, as jobs that wait for them report them.

use serde::{Deserialize, Serialize};

use crate::event::ErrorNote;

/// A provider that has answered no request for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailingProvider {
    /// Its name, as in the settings.
    pub provider: String,
    /// When the first request that it has failed since its last answer began, in milliseconds since 1970.
    pub since_millis: u64,
    /// Its last error.
    pub error: ErrorNote,
}

impl FailingProvider {
    /// The provider with its error and the time it has been failing, in one line; `now_millis` is since 1970.
    pub fn describe(&self, now_millis: u64) -> String {
        let seconds = now_millis.saturating_sub(self.since_millis) / 1000;
        format!(
            "{} has failed for {seconds} s: {}",
            self.provider, self.error.message
        )
    }
}
