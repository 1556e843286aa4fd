//! Frames on the socket between host and worker.
//!
//! A frame is a header (two little-endian `u32`: length of the message, length of the payload), the message in postcard encoding, and
//! the payload as raw bytes. The payload carries encoded page images; inside the message they would be copied once more on each side.
//! A descriptor is sent with the first byte of its frame, so the receiver gets it together with the header.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{WorkerRequest, WorkerResponse};

const HEADER_BYTES: usize = 8;

/// Maximum bytes of a request. Only the password and the path of PDFium in it have no fixed size.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// Bytes of the socket's send buffer in the worker.
const SEND_BUFFER_BYTES: usize = 1 << 20;

/// Maximum bytes of the message of a response, without its payload.
pub(crate) const MAX_RESPONSE_BYTES: usize = 16 << 20;

fn invalid_data_error(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn encode_header(body: usize, payload: usize) -> io::Result<[u8; HEADER_BYTES]> {
    let length = |bytes: usize| {
        u32::try_from(bytes).map_err(|_| {
            invalid_data_error(format!(
                "a frame part of {bytes} bytes exceeds the limit of {} bytes",
                u32::MAX
            ))
        })
    };
    let (body, payload) = (length(body)?.to_le_bytes(), length(payload)?.to_le_bytes());
    let mut header = [0; HEADER_BYTES];
    let (front, back) = header.split_at_mut(4);
    front.copy_from_slice(&body);
    back.copy_from_slice(&payload);
    Ok(header)
}

fn decode_header(header: [u8; HEADER_BYTES]) -> (usize, usize) {
    let [a, b, c, d, e, f, g, h] = header;
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]) as usize,
    )
}

/// The host's end of the connection to a worker.
#[derive(Debug)]
pub(crate) struct WorkerConnection {
    stream: UnixStream,
}

impl WorkerConnection {
    /// Creates a connection. Returns the host's end, and the end that the worker gets as its standard input.
    pub(crate) fn create_pair() -> io::Result<(Self, OwnedFd)> {
        let (host_socket, worker_socket) = std::os::unix::net::UnixStream::pair()?;
        host_socket.set_nonblocking(true)?;
        // The buffer takes a whole encoded image, so that the worker is ready for its next request. The kernel may grant less.
        rustix::net::sockopt::set_socket_send_buffer_size(&worker_socket, SEND_BUFFER_BYTES)?;
        let stream = UnixStream::from_std(host_socket)?;
        Ok((Self { stream }, worker_socket.into()))
    }

    /// Sends a request, with a descriptor if it needs one.
    pub(crate) async fn send_request(
        &self,
        request: &WorkerRequest,
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        let body =
            postcard::to_stdvec(request).map_err(|_| invalid_data_error("the request cannot be encoded"))?;
        let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
        frame.extend_from_slice(&encode_header(body.len(), 0)?);
        frame.extend_from_slice(&body);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut sent = 0;
        while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
            let attached_fds = if sent == 0 { fds.as_slice() } else { &[] };
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || {
                    send_bytes_with_descriptors(self.stream.as_fd(), rest, attached_fds)
                })
                .await?;
        }
        Ok(())
    }

    /// Receives the next response and its payload of at most `limit` bytes.
    pub(crate) async fn receive_response(&mut self, limit: usize) -> io::Result<(WorkerResponse, Vec<u8>)> {
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).await?;
        let (body, payload) = decode_header(header);
        if body > MAX_RESPONSE_BYTES {
            return Err(invalid_data_error(format!(
                "a response of {body} bytes exceeds the limit of {MAX_RESPONSE_BYTES} bytes"
            )));
        }
        if payload > limit {
            return Err(invalid_data_error(format!(
                "a payload of {payload} bytes exceeds the limit of {limit} bytes"
            )));
        }
        let body = self.read_exact_bytes(body).await?;
        let response =
            postcard::from_bytes(&body).map_err(|_| invalid_data_error("the response cannot be decoded"))?;
        Ok((response, self.read_exact_bytes(payload).await?))
    }

    /// Returns whether the worker has closed the connection or has sent data without a request.
    pub(crate) fn is_connection_broken(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        !read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read_exact_bytes(&mut self, length: usize) -> io::Result<Vec<u8>> {
        // The length is untrusted, so memory is allocated as the bytes arrive.
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        let mut rest = (&mut self.stream).take(length as u64);
        rest.read_to_end(&mut bytes).await?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

fn send_bytes_with_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid_data_error("a request can carry only one descriptor"));
    }
    Ok(rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Receives the next request and its descriptor; called by the worker. Returns `None` if the host has closed the connection, also
/// in the middle of a request.
pub(crate) fn receive_request(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(WorkerRequest, Option<OwnedFd>)>> {
    let mut header = [0; HEADER_BYTES];
    let mut descriptor = None;
    if !read_exact_with_descriptor(socket, &mut header, &mut descriptor)? {
        return Ok(None);
    }
    let (length, payload) = decode_header(header);
    if length > MAX_REQUEST_BYTES {
        return Err(invalid_data_error(format!(
            "a request of {length} bytes exceeds the limit of {MAX_REQUEST_BYTES} bytes"
        )));
    }
    if payload != 0 {
        return Err(invalid_data_error("a request must not have a payload"));
    }
    let mut body = vec![0; length];
    if !read_exact_with_descriptor(socket, &mut body, &mut descriptor)? {
        return Ok(None);
    }
    let request =
        postcard::from_bytes(&body).map_err(|_| invalid_data_error("the request cannot be decoded"))?;
    Ok(Some((request, descriptor)))
}

/// Fills `bytes`, and stores a received descriptor in `descriptor`. Returns false if the stream ends first.
fn read_exact_with_descriptor(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptor: &mut Option<OwnedFd>,
) -> io::Result<bool> {
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = match rustix::net::recvmsg(
            socket,
            &mut [IoSliceMut::new(rest)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(mut fds) = message {
                *descriptor = fds.next().or(descriptor.take());
            }
        }
        if received.bytes == 0 {
            return Ok(false);
        }
        filled += received.bytes;
    }
    Ok(true)
}

/// Sends a response; called by the worker.
pub(crate) fn send_response(
    socket: BorrowedFd<'_>,
    response: &WorkerResponse,
    payload: &[u8],
) -> io::Result<()> {
    let body =
        postcard::to_stdvec(response).map_err(|_| invalid_data_error("the response cannot be encoded"))?;
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&encode_header(body.len(), payload.len())?);
    frame.extend_from_slice(&body);
    for part in [frame.as_slice(), payload] {
        let mut rest = part;
        while !rest.is_empty() {
            match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                sent => rest = rest.get(sent?..).unwrap_or_default(),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_carry_descriptors_and_responses_carry_payloads() {
        let (mut connection, worker_socket) = WorkerConnection::create_pair().unwrap();
        let worker = std::thread::spawn(move || {
            let (first, none) = receive_request(worker_socket.as_fd()).unwrap().unwrap();
            assert!(matches!(first, WorkerRequest::CloseDocument { document: 7 }) && none.is_none());
            let (second, fd) = receive_request(worker_socket.as_fd()).unwrap().unwrap();
            assert!(matches!(
                second,
                WorkerRequest::MapSegment {
                    segment: 1,
                    length: 9
                }
            ));
            assert_eq!(rustix::fs::fstat(fd.unwrap()).unwrap().st_size, 4096);
            send_response(
                worker_socket.as_fd(),
                &WorkerResponse::PageDrawn { is_color: true },
                &vec![3; 1 << 20],
            )
            .unwrap();
            send_response(
                worker_socket.as_fd(),
                &WorkerResponse::PageDrawn { is_color: true },
                &[1, 2, 3],
            )
            .unwrap();
            // The host closed the connection with a payload unread; the worker sees that as the end, too.
            assert!(!matches!(receive_request(worker_socket.as_fd()), Ok(Some(_))));
        });
        let memory = crate::shared_memory::SharedMemory::new("test", 4096).unwrap();
        connection
            .send_request(&WorkerRequest::CloseDocument { document: 7 }, None)
            .await
            .unwrap();
        let map_segment = WorkerRequest::MapSegment {
            segment: 1,
            length: 9,
        };
        connection
            .send_request(&map_segment, Some(memory.fd()))
            .await
            .unwrap();
        let (_, payload) = connection.receive_response(1 << 20).await.unwrap();
        assert!(payload.len() == 1 << 20 && payload.iter().all(|b| *b == 3));
        let error = connection.receive_response(2).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(connection);
        worker.join().unwrap();
    }
}
