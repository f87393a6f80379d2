//! A cgroup as a directory in each hierarchy of v1 that it needs.

mod devices;
mod figures;
mod settings;

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_types::spec::Resources;
use berth_types::{Error, Result, ResultExt};
use rustix::event::{EventfdFlags, eventfd};
use rustix::process::{Pid, Signal, kill_process};

use super::directory;
use super::hierarchy::Hierarchies;
use super::path::CgroupPath;
use super::setting::{self, Setting};
use super::stats::{Flat, Stats};
use super::{Below, Controller, OomWatch};

/// What every container has a directory in; the module's documentation says why.
const ALWAYS: [Controller; 3] = [Controller::Devices, Controller::Memory, Controller::Cpuacct];

/// How often freezing is asked for before killing goes on without it, and the pause between.
const FREEZE_TRIES: u32 = 5;
const FREEZE_PAUSE: Duration = Duration::from_millis(1);

/// How often processes are moved before those that keep forking are given up.
const MOVE_TRIES: u32 = 100;

#[derive(Debug)]
pub(super) struct Tree {
    /// For each mounted controller: the hierarchy's top, and the directory, which may not exist.
    places: BTreeMap<Controller, Place>,
}

#[derive(Debug)]
struct Place {
    top: PathBuf,
    directory: PathBuf,
}

impl Tree {
    pub(super) fn new(hierarchies: &Hierarchies, path: &CgroupPath) -> Self {
        let places = hierarchies.v1.iter().map(|(controller, hierarchy)| {
            let place =
                Place { top: hierarchy.mount.clone(), directory: hierarchy.directory(path) };
            (*controller, place)
        });
        Self { places: places.collect() }
    }

    pub(super) fn create(&self, resources: &Resources) -> Result<()> {
        let inside = self.pids()?;
        if !inside.is_empty() {
            return Err(Error::already_exists(format!(
                "cgroup {}: it has processes already ({inside:?}): use another path",
                self.any_directory().display()
            )));
        }
        let created = self.make_and_limit(resources);
        if created.is_err() {
            for directory in self.existing() {
                // The first failure is what the caller must know.
                let _ = directory::remove(&directory);
            }
        }
        created
    }

    fn make_and_limit(&self, resources: &Resources) -> Result<()> {
        for controller in ALWAYS {
            match self.places.contains_key(&controller) {
                true => self.make(controller)?,
                false if controller == Controller::Devices => return Err(missing(controller)),
                false => {}
            }
        }
        devices::restrict(&self.place(Controller::Devices)?.directory, &resources.devices)?;
        self.limit(resources)
    }

    /// Makes the directories of all controllers.
    pub(super) fn make_everywhere(&self) -> Result<()> {
        self.places.keys().try_for_each(|controller| self.make(*controller))
    }

    /// Makes the directory of `controller`.
    fn make(&self, controller: Controller) -> Result<()> {
        let place = self.place(controller)?;
        directory::create(&place.top, &place.directory, |path| match controller {
            Controller::Cpuset => inherit_cpuset(path),
            _ => Ok(()),
        })
    }

    /// Makes the directories that the settings need, writes them, and moves the processes that
    /// are there into the new directories.
    fn limit(&self, resources: &Resources) -> Result<()> {
        let mut settings = settings::settings(resources)?;
        settings.retain(|setting| !setting.lifts() || self.has(setting));
        let mut made = Vec::new();
        for setting in &settings {
            if let Some(controller) = setting.controller.filter(|_| !self.has(setting)) {
                self.make(controller)?;
                made.push(controller);
            }
        }
        setting::apply(settings, |setting| self.file(setting))?;
        made.iter().try_for_each(|controller| self.move_into(*controller))
    }

    fn has(&self, setting: &Setting) -> bool {
        self.file(setting).is_ok_and(|file| file.exists())
    }

    fn file(&self, setting: &Setting) -> Result<PathBuf> {
        let controller = setting.controller.ok_or_else(|| {
            Error::internal(format!("{} belongs to no controller of v1", setting.file))
        })?;
        Ok(self.place(controller)?.directory.join(&setting.file))
    }

    /// Moves every process into the directory of `controller`, also those forked meanwhile: what
    /// a moved process forks is inside.
    fn move_into(&self, controller: Controller) -> Result<()> {
        let directory = &self.place(controller)?.directory;
        // Who is listed outside again is on the way out, and forks nothing any more: the kernel
        // says that it moved such a process, or that there is none, and leaves it.
        let mut moved = Vec::new();
        for _ in 0..MOVE_TRIES {
            let inside = directory::pids(directory)?;
            let mut outside = self.pids()?;
            outside.retain(|pid| !inside.contains(pid) && !moved.contains(pid));
            if outside.is_empty() {
                return Ok(());
            }
            outside.iter().try_for_each(|pid| move_one(directory, *pid))?;
            moved.extend(outside);
        }
        Err(Error::unavailable(format!(
            "move processes into {}: they fork faster than they can be moved",
            directory.display()
        )))
    }

    /// By thread, not by process: see [`enter`](super::enter).
    pub(super) fn doors(&self, below: &Below) -> Result<Vec<OwnedFd>> {
        let open = |directory: PathBuf| {
            let below = below.of(&self.controllers_at(&directory));
            let path = directory.join(below).join("tasks");
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.map(OwnedFd::from).map_err(|error| directory::unopened(&directory, below, &error))
        };
        self.existing().into_iter().map(open).collect()
    }

    fn controllers_at(&self, directory: &Path) -> Vec<Controller> {
        let here = self.places.iter().filter(|(_, place)| place.directory == directory);
        here.map(|(controller, _)| *controller).collect()
    }

    pub(super) fn update(&self, resources: &Resources) -> Result<()> {
        settings::check_memory(resources, self.read(Controller::Memory, "memory.usage_in_bytes")?)?;
        if !resources.devices.is_empty() {
            devices::replace(&self.place(Controller::Devices)?.directory, &resources.devices)?;
        }
        self.limit(resources)
    }

    pub(super) fn freeze(&self) -> Result<bool> {
        let freezer = self.place(Controller::Freezer)?;
        if !freezer.directory.exists() {
            self.make(Controller::Freezer)?;
            self.move_into(Controller::Freezer)?;
        }
        let file = freezer.directory.join("freezer.state");
        directory::write(&file, "FROZEN").context(|| format!("freeze {}", file.display()))?;
        Ok(self.freezer_state()?.as_deref() == Some("FROZEN"))
    }

    pub(super) fn thaw(&self) -> Result<()> {
        let file = self.place(Controller::Freezer)?.directory.join("freezer.state");
        match directory::write(&file, "THAWED") {
            Err(error) if !directory::is_gone(&error) => {
                Err(error).context(|| format!("thaw {}", file.display()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_frozen(&self) -> Result<bool> {
        Ok(self.freezer_state()?.is_some_and(|state| state != "THAWED"))
    }

    fn freezer_state(&self) -> Result<Option<String>> {
        self.read(Controller::Freezer, "freezer.state")
    }

    /// Freezing first, so that nothing forks between the listing and the signals. Where that
    /// fails the signals go out all the same.
    pub(super) fn kill_all(&self) -> Result<usize> {
        if self.pids()?.is_empty() {
            return Ok(0);
        }
        for _ in 0..FREEZE_TRIES {
            match self.freeze() {
                Ok(false) => std::thread::sleep(FREEZE_PAUSE),
                Ok(true) | Err(_) => break,
            }
        }
        let pids = self.pids()?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
        // A frozen process dies only when it is thawed.
        if self.places.contains_key(&Controller::Freezer) {
            self.thaw()?;
        }
        Ok(pids.len())
    }

    pub(super) fn pids(&self) -> Result<Vec<i32>> {
        directory::pids(self.any_directory())
    }

    /// Every process of the container is in this one, from [`Tree::create`] on.
    fn any_directory(&self) -> &Path {
        match self.places.get(&Controller::Devices).or(self.places.values().next()) {
            Some(place) => &place.directory,
            None => Path::new(""),
        }
    }

    pub(super) fn existing(&self) -> Vec<PathBuf> {
        let mut all: Vec<_> = self.places.values().map(|place| place.directory.clone()).collect();
        all.sort();
        all.dedup();
        all.retain(|directory| directory.is_dir());
        all
    }

    pub(super) fn stats(&self) -> Result<Stats> {
        figures::stats(self)
    }

    pub(super) fn oom_kills(&self) -> Result<u64> {
        let text = self.read(Controller::Memory, "memory.oom_control")?.unwrap_or_default();
        Ok(Flat::parse(&text).get("oom_kill"))
    }

    /// `Documentation/admin-guide/cgroup-v1/memory.rst`, section 10.
    pub(super) fn watch_oom(&self) -> Result<OomWatch> {
        let memory = &self.place(Controller::Memory)?.directory;
        let control = memory.join("memory.oom_control");
        let control = fs::File::open(&control).context(|| format!("open {}", control.display()))?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(std::io::Error::from)
            .context(|| "make an eventfd")?;
        let request = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
        let file = memory.join("cgroup.event_control");
        directory::write(&file, &request).context(|| format!("write {}", file.display()))?;
        Ok(OomWatch::new(event))
    }

    fn place(&self, controller: Controller) -> Result<&Place> {
        self.places.get(&controller).ok_or_else(|| missing(controller))
    }

    /// A file of `controller`; `None` where either isn't there.
    fn read(&self, controller: Controller, file: &str) -> Result<Option<String>> {
        match self.places.get(&controller) {
            Some(place) => directory::read(&place.directory.join(file)),
            None => Ok(None),
        }
    }
}

fn missing(controller: Controller) -> Error {
    Error::failed_precondition(format!(
        "the cgroup controller {controller} is not mounted: mount it, or drop the limit"
    ))
}

/// Moves process `pid`, if it is there to be moved.
fn move_one(directory: &Path, pid: i32) -> Result<()> {
    let file = directory.join("cgroup.procs");
    match directory::write(&file, &pid.to_string()) {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        outcome => outcome.context(|| format!("move process {pid} into {}", file.display())),
    }
}

/// A new cpuset has no processors and no memory, and takes no process before it has.
fn inherit_cpuset(path: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = path.join(name);
        if directory::read(&file)?.is_some_and(|value| !value.is_empty()) {
            continue;
        }
        let Some(parent) = path.parent() else { continue };
        let value = directory::read(&parent.join(name))?.unwrap_or_default();
        match directory::write(&file, &value) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Error::not_found(format!("{} vanished", path.display())));
            }
            result => result.context(|| format!("write {}", file.display()))?,
        }
    }
    Ok(())
}
