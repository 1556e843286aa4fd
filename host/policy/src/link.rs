//! What a component is linked against: what its manifest grants, and nothing else.
//!
//! A name that is not granted is not in the linker at all, so there is nothing behind it to be reached by mistake. The
//! check before linking only makes the refusal readable.

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Result};
use weir_core::component::ComponentFacts;
use weir_core::manifest::{Capability, Role};

use crate::bindings::{batching, chunking, inference, log, progress, rasterizer, routing, settings, state};
use crate::compiler::Lease;
use crate::guest::Guest;
use crate::wasi;

const PACKAGE: &str = "weir:pipeline/";
const VERSION: &str = "@0.1.0";

/// The rights of a pipeline, as a set that can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Granted {
    state: bool,
    rasterizer: bool,
    inference: bool,
}

impl Granted {
    pub(crate) fn new(grants: &[Capability]) -> Self {
        Self {
            state: grants.contains(&Capability::State),
            rasterizer: grants.contains(&Capability::Rasterizer),
            inference: grants.contains(&Capability::Inference),
        }
    }

    /// Whether a capability may be imported; `None` if there is none of that name.
    fn allows(self, name: &str) -> Option<bool> {
        match name {
            "settings" | "log" | "types" | "refusals" => Some(true),
            "state" => Some(self.state),
            "rasterizer" => Some(self.rasterizer),
            "inference" => Some(self.inference),
            _ => None,
        }
    }
}

/// A component, linked, with the roles it exports.
pub(crate) struct Linked {
    pub(crate) instance: InstancePre<Guest>,
    pub(crate) batching: Option<batching::GuestIndices>,
    pub(crate) routing: Option<routing::GuestIndices>,
    pub(crate) chunking: Option<chunking::GuestIndices>,
    pub(crate) progress: Option<progress::GuestIndices>,
    /// Names of everything it exports, for the error about what it does not.
    exports: Vec<String>,
    /// The capabilities it imports.
    capabilities: Vec<Capability>,
    /// Keeps its file.
    _lease: Lease,
}

impl Linked {
    /// Links a component; the error says which import stands in the way.
    pub(crate) fn new(
        engine: &Engine,
        component: &Component,
        lease: Lease,
        granted: Granted,
    ) -> Result<Self, String> {
        let capabilities = check_imports(engine, component, granted)?;
        let one_line = |e: wasmtime::Error| format!("{e:#}").replace('\n', " ");
        let instance = linker(engine, granted)
            .and_then(|linker| linker.instantiate_pre(component))
            .map_err(one_line)?;
        let exports: Vec<String> = component
            .component_type()
            .exports(engine)
            .map(|(name, _)| name.to_owned())
            .collect();
        let has = |role: Role| exports.contains(&interface(role));
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
            instance,
            exports,
            capabilities,
            _lease: lease,
        })
    }

    /// What it is; the error says that it has no role, and what it has instead.
    pub(crate) fn facts(&self) -> Result<ComponentFacts, String> {
        let has = |role: &Role| self.exports.contains(&interface(*role));
        let roles: Vec<Role> = Role::ALL.into_iter().filter(has).collect();
        if !roles.is_empty() {
            return Ok(ComponentFacts {
                roles,
                capabilities: self.capabilities.clone(),
            });
        }
        let other = self.exports.iter().find(|name| name.starts_with(PACKAGE));
        Err(match other {
            Some(name) => format!(
                "it exports {name}, and this Weir speaks {PACKAGE}…{VERSION}: build it against this Weir's wit/"
            ),
            None => format!(
                "it has no role: it exports {}, and a component exports one or more of {}",
                listed(&self.exports),
                Role::ALL.map(interface).join(", ")
            ),
        })
    }

    /// Whether the component can be asked for a role; the error says what it has instead.
    pub(crate) fn require(&self, role: Role) -> Result<(), String> {
        let interface = interface(role);
        if self.exports.contains(&interface) {
            return Ok(());
        }
        Err(format!(
            "it does not export {interface}, which the role {} needs; it exports {}",
            role.name(),
            listed(&self.exports)
        ))
    }
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        names => names.join(", "),
    }
}

fn interface(role: Role) -> String {
    format!("{PACKAGE}{}{VERSION}", role.name())
}

/// The capabilities a component imports, if it may have all of them.
fn check_imports(
    engine: &Engine,
    component: &Component,
    granted: Granted,
) -> Result<Vec<Capability>, String> {
    let mut capabilities = Vec::new();
    for (import, _) in component.component_type().imports(engine) {
        let Some(name) = import.strip_prefix(PACKAGE) else {
            if import.starts_with("wasi:") {
                continue;
            }
            return Err(format!("it imports {import}, which Weir does not have"));
        };
        let plain = name.strip_suffix(VERSION).unwrap_or(name);
        match granted.allows(plain) {
            Some(true) => capabilities.extend(Capability::named(plain)),
            Some(false) => {
                return Err(format!(
                    "it imports {import}, which is not granted: add \"{plain}\" to [capabilities] grant in the manifest"
                ));
            }
            None => return Err(format!("it imports {import}, which Weir {VERSION} does not have")),
        }
    }
    capabilities.sort_unstable();
    capabilities.dedup();
    Ok(capabilities)
}

fn linker(engine: &Engine, granted: Granted) -> Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasi::add_to_linker(&mut linker)?;
    settings::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    log::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    if granted.state {
        state::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    }
    if granted.rasterizer {
        rasterizer::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    }
    if granted.inference {
        inference::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    }
    Ok(linker)
}
