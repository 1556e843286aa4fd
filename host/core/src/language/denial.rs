//! Why a provider denies requests, and what its operator can do about it.

use std::fmt;

/// The reason for which a provider answers no request until its settings or its account change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The key is missing, wrong or revoked.
    Authentication,
    /// The key may not use this model.
    Permission,
    /// The account has no quota or credit left.
    Quota,
    /// The provider does not know the model, or nothing is at the address.
    NotFound,
    /// The address answers, but not to chat completions: it redirects or refuses the method.
    Address,
    /// The provider does not take a parameter that is sent with each request.
    Parameter {
        /// The key of the provider's settings that changes the parameter.
        setting: &'static str,
    },
}

impl Denial {
    /// The settings or the account to look at, for the provider of this name.
    pub fn remedy(self, provider: &str) -> String {
        let setting = |key: &str| format!("llm.provider.{provider}.{key}");
        match self {
            Self::Authentication => format!("check {} or key_file", setting("key_env")),
            Self::Permission => format!(
                "check the rights of the key that {} or key_file names, and {}",
                setting("key_env"),
                setting("model")
            ),
            Self::Quota => {
                format!("check the plan and the balance of the account of llm.provider.{provider}")
            }
            Self::NotFound => format!("check {} and {}", setting("model"), setting("url")),
            Self::Address => format!("check {}", setting("url")),
            Self::Parameter { setting: key } => format!("change {}", setting(key)),
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authentication => "authentication failed",
            Self::Permission => "access denied",
            Self::Quota => "quota exhausted",
            Self::NotFound => "model or address not found",
            Self::Address => "address refused",
            Self::Parameter { .. } => "parameter not supported",
        })
    }
}
