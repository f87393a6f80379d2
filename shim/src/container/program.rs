//! The program that a process becomes: its checked spec, where its file is, and `execve`.

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use berth_sys::{exec, process};
use berth_types::spec::{self, ConsoleSize};
use berth_types::{Error, Result, ResultExt};
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::identity::Identity;
use super::label::{self, Label};
use super::limits::Limits;
use super::scheduling::Scheduling;

/// A checked `process`.
#[derive(Debug)]
pub(super) struct Program {
    args: Vec<CString>,
    environment: Vec<CString>,
    /// The directory that it starts in.
    pub(super) directory: PathBuf,
    /// As whom and with which rights it runs.
    pub(super) identity: Identity,
    /// Its resource limits.
    pub(super) limits: Limits,
    /// What security modules know it by.
    pub(super) labels: Vec<Label>,
    /// Its processor and disk time.
    pub(super) scheduling: Scheduling,
    /// Whether it gets a terminal.
    pub(super) terminal: bool,
    /// The terminal's first size.
    pub(super) console_size: Option<ConsoleSize>,
    /// How readily it is killed when memory is short.
    pub(super) oom_score_adj: Option<i32>,
    /// How many descriptors it keeps besides the standard three.
    preserved_fds: u32,
    /// It runs as a child of the container's first process, which sees to it and to orphans.
    pub(super) under_init: bool,
}

impl Program {
    /// Checks `process`, which keeps descriptors from 3 on.
    pub(super) fn check(process: &spec::Process, preserved_fds: u32) -> Result<Self> {
        if process.args.is_empty() {
            return Err(Error::invalid_argument("process.args names no command"));
        }
        if !process.cwd.starts_with('/') {
            let message = format!("process.cwd {:?} is not an absolute path", process.cwd);
            return Err(Error::invalid_argument(message));
        }
        if let Some(score @ (..-1000 | 1001..)) = process.oom_score_adj {
            let message = format!("process.oomScoreAdj {score} is not between -1000 and 1000");
            return Err(Error::invalid_argument(message));
        }
        Ok(Self {
            args: c_strings(&process.args, "process.args")?,
            environment: environment(&process.env)?,
            directory: PathBuf::from(&process.cwd),
            identity: Identity::check(process)?,
            limits: Limits::check(&process.rlimits)?,
            labels: label::check(process)?,
            scheduling: Scheduling::check(process)?,
            terminal: process.terminal,
            console_size: process.console_size.clone(),
            oom_score_adj: process.oom_score_adj,
            preserved_fds,
            under_init: false,
        })
    }

    /// The same, as a child of the container's first process if `under_init`.
    pub(super) fn under_init(self, under_init: bool) -> Self {
        Self { under_init, ..self }
    }

    /// The value of the variable `name` in the program's environment.
    fn variable(&self, name: &str) -> Option<&[u8]> {
        let mut values = self
            .environment
            .iter()
            .filter_map(|entry| entry.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.next()
    }

    /// The environment to run in, with `home` as `HOME` where the spec has none.
    pub(super) fn environment(&self, home: &str) -> Result<Vec<CString>> {
        let mut environment = self.environment.clone();
        if self.variable("HOME").is_none() {
            environment.extend(c_strings(&[format!("HOME={home}")], "HOME")?);
        }
        Ok(environment)
    }

    /// Finds the file of the program as a shell does, with the rights of the caller: a name
    /// without a slash in the directories of the program's `PATH`.
    ///
    /// # Errors
    /// In the words that engines know from Go's `os/exec`, from which they tell a missing command
    /// (status 127) from one that can't be run (126).
    pub(super) fn find(&self) -> Result<CString> {
        let name = &self.args[0];
        if name.to_bytes().contains(&b'/') {
            return match executable(name) {
                Ok(()) => Ok(name.clone()),
                Err(Errno::NOENT) => {
                    let shown = name.to_string_lossy();
                    Err(refused(name, format!("stat {shown}: no such file or directory")))
                }
                Err(errno) => Err(refused(name, words(errno))),
            };
        }
        let mut denied = false;
        for directory in self.variable("PATH").unwrap_or_default().split(|byte| *byte == b':') {
            // A relative directory would find what the image's author did not mean.
            if !directory.starts_with(b"/") {
                continue;
            }
            let path =
                Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name.to_bytes()));
            let Ok(path) = CString::new(path.into_os_string().as_bytes()) else { continue };
            match executable(&path) {
                Ok(()) => return Ok(path),
                Err(errno) => denied |= errno == Errno::ACCESS,
            }
        }
        match denied {
            true => Err(refused(name, "permission denied")),
            false => Err(refused(name, "executable file not found in $PATH")),
        }
    }

    /// Becomes the program whose file is at `path`. No descriptor but the standard three and
    /// the preserved ones goes along, and signals are as the program expects them.
    pub(super) fn become_program(
        &self,
        path: &CStr,
        environment: &[CString],
    ) -> Result<Infallible> {
        process::close_on_exec_from(3 + self.preserved_fds)
            .context(|| "mark descriptors close-on-exec")?;
        process::restore_signals();
        exec::execve(path, &self.args, environment).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            refused(path, words(errno))
        })
    }
}

/// Whether the caller may execute the regular file at `path`.
fn executable(path: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(path)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS),
        FileType::Directory => Err(Errno::ISDIR),
        _ => Err(Errno::ACCESS),
    }
}

fn refused(name: &CStr, why: impl std::fmt::Display) -> Error {
    Error::invalid_argument(format!("exec: {:?}: {why}", name.to_string_lossy()))
}

/// The words for `errno` that other engines look for.
fn words(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "no such file or directory".to_owned(),
        Errno::ACCESS | Errno::PERM => "permission denied".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        Errno::NOEXEC => "exec format error".to_owned(),
        other => std::io::Error::from(other).to_string(),
    }
}

fn c_strings(strings: &[String], field: &str) -> Result<Vec<CString>> {
    let convert = |string: &String| {
        CString::new(string.as_str())
            .map_err(|_| Error::invalid_argument(format!("{field}: {string:?} has a zero byte")))
    };
    strings.iter().map(convert).collect()
}

/// The environment, of each variable the last value that is given.
fn environment(entries: &[String]) -> Result<Vec<CString>> {
    let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
    let mut kept: Vec<&String> = Vec::with_capacity(entries.len());
    for entry in entries {
        match name(entry) {
            None | Some(_) if entry.starts_with('=') || !entry.contains('=') => {
                return Err(Error::invalid_argument(format!(
                    "process.env: {entry:?} is not NAME=VALUE"
                )));
            }
            this => kept.retain(|earlier| name(earlier) != this),
        }
        kept.push(entry);
    }
    c_strings(&kept.into_iter().cloned().collect::<Vec<_>>(), "process.env")
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn process(args: &[&str], env: &[&str]) -> spec::Process {
        spec::Process {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: env.iter().map(|entry| (*entry).to_owned()).collect(),
            cwd: "/".to_owned(),
            ..spec::Process::default()
        }
    }

    fn find(name: &str, env: &[&str]) -> Result<CString> {
        Program::check(&process(&[name], env), 0).unwrap().find()
    }

    #[test]
    fn commands_are_found_as_a_shell_finds_them() {
        assert_eq!(find("sh", &["PATH=/nowhere:/bin"]).unwrap().to_bytes(), b"/bin/sh");
        assert_eq!(find("/bin/sh", &[]).unwrap().to_bytes(), b"/bin/sh");
    }

    #[test]
    fn failures_have_the_words_that_engines_look_for() {
        for (name, words) in [
            ("foo", "exec: \"foo\": executable file not found in $PATH"),
            ("", "exec: \"\": executable file not found in $PATH"),
            ("/no/foo", "exec: \"/no/foo\": stat /no/foo: no such file or directory"),
            ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
            ("/etc", "exec: \"/etc\": is a directory"),
        ] {
            assert_eq!(find(name, &["PATH=/bin"]).unwrap_err().message(), words);
        }
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let program = Program::check(&process(&["a"], &["A=1", "B=2", "A=3"]), 0).unwrap();
        assert_eq!(program.environment, [c"B=2", c"A=3"].map(CStr::to_owned));
    }

    #[test]
    fn bad_fields_are_named() {
        for (bad, field) in [
            (process(&[], &[]), "process.args"),
            (process(&["a\0b"], &[]), "process.args"),
            (process(&["a"], &["novalue"]), "process.env"),
            (spec::Process { cwd: "here".into(), ..process(&["a"], &[]) }, "process.cwd"),
        ] {
            let error = Program::check(&bad, 0).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidArgument);
            assert!(error.message().contains(field), "{error}");
        }
    }
}
