//! The sockets that clients and shims connect to.

use std::fs;
use std::io;
use std::os::unix::net::{UnixListener as StdListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Gid, Mode, Uid, chmod, chown};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with,
};
use tokio::net::UnixListener;

use berth_types::{Error, Result, ResultExt};

/// Connections that wait to be accepted: a burst of short-lived clients must not be refused.
const BACKLOG: i32 = 1024;

/// How often, and how far apart, it is looked whether something is another daemon's, or only was.
pub(crate) const LOOKS: u32 = 20;
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// Listens on `path`. The socket has its owner and mode before it accepts anything: 0600, or 0660
/// with a group other than 0. Call this with the root's lock held: a socket on which nobody
/// answers is then a leftover and is replaced.
///
/// # Errors
/// [`Kind::FailedPrecondition`](berth_types::Kind::FailedPrecondition) when somebody answers on
/// the socket already, or when something else than a socket is in its place.
pub(crate) fn listen_on(path: &Path, uid: u32, gid: u32) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).context(what)?;
    }
    remove_leftover(path)?;
    let socket = bind_private(path, uid, gid).map_err(io::Error::from).context(what)?;
    UnixListener::from_std(socket).context(what)
}

/// Binds, sets owner and mode, and only then listens.
fn bind_private(path: &Path, uid: u32, gid: u32) -> rustix::io::Result<StdListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let mode = if gid == 0 { Mode::from(0o600) } else { Mode::from(0o660) };
    chmod(path, mode)?;
    chown(path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

/// Whether the process at the other end of `connection` may be served: root, the daemon's own user
/// and the socket's owner. The socket's mode keeps others out already, unless somebody changed it;
/// with a group other than 0 the mode alone decides, as only the kernel knows all groups of a
/// process.
pub(crate) fn may_connect(connection: &tokio::net::UnixStream, owner: u32, group: u32) -> bool {
    let daemon = rustix::process::geteuid().as_raw();
    match connection.peer_cred() {
        Ok(peer) => group != 0 || [0, daemon, owner].contains(&peer.uid()),
        Err(_) => false,
    }
}

/// Removes a socket on which nobody answers.
fn remove_leftover(path: &Path) -> Result<()> {
    match connect(path) {
        Ok(_) => Err(Error::failed_precondition(format!(
            "another daemon answers on {}: stop it, or choose another --address",
            path.display()
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && is_socket(path) => {
            fs::remove_file(path).context(|| format!("remove stale socket {}", path.display()))
        }
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Err(Error::failed_precondition(format!(
                "{} is not a socket: move it, or choose another --address",
                path.display()
            )))
        }
        Err(error) => Err(Error::io(format!("probe socket {}", path.display()), &error)),
    }
}

/// Connects to whoever listens on `path`. That may be a process that its daemon has just made: it
/// has the daemon's descriptors until it executes a program, which can be a moment after the
/// daemon's end. So an answer counts only when it stays.
fn connect(path: &Path) -> io::Result<UnixStream> {
    for _ in 0..LOOKS {
        UnixStream::connect(path)?;
        std::thread::sleep(PAUSE);
    }
    UnixStream::connect(path)
}

/// Whether `path` itself, not what it links to, is a socket.
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use berth_types::Kind;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/a.sock");
        drop(listen_on(&path, 0, 0).unwrap());
        let live = listen_on(&path, 0, 0).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(listen_on(&path, 0, 0).unwrap_err().kind(), Kind::FailedPrecondition);
        drop(live);

        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert_eq!(listen_on(&file, 0, 0).unwrap_err().kind(), Kind::FailedPrecondition);
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
