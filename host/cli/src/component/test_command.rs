//! `weir component test`: calls a component with the calls of its test cases and compares the decisions.
//!
//! The sandbox is the same as in production: components are compiled in a child process, linked with the granted capabilities,
//! and run under the limits of the host and the manifest. There are two differences. A failed call is reported and not
//! repeated with the default component, and the test case gives the responses of capabilities.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use weir_core::event::ErrorInfo;
use weir_core::manifest::{ComponentFailurePolicy, Manifest, ResolvedPipeline, Role};
use weir_core::memory_component_state::MemoryComponentState;
use weir_core::ports::OpenPolicyRequest;
use weir_core::settings::Settings;
use weir_core::{JobId, PolicyError, TenantId};
use weir_policy::{PolicyHost, PolicyHostConfig};

use super::args::TestArgs;
use super::component_source;
use super::expected_decision_diff;
use super::fake_host::FakeCapabilities;
use super::test_case::{Expectation, TestCase};
use crate::app_folders::AppFolders;
use crate::terminal::{EXIT_FAILED, await_with_progress, out_line, print_to_stdout};
use crate::{host_services, pipeline_loader};

/// The result of a test case.
struct CaseOutcome {
    /// Differences to the expectation. Empty if the case passes.
    differences: Vec<String>,
    /// Whether the decisions were written as the new expectation.
    expectation_written: bool,
    /// Calls of capabilities for which the case has no response.
    unanswered_calls: Vec<String>,
    /// Duration of all calls.
    elapsed: Duration,
}

/// Runs the test cases of a folder and prints the results. The exit code is 1 if a case fails.
pub(crate) async fn run(
    args: &TestArgs,
    json: bool,
    settings: &Settings,
    folders: &AppFolders,
) -> Result<ExitCode> {
    let mut manifest = component_source::read_manifest(&args.folder)?;
    if let Some(file) = &args.component {
        manifest
            .components
            .values_mut()
            .for_each(|path| path.clone_from(file));
    }
    for file in manifest.components.values() {
        ensure!(
            file.is_file(),
            "{} does not exist: run `weir component build {}`",
            file.display(),
            args.folder.display()
        );
    }
    let cases = TestCase::read_all(&args.cases.clone().unwrap_or_else(|| args.folder.join("cases")))?;
    let sandbox = TestSandbox::open(manifest, settings, folders)?;
    let mut failed = 0;
    let mut reports = Vec::new();
    for case in &cases {
        let outcome = sandbox.run_case(case, args.write).await?;
        failed += usize::from(!outcome.differences.is_empty());
        if json {
            reports.push(outcome.to_json(case));
        } else {
            print_to_stdout(format_args!("{}", outcome.to_text(case)))?;
        }
    }
    let passed = cases.len() - failed;
    if json {
        out_line!(
            "{}",
            json!({ "cases": reports, "passed": passed, "failed": failed })
        )?;
    } else {
        let cases = if cases.len() == 1 { "case" } else { "cases" };
        out_line!(
            "{} {cases}: {passed} passed, {failed} failed",
            reports.len().max(passed + failed)
        )?;
    }
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_FAILED)
    })
}

/// A policy host for test cases.
pub(crate) struct TestSandbox {
    host: Arc<PolicyHost>,
    state: Arc<MemoryComponentState>,
    manifest: Manifest,
}

impl TestSandbox {
    /// Creates a sandbox with the host's limits, for the components of one manifest.
    pub(crate) fn open(mut manifest: Manifest, settings: &Settings, folders: &AppFolders) -> Result<Self> {
        manifest.on_component_failure = ComponentFailurePolicy::Fail;
        let state = Arc::new(MemoryComponentState::default());
        let host = PolicyHost::new(PolicyHostConfig {
            // One job runs at a time, with at most one component per role.
            max_instances: u32::try_from(Role::ALL.len())?,
            ..host_services::policy_config(settings, folders, state.clone())?
        })?;
        Ok(Self {
            host,
            state,
            manifest,
        })
    }

    /// Runs a test case and compares its decisions with the expected ones. With `write`, writes a missing expectation.
    async fn run_case(&self, case: &TestCase, write: bool) -> Result<CaseOutcome> {
        let fake_capabilities = Arc::new(FakeCapabilities::new(case.capability_responses.clone()));
        let (decided, elapsed) = self.make_calls(case, &fake_capabilities).await?;
        let mut expectation_written = false;
        let differences = match (&case.expectation, decided) {
            (Expectation::Decision(expected), Ok(decisions)) => {
                expected_decision_diff::list_differences(expected, &case.decisions_to_json(decisions))
            }
            (Expectation::Error(expected), Err(error))
                if error.kind == expected.kind && error.message.contains(&expected.message_part) =>
            {
                Vec::new()
            }
            (Expectation::Error(expected), Err(error)) => vec![format!(
                "expected {} '{}', failed with {}: {}",
                expected.kind, expected.message_part, error.kind, error.message
            )],
            (Expectation::Error(expected), Ok(decisions)) => vec![format!(
                "expected {}, decided {}",
                expected.kind,
                case.decisions_to_json(decisions)
            )],
            (Expectation::Decision(_), Err(error)) => vec![format!(
                "expected a decision, failed with {}: {}",
                error.kind, error.message
            )],
            (Expectation::Missing, decided) if write => {
                expectation_written = true;
                match decided {
                    Ok(decisions) => case.write_expected_decision(&case.decisions_to_json(decisions))?,
                    Err(error) => case.write_expected_error(&error.kind)?,
                }
                Vec::new()
            }
            (Expectation::Missing, Ok(decisions)) => vec![format!(
                "no expectation yet; --write would write {}",
                case.decisions_to_json(decisions)
            )],
            (Expectation::Missing, Err(error)) => vec![format!(
                "no expectation yet; it failed with {}: {}",
                error.kind, error.message
            )],
        };
        Ok(CaseOutcome {
            differences,
            expectation_written,
            unanswered_calls: fake_capabilities.take_unanswered_calls(),
            elapsed,
        })
    }

    /// Makes the calls of a case in one job. Returns their decisions or the first error, and the duration. The outer error is
    /// returned if the case or a component is unusable.
    async fn make_calls(
        &self,
        case: &TestCase,
        fake_capabilities: &Arc<FakeCapabilities>,
    ) -> Result<(Result<Vec<Value>, ErrorInfo>, Duration)> {
        for call in &case.calls {
            if !self.manifest.components.contains_key(&call.role()) {
                bail!(
                    "the test case {} calls {}, but the manifest names no component for {}",
                    case.name,
                    call.function_name(),
                    call.role().name()
                );
            }
        }
        self.state.clear_all_pipelines();
        let mut manifest = self.manifest.clone();
        manifest.settings.extend(case.settings.clone());
        let mut files = BTreeMap::new();
        for (role, path) in &manifest.components {
            files.insert(*role, pipeline_loader::hash_component_file(path)?);
        }
        let pipeline = ResolvedPipeline::new(manifest, files, BTreeMap::new());
        let request = OpenPolicyRequest {
            tenant: &TenantId::default_tenant(),
            job: JobId::new(),
            pipeline: &pipeline,
            capabilities: fake_capabilities.clone(),
        };
        let opened = await_with_progress(
            "compiling the components, once per build",
            self.host.open_job(request),
        );
        let job = match opened.await {
            Ok(job) => job,
            // These errors occur before the first call, so they occur in every test case.
            Err(error @ (PolicyError::Unusable { .. } | PolicyError::NoInstanceAvailable { .. })) => {
                return Err(error.into());
            }
            Err(error) => {
                let error = ErrorInfo {
                    kind: error.kind().into(),
                    message: error.to_string(),
                };
                return Ok((Err(error), Duration::ZERO));
            }
        };
        let started = Instant::now();
        let mut decisions = Vec::with_capacity(case.calls.len());
        for call in case.calls.clone() {
            let call = job.execute_policy_request(call).await;
            if let Some(error) = call.error() {
                return Ok((Err(error.clone()), started.elapsed()));
            }
            decisions.push(call.decision_to_json());
        }
        Ok((Ok(decisions), started.elapsed()))
    }
}

impl CaseOutcome {
    fn to_text(&self, case: &TestCase) -> String {
        let word = match (self.differences.is_empty(), self.expectation_written) {
            (true, true) => "written",
            (true, false) => "ok",
            (false, _) => "FAILED",
        };
        let mut text = format!(
            "{word:8}{} ({:.1} ms)\n",
            case.name,
            self.elapsed.as_secs_f64() * 1000.0
        );
        for line in &self.differences {
            text += &format!("            {line}\n");
        }
        for line in &self.unanswered_calls {
            text += &format!("      note: {line}\n");
        }
        text
    }

    fn to_json(&self, case: &TestCase) -> Value {
        json!({
            "case": case.name,
            "passed": self.differences.is_empty(),
            "expectation_written": self.expectation_written,
            "differences": self.differences,
            "unanswered_calls": self.unanswered_calls,
            "millis": self.elapsed.as_secs_f64() * 1000.0,
        })
    }
}
