//! Child processes of the daemon: our own shims, and what foreign shims' binaries are run for.
//!
//! `std::process::Command` starts them with `posix_spawn`, which copies no page tables of a large
//! daemon; a pidfd tells when they end.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use berth_types::{Error, Result, ResultExt};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;

/// How much of what an action prints is kept, in bytes.
const OUTPUT_LIMIT: u64 = 1 << 20;

/// A child process. Somebody must wait for it, or it stays a zombie.
pub(crate) struct Child {
    process: std::process::Child,
    pidfd: AsyncFd<OwnedFd>,
}

impl Child {
    /// Starts `command`. Must be called inside a tokio runtime.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let program = command.get_program().to_string_lossy().into_owned();
        let what = || format!("run {program}");
        let mut process = command.spawn().context(what)?;
        match watch(&process) {
            Ok(pidfd) => Ok(Self { process, pidfd }),
            Err(error) => {
                // What can't be watched must not run; it has hardly begun.
                let _ = process.kill().and_then(|()| process.wait());
                Err(error).context(what)
            }
        }
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> Result<ExitStatus> {
        let what = || format!("wait for process {}", self.process.id());
        let _ended = self.pidfd.readable().await.context(what)?;
        self.process.wait().context(|| "wait for a child process")
    }

    /// Waits for the end, at most for `patience`, and then makes it.
    pub(crate) async fn wait_or_kill(&mut self, patience: Duration) -> Result<ExitStatus> {
        if let Ok(outcome) = tokio::time::timeout(patience, self.wait()).await {
            return outcome;
        }
        pidfd_send_signal(&self.pidfd, Signal::KILL)
            .map_err(io::Error::from)
            .context(|| format!("kill process {}", self.process.id()))?;
        self.wait().await
    }
}

/// A descriptor that is readable once `process` has ended.
#[expect(deprecated, reason = "its successor is unsafe, to exclude borrowed descriptors")]
fn watch(process: &std::process::Child) -> io::Result<AsyncFd<OwnedFd>> {
    let pidfd = pidfd_open(Pid::from_child(process), PidfdFlags::NONBLOCK)?;
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

/// Runs `command` with `input` as its standard input and returns what it printed on its standard
/// output.
///
/// # Errors
/// `DeadlineExceeded` when it isn't done within `limit`, and it is then killed; `Internal`, with
/// what it printed, when it fails.
pub(crate) async fn run(mut command: Command, input: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = Child::spawn(&mut command)?;
    let finished = tokio::time::timeout(limit, converse(&mut child, input)).await;
    let status = child.wait_or_kill(Duration::from_secs(1)).await;
    let Ok(conversation) = finished else {
        return Err(Error::deadline_exceeded(format!(
            "{program} was not done within {} s",
            limit.as_secs()
        )));
    };
    let (output, complaint) = conversation.context(|| format!("talk to {program}"))?;
    if status?.success() {
        return Ok(output);
    }
    let said = [output, complaint].concat();
    Err(Error::internal(format!("{program} failed: {}", String::from_utf8_lossy(&said).trim())))
}

/// Sends `input`, reads both outputs to their ends.
async fn converse(child: &mut Child, input: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let process = &mut child.process;
    let write = async {
        let Some(stdin) = process.stdin.take() else { return Ok(()) };
        match pipe::Sender::from_owned_fd(stdin.into())?.write_all(input).await {
            // It needn't read what it doesn't want.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    };
    let stdout = read(process.stdout.take().map(OwnedFd::from), &mut output);
    let stderr = read(process.stderr.take().map(OwnedFd::from), &mut complaint);
    tokio::try_join!(write, stdout, stderr)?;
    Ok((output, complaint))
}

async fn read(pipe: Option<OwnedFd>, into: &mut Vec<u8>) -> io::Result<()> {
    if let Some(pipe) = pipe {
        pipe::Receiver::from_owned_fd(pipe)?.take(OUTPUT_LIMIT).read_to_end(into).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn output_comes_back() {
        assert_eq!(run(sh("cat; echo x >&2"), b"hello", LONG).await.unwrap(), b"hello");
        assert_eq!(run(sh("exec <&-; echo deaf"), &[0; 1 << 20], LONG).await.unwrap(), b"deaf\n");
    }

    #[tokio::test]
    async fn failures_say_what_was_printed() {
        let error = run(sh("echo bad luck >&2; exit 3"), b"", LONG).await.unwrap_err();
        assert!(error.message().contains("bad luck"), "{error}");
        let error = run(Command::new("/nonexistent/x"), b"", LONG).await.unwrap_err();
        assert!(error.message().contains("/nonexistent/x"), "{error}");
    }

    #[tokio::test]
    async fn what_hangs_is_killed() {
        let error = run(sh("exec sleep 1000"), b"", Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::DeadlineExceeded);
    }
}
