//! The kernel's part of a container's life, and nothing else: what no engine can be faster than
//! if it does one thing after the other.
//!
//! Directories for an overlay, the control groups that every container has, `clone3` into six new
//! namespaces and a cgroup namespace, overlay, proc, `pivot_root`, `execve` of `true`, the wait,
//! and the removal of what was made. It happens in a process of its own, because only a process
//! with one thread may clone itself.

use std::convert::Infallible;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_sys::cgroup::{self, Below, Cgroup};
use berth_sys::clone;
use berth_sys::mount::{self, Change, Filesystem, Propagation};
use berth_sys::namespace::{self, Namespaces};
use berth_sys::{exec, pidfd};
use berth_types::spec::Resources;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::MountAttrFlags;
use tempfile::TempDir;

/// The process that does it, over and over.
pub(crate) struct Floor {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    _directory: TempDir,
}

impl Floor {
    /// Starts the process.
    pub(crate) fn start() -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("bf").tempdir_in("/tmp")?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--floor-in").arg(directory.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("it was piped")?);
        Ok(Self { process, orders, answers, _directory: directory })
    }

    /// One life, and how long it took.
    pub(crate) fn take(&mut self) -> Result<Duration> {
        self.orders.as_ref().context("it was piped")?.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let nanoseconds = answer.trim().parse().context("the floor's process has ended")?;
        Ok(Duration::from_nanos(nanoseconds))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It ends with its orders.
        self.orders = None;
        let _ = self.process.wait();
    }
}

/// The process's side: one life for each line that comes in, and its nanoseconds out.
pub(crate) fn serve(directory: &Path) -> Result<()> {
    let place = Place::prepare(directory)?;
    for _ in io::stdin().lock().lines() {
        let start = Instant::now();
        place.live()?;
        println!("{}", start.elapsed().as_nanos());
    }
    Ok(())
}

/// Where the lives take place.
struct Place {
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    root: PathBuf,
    cgroup: PathBuf,
}

impl Place {
    fn prepare(directory: &Path) -> Result<Self> {
        let path = |name: &str| directory.join(name);
        let place = Self {
            lower: path("lower"),
            upper: path("upper"),
            work: path("work"),
            root: path("root"),
            cgroup: PathBuf::from(format!("/berth-floor-{}", std::process::id())),
        };
        std::fs::create_dir_all(place.lower.join("proc"))?;
        std::fs::create_dir(&place.root)?;
        std::fs::copy("/bin/busybox", place.lower.join("true"))?;
        Ok(place)
    }

    fn live(&self) -> Result<()> {
        std::fs::create_dir(&self.upper)?;
        std::fs::create_dir(&self.work)?;
        let cgroup = Cgroup::create(&self.cgroup, &Resources::default())?;
        let outcome = self.run(&cgroup);
        cgroup.remove()?;
        std::fs::remove_dir_all(&self.work)?;
        std::fs::remove_dir_all(&self.upper)?;
        outcome
    }

    fn run(&self, cgroup: &Cgroup) -> Result<()> {
        let target = cgroup.clone_target(&Below::default())?;
        let doors = cgroup.doors(&Below::default())?;
        let namespaces = Namespaces::PID
            | Namespaces::MOUNT
            | Namespaces::NET
            | Namespaces::UTS
            | Namespaces::IPC;
        let cgroup_fd = target.as_ref().map(AsFd::as_fd);
        let options = clone::Options { namespaces, cgroup: cgroup_fd, ..Default::default() };
        let child = clone::spawn(options, || match self.become_true(&doors) {
            Ok(never) => match never {},
            Err(error) => {
                eprintln!("the floor: {error}");
                1
            }
        })?;
        let status = pidfd::wait(child.pidfd.as_fd())?.context("nobody else waits")?;
        ensure!(status.exit_status() == Some(0), "true ended with {status:?}");
        Ok(())
    }

    /// The child's side.
    fn become_true(&self, doors: &[OwnedFd]) -> io::Result<Infallible> {
        cgroup::enter(doors)?;
        namespace::unshare(Namespaces::CGROUP)?;
        let private = Change {
            propagation: Some(Propagation::Private),
            recursive: true,
            ..Change::default()
        };
        private.apply(open(Path::new("/"))?.as_fd())?;
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        let options = [
            option("lowerdir", &self.lower),
            option("upperdir", &self.upper),
            option("workdir", &self.work),
            "volatile".to_owned(),
        ];
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        let root = mount::overlay(&options, MountAttrFlags::empty())?
            .ok_or_else(|| io::Error::other("this kernel has no lowerdir+"))?;
        mount::attach(root.as_fd(), open(&self.root)?.as_fd())?;
        let proc = Filesystem::open("proc")?.mount(MountAttrFlags::empty())?;
        mount::attach(proc.as_fd(), open(&self.root.join("proc"))?.as_fd())?;
        mount::pivot(root.as_fd())?;
        exec::execve(c"/true", &[c"true".to_owned()], &[])
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?)
}
