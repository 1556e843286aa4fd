//! Memory that the host shares with one worker process.
//!
//! The host creates it as a memfd with a sealed size, so that no worker can shrink it and turn a read of the host into a SIGBUS. The
//! host keeps a read-only mapping and sends the descriptor to the worker. A mapping cannot be revoked: a worker that is controlled by
//! a hostile PDF can write pixels while the host reads them. The host therefore treats pixels as untrusted bytes. It never derives
//! a length, an offset or any decision about memory from them, and every byte is a valid `u8`. Copying each page would close the
//! gap, but it would cost more than drawing the page.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memmap2::{Mmap, MmapMut, MmapOptions, MmapRaw};
use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};

/// A block of shared memory, owned by the host.
#[derive(Debug)]
pub(crate) struct SharedMemory {
    fd: OwnedFd,
    length: usize,
}

impl SharedMemory {
    /// Creates `length` bytes, all zero.
    pub(crate) fn new(name: &str, length: usize) -> io::Result<Self> {
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, length as u64)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        Ok(Self { fd, length })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(crate) fn map_read_only(&self) -> io::Result<Mmap> {
        // SAFETY: the size is sealed, so every byte of the mapping stays readable. Bytes may change while they are read; no decision about
        // memory depends on them (see the head of this module).
        unsafe { MmapOptions::new().len(self.length).map(&self.fd) }
    }

    /// Frees the memory from offset `from` to the end, even while other processes map it. Those bytes then read as zeros.
    pub(crate) fn release_bytes_from_offset(&self, from: u64) {
        let Some(length) = (self.length as u64)
            .checked_sub(from)
            .filter(|length| *length > 0)
        else {
            return;
        };
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if let Err(error) = rustix::fs::fallocate(&self.fd, hole, from, length) {
            tracing::debug!(%error, "shared memory stays allocated until the worker unmaps it");
        }
    }
}

/// Maps a segment for drawing; called by the worker.
pub(crate) fn map_segment_for_drawing(fd: &OwnedFd, length: usize) -> io::Result<MmapMut> {
    // SAFETY: the size is sealed; only this process writes, and the host reads only after the worker has reported the page as drawn.
    unsafe { MmapOptions::new().len(length).map_mut(fd) }
}

/// Maps a PDF file for parsing; called by the worker.
pub(crate) fn map_pdf_file(fd: OwnedFd, length: usize) -> io::Result<Mmap> {
    // SAFETY: the mapping is only read, by PDFium. If another process truncates the file, SIGBUS ends this worker, and the host treats
    // it as a worker that died on a page.
    unsafe { MmapOptions::new().len(length).map(&File::from(fd)) }
}

/// One page of shared memory with two values: the worker counts its progress, and the host sets the cancellation flag.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    map: MmapRaw,
}

impl Heartbeat {
    /// Bytes of the mapping.
    pub(crate) const MAP_BYTES: usize = 4096;

    pub(crate) fn map_heartbeat(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let map = MmapOptions::new()
            .len(Self::MAP_BYTES)
            .map_raw(std::os::fd::AsRawFd::as_raw_fd(&fd))?;
        Ok(Self { map })
    }

    fn beat_count_cell(&self) -> &AtomicU64 {
        // SAFETY: the mapping is page-aligned, longer than 8 bytes and lives as long as `self`; both sides access it by atomics only.
        unsafe { &*self.map.as_ptr().cast::<AtomicU64>() }
    }

    fn canceled_cell(&self) -> &AtomicU32 {
        // SAFETY: as above; offset 64 is aligned, inside the mapping, and on a cache line of its own.
        unsafe { &*self.map.as_ptr().add(64).cast::<AtomicU32>() }
    }

    /// Records progress of the worker.
    pub(crate) fn record_beat(&self) {
        self.beat_count_cell().fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of beats; it changes whenever the worker makes progress.
    pub(crate) fn beat_count(&self) -> u64 {
        self.beat_count_cell().load(Ordering::Relaxed)
    }

    /// Sets or clears the cancellation of the current request.
    pub(crate) fn set_canceled(&self, is_canceled: bool) {
        self.canceled_cell()
            .store(u32::from(is_canceled), Ordering::Relaxed);
    }

    /// Returns whether the current request is canceled.
    pub(crate) fn is_canceled(&self) -> bool {
        self.canceled_cell().load(Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_writes_and_neither_can_shrink_the_memory() {
        let memory = SharedMemory::new("test", 8192).unwrap();
        let view = memory.map_read_only().unwrap();
        let copy = memory.fd().try_clone_to_owned().unwrap();
        let mut canvas = map_segment_for_drawing(&copy, 8192).unwrap();
        canvas[8191] = 7;
        assert_eq!(view[8191], 7);
        assert!(rustix::fs::ftruncate(&copy, 0).is_err());
        canvas[0] = 5;
        memory.release_bytes_from_offset(4096);
        assert_eq!((view[0], view[8191]), (5, 0));
    }

    #[test]
    fn heartbeat_carries_beats_and_cancellation() {
        let memory = SharedMemory::new("test", Heartbeat::MAP_BYTES).unwrap();
        let (host, worker) = (
            Heartbeat::map_heartbeat(memory.fd()).unwrap(),
            Heartbeat::map_heartbeat(memory.fd()).unwrap(),
        );
        let before = host.beat_count();
        worker.record_beat();
        assert_ne!(host.beat_count(), before);
        assert!(!worker.is_canceled());
        host.set_canceled(true);
        assert!(worker.is_canceled());
    }
}
