//! Canary analysis: compares a canary with the stable revision and decides whether to promote it or roll it back.
//!
//! A canary is rolled back if it is slower, fails more often or exceeds more timeouts than the stable revision, by
//! more than its configuration allows. Each rate is compared with that of the stable revision in the same time. So a
//! cause that affects both (an unavailable model, broken documents) does not count against the canary.
//!
//! Jobs differ in their documents and in the load of the host. The means of twenty jobs vary by more than the tenth
//! that is allowed, so a rule that compares means would roll back good canaries and pass bad ones by chance. The
//! analysis therefore runs two statistical tests for each of the five metrics:
//!
//! - *Is the canary worse?* It is rolled back if the observed increase is more than allowed and is unlikely (one in
//!   twenty, over the whole trial) for a canary as good as the stable revision.
//! - *Is the canary within the limits?* It is promoted if, for each metric, the observed values have a chance of at
//!   most one in ten for a canary that exceeds the limit.
//!
//! The trial continues until one of the tests gives a result. Evaluations happen after 5, 10, 20, 40 … jobs of the
//! canary and not after each job, because testing after each job finds a difference in pure noise sooner or later.
//! The risk of the first test is divided among the evaluations and the metrics (Bonferroni). An evaluation uses the
//! jobs up to its job count, whenever it runs. At the last evaluation, after sixteen times the required jobs, the
//! observed values decide.
//!
//! The time per page is compared by ranks. It is a mixture (scans, text, busy and idle minutes) with a long tail, so
//! means and variances say little. Jobs are assigned to revisions at random, which is the only requirement of a rank
//! test. The influence of the host's load is removed first by subtracting the median of the jobs that ended at the
//! same time. To test "a tenth slower", the times of the canary's jobs are reduced by a tenth. Rates of pages and
//! calls are counted by job, because a problem in a document affects many of its pages.
//! `canary_analysis/statistics.rs` names the methods and their sources.
//!
//! Error rates with the default configuration on simulated jobs (200 trials each of four loads,
//! `canary_analysis/tests.rs`): at most 3 in 100 canaries that equal the stable revision are rolled back, and the
//! others are promoted after 80 to 160 jobs. Of canaries that take 15 % longer for a page, 2 to 9 in 100 are
//! promoted. Of canaries that trap on one page in twenty, at most 2 in 100 are promoted.

mod config;
mod evaluation;
mod job_metrics;
mod statistics;
#[cfg(test)]
mod tests;

pub use config::CanaryAnalysisConfig;
pub use evaluation::{CanaryAction, DueCanaryEvaluation};
pub use job_metrics::{CanaryEvidence, JobMetrics, JobSample, sum_job_metrics};
