//! Containers that another process has created.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_sys::namespace::Namespaces;
use berth_types::spec::Spec;
use berth_types::{Error, Kind, Result};

use super::filter::Filter;
use super::handshake::ShimEnd;
use super::{Container, Process, Remains};

/// A container whose first process is there.
#[derive(Debug)]
pub struct Existing {
    /// Its id.
    pub id: String,
    /// The directory that it was created in.
    pub bundle: PathBuf,
    /// What it was created from.
    pub spec: Spec,
    /// Its first process, which `pidfd` refers to.
    pub pid: i32,
    /// The same, for good.
    pub pidfd: OwnedFd,
    /// A connection to the gate that its first process waits at, for who is to start it.
    pub gate: Option<OwnedFd>,
}

impl Container {
    /// The container as if the caller had created it, but that its processes are no children.
    ///
    /// # Errors
    /// InvalidArgument when it can't have been created from that; FailedPrecondition when its
    /// first process is gone.
    pub fn find(existing: Existing) -> Result<Self> {
        let Existing { id, bundle, spec, pid, pidfd, gate } = existing;
        let profile = spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        let filter = profile.map(Filter::check).transpose()?;
        Ok(Self {
            remains: Remains::find(&id, &bundle, &spec)?,
            filter,
            namespaces: foreign_namespaces(pid)?,
            init: Process { pid, pidfd, terminal: None },
            channel: gate.map(ShimEnd::at_gate).transpose()?,
        })
    }
}

/// The kinds of which `pid` and the caller are in different namespaces. What is the caller's own
/// need not be joined, and its userns can't be.
fn foreign_namespaces(pid: i32) -> Result<Namespaces> {
    let mut foreign = Namespaces::NONE;
    for (kind, file) in Namespaces::FILES {
        // A kernel may lack a kind.
        let Ok(ours) = fs::read_link(format!("/proc/self/ns/{file}")) else { continue };
        let theirs = fs::read_link(format!("/proc/{pid}/ns/{file}")).map_err(|error| {
            let message = format!("the container is not running: process {pid}: {error}");
            Error::new(Kind::FailedPrecondition, message)
        })?;
        if theirs != ours {
            foreign = foreign | kind;
        }
    }
    Ok(foreign)
}
