//! Network interfaces: moving one to another netns.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::netlink::{self, NLM_F_CREATE_NEW, NLM_F_DUMP, Request};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
/// An address that nothing takes away by itself.
const IFA_F_PERMANENT: u8 = 0x80;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// The length of a `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// A permanent address of an interface that is valid everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    attributes: Vec<(u16, Vec<u8>)>,
}

/// The number of the interface called `name` in the caller's netns.
///
/// # Errors
/// `ENODEV` when there is none.
pub fn index(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// The addresses of interface `index` in the caller's netns.
///
/// # Errors
/// Those of `netlink(7)`.
pub fn addresses(index: u32) -> io::Result<Vec<Address>> {
    let all = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_HEADER]).send()?;
    Ok(all.iter().filter_map(|message| Address::parse(message, index)).collect())
}

impl Address {
    /// The address in `message`, if it is one of interface `index` that is to be kept.
    fn parse(message: &[u8], index: u32) -> Option<Self> {
        let [family, prefix, flags, scope, a, b, c, d] = *message.first_chunk()?;
        let permanent = flags & IFA_F_PERMANENT != 0 && scope == RT_SCOPE_UNIVERSE;
        if !permanent || u32::from_ne_bytes([a, b, c, d]) != index {
            return None;
        }
        let attributes = netlink::attributes(&message[ADDRESS_HEADER..]).into_iter();
        let kept = attributes
            .filter(|(kind, _)| matches!(*kind, IFA_ADDRESS | IFA_LOCAL | IFA_BROADCAST))
            .map(|(kind, value)| (kind, value.to_vec()));
        Some(Self { family, prefix, attributes: kept.collect() })
    }

    /// Gives it to interface `index` in the caller's netns.
    ///
    /// # Errors
    /// Those of `netlink(7)`: `EEXIST` when the interface has it.
    pub fn add_to(&self, index: u32) -> io::Result<()> {
        let mut header = vec![self.family, self.prefix, IFA_F_PERMANENT, RT_SCOPE_UNIVERSE];
        header.extend(index.to_ne_bytes());
        let request = Request::new(RTM_NEWADDR, NLM_F_CREATE_NEW, &header);
        let add =
            |request: Request, (kind, value): &(u16, Vec<u8>)| request.attribute(*kind, value);
        self.attributes.iter().fold(request, add).send().map(drop)
    }
}

/// Moves interface `index` of the caller's netns to `netns`, where it is called `name`. It loses
/// its addresses, and is down.
///
/// # Errors
/// Those of `netlink(7)`: `EEXIST` when the name is taken there, `EINVAL` when the interface can't
/// be moved.
pub fn move_to(index: u32, netns: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    link(index, 0)
        .attribute(IFLA_IFNAME, &[name.as_bytes(), &[0]].concat())
        .attribute(IFLA_NET_NS_FD, &netns.as_raw_fd().to_ne_bytes())
        .send()
        .map(drop)
}

/// Brings up interface `index` of the caller's netns.
///
/// # Errors
/// Those of `netlink(7)`.
pub fn bring_up(index: u32) -> io::Result<()> {
    link(index, libc::IFF_UP as u32).send().map(drop)
}

/// A change of interface `index`, which sets `flags`: a `struct ifinfomsg`.
fn link(index: u32, flags: u32) -> Request {
    let mut header = vec![0; 4];
    for word in [index, flags, flags] {
        header.extend(word.to_ne_bytes());
    }
    Request::new(RTM_NEWLINK, 0, &header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_is_found_and_a_missing_one_is_not() {
        let lo = index("lo").unwrap();
        assert_eq!(index("no-such-device").unwrap_err().raw_os_error(), Some(libc::ENODEV));
        // Its addresses are of the host only.
        assert!(addresses(lo).unwrap().iter().all(|address| address.family != libc::AF_INET as u8));
    }
}
