//! In-memory LRU cache of components that are compiled and linked, ready to be instantiated.
//!
//! Jobs that need the same component at the same time share one compilation. A full cache evicts the unused component whose
//! last lookup is the oldest. Loading it from disk again takes less than a millisecond.

use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmtime::Engine;
use weir_core::manifest::ResolvedComponentFile;
use weir_core::{PolicyError, TenantId};

use crate::compiler::{ComponentCompiler, component_unusable_error};
use crate::linked_component::{GrantedCapabilities, LinkedComponent};

type CacheKey = ([u8; 32], GrantedCapabilities);
type ComponentCell = Arc<OnceCell<Arc<LinkedComponent>>>;

pub(crate) struct LinkedComponentCache {
    engine: Engine,
    compiler: ComponentCompiler,
    max_components: usize,
    cells: Mutex<LruCache<CacheKey, ComponentCell>>,
}

fn is_unused(cell: &ComponentCell) -> bool {
    Arc::strong_count(cell) == 1 && cell.get().is_none_or(|linked| Arc::strong_count(linked) == 1)
}

impl LinkedComponentCache {
    pub(crate) fn new(engine: Engine, compiler: ComponentCompiler, component_limit: u32) -> Self {
        Self {
            engine,
            compiler,
            max_components: usize::try_from(component_limit).unwrap_or(usize::MAX),
            cells: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Returns a component linked with these capabilities; compiles and links it if it is not in the cache.
    ///
    /// The CPU time of a compilation is charged to the tenant `payer`. `None` charges no tenant: the component was already
    /// compiled by an earlier build of Weir.
    pub(crate) async fn get_or_compile_and_link(
        &self,
        file: &ResolvedComponentFile,
        granted: GrantedCapabilities,
        payer: Option<&TenantId>,
    ) -> Result<Arc<LinkedComponent>, PolicyError> {
        let cell = self.find_or_insert_cell((file.digest, granted));
        let linked = cell
            .get_or_try_init(async || {
                let (component, file_guard) = self.compiler.load_or_compile(file, payer).await?;
                LinkedComponent::new(&self.engine, &component, file_guard, granted)
                    .map(Arc::new)
                    .map_err(|reason| component_unusable_error(file, reason))
            })
            .await?;
        Ok(Arc::clone(linked))
    }

    pub(crate) fn len(&self) -> usize {
        self.cells.lock().len()
    }

    fn find_or_insert_cell(&self, key: CacheKey) -> ComponentCell {
        let mut cells = self.cells.lock();
        if let Some(cell) = cells.get(&key) {
            return Arc::clone(cell);
        }
        while cells.len() >= self.max_components {
            // `iter` begins with the most recently used component.
            let unused = cells.iter().rev().find(|(_, cell)| is_unused(cell));
            let Some(evicted) = unused.map(|(key, _)| *key) else {
                break;
            };
            cells.pop(&evicted);
        }
        let cell = ComponentCell::default();
        cells.put(key, Arc::clone(&cell));
        cell
    }
}
