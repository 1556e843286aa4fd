//! A small file system that a test can fill up.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs that is unmounted, with all of its files, on drop.
pub struct SmallDisk {
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Creates the folder and mounts a tmpfs of this size on it. Needs the right to mount, which the CI containers have.
    pub fn mount(root: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(root).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(root)
            .status()
            .is_ok_and(|status| status.success());
        assert!(mounted, "this test needs the right to mount a tmpfs");
        Self {
            mount_point: root.to_owned(),
        }
    }

    fn filler_path(&self) -> PathBuf {
        self.mount_point.join("ballast")
    }

    /// Writes a file until not a single byte is free.
    pub fn fill(&self) {
        let mut ballast = File::options()
            .create(true)
            .append(true)
            .open(self.filler_path())
            .unwrap();
        for piece in [1 << 20, 1 << 12, 1] {
            while ballast.write_all(&vec![0; piece]).is_ok() {}
        }
    }

    /// Deletes the file that [`SmallDisk::fill`] wrote.
    pub fn free_space(&self) {
        fs::remove_file(self.filler_path()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // A lazy unmount succeeds even if a process still has a file open.
        let _ = Command::new("umount").arg("-l").arg(&self.mount_point).status();
    }
}
