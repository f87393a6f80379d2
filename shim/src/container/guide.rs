//! The way into a userns that is there already.
//!
//! Namespaces belong to the userns that their maker is in, and who isn't in it has no rights over
//! them. The shim can't go there and come back, so a child of it, the guide, does: it enters, and
//! makes the first process, with its namespaces, as a child of the shim.

use berth_sys::clone::{self, Child, Options};
use berth_sys::namespace::Namespaces;
use berth_types::{Result, ResultExt};

use super::handshake::{ChildEnd, Report};
use super::init::become_root;
use super::namespaces::NamespacePlan;

/// Starts the guide, which reports the first process, that runs `init`, as [`Report::Born`].
pub(super) fn spawn(
    namespaces: &NamespacePlan,
    options: Options<'_>,
    channel: &mut ChildEnd,
    init: impl FnOnce(&mut ChildEnd) -> i32,
) -> Result<Child> {
    let guide = Options { namespaces: Namespaces::NONE, ..options };
    let lead = || {
        let born = enter(namespaces).and_then(|()| {
            // It is born into the guide's cgroup, which it may have no right to enter.
            let first =
                Options { namespaces: options.namespaces, sibling: true, ..Options::default() };
            clone::spawn(first, || init(channel)).context(|| "clone the first process")
        });
        let report = born.map_or_else(Report::Failed, Report::Born);
        channel.report(&report).is_err().into()
    };
    clone::spawn(guide, lead).context(|| "clone a process that enters the user namespace")
}

fn enter(namespaces: &NamespacePlan) -> Result<()> {
    namespaces.join(Namespaces::USER)?;
    become_root().context(|| "become root of the user namespace")?;
    // For its children.
    namespaces.join(Namespaces::PID)
}
