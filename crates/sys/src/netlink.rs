//! Requests to the kernel's routing tables (`rtnetlink(7)`).

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// Asks for all objects of a kind.
pub(crate) const NLM_F_DUMP: u16 = 0x300;
/// Makes an object that must not be there.
pub(crate) const NLM_F_CREATE_NEW: u16 = 0x600;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The length of a message's header.
const HEADER: usize = 16;

/// The kernel sends no longer messages.
const BUFFER: usize = 64 << 10;

/// A request that is being written.
pub(crate) struct Request(Vec<u8>);

impl Request {
    /// A request of type `kind` (`RTM_…`), whose own `header` follows that of the message.
    pub(crate) fn new(kind: u16, flags: u16, header: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend(header);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Sends it to the caller's netns. Returns what was asked for: of each object what follows the
    /// header of its message.
    ///
    /// # Errors
    /// What the kernel answers; those of `socket(2)`, `send(2)` and `recv(2)`.
    pub(crate) fn send(mut self) -> io::Result<Vec<Vec<u8>>> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            // NETLINK_ROUTE is 0, the default.
            None,
        )?;
        rustix::net::send(&socket, &self.0, SendFlags::empty())?;
        let mut objects = Vec::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            let (length, _) = rustix::net::recv(&socket, &mut buffer, RecvFlags::empty())?;
            if read(&buffer[..length], &mut objects)? {
                return Ok(objects);
            }
        }
    }
}

/// Reads a datagram of messages into `objects`, and says whether it was the last.
fn read(mut bytes: &[u8], objects: &mut Vec<Vec<u8>>) -> io::Result<bool> {
    while let Some((length, kind)) = header(bytes) {
        let body = bytes.get(HEADER..length).ok_or(io::ErrorKind::InvalidData)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = body.first_chunk().map_or(-libc::EIO, |code| i32::from_ne_bytes(*code));
                return if code == 0 { Ok(true) } else { Err(io::Error::from_raw_os_error(-code)) };
            }
            _ => objects.push(body.to_vec()),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// Length and type of the first message.
fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (length >= HEADER).then_some((length, kind))
}

/// The attributes in `bytes`, their kinds with their values.
pub(crate) fn attributes(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let (Some(length), Some(kind)) = (bytes.first_chunk(), bytes.get(2..4)) {
        let (length, kind) = (usize::from(u16::from_ne_bytes(*length)), [kind[0], kind[1]]);
        let Some(value) = bytes.get(4..length) else { break };
        found.push((u16::from_ne_bytes(kind), value));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_written_as_they_are_read() {
        let request = Request::new(1, 0, &[]).attribute(3, b"name\0").attribute(28, &[1; 4]);
        let expected: Vec<(u16, &[u8])> = vec![(3, b"name\0"), (28, &[1; 4])];
        assert_eq!(attributes(&request.0[HEADER..]), expected);
        assert!(attributes(&[2, 0, 0, 0]).is_empty(), "shorter than its own header");
        assert!(attributes(&[200, 0, 0, 0]).is_empty(), "longer than there is");
    }
}
