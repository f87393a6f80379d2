//! `start`: leaves a shim behind for a daemon that isn't berthd, and tells it where that listens.
//!
//! The answer is in the caller's dialect: containerd from 2.3 on sends `BootstrapParams` and reads
//! a `BootstrapResult`, 1.7 to 2.2 read JSON and say which version they can take at most, 1.6
//! reads an address.

use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use berth_proto::containerd::runtime::bootstrap::v1::{BootstrapParams, BootstrapResult};
use berth_sys::exec;
use berth_types::{Algorithm, Error, Hasher, Kind, Result, ResultExt, spec};
use prost::Message;
use rustix::fs::{Mode, OFlags};

use super::flags::Flags;
use super::{bundle, print};

/// More than this on standard input is no message.
const INPUT_MAX: u64 = 4 << 20;
/// The version of the shim's services. 3 promises the sandbox service: a daemon then makes the
/// containers of a sandbox in its shim without another `start`.
const VERSION: i32 = 3;

/// What the caller understands.
#[derive(Debug, PartialEq)]
enum Dialect {
    Address,
    /// With the highest version that it can take.
    Json(i32),
    Protobuf,
}

/// Starts the shim, or finds the one that the container's group has.
///
/// # Errors
/// AlreadyExists when one is listening for this container.
pub(super) fn start(flags: &Flags) -> Result<()> {
    let mut input = Vec::new();
    io::stdin().take(INPUT_MAX).read_to_end(&mut input).context(|| "read standard input")?;
    let params = params(&input, flags);
    let bundle = bundle(flags)?;
    let group = group(&bundle)?.unwrap_or_else(|| flags.id.clone());
    let socket = socket_path(flags, &group, params.as_ref())?;
    let shim = match listen(&socket) {
        Err(error) if error.kind() == Kind::AlreadyExists && group != flags.id => None,
        listener => Some(spawn(flags, &bundle, listener?)?),
    };
    let address = format!("unix://{}", socket.display());
    let dialect = Dialect::of(params.is_some(), std::env::var("MAX_SHIM_VERSION").ok());
    let told = fs::write(bundle.join("address"), &address)
        .context(|| "write the shim's address into the bundle")
        .and_then(|()| print(&dialect.answer(address)));
    if let (Some(mut shim), Err(_)) = (shim, &told) {
        // Nobody would ever find it.
        let _ = (shim.kill(), fs::remove_file(&socket));
    }
    told
}

/// The group of the container in `bundle`. Without a spec there is none.
fn group(bundle: &Path) -> Result<Option<String>> {
    let path = bundle.join("config.json");
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        text => spec::group(&text.context(|| format!("read {}", path.display()))?),
    }
}

/// What newer daemons send. Older ones may send runtime options, which could pass for it.
fn params(input: &[u8], flags: &Flags) -> Option<BootstrapParams> {
    let params = BootstrapParams::decode(input).ok()?;
    (params.instance_id == flags.id && params.namespace == flags.namespace).then_some(params)
}

impl Dialect {
    fn of(params: bool, version: Option<String>) -> Self {
        match (params, version) {
            (true, _) => Self::Protobuf,
            // Every caller that names a version can take 2.
            (false, Some(version)) => Self::Json(version.parse().unwrap_or(2)),
            (false, None) => Self::Address,
        }
    }

    fn answer(&self, address: String) -> Vec<u8> {
        match self {
            Self::Address => address.into_bytes(),
            Self::Json(highest) => serde_json::json!({
                "version": VERSION.min(*highest),
                "address": address,
                "protocol": "ttrpc",
            })
            .to_string()
            .into_bytes(),
            Self::Protobuf => BootstrapResult {
                version: VERSION,
                address,
                protocol: "ttrpc".to_owned(),
                ..Default::default()
            }
            .encode_to_vec(),
        }
    }
}

/// A name that only the shim of this group has, short enough for a socket's address, in the
/// directory that the daemon names or else beside its own socket.
fn socket_path(flags: &Flags, group: &str, params: Option<&BootstrapParams>) -> Result<PathBuf> {
    let named = params.and_then(|params| params.socket_dir.as_deref());
    let directory = match named.filter(|directory| !directory.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => Path::new(flags.address.trim_start_matches("unix://"))
            .parent()
            .filter(|directory| directory.is_absolute())
            .ok_or_else(|| Error::invalid_argument("-address must be the path of a socket"))?
            .join("s"),
    };
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for part in [&*flags.address, &*flags.namespace, group] {
        hasher.update(part.as_bytes());
        hasher.update(b"\0");
    }
    Ok(directory.join(&hasher.finish().hex()[..32]))
}

/// Listens on `path`, which only root may connect to.
fn listen(path: &Path) -> Result<UnixListener> {
    let what = || format!("listen on {}", path.display());
    if UnixStream::connect(path).is_ok() {
        return Err(Error::already_exists(format!("a shim listens on {} already", path.display())));
    }
    let bind = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Right from the moment that it is there.
        let mask = rustix::process::umask(Mode::from(0o177));
        let listener = UnixListener::bind(path);
        rustix::process::umask(mask);
        listener
    };
    bind().context(what)
}

/// Starts `serve`, out of reach of what a terminal sends to the daemon.
fn spawn(flags: &Flags, bundle: &Path, listener: UnixListener) -> Result<Child> {
    let program = std::env::current_exe().context(|| "find the shim's own program")?;
    // Containers must not reach the program through their view of the shim (CVE-2019-5736).
    let sealed = exec::sealed(&program)
        .inspect_err(|error| tracing::warn!("can't seal the shim's program: {error}"))
        .ok();
    let mut command = match &sealed {
        Some(sealed) => Command::new(format!("/proc/self/fd/{}", sealed.as_raw_fd())),
        None => Command::new(&program),
    };
    command.arg0(&program);
    command.args(["-namespace", &flags.namespace, "-id", &flags.id, "-address", &flags.address]);
    if flags.debug {
        command.arg("-debug");
    }
    command.arg("serve").current_dir(bundle).process_group(0);
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(log(bundle)?);
    command.spawn().context(|| "start the shim")
}

/// The bundle's `log` FIFO, open for reading too and non-blocking: the shim neither dies of a
/// daemon that went away nor waits for one.
fn log(bundle: &Path) -> Result<Stdio> {
    let path = bundle.join("log");
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::open(&path, flags, Mode::empty()) {
        Ok(fifo) => Ok(Stdio::from(fifo)),
        Err(rustix::io::Errno::NOENT) => Ok(Stdio::null()),
        Err(errno) => Err(io::Error::from(errno)).context(|| format!("open {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags() -> Flags {
        Flags {
            namespace: "default".into(),
            id: "a".into(),
            address: "/run/containerd/containerd.sock".into(),
            ..Default::default()
        }
    }

    #[test]
    fn each_caller_is_answered_in_its_dialect() {
        let ours = BootstrapParams {
            instance_id: "a".into(),
            namespace: "default".into(),
            ..Default::default()
        };
        assert!(params(&ours.encode_to_vec(), &flags()).is_some());
        let options =
            prost_types::Any { type_url: "containerd.runc.v1.Options".into(), value: vec![] };
        assert!(params(&options.encode_to_vec(), &flags()).is_none());
        assert!(params(b"", &flags()).is_none());

        assert_eq!(Dialect::of(true, Some("3".into())), Dialect::Protobuf);
        for (highest, claimed) in [("2", 2), ("3", 3), ("4", 3), ("?", 2)] {
            let answer = Dialect::of(false, Some(highest.into())).answer("unix:///s".into());
            let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["version"], claimed);
            assert_eq!(answer["address"], "unix:///s");
            assert_eq!(answer["protocol"], "ttrpc");
        }
        assert_eq!(Dialect::of(false, None).answer("unix:///s".into()), b"unix:///s");
    }

    #[test]
    fn sockets_lie_where_the_daemon_wants_them() {
        let beside = socket_path(&flags(), "a", None).unwrap();
        assert_eq!(beside.parent(), Some(Path::new("/run/containerd/s")));
        let params = BootstrapParams { socket_dir: Some("/run/x".into()), ..Default::default() };
        let named = socket_path(&flags(), "a", Some(&params)).unwrap();
        assert_eq!(named.parent(), Some(Path::new("/run/x")));
        assert_ne!(socket_path(&flags(), "b", None).unwrap(), beside);
    }

    #[test]
    fn a_dead_shims_socket_is_replaced_and_a_live_ones_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s/socket");
        drop(listen(&path).unwrap());
        let alive = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(listen(&path).unwrap_err().kind(), berth_types::Kind::AlreadyExists);
        drop(alive);
    }
}
