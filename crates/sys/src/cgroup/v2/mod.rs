//! A cgroup as one directory of the unified hierarchy.

mod devices;
mod figures;
mod settings;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_types::spec::Resources;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};

use super::directory;
use super::hierarchy::Hierarchies;
use super::path::CgroupPath;
use super::setting::{self, Setting};
use super::stats::{Flat, Stats};
use super::{Controller, OomWatch};
use settings::BFQ_WEIGHT;

/// What every container gets if the kernel has it: without them there are no figures. The others
/// cost memory in each cgroup and are switched on when a limit asks.
const ALWAYS: [Controller; 4] =
    [Controller::Cpu, Controller::Memory, Controller::BlockIo, Controller::Pids];

#[derive(Debug)]
pub(super) struct Tree {
    top: PathBuf,
    directory: PathBuf,
}

impl Tree {
    pub(super) fn new(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self> {
        let Some(unified) = &hierarchies.v2 else {
            return Err(Error::internal("cgroup v2 is not mounted"));
        };
        let directory = match path.absolute {
            true => unified.mount.join(&path.below),
            // The caller's own cgroup has a process in it, the caller: no controllers below it.
            false => {
                let beside = unified.own.parent().unwrap_or(Path::new(""));
                unified.mount.join(beside).join(&path.below)
            }
        };
        Ok(Self { top: unified.mount.clone(), directory })
    }

    pub(super) fn create(&self, resources: &Resources) -> Result<()> {
        let inside = self.pids()?;
        if !inside.is_empty() {
            return Err(Error::already_exists(format!(
                "cgroup {}: it has processes already ({inside:?}): use another path",
                self.directory.display()
            )));
        }
        let created = self.make_and_limit(resources);
        if created.is_err() && self.directory.is_dir() {
            // The first failure is what the caller must know.
            let _ = directory::remove(&self.directory);
        }
        created
    }

    fn make_and_limit(&self, resources: &Resources) -> Result<()> {
        let settings = settings::settings(resources, None)?;
        self.enable(&settings)?;
        devices::restrict(self.descriptor(Path::new(""))?.as_fd(), &resources.devices)?;
        self.write(settings)
    }

    /// Makes the directory, without limits.
    pub(super) fn make_plain(&self) -> Result<()> {
        self.enable(&[])
    }

    /// Makes the directory, with the usual controllers and those that the settings need.
    fn enable(&self, settings: &[Setting]) -> Result<()> {
        let needed: BTreeSet<_> =
            settings.iter().filter(|s| !s.lifts()).filter_map(|s| s.controller).collect();
        directory::create(&self.top, &self.directory, |path| {
            let Some(parent) = path.parent() else { return Ok(()) };
            delegate(parent, &needed)
        })
    }

    fn write(&self, mut settings: Vec<Setting>) -> Result<()> {
        let file = |setting: &Setting| self.directory.join(&setting.file);
        for setting in settings.iter_mut().filter(|setting| setting.file == BFQ_WEIGHT) {
            if !file(setting).exists() {
                *setting = settings::without_bfq(setting);
            }
        }
        settings.retain(|setting| !setting.lifts() || file(setting).exists());
        setting::apply(settings, |setting| Ok(file(setting)))
    }

    pub(super) fn descriptor(&self, below: &Path) -> Result<OwnedFd> {
        let directory = fs::File::open(self.directory.join(below));
        directory
            .map(OwnedFd::from)
            .map_err(|error| directory::unopened(&self.directory, below, &error))
    }

    /// The path below this cgroup of the one that process `pid` is in (cgroups(7), proc(5)).
    pub(super) fn below_of(&self, pid: i32) -> Result<PathBuf> {
        let elsewhere =
            || Error::not_found(format!("process {pid} isn't in {}", self.directory.display()));
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).map_err(|_| elsewhere())?;
        let path = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
        let path = self.top.join(path.ok_or_else(elsewhere)?);
        path.strip_prefix(&self.directory).map(Path::to_owned).map_err(|_| elsewhere())
    }

    pub(super) fn update(&self, resources: &Resources) -> Result<()> {
        self.check_memory(resources)?;
        if !resources.devices.is_empty() {
            devices::restrict(self.descriptor(Path::new(""))?.as_fd(), &resources.devices)?;
        }
        let settings = settings::settings(resources, self.read("cpu.max")?.as_deref())?;
        self.enable(&settings)?;
        self.write(settings)
    }

    /// Refuses a limit below the present use where the resources ask for that check.
    fn check_memory(&self, resources: &Resources) -> Result<()> {
        let checked = resources.memory.as_ref().filter(|memory| memory.check_before_update);
        let Some(limit) = checked.and_then(|memory| memory.limit).filter(|limit| *limit > 0) else {
            return Ok(());
        };
        let usage = self.read("memory.current")?.and_then(|text| text.parse().ok()).unwrap_or(0i64);
        match limit < usage {
            true => Err(Error::failed_precondition(format!(
                "the memory limit {limit} is below what is in use, {usage}: choose a higher one"
            ))),
            false => Ok(()),
        }
    }

    pub(super) fn freeze(&self) -> Result<bool> {
        self.control("cgroup.freeze", "1")?;
        Ok(self.events()?.get("frozen") == 1)
    }

    pub(super) fn thaw(&self) -> Result<()> {
        match self.directory.is_dir() {
            true => self.control("cgroup.freeze", "0"),
            false => Ok(()),
        }
    }

    pub(super) fn is_frozen(&self) -> Result<bool> {
        Ok(self.read("cgroup.freeze")?.as_deref() == Some("1"))
    }

    fn control(&self, file: &str, value: &str) -> Result<()> {
        let file = self.directory.join(file);
        directory::write(&file, value).context(|| format!("write {value} to {}", file.display()))
    }

    fn events(&self) -> Result<Flat> {
        Ok(Flat::parse(&self.read("cgroup.events")?.unwrap_or_default()))
    }

    /// By `cgroup.kill`, which misses nothing; kernels before 5.14 get a signal for each.
    pub(super) fn kill_all(&self) -> Result<usize> {
        let pids = self.pids()?;
        match directory::write(&self.directory.join("cgroup.kill"), "1") {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                    // It may have ended by itself. SIGKILL ends frozen processes here.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Err(error) if directory::is_gone(&error) => {}
            Err(error) => {
                return Err(error).context(|| format!("kill all in {}", self.directory.display()));
            }
        }
        Ok(pids.len())
    }

    pub(super) fn pids(&self) -> Result<Vec<i32>> {
        directory::pids(&self.directory)
    }

    pub(super) fn existing(&self) -> Vec<PathBuf> {
        Vec::from_iter(self.directory.is_dir().then(|| self.directory.clone()))
    }

    pub(super) fn stats(&self) -> Result<Stats> {
        figures::stats(self)
    }

    pub(super) fn oom_kills(&self) -> Result<u64> {
        let text = self.read("memory.events")?.unwrap_or_default();
        Ok(Flat::parse(&text).get("oom_kill"))
    }

    /// The kernel reports a change of `memory.events` as a modification of the file.
    pub(super) fn watch_oom(&self) -> Result<OomWatch> {
        let file = self.directory.join("memory.events");
        let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .context(|| "make an inotify instance")?;
        inotify::add_watch(&watch, &file, inotify::WatchFlags::MODIFY)
            .map_err(std::io::Error::from)
            .context(|| format!("watch {}", file.display()))?;
        Ok(OomWatch::new(watch))
    }

    fn read(&self, file: &str) -> Result<Option<String>> {
        directory::read(&self.directory.join(file))
    }
}

/// Switches controllers on for the children of `parent`: those in `needed` must be, the usual
/// ones may fail (a cgroup with processes of its own can't have them).
fn delegate(parent: &Path, needed: &BTreeSet<Controller>) -> Result<()> {
    let list = |file: &str| directory::read(&parent.join(file));
    let Some(available) = list("cgroup.controllers")? else {
        return Err(Error::not_found(format!("{} vanished", parent.display())));
    };
    let enabled = list("cgroup.subtree_control")?.unwrap_or_default();
    let has = |list: &str, name: &str| list.split(' ').any(|other| other == name);
    for controller in needed.iter().chain(ALWAYS.iter().filter(|one| !needed.contains(one))) {
        let Some(name) = controller.v2_name().filter(|name| !has(&enabled, name)) else { continue };
        let is_needed = needed.contains(controller);
        if !has(&available, name) && is_needed {
            return Err(Error::failed_precondition(format!(
                "the cgroup controller {name} is not available in {}: switch it on in its \
                 parents' cgroup.subtree_control, or drop the limit",
                parent.display()
            )));
        }
        let file = parent.join("cgroup.subtree_control");
        match directory::write(&file, &format!("+{name}")) {
            Err(error) if is_needed => return Err(refused(&file, name, &error)),
            _ => {}
        }
    }
    Ok(())
}

fn refused(file: &Path, name: &str, error: &std::io::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::not_found(format!("{} vanished", file.display())),
        ErrorKind::ResourceBusy => Error::failed_precondition(format!(
            "the cgroup controller {name} can't be switched on in {}: the cgroup has processes of \
             its own; move them to a child, or run the daemon in a cgroup delegated to it",
            file.display()
        )),
        _ => Error::io(format!("write +{name} to {}", file.display()), error),
    }
}
