//! A whole server over fake ports in memory, for tests.

mod requests;
mod test_host;

pub(crate) use requests::{ProblemResponse, accepted_job_id, multipart_form, parse_json, parse_problem};
pub(crate) use test_host::{TestHost, test_app};
pub(crate) use weir_control::testing::{commit_events, job_record, metric_value, wait_until};
