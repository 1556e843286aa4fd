//! What a component is linked against: what its manifest grants, and nothing else.
//!
//! A name that is not granted is not in the linker at all, so there is nothing behind it to be reached by mistake. The
//! check before linking only makes the refusal readable.

use wasmtime::component::{Component, HasSelf, InstancePre, Linker};
use wasmtime::{Engine, Result};
use weir_core::manifest::{Capability, Role};

use crate::bindings::{batching, chunking, inference, log, progress, rasterizer, routing, settings, state};
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
}

impl Linked {
    /// Links a component; the error says which import stands in the way.
    pub(crate) fn new(engine: &Engine, component: &Component, granted: Granted) -> Result<Self, String> {
        check_imports(engine, component, granted)?;
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
        })
    }

    /// Whether the component can be asked for a role; the error says what it has instead.
    pub(crate) fn require(&self, role: Role) -> Result<(), String> {
        let interface = interface(role);
        if self.exports.contains(&interface) {
            return Ok(());
        }
        let has = match self.exports.as_slice() {
            [] => "nothing".into(),
            names => names.join(", "),
        };
        Err(format!(
            "it does not export {interface}, which the role {} needs; it exports {has}",
            role.name()
        ))
    }
}

fn interface(role: Role) -> String {
    format!("{PACKAGE}{}{VERSION}", role.name())
}

fn check_imports(engine: &Engine, component: &Component, granted: Granted) -> Result<(), String> {
    for (import, _) in component.component_type().imports(engine) {
        let Some(name) = import.strip_prefix(PACKAGE) else {
            if import.starts_with("wasi:") {
                continue;
            }
            return Err(format!("it imports {import}, which Weir does not have"));
        };
        let plain = name.strip_suffix(VERSION).unwrap_or(name);
        match granted.allows(plain) {
            Some(true) => {}
            Some(false) => {
                return Err(format!(
                    "it imports {import}, which is not granted: add \"{plain}\" to [capabilities] grant in the manifest"
                ));
            }
            None => return Err(format!("it imports {import}, which Weir {VERSION} does not have")),
        }
    }
    Ok(())
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
