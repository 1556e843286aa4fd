//! Links a component against the capabilities that its manifest grants, and nothing else.
//!
//! A capability that is not granted is not in the linker, so a component cannot reach it even by a bug in the host. The
//! check before linking only makes the error message readable.

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Result};
use weir_core::component::ComponentInterface;
use weir_core::manifest::{Capability, Role};

use crate::bindings::{batching, chunking, inference, log, progress, rasterizer, routing, settings, state};
use crate::compiler::CacheFileInUseGuard;
use crate::instance::instance_data::InstanceData;
use crate::wasi_linker;

const WIT_PACKAGE_PREFIX: &str = "weir:pipeline/";
const WIT_VERSION_SUFFIX: &str = "@0.1.0";

/// The capabilities that a manifest grants, as a hashable set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct GrantedCapabilities {
    state: bool,
    rasterizer: bool,
    inference: bool,
}

impl GrantedCapabilities {
    pub(crate) fn new(grants: &[Capability]) -> Self {
        Self {
            state: grants.contains(&Capability::State),
            rasterizer: grants.contains(&Capability::Rasterizer),
            inference: grants.contains(&Capability::Inference),
        }
    }

    /// Whether a component may import the interface; `None` if the contract has no such interface.
    fn is_import_allowed(self, name: &str) -> Option<bool> {
        match name {
            "settings" | "log" | "types" | "refusals" => Some(true),
            "state" => Some(self.state),
            "rasterizer" => Some(self.rasterizer),
            "inference" => Some(self.inference),
            _ => None,
        }
    }
}

/// A linked component with the roles that it exports.
pub(crate) struct LinkedComponent {
    pub(crate) instance_pre: InstancePre<InstanceData>,
    pub(crate) batching: Option<batching::GuestIndices>,
    pub(crate) routing: Option<routing::GuestIndices>,
    pub(crate) chunking: Option<chunking::GuestIndices>,
    pub(crate) progress: Option<progress::GuestIndices>,
    /// Names of all exports, for error messages.
    exports: Vec<String>,
    /// Capabilities that the component imports.
    capabilities: Vec<Capability>,
    /// Keeps the compiled file from being evicted.
    _file_guard: CacheFileInUseGuard,
}

impl LinkedComponent {
    /// Links a component. The error names the import that cannot be linked.
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        file_guard: CacheFileInUseGuard,
        granted: GrantedCapabilities,
    ) -> Result<Self, String> {
        let capabilities = check_imported_capabilities(engine, component, granted)?;
        let one_line = |e: wasmtime::Error| format!("{e:#}").replace('\n', " ");
        let instance = build_linker(engine, granted)
            .and_then(|linker| linker.instantiate_pre(component))
            .map_err(one_line)?;
        let exports: Vec<String> = component
            .component_type()
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let has = |role: Role| exports.contains(&role_interface_name(role));
        Ok(Self {
            batching: has(Role::Batching)
                .then(|| batching::GuestIndices::new(&instance))
                .transpose()
                .map_err(one_line)?,
            routing: has(Role::Routing)
                .then(|| routing::GuestIndices::new(&instance))
                .transpose()
                .map_err(one_line)?,
            chunking: has(Role::Chunking)
                .then(|| chunking::GuestIndices::new(&instance))
                .transpose()
                .map_err(one_line)?,
            progress: has(Role::Progress)
                .then(|| progress::GuestIndices::new(&instance))
                .transpose()
                .map_err(one_line)?,
            instance_pre: instance,
            exports,
            capabilities,
            _file_guard: file_guard,
        })
    }

    /// Returns the roles and capabilities of the component. If it has no role, the error names its exports.
    pub(crate) fn component_interface(&self) -> Result<ComponentInterface, String> {
        let has = |role: &Role| self.exports.contains(&role_interface_name(*role));
        let roles: Vec<Role> = Role::ALL.into_iter().filter(has).collect();
        if !roles.is_empty() {
            return Ok(ComponentInterface {
                roles,
                capabilities: self.capabilities.clone(),
            });
        }
        let other = self
            .exports
            .iter()
            .find(|name| name.starts_with(WIT_PACKAGE_PREFIX));
        Err(match other {
            Some(name) => format!(
                "it exports {name}, but this Weir supports {WIT_PACKAGE_PREFIX}…{WIT_VERSION_SUFFIX}: build it against the wit/ of this Weir"
            ),
            None => format!(
                "it has no role: it exports {}, and a component exports one or more of {}",
                join_names(&self.exports),
                Role::ALL.map(role_interface_name).join(", ")
            ),
        })
    }

    /// Checks that the component exports a role. The error names its exports.
    pub(crate) fn require_role(&self, role: Role) -> Result<(), String> {
        let interface = role_interface_name(role);
        if self.exports.contains(&interface) {
            return Ok(());
        }
        Err(format!(
            "it does not export {interface}, which the role {} needs; it exports {}",
            role.name(),
            join_names(&self.exports)
        ))
    }
}

fn join_names(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names => names.join(", "),
    }
}

fn role_interface_name(role: Role) -> String {
    format!("{WIT_PACKAGE_PREFIX}{}{WIT_VERSION_SUFFIX}", role.name())
}

/// Returns the capabilities that a component imports. Fails if one of them is not granted or does not exist.
fn check_imported_capabilities(
    engine: &Engine,
    component: &Component,
    granted: GrantedCapabilities,
) -> Result<Vec<Capability>, String> {
    let mut capabilities = Vec::new();
    for (import, _) in component.component_type().imports(engine) {
        let Some(name) = import.strip_prefix(WIT_PACKAGE_PREFIX) else {
            if import.starts_with("wasi:") {
                continue;
            }
            return Err(format!("it imports {import}, which Weir does not provide"));
        };
        let plain = name.strip_suffix(WIT_VERSION_SUFFIX).unwrap_or(name);
        match granted.is_import_allowed(plain) {
            Some(true) => capabilities.extend(Capability::from_name(plain)),
            Some(false) => {
                return Err(format!(
                    "it imports {import}, which is not granted: add \"{plain}\" to [capabilities] grant in the manifest"
                ));
            }
            None => {
                return Err(format!(
                    "it imports {import}, which version {WIT_VERSION_SUFFIX} of the contract does not have"
                ));
            }
        }
    }
    capabilities.sort_unstable();
    capabilities.dedup();
    Ok(capabilities)
}

fn build_linker(engine: &Engine, granted: GrantedCapabilities) -> Result<Linker<InstanceData>> {
    let mut linker = Linker::new(engine);
    wasi_linker::add_wasi_to_linker(&mut linker)?;
    settings::add_to_linker::<_, HasSelf<InstanceData>>(&mut linker, |guest| guest)?;
    log::add_to_linker::<_, HasSelf<InstanceData>>(&mut linker, |guest| guest)?;
    if granted.state {
        state::add_to_linker::<_, HasSelf<InstanceData>>(&mut linker, |guest| guest)?;
    }
    if granted.rasterizer {
        rasterizer::add_to_linker::<_, HasSelf<InstanceData>>(&mut linker, |guest| guest)?;
    }
    if granted.inference {
        inference::add_to_linker::<_, HasSelf<InstanceData>>(&mut linker, |guest| guest)?;
    }
    Ok(linker)
}
