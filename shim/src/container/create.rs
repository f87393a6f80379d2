//! Creating a container: all that can fail for the spec's fault fails here, and leaves nothing.

use std::os::fd::AsFd;
use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_sys::clone;
use berth_sys::namespace::Namespaces;
use berth_types::{Error, Result, ResultExt};

use super::handshake::{self, Go, Report};
use super::init::{self, Init};
use super::newborn::{self, Newborn};
use super::plan::Plan;
use super::{Container, CreateRequest, Io, hooks};

/// How long the first process may take to get ready, hooks aside.
const READY: Duration = Duration::from_secs(60);

impl Container {
    /// Creates the container of `request`, with its first process ready to become the program.
    ///
    /// # Errors
    /// InvalidArgument, naming the field, for a spec that can't be followed, and in the words of
    /// Go's `os/exec` for a command that is missing or not executable; Unimplemented for what is
    /// not offered; DeadlineExceeded when the filesystem hangs. The container then leaves no
    /// process, mount or control group.
    pub async fn create(request: CreateRequest) -> Result<Self> {
        let plan = Plan::check(&request)?;
        check_streams(&plan, &request.io)?;
        newborn::hide()?;
        let cgroup = Cgroup::create(&plan.cgroup, &plan.resources)?;
        match give_birth(&plan, &cgroup, &request.io).await {
            Ok(newborn) => {
                let (init, channel) = newborn.grown()?;
                Ok(Self { plan, cgroup, init, channel: Some(channel) })
            }
            Err(error) => {
                if let Err(also) = cgroup.remove() {
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

/// Starts the first process and sees it through to being ready.
async fn give_birth(plan: &Plan, cgroup: &Cgroup, io: &Io) -> Result<Newborn> {
    let mut newborn = spawn(plan, cgroup, io)?;
    match raise(plan, cgroup, &mut newborn).await {
        Ok(()) => Ok(newborn),
        Err(error) => {
            newborn.kill().await;
            Err(error)
        }
    }
}

fn spawn(plan: &Plan, cgroup: &Cgroup, io: &Io) -> Result<Newborn> {
    let target = cgroup.clone_target()?;
    let directories = cgroup.directories();
    let (mut shim_end, child_end) = handshake::pair()?;
    let options = clone::Options {
        // The root of a cgroupns is where its maker is: it is made once the process has its place.
        namespaces: plan.namespaces.new.without(Namespaces::CGROUP),
        cgroup: target.as_ref().map(AsFd::as_fd),
        ..clone::Options::default()
    };
    let init = || {
        Init {
            plan,
            io,
            cgroup: &directories,
            channel: &child_end,
            shim_end: &mut shim_end,
            pid: None,
        }
        .run()
    };
    let child = plan
        .namespaces
        .with_joined_pidns(|| clone::spawn(options, init).context(|| "clone the first process"))?;
    Newborn::new(child, shim_end)
}

async fn raise(plan: &Plan, cgroup: &Cgroup, newborn: &mut Newborn) -> Result<()> {
    let pid = newborn.pid();
    if plan.namespaces.new.contains(Namespaces::USER) {
        plan.id_maps.write(pid)?;
        newborn.channel.go(Go::Mapped)?;
    }
    if cgroup.clone_target()?.is_none() {
        cgroup.add(pid)?;
    }
    newborn.set_oom_score(plan.program.oom_score_adj)?;
    newborn.channel.go(Go::InCgroup(pid))?;
    if init::runs_beside(plan) {
        let mounted = newborn::in_time(READY, "mounting", newborn.next()).await?;
        expect(mounted, |report| matches!(report, Report::Mounted))?;
        let state = hooks::state(plan, "creating", Some(pid));
        hooks::run_beside(&plan.hooks.prestart, &state).await.context(|| "prestart")?;
        hooks::run_beside(&plan.hooks.create_runtime, &state).await.context(|| "createRuntime")?;
        newborn.channel.go(Go::HooksRan)?;
    }
    let ready = newborn::in_time(READY, "getting ready", newborn.next()).await?;
    expect(ready, |report| matches!(report, Report::Ready))
}

fn expect(report: Option<Report>, is_it: impl Fn(&Report) -> bool) -> Result<()> {
    match report {
        Some(report) if is_it(&report) => Ok(()),
        Some(_) => Err(Error::internal("the container's first process left out a step")),
        None => Err(Error::aborted("the container's first process was killed")),
    }
}
