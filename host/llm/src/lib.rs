//! Language models behind one port.
//!
//! A question goes through four hands. [`Answers`] looks whether it was answered before, and joins equal questions that are
//! asked at the same time. The [`Router`] holds it in a queue that is fair by tenant, gives it to a provider that is well, has
//! a call free and is within its limits a minute, and has the only retry loop there is: providers make one call and say what
//! went wrong. A [`Provider`] knows how to ask one model: [`OpenAi`] an endpoint, `Local` a model in
//! this process (where the feature `local-llm` is on), [`Extractive`] nothing but the embedder.
//!
//! Retrying in one place is what keeps the promises together. A client library that retries by itself asks more often than the
//! provider allows, hides from the breaker that it is failing, and outlives the deadline; two loops inside each other
//! multiply.
//!
//! All waiting is on tokio's clock, so that hours of trouble are tested in milliseconds.

mod accounts;
mod answers;
mod attempts;
mod backoff;
mod breaker;
mod configure;
mod course;
mod desk;
mod dispatch;
mod examine;
mod extractive;
mod fair;
mod limit;
#[cfg(feature = "local-llm")]
mod local;
mod measures;
mod memory;
mod nonanswer;
mod openai;
mod pace;
mod permit;
mod provider;
mod router;
mod secret;
mod stats;
mod thoughts;

pub use accounts::Accounts;
pub use answers::Answers;
pub use breaker::{BreakerConfig, BreakerState};
pub use configure::{SetUpError, from_settings};
pub use examine::{Examined, examine};
pub use extractive::Extractive;
#[cfg(feature = "local-llm")]
pub use local::{ENVIRONMENT, Local, LocalConfig};
pub use memory::MemoryAnswers;
pub use openai::{OpenAi, OpenAiConfig};
pub use provider::{Member, Provider, Reply, Terms};
pub use router::{Router, RouterConfig};
pub use secret::Secret;
pub use stats::{ProviderStats, RouterStats};
