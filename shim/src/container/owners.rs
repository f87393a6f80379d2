//! Idmapped mounts: files with other owners than on their filesystem (`mount_setattr(2)`).
//!
//! Such a mount is made before the container's first process, by a child of the shim: in a userns
//! of its own the first process would not be allowed to, and a hanging filesystem must not hold
//! up the shim. The first process inherits the mount, attached nowhere, and gives it its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use berth_sys::namespace::{self, Namespaces};
use berth_sys::{clone, mount, pidfd};
use berth_types::{Error, Result, ResultExt};
use rustix::process::Signal;

use super::handshake::{self, ChildEnd, Report, ShimEnd};
use super::id_maps::IdMaps;
use super::mounts::{MountPlan, What};
use super::newborn;

/// How long making the mounts may take.
const MAPPED: Duration = Duration::from_secs(60);

/// How the owners of a mount's files are mapped.
#[derive(Debug)]
pub(super) struct Owners {
    pub(super) maps: IdMaps,
    /// In the mounts below too.
    pub(super) recursive: bool,
}

/// Makes the idmapped ones of `mounts`.
pub(super) async fn prepare(mounts: &mut [MountPlan]) -> Result<()> {
    let mut mapped: Vec<_> = mounts.iter_mut().filter(|mount| mount.owners.is_some()).collect();
    let count = mapped.len();
    let make = |channel: &ChildEnd| mapped.iter().try_for_each(|mount| make(mount, channel));
    let trees = trees(count, Namespaces::NONE, make).await?;
    mapped.iter_mut().zip(trees).for_each(|(mount, tree)| mount.tree = Some(tree));
    Ok(())
}

/// The `count` trees of mounts that `make`, in a child with new `namespaces`, sends.
pub(super) async fn trees(
    count: usize,
    namespaces: Namespaces,
    make: impl FnOnce(&ChildEnd) -> Result<()>,
) -> Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let (shim_end, child_end) = handshake::pair()?;
    let options = clone::Options { namespaces, unseen: true, ..clone::Options::default() };
    let child = clone::spawn(options, || {
        let report = make(&child_end).map_or_else(Report::Failed, |()| Report::Ready);
        child_end.report(&report).is_err().into()
    })
    .context(|| "start a process that maps owners")?;
    drop(child_end);
    let channel = ShimEnd::new(shim_end)?;
    let received = newborn::in_time(MAPPED, "mapping owners", receive(&channel, count)).await;
    // It may hang in a filesystem: then it is not waited for.
    if received.is_err() {
        let _ = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
        return received;
    }
    pidfd::wait(child.pidfd.as_fd()).context(|| "wait for a process that maps owners")?;
    received
}

async fn receive(channel: &ShimEnd, count: usize) -> Result<Vec<OwnedFd>> {
    let mut trees = Vec::with_capacity(count);
    while trees.len() < count {
        match channel.next().await? {
            Some(Report::Tree(tree)) => trees.push(tree),
            Some(Report::Failed(error)) => return Err(error),
            _ => return Err(Error::internal("a process that maps owners took a wrong step")),
        }
    }
    Ok(trees)
}

fn make(mount: &MountPlan, channel: &ChildEnd) -> Result<()> {
    let (Some(owners), What::Bind { source, recursive }) = (&mount.owners, &mount.what) else {
        return Err(Error::internal("only what is bound has owners to map"));
    };
    let path = source.to_str().ok_or_else(|| Error::invalid_argument("is not UTF-8"))?;
    let userns = userns(&owners.maps)?;
    let tree = map(path, *recursive, userns.as_fd(), owners.recursive)?;
    for change in mount.options.changes() {
        change.apply(tree.as_fd()).context(|| format!("change the mount of {path}"))?;
    }
    channel.report(&Report::Tree(tree))
}

/// A copy of the mount at `path`, attached nowhere, whose files have the owners that `userns` maps.
pub(super) fn map(
    path: &str,
    copy_recursive: bool,
    userns: BorrowedFd<'_>,
    map_recursive: bool,
) -> Result<OwnedFd> {
    let what = || format!("map the owners of {path}");
    let tree = mount::copy_path(path, copy_recursive).context(what)?;
    // What may be mounted here in a container, a filesystem may refuse to map.
    mount::map_owners(tree.as_fd(), userns, map_recursive)
        .map_err(|error| Error::invalid_argument(format!("{}: {error}", what())))?;
    Ok(tree)
}

/// A userns with these maps and nobody in it.
pub(super) fn userns(maps: &IdMaps) -> Result<OwnedFd> {
    let options =
        clone::Options { namespaces: Namespaces::USER, unseen: true, ..clone::Options::default() };
    let wait = || {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        // Until it is killed.
        let _ = rustix::event::poll(&mut [], None);
        0
    };
    let child = clone::spawn(options, wait).context(|| "make a user namespace")?;
    let made = maps.write(child.pid).and_then(|()| {
        namespace::open(&format!("/proc/{}/ns/user", child.pid))
            .context(|| "open the user namespace")
    });
    let ended = pidfd::send_signal(child.pidfd.as_fd(), Signal::KILL.as_raw())
        .and_then(|()| pidfd::wait(child.pidfd.as_fd()).map(drop));
    ended.context(|| "end a process in a user namespace")?;
    made
}
