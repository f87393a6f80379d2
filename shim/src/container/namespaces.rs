//! Which kernel namespaces a container gets new and which it joins.

use std::os::fd::{AsFd, OwnedFd};

use berth_sys::namespace::{self, Home, Namespaces};
use berth_types::spec::Namespace;
use berth_types::{Error, Result, ResultExt};

/// The checked `linux.namespaces`.
#[derive(Debug)]
pub(super) struct NamespacePlan {
    /// To be made.
    pub(super) new: Namespaces,
    /// To be joined.
    joined: Vec<(Namespaces, OwnedFd)>,
}

impl NamespacePlan {
    /// Checks the list and opens what is to be joined.
    pub(super) fn check(list: &[Namespace]) -> Result<Self> {
        let mut plan = Self { new: Namespaces::NONE, joined: Vec::new() };
        for namespace in list {
            let kind = kind_of(&namespace.kind)?;
            if plan.private().contains(kind) {
                return Err(invalid(format!("names {:?} twice", namespace.kind)));
            }
            match namespace.path.as_deref().filter(|path| !path.is_empty()) {
                None => plan.new = plan.new | kind,
                Some(path) => plan.joined.extend(open(kind, path)?.map(|fd| (kind, fd))),
            }
        }
        if !plan.new.contains(Namespaces::MOUNT) {
            return Err(invalid("needs a mount namespace without a path"));
        }
        Ok(plan)
    }

    /// All kinds that differ, or may differ, from the shim's.
    pub(super) fn private(&self) -> Namespaces {
        self.joined.iter().fold(self.new, |all, (kind, _)| all | *kind)
    }

    /// The kinds that are joined.
    pub(super) fn joins(&self) -> Namespaces {
        self.private().without(self.new)
    }

    /// Moves the caller into what is joined of `kinds`.
    pub(super) fn join(&self, kinds: Namespaces) -> Result<()> {
        for (kind, fd) in self.joined.iter().filter(|(kind, _)| kinds.contains(*kind)) {
            namespace::join(fd.as_fd(), *kind)
                .context(|| format!("join the {} namespace", name_of(*kind)))?;
        }
        Ok(())
    }
}

/// Runs `visit` while children of the caller are born into the pidns of `target`, a pidfd or the
/// namespace itself.
///
/// The caller is the shim's only thread, and `visit` must not be async: nothing else runs
/// meanwhile.
pub(super) fn with_pidns_of<T>(target: impl AsFd, visit: impl FnOnce() -> Result<T>) -> Result<T> {
    let home = Home::remember(Namespaces::PID).context(|| "open the shim's own pid namespace")?;
    namespace::join(target.as_fd(), Namespaces::PID).context(|| "join the pid namespace")?;
    let result = visit();
    home.return_to().context(|| "return to the shim's own pid namespace")?;
    result
}

impl NamespacePlan {
    /// As [`with_pidns_of`] for the pidns that is joined, if there is one.
    pub(super) fn with_joined_pidns<T>(&self, visit: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.joined.iter().find(|(kind, _)| *kind == Namespaces::PID) {
            Some((_, fd)) => with_pidns_of(fd, visit),
            None => visit(),
        }
    }
}

/// The namespace of `kind` at `path`; `None` when it is the shim's own, which is then shared and
/// not joined.
fn open(kind: Namespaces, path: &str) -> Result<Option<OwnedFd>> {
    let open = || {
        let theirs = namespace::open(path)?;
        if namespace::kind(theirs.as_fd()).ok() != Some(kind) {
            let message = format!("it is no {} namespace", name_of(kind));
            return Err(std::io::Error::other(message));
        }
        let ours = rustix::fs::stat(format!("/proc/self/ns/{}", name_of(kind)))?;
        let stat = rustix::fs::fstat(&theirs)?;
        let same = (stat.st_dev, stat.st_ino) == (ours.st_dev, ours.st_ino);
        Ok::<_, std::io::Error>((!same).then_some(theirs))
    };
    open().map_err(|error| invalid(format!("can't be joined: open {path}: {error}")))
}

fn kind_of(name: &str) -> Result<Namespaces> {
    Ok(match name {
        "pid" => Namespaces::PID,
        "network" => Namespaces::NET,
        "mount" => Namespaces::MOUNT,
        "ipc" => Namespaces::IPC,
        "uts" => Namespaces::UTS,
        "user" => Namespaces::USER,
        "cgroup" => Namespaces::CGROUP,
        "time" => Namespaces::TIME,
        other => return Err(invalid(format!("has an unknown type {other:?}"))),
    })
}

fn name_of(kind: Namespaces) -> &'static str {
    let mut files = Namespaces::FILES.iter();
    files.find(|(known, _)| *known == kind).map_or("", |(_, file)| *file)
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("linux.namespaces {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn list(kinds: &[(&str, Option<&str>)]) -> Vec<Namespace> {
        let namespace = |(kind, path): &(&str, Option<&str>)| Namespace {
            kind: (*kind).into(),
            path: path.map(str::to_owned),
        };
        kinds.iter().map(namespace).collect()
    }

    #[test]
    fn new_and_shared_kinds_are_told_apart() {
        let plan = NamespacePlan::check(&list(&[
            ("mount", Some("")),
            ("pid", None),
            ("network", Some("/proc/self/ns/net")),
        ]))
        .unwrap();
        assert_eq!(plan.new, Namespaces::MOUNT | Namespaces::PID);
        assert_eq!(plan.joins(), Namespaces::NONE, "the host's is shared, not joined");
    }

    #[test]
    fn what_can_not_be_is_refused_by_name() {
        for (bad, word) in [
            (list(&[("pid", None)]), "mount"),
            (list(&[("mount", None), ("mount", None)]), "twice"),
            (list(&[("mount", None), ("ether", None)]), "ether"),
            (list(&[("mount", None), ("ipc", Some("/nowhere"))]), "/nowhere"),
        ] {
            let error = NamespacePlan::check(&bad).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.message().contains(word), "{error}");
        }
    }
}
