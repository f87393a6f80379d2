//! The first process of a container, from its birth in new namespaces to `execve`.
//!
//! This runs in a child of the shim with a copy of its memory and one thread. It must not touch
//! what belongs to the shim's runtime, and it ends here: by `execve` or `_exit`.

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::OwnedFd;

use berth_sys::namespace::{self, Namespaces};
use berth_sys::path::Root;
use berth_sys::{loopback, process};
use berth_types::{Result, ResultExt};
use rustix::process::Signal;
use rustix::thread::{self, Gid, Uid};

use super::handshake::{self, ChildEnd, Go, Place, Report, Start};
use super::last_steps::{self, LastSteps};
use super::mounts::What;
use super::plan::Plan;
use super::{Io, cgroup_mounts, console, devices, hooks, masks, sysctl};

/// The process while it turns into the program.
pub(super) struct Init<'a> {
    pub(super) plan: &'a Plan,
    pub(super) io: &'a Io,
    pub(super) channel: &'a mut ChildEnd,
    pub(super) shim_end: &'a mut OwnedFd,
    /// Where it is to be started, if not by its creator.
    pub(super) gate: Option<&'a OwnedFd>,
    /// Where it is, once it is in its control group.
    pub(super) place: Option<Place>,
}

impl Init<'_> {
    /// Runs all steps; comes back only when one failed, which is reported.
    pub(super) fn run(mut self) -> i32 {
        match self.steps() {
            Ok(never) => match never {},
            Err(error) => {
                // When the shim is gone, nobody is left to tell.
                let _ = self.channel.report(&Report::Failed(error));
                1
            }
        }
    }

    fn steps(&mut self) -> Result<Infallible> {
        self.leave_shim()?;
        self.enter_namespaces()?;
        let root = self.plan.root.mount()?;
        self.mount_all(&root)?;
        self.enter_cgroup()?;
        self.run_hooks_before_pivot()?;
        self.set_parameters()?;
        self.take_streams(&root)?;
        self.close_filesystem(&root)?;
        self.plan.root.enter(&root)?;
        let image = self.last_steps(&root).prepare()?;
        last_steps::follow_parent(None)?;
        self.channel.report(&Report::Ready)?;
        let start = self.wait_for_start()?;
        self.run_hooks_before_program()?;
        self.last_steps(&root).finish(&image, &start, (&self.plan.about, "created"))
    }

    /// A session, a keyring and a umask of its own.
    fn leave_shim(&mut self) -> Result<()> {
        handshake::forget(self.shim_end, self.channel)?;
        last_steps::follow_parent(Some(Signal::KILL))?;
        last_steps::clear_umask();
        rustix::process::setsid().map_err(std::io::Error::from).context(|| "start a session")?;
        if self.plan.new_keyring {
            let name = CString::new(format!("berth.{}", self.plan.about.id)).unwrap_or_default();
            if let Err(error) = process::join_session_keyring(&name) {
                let text = format!("the container has no keyring of its own: {error}");
                self.channel.report(&Report::Warning(text))?;
            }
        }
        Ok(())
    }

    fn enter_namespaces(&self) -> Result<()> {
        let namespaces = &self.plan.namespaces;
        if namespaces.new.contains(Namespaces::USER) {
            self.channel.wait_for(Go::Mapped)?;
            become_root().context(|| "become root of the user namespace")?;
            // That made it forget.
            last_steps::follow_parent(Some(Signal::KILL))?;
        }
        namespaces.join(namespaces.joins().without(Namespaces::PID | Namespaces::USER))?;
        if namespaces.new.contains(Namespaces::TIME) {
            self.plan.clocks.enter()?;
        }
        if namespaces.new.contains(Namespaces::NET) {
            // The most expensive one; the shim makes the control group meanwhile.
            namespace::unshare(Namespaces::NET).context(|| "make a network namespace")?;
            loopback::bring_up().context(|| "bring up the loopback interface")?;
        }
        Ok(())
    }

    /// Enters its control group, whose root its cgroupns is to have.
    fn enter_cgroup(&mut self) -> Result<&Place> {
        let place = match self.place.take() {
            Some(place) => place,
            None => {
                let place = self.channel.enter_cgroup()?;
                if self.plan.namespaces.new.contains(Namespaces::CGROUP) {
                    namespace::unshare(Namespaces::CGROUP).context(|| "make a cgroup namespace")?;
                }
                place
            }
        };
        Ok(self.place.insert(place))
    }

    fn wait_for_start(&mut self) -> Result<Start> {
        let Some(gate) = self.gate else { return self.channel.wait_for_start() };
        self.channel.wait_for(Go::Left)?;
        self.channel.open_gate(gate)
    }

    fn pid(&self) -> Option<i32> {
        self.place.as_ref().map(|place| place.pid)
    }

    fn mount_all(&mut self, root: &Root) -> Result<()> {
        let plan = self.plan;
        for mount in &plan.mounts {
            match mount.what {
                What::Cgroup => {
                    cgroup_mounts::mount(mount, root, &self.enter_cgroup()?.cgroup)?;
                }
                What::Filesystem { .. } if mount.options.copy_up => {
                    // What is copied is the container's memory, and within its limit.
                    self.enter_cgroup()?;
                    mount.mount(root)?;
                }
                _ => mount.mount(root)?,
            }
        }
        devices::make(&plan.devices, &plan.mounts, root)?;
        last_steps::make_directory(&plan.program, root);
        Ok(())
    }

    fn run_hooks_before_pivot(&self) -> Result<()> {
        if runs_beside(self.plan) {
            self.channel.report(&Report::Mounted)?;
            self.channel.wait_for(Go::HooksRan)?;
        }
        let state = hooks::state(&self.plan.about, "creating", self.pid());
        hooks::run(&self.plan.about.hooks.create_container, &state).context(|| "createContainer")
    }

    fn run_hooks_before_program(&self) -> Result<()> {
        let hooks = &self.plan.about.hooks.start_container;
        if hooks.is_empty() {
            return Ok(());
        }
        last_steps::follow_parent(Some(Signal::KILL))?;
        let state = hooks::state(&self.plan.about, "created", self.pid());
        hooks::run(hooks, &state).context(|| "startContainer")?;
        last_steps::follow_parent(None)
    }

    fn set_parameters(&self) -> Result<()> {
        if let Some(name) = &self.plan.hostname {
            rustix::system::sethostname(name.as_bytes())
                .map_err(std::io::Error::from)
                .context(|| "set the hostname")?;
        }
        if let Some(name) = &self.plan.domainname {
            rustix::system::setdomainname(name.as_bytes())
                .map_err(std::io::Error::from)
                .context(|| "set the domainname")?;
        }
        if let Some(persona) = self.plan.persona {
            process::set_personality(persona).context(|| "set the personality")?;
        }
        if let Some(nodes) = &self.plan.nodes {
            nodes.apply()?;
        }
        sysctl::apply(&self.plan.sysctls)
    }

    fn take_streams(&self, root: &Root) -> Result<()> {
        match self.io {
            Io::Pipes(stdio) => console::take_streams(stdio),
            Io::Terminal => {
                let size = self.plan.program.console_size.as_ref();
                let slave = console::open(root, size, self.channel)?;
                console::bind(root, &slave)?;
                console::take_terminal(&slave)
            }
        }
    }

    /// Masks and write protection, last: hooks may have had to change what they close.
    fn close_filesystem(&self, root: &Root) -> Result<()> {
        masks::make_read_only(&self.plan.readonly_paths, root)?;
        masks::mask(&self.plan.masked_paths, root)?;
        self.plan.root.finish(root)
    }

    fn last_steps<'b>(&'b self, root: &'b Root) -> LastSteps<'b> {
        LastSteps {
            program: &self.plan.program,
            filter: self.plan.filter.as_ref(),
            root,
            channel: self.channel,
        }
    }
}

/// Whether the shim has something to do while the container's process waits, all its namespaces
/// being there: running hooks, moving interfaces.
pub(super) fn runs_beside(plan: &Plan) -> bool {
    !plan.net_devices.is_empty()
        || !plan.about.hooks.prestart.is_empty()
        || !plan.about.hooks.create_runtime.is_empty()
}

/// Root in the caller's userns, which it has just entered.
pub(super) fn become_root() -> std::io::Result<()> {
    let (uid, gid) = (Uid::ROOT, Gid::ROOT);
    thread::set_thread_groups(&[])?;
    thread::set_thread_res_gid(gid, gid, gid)?;
    Ok(thread::set_thread_res_uid(uid, uid, uid)?)
}
