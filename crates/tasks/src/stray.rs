//! Shims of ours whose bundle no longer leads to them: it was damaged or deleted while no daemon
//! was there. Their sockets still do, and their command lines.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use berth_proto::containerd::task::v3::{ConnectRequest, ConnectResponse};
use berth_types::{Error, Kind, Result, ResultExt, id};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::Tasks;
use crate::bundle::{self, Bundle, Owner};
use crate::shim::{self, Shim};

impl Tasks {
    /// Gives each live shim whose socket no bundle names its bundle back, and removes the sockets
    /// of those that are dead. A shim that gives no answer is left alone, and told of.
    ///
    /// # Errors
    /// When the directories can't be read.
    pub(crate) async fn adopt_strays(&self) -> Result<()> {
        let mut bundles = bundle::all(&self.config, Owner::Task)?;
        for bundle in &bundles {
            self.restore_sandbox(bundle)?;
        }
        bundles.extend(bundle::all(&self.config, Owner::Sandbox)?);
        let named: HashSet<PathBuf> = bundles.iter().filter_map(Bundle::socket).collect();
        let directory = self.config.sockets();
        let what = || format!("list {}", directory.display());
        for entry in fs::read_dir(&directory).context(what)? {
            let socket = entry.context(what)?.path();
            if named.contains(&socket) {
                continue;
            }
            if let Err(error) = self.adopt(&socket).await {
                let socket = socket.display();
                tracing::warn!(%socket, %error, "a shim that no bundle names is left alone");
            }
        }
        Ok(())
    }

    /// Gives the sandbox of a container its bundle back: it is gone if the sandbox was shut down
    /// before its containers, which its shim then says, or it was deleted.
    fn restore_sandbox(&self, bundle: &Bundle) -> Result<()> {
        let (Some(id), Some(socket)) = (bundle.sandbox(), bundle.socket()) else { return Ok(()) };
        id::validate("sandbox id", &id)?;
        let sandbox = Bundle::of(&self.config, Owner::Sandbox, &bundle.namespace, &id);
        if sandbox.path.exists() {
            return Ok(());
        }
        sandbox.restore(&socket)
    }

    async fn adopt(&self, socket: &Path) -> Result<()> {
        let Some(bundle) = self.identify(socket).await? else {
            return fs::remove_file(socket).context(|| format!("remove {}", socket.display()));
        };
        if bundle.socket().is_some_and(|socket| UnixStream::connect(socket).is_ok()) {
            // It has a successor and is about to end.
            return Ok(());
        }
        let Bundle { namespace, id, .. } = &bundle;
        tracing::warn!(%namespace, %id, "the bundle of a running container is restored");
        bundle.restore(socket)
    }

    /// Whose shim listens on `socket`; `None` when nobody does.
    async fn identify(&self, socket: &Path) -> Result<Option<Bundle>> {
        let nobody = Bundle::of(&self.config, Owner::Task, "", "");
        let shim = match Shim::connect(&nobody, socket, 2).await {
            Err(error) if error.kind() == Kind::Unavailable => return Ok(None),
            shim => shim?,
        };
        let request = ConnectRequest::default();
        let ConnectResponse { shim_pid, .. } = shim.call(shim::CONNECTED, &request).await?;
        let line = command_line(shim_pid as i32);
        let text =
            |name| flag(&line, name).map(|value| String::from_utf8_lossy(value).into_owned());
        let (Some(namespace), Some(id)) = (text("-namespace"), text("-id")) else {
            return Err(Error::internal(format!(
                "process {shim_pid} does not say whose shim it is"
            )));
        };
        id::validate("namespace", &namespace)?;
        id::validate("container id", &id)?;
        let bundle = Bundle::of(&self.config, Owner::Sandbox, &namespace, &id);
        if flag(&line, "-bundle") == Some(bundle.path.as_os_str().as_bytes()) {
            return Ok(Some(bundle));
        }
        Ok(Some(Bundle::of(&self.config, Owner::Task, &namespace, &id)))
    }
}

/// Kills our own shim of the bundle at `path`, if there is one: nobody can speak with it any more.
pub(crate) fn kill_shim_of(path: &Path) {
    for pid in processes().into_iter().filter(|pid| serves(*pid, path)) {
        let Some(process) = Pid::from_raw(pid) else { continue };
        let Ok(pidfd) = pidfd_open(process, PidfdFlags::empty()) else { continue };
        // Not that the number has become another process's meanwhile.
        if serves(pid, path) {
            tracing::warn!(pid, "a shim that can't be reached is killed");
            // It may end at any moment.
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn processes() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Whether process `pid` is a shim of ours that serves the bundle at `path`.
fn serves(pid: i32, path: &Path) -> bool {
    let line = command_line(pid);
    let program = line.first().map(|program| Path::new(OsStr::from_bytes(program)));
    let is_shim = program.and_then(Path::file_name) == Some(OsStr::new("containerd-shim-berth-v1"));
    let serves = line.last().is_some_and(|action| action == b"serve");
    is_shim && serves && flag(&line, "-bundle") == Some(path.as_os_str().as_bytes())
}

/// The arguments of process `pid`, its program's name first; none for one that is gone.
fn command_line(pid: i32) -> Vec<Vec<u8>> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let line = line.strip_suffix(b"\0").unwrap_or(&line);
    line.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

fn flag<'a>(line: &'a [Vec<u8>], name: &str) -> Option<&'a [u8]> {
    let at = line.iter().position(|word| word == name.as_bytes())?;
    line.get(at + 1).map(Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_found_in_a_command_line() {
        let line: Vec<Vec<u8>> =
            ["shim", "-namespace", "default", "-id", "a", "serve"].map(|word| word.into()).into();
        assert_eq!(flag(&line, "-id"), Some(&b"a"[..]));
        assert_eq!(flag(&line, "-bundle"), None);
        assert_eq!(flag(&line[..2], "-namespace"), None);
    }

    #[test]
    fn a_process_that_is_no_shim_is_none() {
        let pid = std::process::id() as i32;
        assert!(processes().contains(&pid));
        assert!(!command_line(pid).is_empty());
        assert!(!serves(pid, Path::new("/nonexistent")));
    }
}
