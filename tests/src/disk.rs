//! A small disk that can be filled.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A file system of its own; gone with all that is on it when this is dropped.
pub struct SmallDisk {
    root: PathBuf,
}

impl SmallDisk {
    /// Of so many MiB, at a folder that is made. Takes the right to mount, which containers of CI have.
    pub fn at(root: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(root).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(root)
            .status()
            .is_ok_and(|status| status.success());
        assert!(mounted, "this test needs the right to mount a tmpfs");
        Self {
            root: root.to_owned(),
        }
    }

    fn ballast(&self) -> PathBuf {
        self.root.join("ballast")
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        for piece in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Gives the room back.
    pub fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // At once, whoever still has a file open on it.
        let _ = Command::new("umount").arg("-l").arg(&self.root).status();
    }
}
