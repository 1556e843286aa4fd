//! Components that are compiled and linked, ready to be instantiated.
//!
//! Two jobs that want the same component at the same time wait for one compilation. There is room for so many; when one more is
//! wanted, the one goes that nobody uses and nobody has wanted for longest. It is loaded again from disk in less than a
//! millisecond.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;
use wasmtime::Engine;
use weir_core::manifest::ComponentFile;
use weir_core::{PolicyError, TenantId};

use crate::compiler::{Compiler, unusable};
use crate::link::{Granted, Linked};

type Key = ([u8; 32], Granted);
type Place = Arc<OnceCell<Arc<Linked>>>;

pub(crate) struct Library {
    engine: Engine,
    compiler: Compiler,
    most: usize,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    components: HashMap<Key, Kept>,
    /// How often something has been wanted.
    wants: u64,
}

struct Kept {
    place: Place,
    /// Which want was the last for it.
    wanted: u64,
}

impl Kept {
    fn is_idle(&self) -> bool {
        match self.place.get() {
            Some(linked) => Arc::strong_count(linked) == 1 && Arc::strong_count(&self.place) == 1,
            None => Arc::strong_count(&self.place) == 1,
        }
    }
}

impl Library {
    pub(crate) fn new(engine: Engine, compiler: Compiler, most: u32) -> Self {
        Self {
            engine,
            compiler,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            shelf: Mutex::default(),
        }
    }

    /// A component linked with these rights. If it has to be compiled first, that is on the `payer`'s account; on the house if
    /// there is none, as for a component that had been compiled, by an earlier build of Weir.
    pub(crate) async fn get(
        &self,
        file: &ComponentFile,
        granted: Granted,
        payer: Option<&TenantId>,
    ) -> Result<Arc<Linked>, PolicyError> {
        let place = self.place((file.digest, granted));
        let linked = place
            .get_or_try_init(async || {
                let (component, lease) = self.compiler.component(file, payer).await?;
                Linked::new(&self.engine, &component, lease, granted)
                    .map(Arc::new)
                    .map_err(|reason| unusable(file, reason))
            })
            .await?;
        Ok(Arc::clone(linked))
    }

    /// How many are in memory.
    pub(crate) fn len(&self) -> usize {
        self.shelf.lock().components.len()
    }

    fn place(&self, key: Key) -> Place {
        let mut shelf = self.shelf.lock();
        shelf.wants += 1;
        let wanted = shelf.wants;
        if let Some(kept) = shelf.components.get_mut(&key) {
            kept.wanted = wanted;
            return Arc::clone(&kept.place);
        }
        while shelf.components.len() >= self.most {
            let idle = shelf.components.iter().filter(|(_, kept)| kept.is_idle());
            let Some(key) = idle.min_by_key(|(_, kept)| kept.wanted).map(|(key, _)| *key) else {
                break;
            };
            shelf.components.remove(&key);
        }
        let place = Place::default();
        let kept = Kept {
            place: Arc::clone(&place),
            wanted,
        };
        shelf.components.insert(key, kept);
        place
    }
}
