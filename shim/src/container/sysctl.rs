//! `linux.sysctl`: kernel parameters, of which only those that a namespace has for itself may be
//! set.

use std::collections::BTreeMap;
use std::path::{Component, PathBuf};

use berth_sys::namespace::Namespaces;
use berth_sys::procfs::Procfs;
use berth_types::{Error, Result, ResultExt};

/// One checked parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sysctl {
    /// The file, below a procfs.
    path: PathBuf,
    value: String,
}

/// The parameters of IPC namespaces, besides what is below `fs/mqueue`.
const IPC: [&str; 8] =
    ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];

/// Checks each parameter; `private` are the namespaces that the container doesn't share with the
/// host.
pub(super) fn check(
    parameters: &BTreeMap<String, String>,
    private: Namespaces,
) -> Result<Vec<Sysctl>> {
    let mut checked = Vec::with_capacity(parameters.len());
    for (name, value) in parameters {
        let invalid = |why| Error::invalid_argument(format!("linux.sysctl {name:?} {why}"));
        let path = path_of(name).ok_or_else(|| invalid("is no parameter"))?;
        let owner = owner(&path).ok_or_else(|| invalid("is not a parameter of a namespace"))?;
        if !private.contains(owner) {
            return Err(invalid("belongs to a namespace that the container shares with the host"));
        }
        checked.push(Sysctl { path: PathBuf::from("sys").join(path), value: value.clone() });
    }
    Ok(checked)
}

/// The path of a parameter below `/proc/sys`. As for `sysctl(8)`, the separator is the first dot
/// or slash, and the other one is part of a name (`net/ipv4/conf/eth0.1/forwarding`).
fn path_of(name: &str) -> Option<PathBuf> {
    let slashed: String = match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'.') => name
            .chars()
            .map(|character| match character {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect(),
        _ => name.to_owned(),
    };
    let path = PathBuf::from(slashed);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    (plain && path.components().count() > 1).then_some(path)
}

/// The kind of namespace that the parameter at `path` belongs to.
fn owner(path: &std::path::Path) -> Option<Namespaces> {
    let text = path.to_str()?;
    match text.split_once('/')? {
        ("net", _) => Some(Namespaces::NET),
        ("user", _) => Some(Namespaces::USER),
        ("fs", rest) if rest.starts_with("mqueue/") => Some(Namespaces::IPC),
        ("kernel", "domainname" | "hostname") => Some(Namespaces::UTS),
        ("kernel", name) if IPC.contains(&name) => Some(Namespaces::IPC),
        _ => None,
    }
}

/// Sets all of them, in the caller's namespaces.
pub(super) fn apply(sysctls: &[Sysctl]) -> Result<()> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let procfs = Procfs::private().context(|| "make a procfs")?;
    for Sysctl { path, value } in sysctls {
        procfs
            .write(path, value.as_bytes())
            .context(|| format!("set linux.sysctl {} to {value:?}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(name: &str, private: Namespaces) -> Result<Vec<Sysctl>> {
        check(&BTreeMap::from([(name.to_owned(), "1".to_owned())]), private)
    }

    #[test]
    fn parameters_of_own_namespaces_may_be_set() {
        let path = |name, kind| verdict(name, kind).unwrap().remove(0).path;
        let forward = path("net.ipv4.conf.eth0/1.forwarding", Namespaces::NET);
        assert_eq!(forward, PathBuf::from("sys/net/ipv4/conf/eth0.1/forwarding"));
        path("kernel.shmmax", Namespaces::IPC);
        path("fs/mqueue/msg_max", Namespaces::IPC);
    }

    #[test]
    fn all_others_may_not() {
        for (name, private) in [
            ("net.ipv4.ip_forward", Namespaces::IPC),
            ("kernel.core_pattern", Namespaces::IPC),
            ("net/../kernel/core_pattern", Namespaces::NET),
            ("vm.swappiness", Namespaces::NET | Namespaces::IPC),
            ("net", Namespaces::NET),
            ("/net/ipv4/ip_forward", Namespaces::NET),
        ] {
            assert!(verdict(name, private).is_err(), "{name}");
        }
    }
}
