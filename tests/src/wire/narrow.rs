//! A TCP connection of small segments and a small window.
//!
//! Between two ends on one machine the kernel holds megabytes for a client that does not read: what it holds is reckoned in
//! segments, and those are 64 KiB there. With segments of 536 bytes, as on a slow line, it is some ten kilobytes.
#![allow(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

/// The least that every host takes (RFC 9293, 3.7.1).
const SEGMENT: libc::c_int = 536;
/// Bytes the kernel keeps for us until we read them; it takes twice that.
const WINDOW: usize = 4096;

/// Connects to an address of IPv4.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, WINDOW).unwrap();
    let (segment, size) = (&SEGMENT, size_of_val(&SEGMENT) as libc::socklen_t);
    // SAFETY: the descriptor is open, and the option's value is an int that outlives the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_MAXSEG,
            std::ptr::from_ref(segment).cast(),
            size,
        )
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    rustix::net::connect(&socket, &address).unwrap();
    socket.into()
}
