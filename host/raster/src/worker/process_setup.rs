//! Prepares the worker's own process: its descriptors and its memory allocator.

#![allow(unsafe_code)]

/// Bytes of freed memory that the allocator retains; larger blocks are still returned at once. It is the maximum of glibc.
const RETAINED_FREE_BYTES: libc::c_int = 32 << 20;

/// Closes every descriptor except the three standard ones.
pub(super) fn close_inherited_descriptors() {
    // SAFETY: this program has not opened a descriptor yet, so none that is closed here is in use. On a kernel without this system
    // call nothing happens.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Makes the allocator retain freed memory between pages. By default the C library returns large blocks to the system when they
/// are freed and requests them again for the next page. The kernel then has to clear them each time, which takes a tenth to a
/// quarter of the time of a page.
pub(super) fn retain_freed_memory() {
    // SAFETY: sets parameters of the allocator; no other thread runs.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, RETAINED_FREE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, RETAINED_FREE_BYTES);
    }
}
