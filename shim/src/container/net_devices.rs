//! `linux.netDevices`: interfaces of the host that move into the container.

use std::collections::BTreeMap;
use std::os::fd::AsFd;

use berth_sys::interface;
use berth_sys::namespace::{self, Namespaces};
use berth_types::spec::NetDevice;
use berth_types::{Error, Result, ResultExt};

use super::beside;

/// The longest name of an interface, `IFNAMSIZ` without the zero byte.
const NAME_MAX: usize = 15;

/// One interface.
#[derive(Debug)]
pub(super) struct Move {
    /// Its name on the host.
    from: String,
    /// Its name in the container.
    to: String,
}

/// Checks `linux.netDevices`; `private` are the namespaces that the container has for itself.
pub(super) fn check(
    devices: &BTreeMap<String, NetDevice>,
    private: Namespaces,
) -> Result<Vec<Move>> {
    let invalid = |why: String| Error::invalid_argument(format!("linux.netDevices {why}"));
    if !devices.is_empty() && !private.contains(Namespaces::NET) {
        return Err(invalid("needs a network namespace in linux.namespaces".into()));
    }
    let mut moves: Vec<Move> = Vec::with_capacity(devices.len());
    for (from, device) in devices {
        let named = device.name.as_ref().filter(|name| !name.is_empty());
        let to = named.unwrap_or(from);
        for name in [from, to] {
            let plain =
                !name.bytes().any(|byte| byte.is_ascii_whitespace() || b"/:".contains(&byte));
            if name.is_empty() || name.len() > NAME_MAX || !plain || name.starts_with('.') {
                return Err(invalid(format!("{name:?} is no name of an interface")));
            }
        }
        if moves.iter().any(|other| other.to == *to) {
            return Err(invalid(format!("has two interfaces that become {to:?}")));
        }
        moves.push(Move { from: from.clone(), to: to.clone() });
    }
    Ok(moves)
}

/// Moves all of `moves` into the netns of process `pid`, in a child of the shim.
pub(super) async fn move_in(moves: &[Move], pid: i32) -> Result<()> {
    if moves.is_empty() {
        return Ok(());
    }
    beside::run(|| moves.iter().try_for_each(|device| device.perform(pid))).await
}

impl Move {
    /// Moves it with its addresses. The caller is in the host's netns before, and afterwards too.
    fn perform(&self, pid: i32) -> Result<()> {
        let Self { from, to } = self;
        let what = || format!("linux.netDevices {from:?}");
        let index = interface::index(from)
            .map_err(|error| Error::invalid_argument(format!("{}: {error}", what())))?;
        let addresses = interface::addresses(index).context(what)?;
        let home = namespace::Home::remember(Namespaces::NET).context(what)?;
        let netns = namespace::open(&format!("/proc/{pid}/ns/net")).context(what)?;
        interface::move_to(index, netns.as_fd(), to)
            .map_err(|error| Error::invalid_argument(format!("{}: move it: {error}", what())))?;
        namespace::join(netns.as_fd(), Namespaces::NET).context(what)?;
        // Its number there may be another.
        let index = interface::index(to).context(what)?;
        for address in addresses {
            address.add_to(index).context(|| format!("{}: give it its address", what()))?;
        }
        interface::bring_up(index).context(|| format!("{}: bring it up", what()))?;
        home.return_to().context(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(list: &[(&str, &str)]) -> Result<Vec<Move>> {
        let device = |(from, to): &(&str, &str)| {
            ((*from).to_owned(), NetDevice { name: Some((*to).to_owned()) })
        };
        check(&list.iter().map(device).collect(), Namespaces::NET)
    }

    #[test]
    fn names_must_be_such_and_differ() {
        assert_eq!(verdict(&[("eth0", ""), ("eth1", "lan")]).unwrap()[0].to, "eth0");
        for bad in [
            &[("", "a")][..],
            &[("eth0", "a-name-of-16-byt")],
            &[("a/b", "c")],
            &[("a", "..")],
            &[("a", "c"), ("b", "c")],
        ] {
            assert!(verdict(bad).is_err(), "{bad:?}");
        }
        let one = BTreeMap::from([("eth0".to_owned(), NetDevice::default())]);
        assert!(check(&one, Namespaces::NONE).is_err());
    }
}
