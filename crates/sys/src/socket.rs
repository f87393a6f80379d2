//! Messages with descriptors between processes of one host (`unix(7)`, `SCM_RIGHTS`).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// A connected pair of close-on-exec sockets that keep the bounds of messages. When one end is
/// closed, the other reads an empty message.
///
/// # Errors
/// Those of `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Makes a socket called `name` in `directory`, where [`connect`] finds it for as long as the
/// listener that is returned, or a copy of it in a child, is open.
///
/// # Errors
/// Those of `bind(2)`: `EADDRINUSE` when the name is taken.
pub fn listen(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let listener = unconnected()?;
    rustix::net::bind(&listener, &address(directory, name)?)?;
    rustix::net::listen(&listener, 8)?;
    Ok(listener)
}

/// Waits for one connection to `listener`.
///
/// # Errors
/// Those of `accept(2)`.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(rustix::io::retry_on_intr(|| rustix::net::accept_with(listener, SocketFlags::CLOEXEC))?)
}

/// Connects to the socket called `name` in `directory`.
///
/// # Errors
/// Those of `connect(2)`: `ECONNREFUSED` when nobody listens any more.
pub fn connect(directory: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let socket = unconnected()?;
    rustix::net::connect(&socket, &address(directory, name)?)?;
    Ok(socket)
}

fn unconnected() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A path through the descriptor: those of sockets have room for 108 bytes only.
fn address(directory: BorrowedFd<'_>, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?)
}

/// The most descriptors that go with one message: one for each kind of cgroup there can be, and
/// more.
const FDS_MAX: usize = 32;

/// Sends `message` with copies of `fds`. Never raises `SIGPIPE`.
///
/// # Errors
/// Those of `sendmsg(2)`: `EPIPE` when the peer is gone. `E2BIG` for more than 32 descriptors.
pub fn send(socket: BorrowedFd<'_>, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    if fds.len() > FDS_MAX {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message into `buffer`: its length, 0 when the peer is gone, and the descriptors
/// that came with it, which are close-on-exec.
///
/// # Errors
/// Those of `recvmsg(2)`; `EMSGSIZE` when the message was longer than `buffer`.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut slices = [IoSliceMut::new(buffer)];
        rustix::net::recvmsg(socket, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok((received.bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_travel_with_their_message_and_closing_is_an_empty_one() {
        let (a, b) = pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        send(a.as_fd(), b"take these", &[writer.as_fd(); FDS_MAX]).unwrap();
        let error = send(a.as_fd(), b"too many", &[writer.as_fd(); FDS_MAX + 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::E2BIG));
        drop(writer);
        let mut buffer = [0; 32];
        let (length, fds) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], fds.len()), (&b"take these"[..], FDS_MAX));
        rustix::io::write(&fds[FDS_MAX - 1], b"x").unwrap();
        let mut byte = [0; 1];
        assert_eq!(rustix::io::read(&reader, &mut byte).unwrap(), 1);
        drop(a);
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn a_socket_with_a_name_is_found_until_it_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(directory.path()).unwrap();
        let listener = listen(directory.as_fd(), "door").unwrap();
        let a = connect(directory.as_fd(), "door").unwrap();
        let b = accept(listener.as_fd()).unwrap();
        send(a.as_fd(), b"hello", &[]).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().0, 5);
        assert!(listen(directory.as_fd(), "door").is_err());
        drop(listener);
        let error = connect(directory.as_fd(), "door").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_message_that_does_not_fit_is_an_error() {
        let (a, b) = pair().unwrap();
        send(a.as_fd(), b"too long", &[]).unwrap();
        let error = receive(b.as_fd(), &mut [0; 3]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    }
}
