//! The folders of Weir on this machine, by the XDG base directory specification.

use std::path::{Path, PathBuf};

use weir_core::settings::Settings;

/// The folders that Weir uses.
#[derive(Debug, Clone)]
pub(crate) struct AppFolders {
    /// Documents, vectors, ledger.
    pub(crate) data: PathBuf,
    /// Native libraries and models.
    pub(crate) assets: PathBuf,
    /// The default components.
    pub(crate) default_components: PathBuf,
    /// Data that can be recreated: compiled components and toolchains.
    pub(crate) cache: PathBuf,
}

impl AppFolders {
    /// Returns the folders that options and settings name, and the default folders for the rest.
    pub(crate) fn new(data: Option<&Path>, settings: &Settings) -> Self {
        let share = xdg_folder("XDG_DATA_HOME", ".local/share");
        Self {
            data: data.map_or_else(|| share.join("data"), Path::to_owned),
            assets: non_empty_path(&settings.assets).unwrap_or_else(|| share.join("assets")),
            default_components: non_empty_path(&settings.components)
                .unwrap_or_else(default_components_folder),
            cache: xdg_folder("XDG_CACHE_HOME", ".cache"),
        }
    }
}

impl AppFolders {
    /// Returns the context for errors of stores: it names the data folder, which the errors themselves do not name.
    pub(crate) fn data_folder_error_context(&self) -> String {
        format!("cannot use the data folder {}", self.data.display())
    }
}

fn non_empty_path(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

/// Returns the folder `weir` in the base directory that the environment variable names, or in `fallback` below the home folder.
/// A relative value of the variable is ignored, as the specification requires.
fn xdg_folder(variable: &str, fallback: &str) -> PathBuf {
    let absolute = |v: std::ffi::OsString| Some(PathBuf::from(v)).filter(|p| p.is_absolute());
    let base = std::env::var_os(variable).and_then(absolute);
    let home = || {
        std::env::var_os("HOME")
            .and_then(absolute)
            .unwrap_or_else(std::env::temp_dir)
    };
    base.unwrap_or_else(|| home().join(fallback)).join("weir")
}

/// Returns `../share/weir/components` relative to the binary if it exists (an installation under a prefix), else
/// `components` next to the binary.
fn default_components_folder() -> PathBuf {
    let binary = std::env::current_exe().unwrap_or_default();
    let folder = binary.parent().unwrap_or(Path::new("."));
    let installed = folder.join("../share/weir/components");
    if installed.is_dir() {
        installed
    } else {
        folder.join("components")
    }
}
