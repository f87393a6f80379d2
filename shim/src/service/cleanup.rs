//! `delete`: ends and removes what a dead shim left of its container.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use berth_sys::cgroup::Cgroup;
use berth_types::spec::Spec;
use berth_types::{Error, Result, ResultExt};
use prost::Message;

use super::exit::{self, Exit};
use super::flags::Flags;
use super::{bundle, print};
use crate::container;

/// How often a killed control group is looked at for what is still dying.
const LOOKS: u32 = 500;
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Kills the container's processes, removes its control group and prints how its init ended: as
/// recorded, or else that it was killed now. The root filesystem needs no unmounting: it is only
/// mounted in the container's own namespace, which goes with its processes.
///
/// # Errors
/// FailedPrecondition when a process can't be killed. What could be removed is removed.
pub(super) fn cleanup(flags: &Flags) -> Result<()> {
    let bundle = bundle(flags)?;
    let removed = match read_spec(&bundle) {
        Ok(spec) => end(&container::cgroup_path(&spec, &flags.id)),
        Err(error) => {
            tracing::warn!("the container is looked for where it usually is: {error}");
            let usual =
                [format!("/{}/{}", flags.namespace, flags.id), format!("/berth-{}", flags.id)];
            usual.iter().try_for_each(|path| end(Path::new(path)))
        }
    };
    if let Ok(address) = fs::read_to_string(bundle.join("address")) {
        remove_socket(Path::new(address.trim_start_matches("unix://")));
    }
    removed?;
    let response = exit::recorded(&bundle).unwrap_or_else(|| Exit::killed().response(0));
    print(&response.encode_to_vec())
}

/// Removes a dead shim's socket. One that other containers of a group still have stays.
fn remove_socket(path: &Path) {
    if UnixStream::connect(path).is_err() {
        // It may be gone, as the shim itself.
        let _ = fs::remove_file(path);
    }
}

/// What says where the control group is; a spec that is damaged doesn't.
fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let text = fs::read(&path).context(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::invalid_argument(format!("{}: {error}", path.display())))
}

/// Kills everything in the control group and removes it.
fn end(path: &Path) -> Result<()> {
    let cgroup = Cgroup::open(path)?;
    for _ in 0..LOOKS {
        if cgroup.kill_all()? == 0 {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    cgroup.remove()
}
