//! Hooks: programs of the host that run at stations of a container's life.
//!
//! Each gets the container's state as JSON on its standard input, and its failure is that of the
//! station, with what it printed. Those beside the container run in a child of the shim that its
//! reaper doesn't see, so that the shim never waits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use berth_types::spec::{Hook, Hooks};
use berth_types::{Error, Result, ResultExt};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Serialize;

use super::about::About;
use super::beside;

/// How much of what a failed hook printed is in the error.
const OUTPUT_MAX: usize = 1024;

/// The state of a container, as hooks read it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// The state of the container `about`; `pid` is its first process, while it is there.
pub(super) fn state(about: &About, status: &str, pid: Option<i32>) -> String {
    let state = State {
        oci_version: &about.oci_version,
        id: &about.id,
        status,
        pid,
        bundle: &about.bundle,
        annotations: &about.annotations,
    };
    serde_json::to_string(&state).unwrap_or_default()
}

/// Checks every hook of the spec.
pub(super) fn check(hooks: &Hooks) -> Result<()> {
    let Hooks { prestart, create_runtime, create_container, start_container, poststart, poststop } =
        hooks;
    for (field, list) in [
        ("prestart", prestart),
        ("createRuntime", create_runtime),
        ("createContainer", create_container),
        ("startContainer", start_container),
        ("poststart", poststart),
        ("poststop", poststop),
    ] {
        for hook in list {
            let invalid = |why| Error::invalid_argument(format!("hooks.{field}: {why}"));
            if !hook.path.starts_with('/') {
                return Err(invalid(format!("{:?} is not an absolute path", hook.path)));
            }
            if let Some(timeout @ ..1) = hook.timeout {
                return Err(invalid(format!("a timeout of {timeout} s is no time")));
            }
        }
    }
    Ok(())
}

/// Runs `hooks` one after the other in a child of the shim, until one fails.
pub(super) async fn run_beside(hooks: &[Hook], state: &str) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    beside::run(|| run(hooks, state)).await
}

/// Runs `hooks` one after the other, until one fails, and waits for each.
pub(super) fn run(hooks: &[Hook], state: &str) -> Result<()> {
    hooks.iter().try_for_each(|hook| run_one(hook, state).context(|| format!("hook {}", hook.path)))
}

fn run_one(hook: &Hook, state: &str) -> Result<()> {
    let input = memory_file(state).context(|| "make its input")?;
    let mut output = memory_file("").context(|| "make a file for its output")?;
    let streams = || Ok::<_, io::Error>(Stdio::from(output.try_clone()?));
    let mut command = Command::new(&hook.path);
    command.env_clear().envs(hook.env.iter().filter_map(|entry| entry.split_once('=')));
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    command.stdin(input).stdout(streams().context(|| "share its output")?);
    command.stderr(streams().context(|| "share its output")?);
    let mut child = command.spawn().context(|| "can't be run")?;
    let in_time = wait_until(&child, hook.timeout).context(|| "wait for it");
    if !matches!(in_time, Ok(true)) {
        let _ = child.kill();
    }
    let status = child.wait().context(|| "wait for it")?;
    if !in_time? {
        let seconds = hook.timeout.unwrap_or_default();
        return Err(Error::deadline_exceeded(format!("took longer than {seconds} s")));
    }
    match status.success() {
        true => Ok(()),
        false => Err(Error::unknown(format!("{status}: {}", printed(&mut output)))),
    }
}

/// Whether `child` ended within `timeout` seconds.
fn wait_until(child: &Child, timeout: Option<i64>) -> io::Result<bool> {
    let pidfd: OwnedFd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = timeout.map(|seconds| Timespec { tv_sec: seconds, tv_nsec: 0 });
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| poll(&mut fds, timeout.as_ref()))? > 0)
}

/// A file in memory with `content`, at its start. Unlike a pipe it never makes a writer wait.
fn memory_file(content: &str) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("hook", MemfdFlags::CLOEXEC)?);
    file.write_all(content.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn printed(output: &mut File) -> String {
    let mut text = vec![0; OUTPUT_MAX];
    let length = output.rewind().and_then(|()| output.read(&mut text)).unwrap_or(0);
    String::from_utf8_lossy(&text[..length]).trim_end().to_owned()
}

/// The longest that `hooks` may take by their own timeouts; `None` when one has none.
pub(super) fn longest(hooks: &[Hook]) -> Option<Duration> {
    let seconds = |hook: &Hook| hook.timeout.and_then(|timeout| u64::try_from(timeout).ok());
    hooks.iter().map(|hook| seconds(hook).map(Duration::from_secs)).sum()
}
