//! Commands and daemons that the tests run.

use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long anything may take that is not about time. Slow machines are not failures.
const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `condition` holds.
///
/// # Panics
/// When it does not within a minute, naming `what` was waited for.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The command line, for messages.
    pub command: String,
    /// The exit status; 128+n when signal n ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Runs `program` to its end, with `input` on standard input.
    pub fn run<A: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: &[A], input: &[u8]) -> Self {
        let mut command = Command::new(program);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::from_command(&mut command, input)
    }

    /// Runs `command` to its end, with its output in a file each: what it leaves in the background
    /// may keep them open.
    pub fn leaving(command: &mut Command) -> Self {
        use std::io::{Read, Seek};
        let line = format!("{command:?}");
        let mut files = [(); 2].map(|()| tempfile::tempfile().expect("make a file"));
        let copy = |file: &std::fs::File| file.try_clone().expect("share a file");
        command.stdin(Stdio::null()).stdout(copy(&files[0])).stderr(copy(&files[1]));
        let status = command.status().unwrap_or_else(|error| panic!("{line}: {error}"));
        let [stdout, stderr] = files.each_mut().map(|file| {
            let mut bytes = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut bytes)).expect("read the output");
            bytes
        });
        Self::new(line, &Output { status, stdout, stderr })
    }

    fn from_command(command: &mut Command, input: &[u8]) -> Self {
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        let writer = child.stdin.take().map(|mut stdin| {
            let input = input.to_vec();
            // The command may end without reading all of it.
            std::thread::spawn(move || drop(stdin.write_all(&input)))
        });
        let output = child.wait_with_output().expect("wait for a child");
        if let Some(writer) = writer {
            writer.join().expect("write standard input");
        }
        Self::new(line, &output)
    }

    fn new(command: String, output: &Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let status = output.status;
        Self {
            command,
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, where anything but status 0 fails the test.
    #[track_caller]
    pub fn success(self) -> Self {
        self.exited(0)
    }

    /// The same, where any other status fails the test.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}{}", self.command, self.stdout, self.stderr);
        self
    }

    /// The same, where standard error without `words` fails the test.
    #[track_caller]
    pub fn complains(self, words: &str) -> Self {
        assert!(self.stderr.contains(words), "{}: no {words:?} in:\n{}", self.command, self.stderr);
        self
    }

    /// Standard output without the line feed at its end.
    pub fn line(&self) -> &str {
        self.stdout.trim_end_matches('\n')
    }
}

/// A process in the background, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Running {
    /// Starts `command` with its output in the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).expect("open log");
        let line = format!("{command:?}");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("share the log")).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{line}: {error}"));
        Self { child }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("look at a child").is_some()
    }

    /// Sends `signal` and waits for the end.
    pub fn stop(&mut self, signal: Signal) -> i32 {
        // It may have ended already, and `wait` then tells how.
        let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("look at a child") {
                return status.code().unwrap_or(-1);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("process {} did not end on {signal}", self.child.id());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
