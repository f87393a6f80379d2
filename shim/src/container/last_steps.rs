//! The steps that the first process of a container and an exec in it have in common, once they
//! are inside: from the working directory to `execve`.

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::path::Path;

use berth_sys::capability::Set;
use berth_sys::path::Root;
use berth_sys::procfs::Procfs;
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{Mode, OFlags};
use rustix::process::Signal;

use super::about::About;
use super::account;
use super::filter::Filter;
use super::handshake::{ChildEnd, Report, Start};
use super::identity::Identity;
use super::program::Program;

/// A process that is in its container and about to become `program`.
pub(super) struct LastSteps<'a> {
    pub(super) program: &'a Program,
    pub(super) filter: Option<&'a Filter>,
    pub(super) root: &'a Root,
    pub(super) channel: &'a ChildEnd,
}

/// What is left to run.
pub(super) struct Image {
    path: CString,
    environment: Vec<CString>,
}

impl LastSteps<'_> {
    /// Takes the directory, limits and identity of the program, and finds its file.
    pub(super) fn prepare(&self) -> Result<Image> {
        self.enter_directory()?;
        let account = account::resolve(&self.program.identity.user, self.root)?;
        let environment = self.program.environment(&account.home)?;
        self.program.limits.apply(|text| {
            // That the shim doesn't hear of it is no reason to give up.
            let _ = self.channel.report(&Report::Warning(text));
        })?;
        self.program.scheduling.apply()?;
        if !self.program.labels.is_empty() {
            // One that nothing of the container's can lie over.
            let procfs = Procfs::private().context(|| "make a procfs")?;
            self.program.labels.iter().try_for_each(|label| label.apply(&procfs))?;
        }
        Identity::own_streams(&account);
        self.program.identity.assume(&account, self.kept())?;
        Ok(Image { path: self.program.find()?, environment })
    }

    /// Becomes the program. `about` and `status` are what an agent is told of the container.
    pub(super) fn finish(
        &self,
        image: &Image,
        start: &Start,
        (about, status): (&About, &str),
    ) -> Result<Infallible> {
        let identity = &self.program.identity;
        if let Some(filter) = self.filter {
            let introduction = filter.introduction(about, status, start.pid)?;
            if self.kept() != Set::NONE {
                identity.raise(Set::SYS_ADMIN)?;
            }
            filter.install(start.agent.as_ref(), &introduction)?;
            if self.kept() != Set::NONE {
                identity.complete()?;
            }
        }
        if !self.program.under_init {
            return self.program.become_program(&image.path, &image.environment);
        }
        let program = || match self.program.become_program(&image.path, &image.environment) {
            Ok(never) => match never {},
            Err(error) => {
                // When the shim is gone, nobody is left to tell.
                let _ = self.channel.report(&Report::Failed(error));
                1
            }
        };
        berth_sys::init::run(program).context(|| "be the program's init")
    }

    /// What installing the filter needs: without `no_new_privs` only an administrator may. With
    /// it, capabilities are final before, so that the filter need not allow changing them.
    fn kept(&self) -> Set {
        match self.filter.is_some() && !self.program.identity.no_new_privileges {
            true => Set::SYS_ADMIN,
            false => Set::NONE,
        }
    }

    /// Changes to the program's working directory, which must lie in the container: a name like
    /// `/proc/self/fd/7` could lead out of it (CVE-2024-21626).
    fn enter_directory(&self) -> Result<()> {
        let path = &self.program.directory;
        let refused = |why: &dyn std::fmt::Display| {
            Error::invalid_argument(format!("process.cwd {}: {why}", path.display()))
        };
        let directory = self
            .root
            .open_at(path, OFlags::PATH | OFlags::DIRECTORY)
            .map_err(|error| refused(&error))?;
        rustix::process::fchdir(&directory)
            .map_err(io::Error::from)
            .map_err(|error| refused(&error))?;
        let real = rustix::process::getcwd(Vec::new()).map_err(io::Error::from);
        match real.context(|| "ask for the working directory")?.to_bytes().first() {
            Some(b'/') => Ok(()),
            _ => Err(refused(&"it is outside of the container")),
        }
    }
}

/// Makes the working directory of `program` if it is missing, as other runtimes do.
pub(super) fn make_directory(program: &Program, root: &Root) {
    // What is wrong with it is told when it is entered: it may come with a later mount.
    let _ = root.make_directory(Path::new(&program.directory));
}

/// Chooses the signal for the parent's death. Until it is the program, a process has all that its
/// parent has open, and must not stay behind in a hook or a mount that hangs: nobody would hear of
/// the death. While it listens to its parent it hears of that.
pub(super) fn follow_parent(signal: Option<Signal>) -> Result<()> {
    rustix::process::set_parent_process_death_signal(signal)
        .map_err(io::Error::from)
        .context(|| "choose the signal for the parent's death")
}

/// Files that are made from here on have the modes that are asked for.
pub(super) fn clear_umask() {
    rustix::process::umask(Mode::empty());
}
