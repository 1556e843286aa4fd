//! What a worker settles about its own process with the C library.

#![allow(unsafe_code)]

/// Bytes of freed memory that stay with the worker; larger blocks still go back at once. It is the most that glibc takes.
const KEPT: libc::c_int = 32 << 20;

/// Closes every descriptor but the standard three.
pub(super) fn close_inherited() {
    // SAFETY: nothing in this program has opened a descriptor yet, so none that is closed here belongs to anyone. On a
    // kernel without the call nothing happens.
    unsafe {
        libc::close_range(3, libc::c_uint::MAX, 0);
    }
}

/// Keeps memory between pages. The C library gives large blocks back to the system as soon as they are freed and asks for
/// them again for the next page, each time to be cleared by the kernel: a tenth to a quarter of a page's time.
pub(super) fn keep_memory() {
    // SAFETY: sets numbers of the allocator; no other thread runs.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT);
    }
}
