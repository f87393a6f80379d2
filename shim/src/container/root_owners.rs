//! Root filesystems whose files have other owners than in their layers: the pseudo-options
//! `uidmap=` and `gidmap=` of containerd's mounts.
//!
//! Such a filesystem is made before the container's first process, by a child of the shim in a
//! mountns of its own: there each layer is covered by an idmapped mount of itself, and the overlay,
//! which is made of those, keeps them. So is any overlay for a container with a userns, from inside
//! of which the attributes that overlay has in its layers (`trusted.overlay.*`) could not be read.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::mount::{self, Change, Propagation};
use berth_sys::namespace::Namespaces;
use berth_types::spec::IdMapping;
use berth_types::{Error, Result, ResultExt};

use super::handshake::{ChildEnd, Report};
use super::id_maps::IdMaps;
use super::owners;
use super::plan::{Plan, RootMount, RootPlan};
use super::rootfs::{bound, detached, open};

/// Takes the pseudo-options out of `options`.
///
/// # Errors
/// InvalidArgument for maps that can't be, and when one is without the other.
pub(super) fn take_maps(options: &mut Vec<String>) -> Result<Option<IdMaps>> {
    let mut take = |name: &str| {
        let at = options.iter().position(|option| option.starts_with(name))?;
        Some(options.remove(at)[name.len()..].to_owned())
    };
    match (take("uidmap="), take("gidmap=")) {
        (None, None) => Ok(None),
        (Some(uids), Some(gids)) => IdMaps::of("rootfs", &parse(&uids)?, &parse(&gids)?).map(Some),
        _ => Err(Error::invalid_argument(
            "rootfs: of the options uidmap= and gidmap= one is without the other",
        )),
    }
}

/// Maps as containerd writes them: `CONTAINER:HOST:SIZE`, several with commas between them.
fn parse(maps: &str) -> Result<Vec<IdMapping>> {
    let range = |range: &str| {
        let mut numbers = range.splitn(3, ':').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(IdMapping { container_id: next()?, host_id: next()?, size: next()? })
    };
    maps.split(',').map(range).collect::<Option<_>>().ok_or_else(|| {
        Error::invalid_argument(format!(
            "rootfs: map {maps:?} of the mount's options is not CONTAINER:HOST:SIZE"
        ))
    })
}

/// Makes those filesystems of the root that the first process can't make itself.
pub(super) async fn prepare(plan: &mut Plan) -> Result<()> {
    let remapped = plan.namespaces.private().contains(Namespaces::USER);
    let early = |one: &RootMount| one.owners.is_some() || remapped && one.is_overlay();
    let count = plan.root.mounts.iter().filter(|one| early(one)).count();
    let root = &plan.root;
    let make = |channel: &ChildEnd| {
        leave_the_hosts_mounts()?;
        let mut mounts = root.mounts.iter().filter(|one| early(one));
        mounts.try_for_each(|one| channel.report(&Report::Tree(make(root, one)?)))
    };
    let trees = owners::trees(count, Namespaces::MOUNT, make).await?;
    let mounts = plan.root.mounts.iter_mut().filter(|one| early(one));
    mounts.zip(trees).for_each(|(one, tree)| one.tree = Some(tree));
    Ok(())
}

fn leave_the_hosts_mounts() -> Result<()> {
    let what = || "cut mounts off from the host's";
    let root = open(Path::new("/")).context(what)?;
    let propagation = Some(Propagation::Slave);
    Change { propagation, recursive: true, ..Change::default() }.apply(root.as_fd()).context(what)
}

fn make(root: &RootPlan, one: &RootMount) -> Result<OwnedFd> {
    let userns = one.owners.as_ref().map(owners::userns).transpose()?;
    if let (Some(userns), Some(recursive)) = (&userns, bound(&one.mount, &one.options)) {
        let source = one.mount.source.as_deref().unwrap_or("");
        let tree = owners::map(source, recursive, userns.as_fd(), false)?;
        for change in one.options.changes() {
            change.apply(tree.as_fd()).context(|| format!("bind {source}"))?;
        }
        return Ok(tree);
    }
    if let Some(userns) = &userns {
        cover_layers(&one.options.data, userns.as_fd())?;
    }
    match detached(&one.mount, &one.options)? {
        Some(tree) => Ok(tree),
        None => {
            let covered = root.mount_overlay(one)?;
            mount::copy(covered.as_fd(), "", false).context(|| "copy the overlay's mount")
        }
    }
}

/// Puts an idmapped mount of itself on each layer of the overlay with `options`.
fn cover_layers(options: &[String], userns: BorrowedFd<'_>) -> Result<()> {
    let lists = options.iter().filter_map(|option| option.strip_prefix("lowerdir="));
    let layers = lists.flat_map(mount::split_layers);
    for layer in layers.filter(|layer| !layer.is_empty()) {
        let what = || format!("map the owners of {layer}");
        let tree = owners::map(&layer, false, userns, false)?;
        let place = open(Path::new(&layer)).context(what)?;
        mount::attach(tree.as_fd(), place.as_fd()).context(what)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn take(options: &[&str]) -> Result<(Vec<String>, bool)> {
        let mut options = options.iter().map(|&option| option.to_owned()).collect();
        let maps = take_maps(&mut options)?;
        Ok((options, maps.is_some()))
    }

    #[test]
    fn maps_are_taken_out_of_options() {
        let none = take(&["ro", "lowerdir=/a"]).unwrap();
        assert_eq!(none, (vec!["ro".to_owned(), "lowerdir=/a".to_owned()], false));
        let both = take(&["uidmap=0:1000:10", "ro", "gidmap=0:1000:10,10:5000:1"]).unwrap();
        assert_eq!(both, (vec!["ro".to_owned()], true));
    }

    #[test]
    fn wrong_maps_are_refused() {
        for options in [
            &["uidmap=0:1000:10"][..],
            &["uidmap=0:1000:10", "gidmap="],
            &["uidmap=0:1000:10", "gidmap=0:1000"],
            &["uidmap=0:1000:10", "gidmap=0:1000:0"],
            &["uidmap=0:1000:10", "gidmap=0:-1:1"],
            &["uidmap=0:1000:10", "gidmap=0:1:1:1"],
            &["uidmap=0:1000:10,5:2000:10", "gidmap=0:1:1"],
        ] {
            assert_eq!(take(options).unwrap_err().kind(), Kind::InvalidArgument, "{options:?}");
        }
    }
}
