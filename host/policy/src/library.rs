//! Components that are compiled and linked, ready to be instantiated.
//!
//! Two jobs that want the same component at the same time wait for one compilation. What nobody uses is dropped when many
//! have come together; it is loaded again from disk in less than a millisecond.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmtime::Engine;
use weir_core::PolicyError;
use weir_core::manifest::ComponentFile;

use crate::compiler::{Compiler, unusable};
use crate::link::{Granted, Linked};

/// Components kept although nobody uses them.
const KEPT: usize = 256;

type Key = ([u8; 32], Granted);
type Place = Arc<OnceCell<Arc<Linked>>>;

pub(crate) struct Library {
    engine: Engine,
    compiler: Compiler,
    components: Mutex<HashMap<Key, Place>>,
}

impl Library {
    pub(crate) fn new(engine: Engine, compiler: Compiler) -> Self {
        Self {
            engine,
            compiler,
            components: Mutex::default(),
        }
    }

    /// A component linked with these rights.
    pub(crate) async fn get(
        &self,
        file: &ComponentFile,
        granted: Granted,
    ) -> Result<Arc<Linked>, PolicyError> {
        let place = self.place((file.digest, granted));
        let linked = place
            .get_or_try_init(async || {
                let component = self.compiler.component(file).await?;
                Linked::new(&self.engine, &component, granted)
                    .map(Arc::new)
                    .map_err(|reason| unusable(file, reason))
            })
            .await?;
        Ok(Arc::clone(linked))
    }

    fn place(&self, key: Key) -> Place {
        let mut components = self.components.lock();
        if components.len() >= KEPT && !components.contains_key(&key) {
            components.retain(|_, place| match place.get() {
                Some(linked) => Arc::strong_count(linked) > 1,
                None => Arc::strong_count(place) > 1,
            });
        }
        Arc::clone(components.entry(key).or_default())
    }
}
