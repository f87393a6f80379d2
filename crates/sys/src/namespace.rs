//! Kernel namespaces: which kinds there are, joining and leaving them (`namespaces(7)`).

use std::io;
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// A set of namespace kinds, as the `CLONE_NEW*` bits of `clone(2)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(i32);

impl Namespaces {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// `CLONE_NEWUSER`
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// `CLONE_NEWPID`
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// `CLONE_NEWNS`
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);
    /// `CLONE_NEWNET`
    pub const NET: Self = Self(libc::CLONE_NEWNET);
    /// `CLONE_NEWUTS`
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// `CLONE_NEWIPC`
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    /// `CLONE_NEWCGROUP`
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    /// `CLONE_NEWTIME`
    pub const TIME: Self = Self(0x80);

    /// Every kind with the name of its file in `/proc/PID/ns`.
    pub const FILES: [(Self, &'static str); 8] = [
        (Self::USER, "user"),
        (Self::PID, "pid"),
        (Self::MOUNT, "mnt"),
        (Self::NET, "net"),
        (Self::UTS, "uts"),
        (Self::IPC, "ipc"),
        (Self::CGROUP, "cgroup"),
        (Self::TIME, "time"),
    ];

    /// Whether each kind of `other` is in this set.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether no kind is in this set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set without the kinds of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds that are in both sets.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The bits, as system calls take them.
    pub fn bits(self) -> i32 {
        self.0
    }
}

impl BitOr for Namespaces {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Moves the calling process into namespaces with `setns(2)`: `target` is either the namespace
/// that a file of `/proc/PID/ns` stands for, `kinds` being its kind, or a pidfd, whose process's
/// namespaces of all `kinds` are joined at once.
///
/// A pidns takes effect for children made later, not for the caller.
///
/// # Errors
/// Those of `setns(2)`; joining the userns that one is in gives `EINVAL`.
pub fn join(target: BorrowedFd<'_>, kinds: Namespaces) -> io::Result<()> {
    // SAFETY: setns takes two integers and touches no memory of ours; the descriptor is borrowed
    // for the duration of the call.
    match unsafe { libc::setns(target.as_raw_fd(), kinds.bits()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Moves the calling process into new namespaces of all `kinds` with `unshare(2)`.
///
/// # Errors
/// Those of `unshare(2)`.
pub fn unshare(kinds: Namespaces) -> io::Result<()> {
    // SAFETY: unshare takes an integer. Only namespace bits can be in `kinds` (never CLONE_FILES
    // or CLONE_VM), so no descriptor or memory of a thread is cut off.
    match unsafe { libc::unshare(kinds.bits()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The calling process's own namespaces of some kinds, to come back to after a visit elsewhere.
#[derive(Debug)]
pub struct Home(Vec<(Namespaces, OwnedFd)>);

impl Home {
    /// Keeps hold of the caller's namespaces of `kinds`.
    ///
    /// # Errors
    /// When a file of `/proc/self/ns` can't be opened.
    pub fn remember(kinds: Namespaces) -> io::Result<Self> {
        let mut home = Vec::new();
        for (kind, file) in Namespaces::FILES {
            if kinds.contains(kind) {
                home.push((kind, open(&format!("/proc/self/ns/{file}"))?));
            }
        }
        Ok(Self(home))
    }

    /// Goes back into each of them, going on after a failure and returning the first.
    ///
    /// # Errors
    /// Those of `setns(2)`. The caller is then not where it believes to be.
    pub fn return_to(&self) -> io::Result<()> {
        let mut result = Ok(());
        for (kind, fd) in &self.0 {
            result = result.and(join(fd.as_fd(), *kind));
        }
        result
    }
}

/// Opens the file of a namespace, such as `/proc/1/ns/net` or a bind mount of it.
///
/// # Errors
/// Those of `open(2)`.
pub fn open(path: &str) -> io::Result<OwnedFd> {
    // What is there may be a FIFO, which must not make this wait.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// The kind of the namespace that `file` stands for (`ioctl_ns(2)`).
///
/// # Errors
/// `ENOTTY` when it stands for none.
pub fn kind(file: BorrowedFd<'_>) -> io::Result<Namespaces> {
    /// `NS_GET_NSTYPE`
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the request takes no argument and returns an integer; the descriptor is borrowed for
    // the duration of the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) } {
        -1 => Err(io::Error::last_os_error()),
        bits => Ok(Namespaces(bits)),
    }
}
