//! A TCP connection with small segments and a small receive buffer.
//!
//! On the loopback interface the kernel buffers megabytes for a client that does not read: its limit counts segments, which are
//! 64 KiB there. With segments of 536 bytes, as on a slow line, it buffers about ten kilobytes.
#![allow(unsafe_code)]

use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;

use rustix::net::sockopt::set_socket_recv_buffer_size;
use rustix::net::{AddressFamily, SocketType};

/// The smallest segment size that every host accepts (RFC 9293, 3.7.1), in bytes.
const SEGMENT_BYTES: libc::c_int = 536;
/// Size of the kernel's receive buffer, in bytes. The kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 4096;

/// Connects to an IPv4 address.
pub(super) fn connect(address: SocketAddr) -> TcpStream {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES).unwrap();
    let (segment, size) = (&SEGMENT_BYTES, size_of_val(&SEGMENT_BYTES) as libc::socklen_t);
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
