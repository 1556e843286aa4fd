//! In-memory LRU cache of components that are compiled and linked, ready to be instantiated.
//!
//! Jobs that need the same component at the same time share one compilation. A full cache evicts the unused component whose
//! last lookup is the oldest. Loading it from disk again takes less than a millisecond.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmtime::Engine;
use weir_core::manifest::ComponentFile;
use weir_core::{PolicyError, TenantId};

use crate::compiler::{Compiler, unusable_error};
use crate::linked_component::{GrantedCapabilities, LinkedComponent};

type CacheKey = ([u8; 32], GrantedCapabilities);
type ComponentCell = Arc<OnceCell<Arc<LinkedComponent>>>;

pub(crate) struct LinkedComponentCache {
    engine: Engine,
    compiler: Compiler,
    max_components: usize,
    entries: Mutex<CacheEntries>,
}

#[derive(Default)]
struct CacheEntries {
    components: HashMap<CacheKey, CacheEntry>,
    /// Lookups so far: the clock of the LRU order.
    lookups: u64,
}

struct CacheEntry {
    cell: ComponentCell,
    /// Number of the last lookup of this entry.
    last_lookup: u64,
}

impl CacheEntry {
    fn is_unused(&self) -> bool {
        match self.cell.get() {
            Some(linked) => Arc::strong_count(linked) == 1 && Arc::strong_count(&self.cell) == 1,
            None => Arc::strong_count(&self.cell) == 1,
        }
    }
}

impl LinkedComponentCache {
    pub(crate) fn new(engine: Engine, compiler: Compiler, most: u32) -> Self {
        Self {
            engine,
            compiler,
            max_components: usize::try_from(most).unwrap_or(usize::MAX),
            entries: Mutex::default(),
        }
    }

    /// Returns a component linked with these capabilities; compiles and links it if it is not in the cache.
    ///
    /// The CPU time of a compilation is charged to the tenant `payer`. Without a payer it is charged to nobody: such a component
    /// was compiled before, by an earlier build of Weir.
    pub(crate) async fn get_or_link(
        &self,
        file: &ComponentFile,
        granted: GrantedCapabilities,
        payer: Option<&TenantId>,
    ) -> Result<Arc<LinkedComponent>, PolicyError> {
        let cell = self.find_or_insert_cell((file.digest, granted));
        let linked = cell
            .get_or_try_init(async || {
                let (component, lease) = self.compiler.load_or_compile(file, payer).await?;
                LinkedComponent::new(&self.engine, &component, lease, granted)
                    .map(Arc::new)
                    .map_err(|reason| unusable_error(file, reason))
            })
            .await?;
        Ok(Arc::clone(linked))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.lock().components.len()
    }

    fn find_or_insert_cell(&self, key: CacheKey) -> ComponentCell {
        let mut entries = self.entries.lock();
        entries.lookups += 1;
        let lookup = entries.lookups;
        if let Some(entry) = entries.components.get_mut(&key) {
            entry.last_lookup = lookup;
            return Arc::clone(&entry.cell);
        }
        while entries.components.len() >= self.max_components {
            let unused = entries.components.iter().filter(|(_, entry)| entry.is_unused());
            let oldest = unused.min_by_key(|(_, entry)| entry.last_lookup);
            let Some(key) = oldest.map(|(key, _)| *key) else {
                break;
            };
            entries.components.remove(&key);
        }
        let cell = ComponentCell::default();
        let entry = CacheEntry {
            cell: Arc::clone(&cell),
            last_lookup: lookup,
        };
        entries.components.insert(key, entry);
        cell
    }
}
