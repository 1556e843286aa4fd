//! The reasons why a provider denies requests, and their remedies.

use std::fmt;

/// Why a provider denies all requests until its settings or its account change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// The key is missing, wrong or revoked.
    Authentication,
    /// The key has no access to this model.
    Permission,
    /// The account has no quota or credit left.
    QuotaExhausted,
    /// The provider does not know the model, or the URL does not exist.
    ModelNotFound,
    /// The URL exists but does not accept chat completions: it redirects or refuses the method.
    WrongAddress,
    /// The provider does not support a parameter that is sent with each request.
    UnsupportedParameter {
        /// The provider setting that changes the parameter.
        setting: &'static str,
    },
}

impl DenialReason {
    /// Returns which settings or which account the operator must check, for the provider with this name.
    pub fn describe_remedy(self, provider: &str) -> String {
        let setting = |key: &str| format!("llm.provider.{provider}.{key}");
        match self {
            Self::Authentication => format!("check {} or key_file", setting("key_env")),
            Self::Permission => format!(
                "check the rights of the key that {} or key_file names, and {}",
                setting("key_env"),
                setting("model")
            ),
            Self::QuotaExhausted => {
                format!("check the plan and the balance of the account of llm.provider.{provider}")
            }
            Self::ModelNotFound => format!("check {} and {}", setting("model"), setting("url")),
            Self::WrongAddress => format!("check {}", setting("url")),
            Self::UnsupportedParameter { setting: key } => format!("change {}", setting(key)),
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authentication => "authentication failed",
            Self::Permission => "access denied",
            Self::QuotaExhausted => "quota exhausted",
            Self::ModelNotFound => "model or address not found",
            Self::WrongAddress => "address refused",
            Self::UnsupportedParameter { .. } => "parameter not supported",
        })
    }
}
