//! Frames on the socket between host and worker.
//!
//! A frame is a header (two little-endian `u32`: bytes of the message, bytes of the payload), the message in postcard and
//! the payload as it is. The payload exists for encoded page images, which would otherwise be copied once more on each
//! side. A descriptor travels with the first byte of its frame, so the reader takes it together with the header.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;

use crate::protocol::{Answer, Order};

const HEADER: usize = 8;

/// Bytes an order may have: a password is the only part of it that is not of fixed size.
const ORDER_LIMIT: usize = 1 << 20;

/// Bytes an answer may have on its way.
const SEND_BUFFER: usize = 1 << 20;

/// Bytes a message may have that carries text, facts or an outline.
pub(crate) const ANSWER_LIMIT: usize = 16 << 20;

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn header(body: usize, payload: usize) -> io::Result<[u8; HEADER]> {
    let length = |n: usize| u32::try_from(n).map_err(|_| invalid("a frame is too long"));
    let (body, payload) = (length(body)?.to_le_bytes(), length(payload)?.to_le_bytes());
    let mut header = [0; HEADER];
    let (front, back) = header.split_at_mut(4);
    front.copy_from_slice(&body);
    back.copy_from_slice(&payload);
    Ok(header)
}

fn lengths(header: [u8; HEADER]) -> (usize, usize) {
    let [a, b, c, d, e, f, g, h] = header;
    (
        u32::from_le_bytes([a, b, c, d]) as usize,
        u32::from_le_bytes([e, f, g, h]) as usize,
    )
}

/// The host's end.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: UnixStream,
}

impl Wire {
    /// A wire and the end of it that a worker gets as its standard input.
    pub(crate) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (here, there) = std::os::unix::net::UnixStream::pair()?;
        here.set_nonblocking(true)?;
        // The encoded image of a page goes out in one piece, and the worker is ready for the next. The kernel may give less.
        rustix::net::sockopt::set_socket_send_buffer_size(&there, SEND_BUFFER)?;
        let stream = UnixStream::from_std(here)?;
        Ok((Self { stream }, there.into()))
    }

    /// Sends an order, with a descriptor if it needs one.
    pub(crate) async fn send(&self, order: &Order, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let body = postcard::to_stdvec(order).map_err(|_| invalid("an order cannot be encoded"))?;
        let mut frame = Vec::with_capacity(HEADER + body.len());
        frame.extend_from_slice(&header(body.len(), 0)?);
        frame.extend_from_slice(&body);
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut sent = 0;
        while let Some(rest) = frame.get(sent..).filter(|rest| !rest.is_empty()) {
            let with = if sent == 0 { fds.as_slice() } else { &[] };
            sent += self
                .stream
                .async_io(Interest::WRITABLE, || send_once(self.stream.as_fd(), rest, with))
                .await?;
        }
        Ok(())
    }

    /// The next answer and its payload, whose length must not exceed `limit`.
    pub(crate) async fn receive(&mut self, limit: usize) -> io::Result<(Answer, Vec<u8>)> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).await?;
        let (body, payload) = lengths(header);
        if body > ANSWER_LIMIT || payload > limit {
            return Err(invalid("the answer is longer than it may be"));
        }
        let body = self.read(body).await?;
        let answer = postcard::from_bytes(&body).map_err(|_| invalid("the answer cannot be understood"))?;
        Ok((answer, self.read(payload).await?))
    }

    /// Whether the other end has gone, or has spoken without being asked.
    pub(crate) fn is_broken(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        !read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn read(&mut self, length: usize) -> io::Result<Vec<u8>> {
        // Memory is taken as bytes arrive: a length is only a claim.
        let mut bytes = Vec::with_capacity(length.min(1 << 20));
        let mut rest = (&mut self.stream).take(length as u64);
        rest.read_to_end(&mut bytes).await?;
        if bytes.len() < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

fn send_once(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(invalid("too many descriptors in one order"));
    }
    Ok(rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL,
    )?)
}

/// Waits for the next order, in the worker; `None` when the host has gone.
pub(crate) fn receive_order(socket: BorrowedFd<'_>) -> io::Result<Option<(Order, Option<OwnedFd>)>> {
    let mut header = [0; HEADER];
    let mut descriptor = None;
    if !fill(socket, &mut header, &mut descriptor)? {
        return Ok(None);
    }
    let (length, payload) = lengths(header);
    if length > ORDER_LIMIT || payload != 0 {
        return Err(invalid("the order is longer than it may be"));
    }
    let mut body = vec![0; length];
    if !fill(socket, &mut body, &mut descriptor)? {
        return Ok(None);
    }
    let order = postcard::from_bytes(&body).map_err(|_| invalid("the order cannot be understood"))?;
    Ok(Some((order, descriptor)))
}

/// Fills `bytes`; false at the end of the stream.
fn fill(socket: BorrowedFd<'_>, bytes: &mut [u8], descriptor: &mut Option<OwnedFd>) -> io::Result<bool> {
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

/// Sends an answer, in the worker.
pub(crate) fn send_answer(socket: BorrowedFd<'_>, answer: &Answer, payload: &[u8]) -> io::Result<()> {
    let body = postcard::to_stdvec(answer).map_err(|_| invalid("an answer cannot be encoded"))?;
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&header(body.len(), payload.len())?);
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
    async fn orders_and_descriptors_arrive_together_and_answers_bring_their_payload() {
        let (mut wire, there) = Wire::pair().unwrap();
        let worker = std::thread::spawn(move || {
            let (first, none) = receive_order(there.as_fd()).unwrap().unwrap();
            assert!(matches!(first, Order::Close { document: 7 }) && none.is_none());
            let (second, fd) = receive_order(there.as_fd()).unwrap().unwrap();
            assert!(matches!(
                second,
                Order::Share {
                    segment: 1,
                    length: 9
                }
            ));
            assert_eq!(rustix::fs::fstat(fd.unwrap()).unwrap().st_size, 4096);
            send_answer(there.as_fd(), &Answer::Drawn { colour: true }, &vec![3; 1 << 20]).unwrap();
            send_answer(there.as_fd(), &Answer::Drawn { colour: true }, &[1, 2, 3]).unwrap();
            // The host left with a payload unread; that is an end, too.
            assert!(!matches!(receive_order(there.as_fd()), Ok(Some(_))));
        });
        let memory = crate::shared::Memory::new("test", 4096).unwrap();
        wire.send(&Order::Close { document: 7 }, None).await.unwrap();
        let share = Order::Share {
            segment: 1,
            length: 9,
        };
        wire.send(&share, Some(memory.fd())).await.unwrap();
        let (_, payload) = wire.receive(1 << 20).await.unwrap();
        assert!(payload.len() == 1 << 20 && payload.iter().all(|b| *b == 3));
        let error = wire.receive(2).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        drop(wire);
        worker.join().unwrap();
    }
}
