//! Creating a container: all that can fail for the spec's fault fails here, and leaves nothing.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use berth_sys::cgroup::{Below, Cgroup};
use berth_sys::clone;
use berth_sys::namespace::Namespaces;
use berth_types::{Error, Kind, Result, ResultExt};

use super::cgroup_mounts::CGROUP2_SUPER_MAGIC;
use super::guide;
use super::handshake::{self, ChildEnd, Go, Place, Report, ShimEnd};
use super::init::{self, Init};
use super::newborn::{self, Newborn};
use super::plan::Plan;
use super::remains::Remains;
use super::{Container, CreateRequest, Io, Process, hooks, net_devices, owners, root_owners};

/// How long the first process may take to get ready, hooks aside.
const READY: Duration = Duration::from_secs(60);

impl Container {
    /// Checks whether the container of `request` can be created, as far as that can be told before
    /// anything is made.
    ///
    /// # Errors
    /// As [`Container::create`] for what is wrong with the spec itself.
    pub fn check(request: &CreateRequest) -> Result<()> {
        Plan::check(request).map(drop)
    }

    /// Creates the container of `request`, with its first process ready to become the program.
    ///
    /// # Errors
    /// InvalidArgument, naming the field, for a spec that can't be followed, and in the words of
    /// Go's `os/exec` for a command that is missing or not executable; Unimplemented for what is
    /// not offered; DeadlineExceeded when the filesystem hangs. The container then leaves no
    /// process, mount or control group.
    pub async fn create(request: CreateRequest) -> Result<Self> {
        let mut plan = Plan::check(&request)?;
        check_streams(&plan, &request.io)?;
        newborn::hide()?;
        owners::prepare(&mut plan.mounts).await?;
        root_owners::prepare(&mut plan).await?;
        let birth = Birth { plan: &plan, request: &request };
        let mut cgroup = None;
        match birth.give(&mut cgroup).await {
            Ok((init, channel)) => {
                let cgroup = cgroup.ok_or_else(|| Error::internal("no control group was made"))?;
                let Plan { about, filter, namespaces, .. } = plan;
                Ok(Self {
                    remains: Remains { about, cgroup },
                    filter,
                    namespaces: namespaces.private(),
                    init,
                    channel: Some(channel),
                })
            }
            Err(error) => {
                if let Some(Err(also)) = cgroup.map(|cgroup| cgroup.remove()) {
                    tracing::warn!("a failed create left its control group behind: {also}");
                }
                Err(error)
            }
        }
    }
}

fn check_streams(plan: &Plan, io: &Io) -> Result<()> {
    if plan.program.terminal != matches!(io, Io::Terminal) {
        return Err(Error::invalid_argument(
            "process.terminal does not agree with the request's terminal",
        ));
    }
    Ok(())
}

/// Whether a process can be cloned straight into a control group: where v2 alone is mounted.
fn clones_into_cgroup() -> bool {
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type == CGROUP2_SUPER_MAGIC)
}

/// What the first process is made of.
struct Birth<'a> {
    plan: &'a Plan,
    request: &'a CreateRequest,
}

impl Birth<'_> {
    /// Makes the control group, which is the caller's to remove after a failure too, and starts the
    /// first process and sees it through to being ready. On v1 the process works at its
    /// filesystem while the shim makes the control group.
    async fn give(&self, cgroup: &mut Option<Cgroup>) -> Result<(Process, ShimEnd)> {
        let plan = self.plan;
        let mut target = None;
        if clones_into_cgroup() {
            let made = make_cgroup(plan)?;
            target = cgroup.insert(made).clone_target(&Below::default())?;
        }
        let mut newborn = self.spawn(target.as_ref()).await?;
        match self.raise(&mut newborn, cgroup).await {
            Ok(()) => newborn.grown(),
            Err(error) => {
                newborn.kill().await;
                Err(explain(error, cgroup.as_ref()))
            }
        }
    }

    async fn spawn(&self, cgroup: Option<&OwnedFd>) -> Result<Newborn> {
        let Self { plan, request } = self;
        let (mut shim_end, mut child_end) = handshake::pair()?;
        let options = clone::Options {
            // The process makes these itself: a netns while the shim is busy otherwise, a
            // cgroupns, whose root is where its maker is, once it has its place, and a time
            // namespace, whose clocks are set before anybody is inside.
            namespaces: plan
                .namespaces
                .new
                .without(Namespaces::CGROUP | Namespaces::NET | Namespaces::TIME),
            cgroup: cgroup.map(AsFd::as_fd),
            ..clone::Options::default()
        };
        let mut init = |channel: &mut ChildEnd| {
            let (io, gate) = (&request.io, request.gate.as_ref());
            Init { plan, io, channel, shim_end: &mut shim_end, gate, place: None }.run()
        };
        if !plan.namespaces.joins().contains(Namespaces::USER) {
            let child = plan.namespaces.with_joined_pidns(|| {
                let init = || init(&mut child_end);
                clone::spawn(options, init).context(|| "clone the first process")
            })?;
            return Newborn::new(child, shim_end);
        }
        let guide = guide::spawn(&plan.namespaces, options, &mut child_end, init)?;
        drop(child_end);
        Newborn::new(guide, shim_end)?.brought().await
    }

    async fn raise(&self, newborn: &mut Newborn, cgroup: &mut Option<Cgroup>) -> Result<()> {
        let plan = self.plan;
        let pid = newborn.pid();
        if plan.namespaces.new.contains(Namespaces::USER) {
            plan.id_maps.write(pid)?;
            newborn.channel.go(Go::Mapped)?;
        }
        let cgroup = match cgroup {
            Some(cgroup) => cgroup,
            None => cgroup.insert(make_cgroup(plan)?),
        };
        newborn.set_oom_score(plan.program.oom_score_adj)?;
        let place = Place { pid, cgroup: cgroup.directories() };
        newborn.channel.go_to_cgroup(&place, &cgroup.doors(&Below::default())?)?;
        self.run_hooks(newborn).await?;
        let hooks = &plan.about.hooks;
        let limit = READY + hooks::longest(&hooks.create_container).unwrap_or(READY);
        let ready = newborn::in_time(limit, "getting ready", newborn.next()).await?;
        expect(ready, |report| matches!(report, Report::Ready))
    }

    /// Moves the interfaces and runs the hooks that the process waits for.
    async fn run_hooks(&self, newborn: &mut Newborn) -> Result<()> {
        if !init::runs_beside(self.plan) {
            return Ok(());
        }
        let mounted = newborn::in_time(READY, "mounting", newborn.next()).await?;
        expect(mounted, |report| matches!(report, Report::Mounted))?;
        net_devices::move_in(&self.plan.net_devices, newborn.pid()).await?;
        let hooks = &self.plan.about.hooks;
        let state = hooks::state(&self.plan.about, "creating", Some(newborn.pid()));
        hooks::run_beside(&hooks.prestart, &state).await.context(|| "prestart")?;
        hooks::run_beside(&hooks.create_runtime, &state).await.context(|| "createRuntime")?;
        newborn.channel.go(Go::HooksRan)
    }
}

fn make_cgroup(plan: &Plan) -> Result<Cgroup> {
    Cgroup::create(&plan.cgroup, &plan.resources).map_err(|error| match error.kind() {
        Kind::InvalidArgument | Kind::FailedPrecondition => error.context("linux.resources"),
        _ => error,
    })
}

/// `error`, with why the process was killed, if that is known.
fn explain(error: Error, cgroup: Option<&Cgroup>) -> Error {
    let kills = cgroup.and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0);
    match error.kind() {
        Kind::Aborted if kills > 0 => Error::new(
            error.kind(),
            format!(
                "{} for want of memory: linux.resources.memory leaves too little",
                error.message()
            ),
        ),
        _ => error,
    }
}

fn expect(report: Option<Report>, is_it: impl Fn(&Report) -> bool) -> Result<()> {
    match report {
        Some(report) if is_it(&report) => Ok(()),
        Some(_) => Err(Error::internal("the container's first process left out a step")),
        None => Err(Error::aborted("the container's first process was killed")),
    }
}
