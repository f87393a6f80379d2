//! Control groups, v1, v2 and the mix of both: limits, device access, freezing, killing, figures.
//!
//! A [`Cgroup`] is one directory on v2 and one in each *needed* hierarchy on v1. A directory in a
//! v1 hierarchy costs 150–300 µs over its life, so only those that every container needs are made
//! at once:
//!
//! - `devices`, because device access is denied by default;
//! - `memory`, because an OOM kill must be noticed and counted even without a limit;
//! - `cpuacct`, because processor time can't be counted afterwards (and where distributions mount
//!   it together with `cpu`, both come for one).
//!
//! The others are made when a limit asks for them, and `freezer` when something is to be frozen:
//! the processes are moved into it then. On v2 there is one directory in any case, and the kernel
//! freezes and kills without a controller.
//!
//! A cgroup's state is in the kernel only. [`Cgroup::open`] by another process, such as the one
//! that cleans up after a killed shim, sees what [`Cgroup::create`] made, including which parent
//! directories were made for it (they carry an extended attribute) and go with their last child.
//!
//! Nothing here sleeps for longer than a few milliseconds, except [`Cgroup::remove`].
//!
//! Interface: `Documentation/admin-guide/cgroup-v1/` and `cgroup-v2.rst` in the kernel's source.

mod below;
mod controller;
mod device;
mod directory;
mod hierarchy;
mod oom;
mod path;
mod pressure;
mod setting;
mod stats;
mod v1;
mod v2;
mod walk;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use berth_types::spec::Resources;
use berth_types::{Error, Result, ResultExt};

pub use below::Below;
pub use controller::Controller;
pub use hierarchy::{Hierarchies, Version};
pub use oom::OomWatch;
pub use pressure::{Pressure, Stall, Stalls};
pub use stats::{BlockIoEntry, Cpu, Flat, Hugetlb, Memory, Pids, Rdma, Stats};

use path::CgroupPath;

/// Moves the calling process, which must have one thread, into the cgroup of `doors`.
///
/// A thread that moves itself takes none of the locks that moving a process takes: those wait for
/// an RCU grace period, which is some milliseconds on a busy machine.
///
/// # Errors
/// What the kernel refuses the move with, such as `ENODEV` when the cgroup is gone.
pub fn enter(doors: &[OwnedFd]) -> io::Result<()> {
    for door in doors {
        rustix::io::write(door, b"0")?;
    }
    Ok(())
}

/// A container's control group.
#[derive(Debug)]
pub struct Cgroup {
    tree: Tree,
}

#[derive(Debug)]
enum Tree {
    V1(v1::Tree),
    V2(v2::Tree),
}

impl Cgroup {
    /// The cgroup at `path` with `resources` applied and no process in it. Missing parents are
    /// made; an empty cgroup that is there is taken over.
    ///
    /// An absolute path starts at the root of each mounted hierarchy. A relative one starts at
    /// the caller's own cgroup on v1, and beside it on v2, where a cgroup with processes can't
    /// have children with controllers.
    ///
    /// Fails with InvalidArgument for a path with `..` or of nothing, and for values that the
    /// kernel refuses; with AlreadyExists when the cgroup has processes; with FailedPrecondition
    /// when a limit needs a controller that isn't there. Nothing is left after a failure.
    pub fn create(path: &Path, resources: &Resources) -> Result<Self> {
        let cgroup = Self::open(path)?;
        match &cgroup.tree {
            Tree::V1(tree) => tree.create(resources)?,
            Tree::V2(tree) => tree.create(resources)?,
        }
        Ok(cgroup)
    }

    /// The cgroup at `path`, whether it is there or not.
    pub fn open(path: &Path) -> Result<Self> {
        let hierarchies = Hierarchies::discover()?;
        let path = CgroupPath::parse(path)?;
        let tree = match hierarchies.version() {
            Version::V1 | Version::Hybrid => Tree::V1(v1::Tree::new(&hierarchies, &path)),
            Version::V2 => Tree::V2(v2::Tree::new(&hierarchies, &path)?),
        };
        Ok(Self { tree })
    }

    /// Makes the cgroup without limits, as a place for processes of the host, in every hierarchy
    /// where it isn't there.
    pub fn make(&self) -> Result<()> {
        match &self.tree {
            Tree::V1(tree) => tree.make_everywhere(),
            Tree::V2(tree) => tree.make_plain(),
        }
    }

    /// Moves the calling process, with all its threads, into the cgroup: on v1 in each hierarchy
    /// where it is there. What the process starts from then on is inside too.
    ///
    /// # Errors
    /// NotFound when the cgroup isn't there at all; else what the kernel refuses the move with.
    pub fn join(&self, path: &Path) -> Result<()> {
        let directories = self.directories();
        if directories.is_empty() {
            let message = format!("there is no control group {}: make it first", path.display());
            return Err(Error::not_found(message));
        }
        directories.iter().try_for_each(|directory| {
            directory::write(&directory.join("cgroup.procs"), "0")
                .context(|| format!("enter the control group {}", directory.display()))
        })
    }

    /// The directories that belong to this cgroup and are there, one on v2.
    pub fn directories(&self) -> Vec<PathBuf> {
        match &self.tree {
            Tree::V1(tree) => tree.existing(),
            Tree::V2(tree) => tree.existing(),
        }
    }

    /// A descriptor of the directory for clone3(2)'s `CLONE_INTO_CGROUP`, on v2. `None` on v1:
    /// the child moves itself in, through [`Cgroup::doors`].
    ///
    /// # Errors
    /// NotFound when the cgroup is gone; InvalidArgument when there is none `below` it.
    pub fn clone_target(&self, below: &Below) -> Result<Option<OwnedFd>> {
        match &self.tree {
            Tree::V1(_) => Ok(None),
            Tree::V2(tree) => tree.descriptor(below.unified()?).map(Some),
        }
    }

    /// As [`Cgroup::clone_target`], of the cgroup in or below this one that has process `pid` in
    /// it. On v2 a cgroup whose controllers are handed to others below it takes no process.
    ///
    /// # Errors
    /// NotFound when the process is elsewhere or gone.
    pub fn clone_target_beside(&self, pid: i32) -> Result<Option<OwnedFd>> {
        match &self.tree {
            Tree::V1(_) => Ok(None),
            Tree::V2(tree) => tree.descriptor(&tree.below_of(pid)?).map(Some),
        }
    }

    /// Opens the files through which a child [`enter`]s on v1; none on v2, where it is born
    /// inside. Whoever holds them may enter: the kernel judges by who opened them.
    ///
    /// # Errors
    /// NotFound when the cgroup is gone; InvalidArgument when there is none `below` it.
    pub fn doors(&self, below: &Below) -> Result<Vec<OwnedFd>> {
        match &self.tree {
            Tree::V1(tree) => tree.doors(below),
            Tree::V2(_) => Ok(Vec::new()),
        }
    }

    /// Applies what `resources` has to the running cgroup and leaves the rest. Device rules, if
    /// there are any, replace the present ones.
    pub fn update(&self, resources: &Resources) -> Result<()> {
        match &self.tree {
            Tree::V1(tree) => tree.update(resources),
            Tree::V2(tree) => tree.update(resources),
        }
    }

    /// Asks the kernel to freeze every process and says whether all are frozen by now. Call it
    /// again, after some milliseconds, until it says so; a process in an uninterruptible sleep
    /// can delay that for as long as it likes.
    pub fn freeze(&self) -> Result<bool> {
        match &self.tree {
            Tree::V1(tree) => tree.freeze(),
            Tree::V2(tree) => tree.freeze(),
        }
    }

    /// Lets the processes go on.
    pub fn thaw(&self) -> Result<()> {
        match &self.tree {
            Tree::V1(tree) => tree.thaw(),
            Tree::V2(tree) => tree.thaw(),
        }
    }

    /// Whether the cgroup is frozen, or on the way to it.
    pub fn is_frozen(&self) -> Result<bool> {
        match &self.tree {
            Tree::V1(tree) => tree.is_frozen(),
            Tree::V2(tree) => tree.is_frozen(),
        }
    }

    /// Sends SIGKILL to every process, frozen ones too, and says how many there were. A process
    /// that was forked meanwhile may have been missed on v1: call it again until it says zero.
    pub fn kill_all(&self) -> Result<usize> {
        match &self.tree {
            Tree::V1(tree) => tree.kill_all(),
            Tree::V2(tree) => tree.kill_all(),
        }
    }

    /// The processes inside, also those in cgroups that the container made below. Empty when the
    /// cgroup is gone.
    pub fn pids(&self) -> Result<Vec<i32>> {
        match &self.tree {
            Tree::V1(tree) => tree.pids(),
            Tree::V2(tree) => tree.pids(),
        }
    }

    /// What has been used so far. Figures of controllers that are not in use are zero or empty.
    pub fn stats(&self) -> Result<Stats> {
        match &self.tree {
            Tree::V1(tree) => tree.stats(),
            Tree::V2(tree) => tree.stats(),
        }
    }

    /// How many processes of this cgroup the kernel has killed for want of memory, be it the
    /// cgroup's own limit, a parent's or the machine's.
    pub fn oom_kills(&self) -> Result<u64> {
        match &self.tree {
            Tree::V1(tree) => tree.oom_kills(),
            Tree::V2(tree) => tree.oom_kills(),
        }
    }

    /// A descriptor that becomes readable when memory ran out.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        match &self.tree {
            Tree::V1(tree) => tree.watch_oom(),
            Tree::V2(tree) => tree.watch_oom(),
        }
    }

    /// Removes the cgroup, what the container made below it, and parents that were made for it
    /// and are empty. A cgroup whose last process is on its way out is busy for a moment: this
    /// tries again for up to about 200 ms, sleeping in between. It goes on after a failure and
    /// reports all; FailedPrecondition when processes are left. Fine if there is nothing.
    pub fn remove(&self) -> Result<()> {
        let mut failures = Vec::new();
        for directory in self.directories() {
            if let Err(error) = directory::remove(&directory) {
                failures.push(error);
            }
        }
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => {
                let all: Vec<_> = failures.iter().map(|error| error.message()).collect();
                Err(Error::new(failures[0].kind(), all.join("; ")))
            }
        }
    }
}
