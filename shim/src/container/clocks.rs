//! `linux.timeOffsets`: the clocks of a new time namespace.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::AsFd;
use std::path::Path;

use berth_sys::namespace::{self, Namespaces};
use berth_sys::procfs::Procfs;
use berth_types::spec::TimeOffset;
use berth_types::{Error, Result, ResultExt};

/// The checked offsets, as the kernel reads them.
#[derive(Debug)]
pub(super) struct Clocks(String);

impl Clocks {
    /// Checks `offsets`, which only `new` time namespaces can have.
    pub(super) fn check(offsets: &BTreeMap<String, TimeOffset>, new: Namespaces) -> Result<Self> {
        let invalid = |why: &str| Error::invalid_argument(format!("linux.timeOffsets {why}"));
        if !offsets.is_empty() && !new.contains(Namespaces::TIME) {
            return Err(invalid("needs a new time namespace in linux.namespaces"));
        }
        let mut lines = String::new();
        for (clock, TimeOffset { secs, nanosecs }) in offsets {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(invalid(&format!("{clock:?}: only monotonic and boottime have some")));
            }
            if *nanosecs >= 1_000_000_000 {
                return Err(invalid(&format!("{clock}: {nanosecs} ns are more than a second")));
            }
            let _ = writeln!(lines, "{clock} {secs} {nanosecs}");
        }
        Ok(Self(lines))
    }

    /// Takes the caller into a time namespace with these clocks (`time_namespaces(7)`).
    pub(super) fn enter(&self) -> Result<()> {
        namespace::unshare(Namespaces::TIME).context(|| "make a time namespace")?;
        if !self.0.is_empty() {
            // Only before anybody is inside.
            let procfs = Procfs::host().context(|| "open /proc")?;
            procfs.write(Path::new("self/timens_offsets"), self.0.as_bytes()).map_err(|error| {
                Error::invalid_argument(format!("set linux.timeOffsets: {error}"))
            })?;
        }
        let enter = || {
            let made = namespace::open("/proc/self/ns/time_for_children")?;
            namespace::join(made.as_fd(), Namespaces::TIME)
        };
        enter().context(|| "enter the time namespace")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_new_namespaces_have_offsets_and_only_of_two_clocks() {
        let offsets = |clock: &str, nanosecs| {
            BTreeMap::from([(clock.to_owned(), TimeOffset { secs: -5, nanosecs })])
        };
        let check = |offsets, new| Clocks::check(&offsets, new).map(|clocks| clocks.0);
        let time = Namespaces::TIME;
        assert_eq!(check(offsets("boottime", 7), time).unwrap(), "boottime -5 7\n");
        assert!(check(offsets("boottime", 7), Namespaces::NONE).is_err());
        assert!(check(offsets("realtime", 7), time).is_err());
        assert!(check(offsets("boottime", 1_000_000_000), time).is_err());
    }
}
