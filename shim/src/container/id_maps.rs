//! The maps of a new userns.

use std::fmt::Write;
use std::path::Path;

use berth_sys::namespace::Namespaces;
use berth_sys::procfs::Procfs;
use berth_types::spec::{IdMapping, Linux};
use berth_types::{Error, Result, ResultExt};

/// The checked `linux.uidMappings` and `linux.gidMappings`, as the kernel reads them; empty
/// without a new userns.
#[derive(Debug)]
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
        Ok(Self {
            uids: lines("linux.uidMappings", &linux.uid_mappings)?,
            gids: lines("linux.gidMappings", &linux.gid_mappings)?,
        })
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
    if mappings.is_empty() {
        let message = format!("{field} is empty, which a new user namespace can't be");
        return Err(Error::invalid_argument(message));
    }
    let mut lines = String::new();
    for IdMapping { container_id, host_id, size } in mappings {
        if *size == 0 {
            return Err(Error::invalid_argument(format!("{field} has a range of size 0")));
        }
        let _ = writeln!(lines, "{container_id} {host_id} {size}");
    }
    Ok(lines)
}
