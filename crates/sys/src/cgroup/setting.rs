//! One value for one file of a cgroup.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use berth_types::{Error, Result};

use super::Controller;
use super::directory;

/// What to write where. A list of them is applied in order, see [`apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Who owns the file.
    pub(super) controller: Option<Controller>,
    pub(super) file: String,
    pub(super) value: String,
}

impl Setting {
    pub(super) fn new(
        controller: Controller,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        Self { controller: Some(controller), file: file.into(), value: value.to_string() }
    }

    /// Whether it only lifts a limit, which needs no doing where none was set.
    pub(super) fn lifts(&self) -> bool {
        matches!(self.value.as_str(), "max" | "-1")
    }

    /// Whether it goes together with another one that a kernel may have alone: swap, which kernels
    /// can be started without accounting for, and reservations of huge pages. Memory is limited
    /// then without swap, as other engines do it.
    fn is_addition(&self) -> bool {
        ["memory.memsw.", "memory.swap."].iter().any(|name| self.file.starts_with(name))
            || self.file.contains(".rsvd.")
    }
}

/// Writes every setting to the file that `path` gives for it.
///
/// The kernel checks some pairs against each other (memory against memory and swap, quota against
/// period and burst), so the right order depends on the present values. What is refused as
/// invalid is therefore tried again after the others, as long as some are accepted.
pub(super) fn apply(
    mut settings: Vec<Setting>,
    path: impl Fn(&Setting) -> Result<PathBuf>,
) -> Result<()> {
    loop {
        let before = settings.len();
        let mut refused = Vec::new();
        let mut first = None;
        for setting in settings {
            let path = path(&setting)?;
            match directory::write(&path, &setting.value) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound && setting.is_addition() => {}
                Err(error) if is_refused(&error) => {
                    first.get_or_insert(failure(&setting, path, &error));
                    refused.push(setting);
                }
                Err(error) => return Err(failure(&setting, path, &error)),
            }
        }
        match first {
            None => return Ok(()),
            Some(error) if refused.len() == before => return Err(error),
            Some(_) => settings = refused,
        }
    }
}

/// The value itself is what the kernel dislikes: malformed, out of range, or beyond what the
/// parent cgroup has.
fn is_refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ERANGE | libc::EACCES))
}

fn failure(setting: &Setting, path: PathBuf, error: &io::Error) -> Error {
    let what = format!("write {:?} to {}", setting.value, path.display());
    match error.kind() {
        _ if is_refused(error) => Error::invalid_argument(format!(
            "{what}: {error}: the value is out of range, or contradicts another limit or the \
             parent cgroup's"
        )),
        ErrorKind::NotFound => Error::failed_precondition(format!(
            "{what}: no such file: this kernel or cgroup lacks that limit"
        )),
        ErrorKind::ResourceBusy => Error::failed_precondition(format!(
            "{what}: {error}: the limit is below what is in use"
        )),
        _ => Error::io(what, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn a_missing_file_is_a_missing_feature() {
        let settings = vec![Setting::new(Controller::Cpu, "cpu.idle", 1)];
        let error = apply(settings, |setting| Ok(PathBuf::from("/proc/self").join(&setting.file)));
        assert_eq!(error.unwrap_err().kind(), Kind::FailedPrecondition);
        let swap = vec![Setting::new(Controller::Memory, "memory.swap.max", 1)];
        apply(swap, |setting| Ok(PathBuf::from("/proc/self").join(&setting.file))).unwrap();
    }

    #[test]
    fn only_unlimited_values_lift() {
        assert!(Setting::new(Controller::Pids, "pids.max", "max").lifts());
        assert!(Setting::new(Controller::Memory, "memory.limit_in_bytes", -1).lifts());
        assert!(!Setting::new(Controller::Pids, "pids.max", 1).lifts());
    }
}
