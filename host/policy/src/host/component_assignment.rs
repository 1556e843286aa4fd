//! Assigns the components of a pipeline to the roles of a job.

use weir_core::manifest::{ComponentFailurePolicy, ResolvedComponentFile, Role};
use weir_core::ports::OpenPolicyRequest;

use crate::recording::{RecordedComponent, RoleAssignment, SessionHeader};
use crate::wasm_job_policy::PrimaryAndFallbackSlots;

/// A component that a job needs, with its roles in the job.
pub(super) struct RequiredComponent<'a> {
    pub(super) file: &'a ResolvedComponentFile,
    pub(super) roles: Vec<Role>,
    /// Whether the component is called only after another one has failed.
    pub(super) is_fallback: bool,
}

/// Lists the components that the job needs, each once, and assigns them to the roles.
pub(super) fn assign_components<'a>(
    request: &OpenPolicyRequest<'a>,
) -> (
    Vec<RequiredComponent<'a>>,
    [PrimaryAndFallbackSlots; Role::ALL.len()],
) {
    let pipeline = request.pipeline;
    let mut required: Vec<RequiredComponent<'a>> = Vec::with_capacity(Role::ALL.len());
    let mut roles = [PrimaryAndFallbackSlots::default(); Role::ALL.len()];
    let mut find_or_add = |file: &'a ResolvedComponentFile, role: Role, is_fallback: bool| {
        let found = required
            .iter_mut()
            .enumerate()
            .find(|(_, component)| component.file.digest == file.digest);
        if let Some((index, component)) = found {
            if !component.roles.contains(&role) {
                component.roles.push(role);
            }
            component.is_fallback &= is_fallback;
            return index;
        }
        required.push(RequiredComponent {
            file,
            roles: vec![role],
            is_fallback,
        });
        required.len() - 1
    };
    for (role, assigned) in Role::ALL.into_iter().zip(&mut roles) {
        assigned.primary = pipeline
            .components
            .get(&role)
            .map(|file| find_or_add(file, role, false));
    }
    if pipeline.manifest.on_component_failure == ComponentFailurePolicy::Default {
        for (role, assigned) in Role::ALL.into_iter().zip(&mut roles) {
            assigned.fallback = pipeline
                .default_components
                .get(&role)
                .map(|file| find_or_add(file, role, true))
                .filter(|index| Some(*index) != assigned.primary);
        }
    }
    (required, roles)
}

/// Returns the header of the job's recording.
pub(super) fn recording_session_header(
    request: &OpenPolicyRequest<'_>,
    required: &[RequiredComponent<'_>],
    roles: &[PrimaryAndFallbackSlots; Role::ALL.len()],
) -> SessionHeader {
    let to_u16 = |index: usize| u16::try_from(index).unwrap_or(u16::MAX);
    let assigned = Role::ALL.into_iter().zip(roles).filter_map(|(role, assigned)| {
        Some(RoleAssignment {
            role,
            primary: to_u16(assigned.primary?),
            fallback: assigned.fallback.map(to_u16),
        })
    });
    let manifest = &request.pipeline.manifest;
    SessionHeader {
        tenant: request.tenant.clone(),
        job: request.job,
        pipeline: manifest.name.clone(),
        revision: request.pipeline.revision,
        settings: manifest
            .settings
            .keys()
            .filter_map(|name| Some((name.clone(), manifest.setting_text(name)?)))
            .collect(),
        components: required
            .iter()
            .map(|component| RecordedComponent {
                name: component.file.name.clone(),
                digest: component.file.digest,
            })
            .collect(),
        role_assignments: assigned.collect(),
        granted_capabilities: manifest.capabilities.grant.clone(),
        limits: manifest.limits,
    }
}
