//! Memory that the host and one worker process both see.
//!
//! The host makes it (a memfd whose size is sealed, so that no worker can shrink it under the host's feet and turn a read
//! into a SIGBUS), keeps a view of it and hands the descriptor to the worker. A view cannot be taken back: a worker that a
//! hostile PDF has taken over can go on writing into pixels the host is reading. The host therefore treats pixels as what
//! they are, bytes of an untrusted file: it never derives a length, an offset or a decision about memory from them, and
//! any byte is a valid `u8`. Copying each page would close the gap and cost more than drawing it.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Mmap, MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// A piece of shared memory, as its maker holds it.
#[derive(Debug)]
pub(crate) struct Memory {
    fd: OwnedFd,
    length: usize,
}

impl Memory {
    /// Makes `length` bytes, all zero.
    pub(crate) fn new(name: &str, length: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, length as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, length })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn view(&self) -> io::Result<Mmap> {
        // SAFETY: the size is sealed, so every byte of the map stays readable; bytes that change while they are read are
        // expected (see the head of this module) and never decide about memory.
        unsafe { MmapOptions::new().len(self.length).map(&self.fd) }
    }

    /// Gives the bytes from `from` on back to the system although others may still map them; they read as zeros then.
    pub(crate) fn release(&self, from: u64) {
        let Some(length) = (self.length as u64)
            .checked_sub(from)
            .filter(|length| *length > 0)
        else {
            return;
        };
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(&self.fd, hole, from, length) {
            tracing::debug!(%error, "shared memory is kept until the worker lets go of it");
        }
    }
}

/// Maps a segment for drawing, in the worker.
pub(crate) fn canvas(fd: &OwnedFd, length: usize) -> io::Result<MmapMut> {
    // SAFETY: the size is sealed; only this process writes, and the host reads only after the page is reported drawn.
    unsafe { MmapOptions::new().len(length).map_mut(fd) }
}

/// Maps a file for parsing, in the worker.
pub(crate) fn file(fd: OwnedFd, length: usize) -> io::Result<Mmap> {
    // SAFETY: the map is only read, by PDFium. Another process that truncates the file costs this worker its life by
    // SIGBUS, which the host takes for what it is: a worker that died on a page.
    unsafe { MmapOptions::new().len(length).map(&File::from(fd)) }
}

/// One page of memory through which a worker shows that it gets on, and the host says that nobody waits any more.
#[derive(Debug)]
pub(crate) struct Pulse {
    map: MmapRaw,
}

impl Pulse {
    /// Bytes of its memory.
    pub(crate) const BYTES: usize = 4096;

    pub(crate) fn map(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(Self::BYTES)
            .map_raw(std::os::fd::AsRawFd::as_raw_fd(&fd))?;
        Ok(Self { map })
    }

    fn beats_cell(&self) -> &AtomicU64 {
        // SAFETY: the map is page-aligned, longer than 8 bytes and lives as long as `self`; both sides touch it by
        // atomics only.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>() }
    }

    fn abandoned_cell(&self) -> &AtomicU32 {
        // SAFETY: as above; offset 64 is aligned, inside the map, and on a cache line of its own.
        unsafe { &*self.map.as_ptr().add(64).cast::<AtomicU32>() }
    }

    /// The worker got on.
    pub(crate) fn beat(&self) {
        self.beats_cell().fetch_add(1, Ordering::Relaxed);
    }

    /// Changes whenever the worker gets on.
    pub(crate) fn beats(&self) -> u64 {
        self.beats_cell().load(Ordering::Relaxed)
    }

    /// Tells the worker whether the order in work is wanted any more.
    pub(crate) fn abandon(&self, abandoned: bool) {
        self.abandoned_cell()
            .store(u32::from(abandoned), Ordering::Relaxed);
    }

    /// Whether the order in work is not wanted any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned_cell().load(Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_side_writes_the_other_reads_and_nobody_can_shrink_it() {
        let memory = Memory::new("test", 8192).unwrap();
        let view = memory.view().unwrap();
        let copy = memory.fd().try_clone_to_owned().unwrap();
        let mut canvas = canvas(&copy, 8192).unwrap();
        canvas[8191] = 7;
        assert_eq!(view[8191], 7);
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
        canvas[0] = 5;
        memory.release(4096);
        assert_eq!((view[0], view[8191]), (5, 0));
    }

    #[test]
    fn a_pulse_goes_both_ways() {
        let memory = Memory::new("test", Pulse::BYTES).unwrap();
        let (host, worker) = (Pulse::map(memory.fd()).unwrap(), Pulse::map(memory.fd()).unwrap());
        let before = host.beats();
        worker.beat();
        assert_ne!(host.beats(), before);
        assert!(!worker.is_abandoned());
        host.abandon(true);
        assert!(worker.is_abandoned());
    }
}
