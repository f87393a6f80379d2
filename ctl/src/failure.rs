//! How a command fails: a message on standard error and an exit status.

use std::error::Error as _;
use std::fmt;

use tonic::{Code, Status};

use crate::human::printable;

/// Exit statuses that Docker's users script against
/// (<https://docs.docker.com/engine/containers/run/#exit-status>).
pub(crate) mod status {
    /// The daemon or the command itself failed, in `run` and its like. For all commands: what was
    /// typed is none.
    pub(crate) const ENGINE: i32 = 125;
    /// The container's command can't be executed.
    pub(crate) const NOT_EXECUTABLE: i32 = 126;
    /// The container's command was not found.
    pub(crate) const NOT_FOUND: i32 = 127;
}

/// A failed command.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: i32,
    kind: Option<Code>,
}

/// The result of a command: its exit status.
pub(crate) type Outcome<T = i32> = Result<T, Failure>;

impl Failure {
    /// A failure with exit status 1.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1, kind: None }
    }

    /// The exit status.
    pub(crate) fn code(&self) -> i32 {
        self.code
    }

    /// Whether the daemon answered with NotFound.
    pub(crate) fn is_not_found(&self) -> bool {
        self.kind == Some(Code::NotFound)
    }

    /// Whether an image was named that is not here.
    pub(crate) fn is_missing_image(&self) -> bool {
        self.is_not_found() && self.message.contains("No such image: ")
    }

    /// The same failure as `run`, `create`, `start` and `exec` report it: with Docker's exit
    /// statuses, and the command that was typed.
    #[must_use]
    pub(crate) fn of_start(self, command: &str) -> Self {
        let code = start_status(&self);
        let message =
            format!("berth: {}\n\nRun 'berth {command} --help' for more information", self.message);
        Self { message, code, ..self }
    }

    /// The same failure as `exec` reports it: 126 and 127 tell of the command, anything else is 1.
    #[must_use]
    pub(crate) fn of_exec(self) -> Self {
        let code = match start_status(&self) {
            status::ENGINE => 1,
            code => code,
        };
        Self { code, ..self }
    }
}

/// Docker's exit status for a process that could not be started.
fn start_status(failure: &Failure) -> i32 {
    if failure.kind.is_none() {
        status::ENGINE
    } else if is_missing_command(&failure.message) {
        status::NOT_FOUND
    } else if is_refused_command(&failure.message) {
        status::NOT_EXECUTABLE
    } else {
        status::ENGINE
    }
}

/// The words by which runtimes say that a command does not exist; Docker looks for the same.
fn is_missing_command(message: &str) -> bool {
    message.contains("executable file not found")
        || (message.contains("exec") && message.contains("no such file or directory"))
}

/// The words by which runtimes say that a command exists but can't be executed, or not there.
fn is_refused_command(message: &str) -> bool {
    message.contains("process.cwd")
        || message.contains("exec")
            && ["permission denied", "is a directory", "exec format error", "not a directory"]
                .iter()
                .any(|words| message.contains(words))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        // What the daemon answered has no source; what broke on the way to it has one.
        let message = if status.source().is_some() {
            "The connection to the berth daemon was lost. Containers go on running; look with \
             'berth ps' once the daemon is back."
                .to_owned()
        } else {
            format!("Error response from daemon: {}", printable(status.message()))
        };
        Self { message, code: 1, kind: Some(status.code()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(message: &str) -> i32 {
        Failure::from(Status::unknown(message)).of_start("run").code()
    }

    #[test]
    fn a_lost_connection_is_told_from_an_answer() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let lost = Failure::from(Status::from_error(broken.into())).to_string();
        assert!(lost.contains("was lost"), "{lost}");
        let answer = Failure::from(Status::unavailable("registry: transport error")).to_string();
        assert_eq!(answer, "Error response from daemon: registry: transport error");
    }

    #[test]
    fn exit_statuses_are_dockers() {
        assert_eq!(started("exec: \"nope\": executable file not found in $PATH"), 127);
        assert_eq!(started("exec: \"/nope\": stat /nope: no such file or directory"), 127);
        assert_eq!(started("exec: \"/etc/passwd\": permission denied"), 126);
        let directory = "process.cwd /nodir: No such file or directory";
        assert_eq!(started(directory), 126);
        assert_eq!(started("name taken"), 125);
        assert_eq!(Failure::new("no daemon").of_start("run").code(), 125);
    }
}
