//! `weir component test`: a component is asked what its cases ask, in the sandbox it will live in.
//!
//! The sandbox is the real one: compiled in a child process, linked against what the manifest grants, under the host's limits
//! and the manifest's. Only nobody stands in for a component that fails, since that is what one wants to see, and what it may
//! ask of the host is answered by the case.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use weir_core::manifest::{Manifest, OnTrap, Pipeline, Role};
use weir_core::ports::{Policies as _, PolicyRequest};
use weir_core::settings::Settings;
use weir_core::{JobId, PolicyError, TenantId};
use weir_policy::{PolicyConfig, PolicyHost};

use super::args::Test;
use super::case::{Case, Expected};
use super::difference;
use super::source;
use super::stand_ins::{MemoryState, StandIn};
use crate::places::Places;
use crate::terminal::{announce, out_line, print};
use crate::{FAILED, host, pipeline};

/// What came of a case.
struct Outcome {
    /// Nothing if all is as expected.
    differences: Vec<String>,
    /// Whether what was decided has been written down.
    written: bool,
    /// What the component asked and the case did not answer.
    unanswered: Vec<String>,
    /// How long the calls took.
    took: Duration,
}

/// Runs the cases of a folder.
pub(crate) async fn run(args: &Test, json: bool, settings: &Settings, places: &Places) -> Result<ExitCode> {
    let mut manifest = source::manifest(&args.folder)?;
    if let Some(file) = &args.component {
        manifest
            .components
            .values_mut()
            .for_each(|path| path.clone_from(file));
    }
    for file in manifest.components.values() {
        ensure!(
            file.is_file(),
            "{} has not been built: run `weir component build {}`",
            file.display(),
            args.folder.display()
        );
    }
    let cases = Case::all(&args.cases.clone().unwrap_or_else(|| args.folder.join("cases")))?;
    let sandbox = Sandbox::open(manifest, settings, places)?;
    let mut different = 0;
    let mut reports = Vec::new();
    for case in &cases {
        let outcome = sandbox.judge(case, args.write).await?;
        different += usize::from(!outcome.differences.is_empty());
        if json {
            reports.push(outcome.report(case));
        } else {
            print(format_args!("{}", outcome.told(case)))?;
        }
    }
    let fine = cases.len() - different;
    if json {
        out_line!(
            "{}",
            json!({ "cases": reports, "as-expected": fine, "different": different })
        )?;
    } else {
        let cases = if cases.len() == 1 { "case" } else { "cases" };
        out_line!(
            "{} {cases}: {fine} as expected, {different} different",
            reports.len().max(fine + different)
        )?;
    }
    Ok(if different == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(FAILED)
    })
}

/// A place to ask components in.
pub(crate) struct Sandbox {
    host: Arc<PolicyHost>,
    state: Arc<MemoryState>,
    manifest: Manifest,
}

impl Sandbox {
    /// A sandbox like the host's, for the components of one manifest.
    pub(crate) fn open(mut manifest: Manifest, settings: &Settings, places: &Places) -> Result<Self> {
        manifest.on_trap = OnTrap::Fail;
        let state = Arc::new(MemoryState::default());
        let host = PolicyHost::new(PolicyConfig {
            // One for each component of one job.
            instances: u32::try_from(Role::ALL.len())?,
            ..host::policy_config(settings, places, state.clone())?
        })?;
        Ok(Self {
            host,
            state,
            manifest,
        })
    }

    /// Asks what a case asks and compares what is decided.
    async fn judge(&self, case: &Case, write: bool) -> Result<Outcome> {
        let stand_in = Arc::new(StandIn::new(case.answers.clone()));
        let (decided, took) = self.ask(case, &stand_in).await?;
        let mut written = false;
        let differences = match (&case.expected, decided) {
            (Expected::Decision(expected), Ok(decisions)) => {
                difference::between(expected, &case.shaped(decisions))
            }
            (Expected::Error(expected), Err(error))
                if error.kind() == expected.kind && error.to_string().contains(&expected.message) =>
            {
                Vec::new()
            }
            (Expected::Error(expected), Err(error)) => vec![format!(
                "expected {} '{}', failed with {}: {error}",
                expected.kind,
                expected.message,
                error.kind()
            )],
            (Expected::Error(expected), Ok(decisions)) => vec![format!(
                "expected {}, decided {}",
                expected.kind,
                case.shaped(decisions)
            )],
            (Expected::Decision(_), Err(error)) => vec![format!(
                "expected a decision, failed with {}: {error}",
                error.kind()
            )],
            (Expected::Nothing, decided) if write => {
                written = true;
                match decided {
                    Ok(decisions) => case.expect_decision(&case.shaped(decisions))?,
                    Err(error) => case.expect_error(error.kind())?,
                }
                Vec::new()
            }
            (Expected::Nothing, Ok(decisions)) => vec![format!(
                "expects nothing yet; --write would write down {}",
                case.shaped(decisions)
            )],
            (Expected::Nothing, Err(error)) => vec![format!(
                "expects nothing yet; it failed with {}: {error}",
                error.kind()
            )],
        };
        Ok(Outcome {
            differences,
            written,
            unanswered: stand_in.unanswered(),
            took,
        })
    }

    /// A job of a case's calls: their decisions, or the first error. The outer error is about the case or the component as a whole.
    async fn ask(
        &self,
        case: &Case,
        stand_in: &Arc<StandIn>,
    ) -> Result<(Result<Vec<Value>, PolicyError>, Duration)> {
        for call in &case.calls {
            if !self.manifest.components.contains_key(&call.role()) {
                bail!(
                    "the case {} calls {}, and the manifest names no component for {}",
                    case.name,
                    call.function(),
                    call.role().name()
                );
            }
        }
        self.state.clear();
        let mut manifest = self.manifest.clone();
        manifest.settings.extend(case.settings.clone());
        let mut files = BTreeMap::new();
        for (role, path) in &manifest.components {
            files.insert(*role, pipeline::component(path)?);
        }
        let pipeline = Pipeline::new(manifest, files, BTreeMap::new());
        let request = PolicyRequest {
            tenant: &TenantId::single(),
            job: JobId::new(),
            pipeline: &pipeline,
            capabilities: stand_in.clone(),
        };
        let opened = announce(
            "compiling the components, once for each build",
            self.host.open(request),
        );
        let job = match opened.await {
            Ok(job) => job,
            // What is wrong before the first call is wrong in every case.
            Err(error @ (PolicyError::Unusable { .. } | PolicyError::Exhausted { .. })) => {
                return Err(error.into());
            }
            Err(error) => return Ok((Err(error), Duration::ZERO)),
        };
        let started = Instant::now();
        let mut decisions = Vec::with_capacity(case.calls.len());
        for call in case.calls.clone() {
            match call.ask(&*job).await {
                Ok(decision) => decisions.push(decision),
                Err(error) => return Ok((Err(error), started.elapsed())),
            }
        }
        Ok((Ok(decisions), started.elapsed()))
    }
}

impl Outcome {
    fn told(&self, case: &Case) -> String {
        let word = match (self.differences.is_empty(), self.written) {
            (true, true) => "written",
            (true, false) => "ok",
            (false, _) => "FAILED",
        };
        let mut text = format!(
            "{word:8}{} ({:.1} ms)\n",
            case.name,
            self.took.as_secs_f64() * 1000.0
        );
        for line in &self.differences {
            text += &format!("            {line}\n");
        }
        for line in &self.unanswered {
            text += &format!("      note: the case was asked, and {line}\n");
        }
        text
    }

    fn report(&self, case: &Case) -> Value {
        json!({
            "case": case.name,
            "as-expected": self.differences.is_empty(),
            "written": self.written,
            "differences": self.differences,
            "unanswered": self.unanswered,
            "millis": self.took.as_secs_f64() * 1000.0,
        })
    }
}
