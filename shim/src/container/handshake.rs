//! What a container's process and the shim tell each other until the process is the program.
//!
//! ```text
//!        shim                                child
//!          | ------------- clone3 ------------> |
//!          | --- Mapped ----------------------> |  only with a new userns: its maps are written
//!          |                                    |  mounts the root filesystem
//!          | --- InCgroup(pid) ---------------> |  awaited before anything that shows the cgroup
//!          |                                    |  mounts the rest
//!          | <-------------------- Mounted ---- |  only with prestart or createRuntime hooks:
//!          | --- HooksRan --------------------> |  the shim has run them
//!          |                                    |  pivot_root, masks, identity, limits, lookup
//!          | <------------ Terminal(master) --- |  only with a terminal
//!          | <---------------------- Ready ---- |  Create returns
//!          | --- Start -----------------------> |  Start was called
//!          | <----------------------- close --- |  execve closed the child's end: it runs
//! ```
//!
//! Instead of any of its messages the child may send `Failed`, its last one, and before any of
//! them `Warning`s. An exec skips what is about mounts and hooks, and its Start follows at once.
//! Each end takes the closing of the other for its death.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use berth_sys::socket;
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
    /// It is in its cgroup; its process id, as the shim sees it.
    InCgroup(i32),
    /// The hooks that run beside it have run.
    HooksRan,
    /// It is to become the program.
    Start,
}

impl Go {
    fn tag(self) -> u8 {
        match self {
            Self::Mapped => b'm',
            Self::InCgroup(_) => b'c',
            Self::HooksRan => b'h',
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
                Ok((length, fd)) => parse(&buffer[..length], fd).map(Some),
                // The child died with a message of ours unread. That is told once, and before the
                // reports that it still sent.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(error) => Err(Error::io("hear from a container's process", &error)),
            };
        }
    }

    /// Tells the child to go on. That it is gone is no failure: the next report says so.
    pub(super) fn go(&self, go: Go) -> Result<()> {
        let mut message = vec![go.tag()];
        if let Go::InCgroup(pid) = go {
            message.extend(pid.to_ne_bytes());
        }
        match socket::send(self.0.as_fd(), &message, None) {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            other => other.context(|| "speak to a container's process"),
        }
    }
}

fn parse(message: &[u8], fd: Option<OwnedFd>) -> Result<Report> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match (message, fd) {
        ([b'M'], _) => Ok(Report::Mounted),
        ([b'R'], _) => Ok(Report::Ready),
        ([b'T'], Some(fd)) => Ok(Report::Terminal(fd)),
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
        let (mut message, fd) = match report {
            Report::Mounted => (vec![b'M'], None),
            Report::Ready => (vec![b'R'], None),
            Report::Terminal(master) => (vec![b'T'], Some(master.as_fd())),
            Report::Warning(text) => ([b"W", text.as_bytes()].concat(), None),
            Report::Failed(error) => {
                let kind = error.kind().code() as u8;
                ([b"F", &[kind][..], error.message().as_bytes()].concat(), None)
            }
        };
        message.truncate(MESSAGE_MAX);
        socket::send(self.0.as_fd(), &message, fd).context(|| "report to the shim")
    }

    /// Waits until the shim says to go on, which must be `expected`; gives the number that came
    /// with it, 0 without one.
    pub(super) fn wait_for(&self, expected: Go) -> Result<i32> {
        let mut buffer = [0; 8];
        let (length, _) =
            socket::receive(self.0.as_fd(), &mut buffer).context(|| "hear from the shim")?;
        match &buffer[..length] {
            [] => Err(Error::cancelled("the shim is gone")),
            [tag, number @ ..] if *tag == expected.tag() => {
                Ok(number.try_into().map_or(0, i32::from_ne_bytes))
            }
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
        shim.go(Go::InCgroup(1)).unwrap();
        child.report(&Report::Failed(Error::not_found("no such thing"))).unwrap();
        drop(child);
        shim.go(Go::Start).unwrap();
        let Some(Report::Failed(error)) = shim.next().await.unwrap() else { panic!() };
        assert_eq!(error.message(), "no such thing");
        assert!(shim.next().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_step_out_of_its_order_is_refused_and_the_number_arrives() {
        let (shim, child) = ends();
        shim.go(Go::InCgroup(42)).unwrap();
        assert_eq!(child.wait_for(Go::InCgroup(0)).unwrap(), 42);
        shim.go(Go::Start).unwrap();
        assert!(child.wait_for(Go::HooksRan).is_err());
        drop(shim);
        assert_eq!(child.wait_for(Go::Start).unwrap_err().kind(), Kind::Cancelled);
    }
}
