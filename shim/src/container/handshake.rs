//! What a container's process and the shim tell each other until the process is the program.
//!
//! ```text
//!        shim                                child
//!          | ------------- clone3 ------------> |
//!          | --- Mapped ----------------------> |  only with a new userns: its maps are written
//!          |  makes the cgroup                  |  mounts the root filesystem
//!          | --- Cgroup(place) ---------------> |  enters it, before anything that shows it
//!          |                                    |  mounts the rest
//!          | <-------------------- Mounted ---- |  only with prestart or createRuntime hooks, or
//!          |                                    |  interfaces: the shim has run the ones and moved
//!          | --- HooksRan --------------------> |  the others
//!          |                                    |  pivot_root, masks, identity, limits, lookup
//!          | <------------ Terminal(master) --- |  only with a terminal
//!          | <---------------------- Ready ---- |  Create returns
//!          | --- Start(pid, agent) -----------> |  Start was called
//!          | <----------------------- close --- |  execve closed the child's end: it runs
//! ```
//!
//! A first process that is to outlive its creator has a *gate*, a listening socket. It ends with its
//! creator until that one has sent `Left`, after `Ready`; then the child leaves the creator's socket
//! for whoever connects to the gate, and `Start` and what follows comes that way. One that connects
//! and leaves without `Start` changes nothing.
//!
//! Two other children use the same messages: one that makes idmapped mounts sends a `Tree` for
//! each and `Ready`, and one that leads the first process into a userns that is there already
//! sends `Born` before anything else.
//!
//! Instead of any of its messages the child may send `Failed`, its last one, and before any of
//! them `Warning`s. An exec has only `Start` and the close.
//! Each end takes the closing of the other for its death.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use berth_sys::clone::Child;
use berth_sys::{cgroup, socket};
use berth_types::{Error, Kind, Result, ResultExt};
use rustix::io::DupFlags;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The longest message; longer texts are cut.
const MESSAGE_MAX: usize = 4096;

/// What a child reports.
#[derive(Debug)]
pub(super) enum Report {
    /// The filesystem is complete and the old root not yet gone.
    Mounted,
    /// The master of its terminal.
    Terminal(OwnedFd),
    /// A mount that is attached nowhere.
    Tree(OwnedFd),
    /// The first process, which was born in a userns that was there already.
    Born(Child),
    /// Something was not done as asked, and it goes on.
    Warning(String),
    /// All that can fail for the spec's fault has succeeded.
    Ready,
    /// It gave up.
    Failed(Error),
}

/// What the shim tells a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// The maps of its userns are written.
    Mapped,
    /// Its cgroup is there; a [`Place`] comes with it.
    Cgroup,
    /// The hooks that run beside it have run.
    HooksRan,
    /// Its creator leaves it to whoever comes to its gate.
    Left,
    /// It is to become the program.
    Start,
}

/// Where a child is, once it has entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Its process id, as the shim sees it.
    pub(super) pid: i32,
    /// The directories of its cgroup.
    pub(super) cgroup: Vec<PathBuf>,
}

/// What comes with the word to start.
#[derive(Debug)]
pub(super) struct Start {
    /// The child's process id, as the shim sees it.
    pub(super) pid: i32,
    /// A connection to the agent that answers for its system call filter.
    pub(super) agent: Option<OwnedFd>,
}

impl Place {
    /// The id, and each path after a zero byte.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.pid.to_ne_bytes().to_vec();
        for directory in &self.cgroup {
            bytes.push(0);
            bytes.extend(directory.as_os_str().as_bytes());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (pid, rest) = bytes.split_first_chunk()?;
        let directory = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
        let cgroup = rest.split(|byte| *byte == 0).skip(1).map(directory).collect();
        Some(Self { pid: i32::from_ne_bytes(*pid), cgroup })
    }
}

impl Go {
    fn tag(self) -> u8 {
        match self {
            Self::Mapped => b'm',
            Self::Cgroup => b'c',
            Self::HooksRan => b'h',
            Self::Left => b'l',
            Self::Start => b's',
        }
    }
}

/// The shim's end. What tokio knows as a datagram socket is a connected one that keeps the bounds
/// of messages: the same calls serve it.
#[derive(Debug)]
pub(super) struct ShimEnd(UnixDatagram);

/// The child's end.
#[derive(Debug)]
pub(super) struct ChildEnd(OwnedFd);

/// Two connected ends. The shim's becomes a [`ShimEnd`] only after the clone, because a child
/// must not have a part in the runtime's epoll instance.
pub(super) fn pair() -> Result<(OwnedFd, ChildEnd)> {
    let (shim, child) = socket::pair().context(|| "make a socket pair")?;
    rustix::io::ioctl_fionbio(&shim, true)
        .map_err(io::Error::from)
        .context(|| "make a socket non-blocking")?;
    Ok((shim, ChildEnd(child)))
}

/// In the child: closes its copy of the shim's end, so that it hears when the shim is gone. The
/// descriptor then stands for the child's end.
pub(super) fn forget(shim_end: &mut OwnedFd, child_end: &ChildEnd) -> Result<()> {
    rustix::io::dup3(&child_end.0, shim_end, DupFlags::CLOEXEC)
        .map_err(io::Error::from)
        .context(|| "close the shim's end of a socket")
}

impl ShimEnd {
    /// Takes `fd` into the runtime.
    pub(super) fn new(fd: OwnedFd) -> Result<Self> {
        UnixDatagram::from_std(fd.into()).map(Self).context(|| "watch the socket to a process")
    }

    /// Takes the connection to a child's gate into the runtime.
    pub(super) fn at_gate(connection: OwnedFd) -> Result<Self> {
        rustix::io::ioctl_fionbio(&connection, true)
            .map_err(io::Error::from)
            .context(|| "make a socket non-blocking")?;
        Self::new(connection)
    }

    /// The next report; `None` when the child closed its end.
    pub(super) async fn next(&self) -> Result<Option<Report>> {
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            let received = self
                .0
                .async_io(Interest::READABLE, || socket::receive(self.0.as_fd(), &mut buffer))
                .await;
            return match received {
                Ok((0, _)) => Ok(None),
                Ok((length, fds)) => parse(&buffer[..length], fds).map(Some),
                // The child died with a message of ours unread. That is told once, and before the
                // reports that it still sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(error) => Err(Error::io("hear from a container's process", &error)),
            };
        }
    }

    /// Tells the child to go on. That it is gone is no failure: the next report says so.
    pub(super) fn go(&self, go: Go) -> Result<()> {
        self.send(&[go.tag()], &[])
    }

    /// Tells the child to enter its cgroup through `doors`; there are none when it was born there.
    pub(super) fn go_to_cgroup(&self, place: &Place, doors: &[OwnedFd]) -> Result<()> {
        let doors: Vec<_> = doors.iter().map(AsFd::as_fd).collect();
        self.send(&[&[Go::Cgroup.tag()], &place.encode()[..]].concat(), &doors)
    }

    /// Tells the child to become the program.
    pub(super) fn start(&self, start: &Start) -> Result<()> {
        let agent: Vec<_> = start.agent.iter().map(AsFd::as_fd).collect();
        self.send(&[&[Go::Start.tag()], &start.pid.to_ne_bytes()[..]].concat(), &agent)
    }

    fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        match socket::send(self.0.as_fd(), message, fds) {
            Err(error) if matches!(error.kind(), BrokenPipe | ConnectionReset) => Ok(()),
            other => other.context(|| "speak to a container's process"),
        }
    }
}

fn parse(message: &[u8], mut fds: Vec<OwnedFd>) -> Result<Report> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (message, fds.pop()) {
        ([b'M'], _) => Ok(Report::Mounted),
        ([b'R'], _) => Ok(Report::Ready),
        ([b'T'], Some(fd)) => Ok(Report::Terminal(fd)),
        ([b'O'], Some(fd)) => Ok(Report::Tree(fd)),
        ([b'B', a, b, c, d], Some(pidfd)) => {
            Ok(Report::Born(Child { pid: i32::from_ne_bytes([*a, *b, *c, *d]), pidfd }))
        }
        ([b'W', rest @ ..], _) => Ok(Report::Warning(text(rest))),
        ([b'F', kind, rest @ ..], _) => {
            Ok(Report::Failed(Error::new(Kind::from_code((*kind).into()), text(rest))))
        }
        _ => Err(Error::internal("a container's process sent a message of no known form")),
    }
}

impl ChildEnd {
    /// Sends `report` to the shim.
    pub(super) fn report(&self, report: &Report) -> Result<()> {
        let (mut message, fds) = match report {
            Report::Mounted => (vec![b'M'], vec![]),
            Report::Ready => (vec![b'R'], vec![]),
            Report::Terminal(master) => (vec![b'T'], vec![master.as_fd()]),
            Report::Tree(tree) => (vec![b'O'], vec![tree.as_fd()]),
            Report::Born(child) => {
                ([b"B", &child.pid.to_ne_bytes()[..]].concat(), vec![child.pidfd.as_fd()])
            }
            Report::Warning(text) => ([b"W", text.as_bytes()].concat(), vec![]),
            Report::Failed(error) => {
                let kind = error.kind().code() as u8;
                ([b"F", &[kind][..], error.message().as_bytes()].concat(), vec![])
            }
        };
        message.truncate(MESSAGE_MAX);
        socket::send(self.0.as_fd(), &message, &fds).context(|| "report to the shim")
    }

    /// Waits until the shim says to go on, which must be `expected`.
    pub(super) fn wait_for(&self, expected: Go) -> Result<()> {
        self.receive(expected).map(drop)
    }

    /// Lets in whoever connects to `gate`, until one says to start, and speaks with that one from
    /// then on.
    pub(super) fn open_gate(&mut self, gate: &OwnedFd) -> Result<Start> {
        loop {
            let visitor = socket::accept(gate.as_fd()).context(|| "wait to be started")?;
            *self = Self(visitor);
            match self.wait_for_start() {
                Err(error) if error.kind() == Kind::Cancelled => {}
                other => return other,
            }
        }
    }

    /// Waits until it is to become the program.
    pub(super) fn wait_for_start(&self) -> Result<Start> {
        let (pid, mut fds) = self.receive(Go::Start)?;
        let pid = pid.first_chunk().ok_or_else(|| Error::internal("the shim named no process"))?;
        Ok(Start { pid: i32::from_ne_bytes(*pid), agent: fds.pop() })
    }

    /// Waits until the cgroup is there, and enters it.
    pub(super) fn enter_cgroup(&self) -> Result<Place> {
        let (place, doors) = self.receive(Go::Cgroup)?;
        cgroup::enter(&doors).context(|| "enter the control group")?;
        Place::decode(&place).ok_or_else(|| Error::internal("the shim named no place"))
    }

    /// What comes with `expected`.
    fn receive(&self, expected: Go) -> Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut buffer = [0; MESSAGE_MAX];
        let (length, fds) =
            socket::receive(self.0.as_fd(), &mut buffer).context(|| "hear from the shim")?;
        match &buffer[..length] {
            [] => Err(Error::cancelled("the other end is gone")),
            [tag, rest @ ..] if *tag == expected.tag() => Ok((rest.to_vec(), fds)),
            _ => Err(Error::internal("the shim sent a message out of its order")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends() -> (ShimEnd, ChildEnd) {
        let (shim, child) = pair().unwrap();
        (ShimEnd::new(shim).unwrap(), child)
    }

    #[tokio::test]
    async fn reports_arrive_whole_and_in_order() {
        let (shim, child) = ends();
        child.report(&Report::Warning("careful".into())).unwrap();
        child.report(&Report::Failed(Error::not_found("no such thing"))).unwrap();
        drop(child);
        let Some(Report::Warning(text)) = shim.next().await.unwrap() else { panic!() };
        assert_eq!(text, "careful");
        let Some(Report::Failed(error)) = shim.next().await.unwrap() else { panic!() };
        assert_eq!((error.kind(), error.message()), (Kind::NotFound, "no such thing"));
        assert!(shim.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_child_that_dies_without_listening_is_still_heard() {
        let (shim, child) = ends();
        shim.go(Go::Mapped).unwrap();
        child.report(&Report::Failed(Error::not_found("no such thing"))).unwrap();
        drop(child);
        shim.go(Go::Start).unwrap();
        let Some(Report::Failed(error)) = shim.next().await.unwrap() else { panic!() };
        assert_eq!(error.message(), "no such thing");
        assert!(shim.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_gate_opens_for_the_first_who_says_start() {
        let directory = tempfile::tempdir().unwrap();
        let directory = std::fs::File::open(directory.path()).unwrap();
        let gate = socket::listen(directory.as_fd(), "gate").unwrap();
        let (shim, mut child) = ends();
        let visit = || socket::connect(directory.as_fd(), "gate").unwrap();
        drop(visit());
        let starter = ShimEnd::at_gate(visit()).unwrap();
        starter.start(&Start { pid: 42, agent: None }).unwrap();
        assert_eq!(child.open_gate(&gate).unwrap().pid, 42);
        assert!(shim.next().await.unwrap().is_none(), "the creator is still connected");
        child.report(&Report::Warning("careful".into())).unwrap();
        let Some(Report::Warning(_)) = starter.next().await.unwrap() else { panic!() };
    }

    #[tokio::test]
    async fn a_step_out_of_its_order_is_refused_and_the_place_arrives() {
        let (shim, child) = ends();
        for cgroup in [vec![], vec![PathBuf::from("/a"), PathBuf::from("/b c")]] {
            let place = Place { pid: 42, cgroup };
            shim.go_to_cgroup(&place, &[]).unwrap();
            assert_eq!(child.enter_cgroup().unwrap(), place);
        }
        shim.go(Go::Start).unwrap();
        assert!(child.wait_for(Go::HooksRan).is_err());
        drop(shim);
        assert_eq!(child.wait_for(Go::Start).unwrap_err().kind(), Kind::Cancelled);
    }
}
