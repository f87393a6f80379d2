//! The maps of a new userns.

use std::fmt::Write;
use std::path::Path;

use berth_sys::namespace::Namespaces;
use berth_sys::procfs::Procfs;
use berth_types::spec::{IdMapping, Linux};
use berth_types::{Error, Result, ResultExt};

/// Checked `uidMappings` and `gidMappings`, as the kernel reads them; empty without a new userns.
#[derive(Clone, Debug)]
pub(super) struct IdMaps {
    uids: String,
    gids: String,
}

impl IdMaps {
    /// Checks the maps of `linux`, where `new` namespaces are made.
    pub(super) fn check(linux: &Linux, new: Namespaces) -> Result<Self> {
        if !new.contains(Namespaces::USER) {
            return Ok(Self { uids: String::new(), gids: String::new() });
        }
        Self::of("linux", &linux.uid_mappings, &linux.gid_mappings)
    }

    /// Checks the maps in the fields `uidMappings` and `gidMappings` of `parent`.
    pub(super) fn of(parent: &str, uids: &[IdMapping], gids: &[IdMapping]) -> Result<Self> {
        Ok(Self {
            uids: lines(&format!("{parent}.uidMappings"), uids)?,
            gids: lines(&format!("{parent}.gidMappings"), gids)?,
        })
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.uids.is_empty()
    }

    /// Gives the userns of `pid` its maps (`user_namespaces(7)`).
    pub(super) fn write(&self, pid: i32) -> Result<()> {
        let procfs = Procfs::host().context(|| "open /proc")?;
        for (file, map) in [("uid_map", &self.uids), ("gid_map", &self.gids)] {
            procfs
                .write(Path::new(&format!("{pid}/{file}")), map.as_bytes())
                .context(|| format!("write the {file} of the user namespace"))?;
        }
        Ok(())
    }
}

fn lines(field: &str, mappings: &[IdMapping]) -> Result<String> {
    let invalid = |why: String| Error::invalid_argument(format!("{field} {why}"));
    if mappings.is_empty() {
        return Err(invalid("is empty: a user namespace needs some".into()));
    }
    let mut lines = String::new();
    for (index, IdMapping { container_id, host_id, size }) in mappings.iter().enumerate() {
        if *size == 0 {
            return Err(invalid("has a range of size 0".into()));
        }
        for first in [container_id, host_id] {
            if first.checked_add(size - 1).is_none_or(|last| last == u32::MAX) {
                return Err(invalid(format!(
                    "has a range of {size} from {first}: no id is so high"
                )));
            }
        }
        if mappings[..index].iter().any(|other| overlap(other, &mappings[index])) {
            return Err(invalid(format!("has ranges that overlap, at {container_id}")));
        }
        let _ = writeln!(lines, "{container_id} {host_id} {size}");
    }
    Ok(lines)
}

fn overlap(a: &IdMapping, b: &IdMapping) -> bool {
    let meet = |a_first: u32, b_first: u32| {
        let ends = |first: u32, size: u32| u64::from(first) + u64::from(size);
        u64::from(a_first) < ends(b_first, b.size) && u64::from(b_first) < ends(a_first, a.size)
    };
    meet(a.container_id, b.container_id) || meet(a.host_id, b.host_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(u32, u32, u32)]) -> Result<String> {
        let mapping = |(container_id, host_id, size): &(u32, u32, u32)| IdMapping {
            container_id: *container_id,
            host_id: *host_id,
            size: *size,
        };
        lines("field", &ranges.iter().map(mapping).collect::<Vec<_>>())
    }

    #[test]
    fn ranges_must_be_apart_and_end() {
        assert_eq!(check(&[(0, 100, 10), (10, 110, 5)]).unwrap(), "0 100 10\n10 110 5\n");
        for bad in [
            &[][..],
            &[(0, 0, 0)],
            &[(0, 100, 10), (5, 200, 10)],
            &[(0, 100, 10), (20, 105, 10)],
            &[(1, 0, u32::MAX)],
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
