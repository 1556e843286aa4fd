//! Where things are on this machine, after the XDG base directory specification.

use std::path::{Path, PathBuf};

use weir_core::settings::Settings;

/// The folders Weir uses.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// Documents, vectors, ledger.
    pub(crate) data: PathBuf,
    /// Native libraries and models.
    pub(crate) assets: PathBuf,
    /// The default components.
    pub(crate) components: PathBuf,
    /// What can be made again: compiled components.
    pub(crate) cache: PathBuf,
}

impl Places {
    /// The folders that flags and settings name, and the usual ones for the rest.
    pub(crate) fn new(data: Option<&Path>, settings: &Settings) -> Self {
        let share = xdg("XDG_DATA_HOME", ".local/share");
        Self {
            data: data.map_or_else(|| share.join("data"), Path::to_owned),
            assets: given(&settings.assets).unwrap_or_else(|| share.join("assets")),
            components: given(&settings.components).unwrap_or_else(beside_the_binary),
            cache: xdg("XDG_CACHE_HOME", ".cache"),
        }
    }
}

impl Places {
    /// For errors of the stores, which do not name it.
    pub(crate) fn opening(&self) -> String {
        format!("cannot use the data folder {}", self.data.display())
    }
}

fn given(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

/// Weir's folder under the base directory that `variable` names, or under `usual` in the home folder. A relative value
/// is ignored, as the specification asks.
fn xdg(variable: &str, usual: &str) -> PathBuf {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    let base = std::env::var_os(variable).and_then(absolute);
    let home = || {
        std::env::var_os("HOME")
            .and_then(absolute)
            .unwrap_or_else(std::env::temp_dir)
    };
    base.unwrap_or_else(|| home().join(usual)).join("weir")
}

/// `components` beside the binary, or `../share/weir/components` where it is installed under a prefix.
fn beside_the_binary() -> PathBuf {
    let binary = std::env::current_exe().unwrap_or_default();
    let folder = binary.parent().unwrap_or(Path::new("."));
    let installed = folder.join("../share/weir/components");
    if installed.is_dir() {
        installed
    } else {
        folder.join("components")
    }
}
