//! The service side of the shim: what a daemon runs and talks to.
//!
//! | action | run by | does |
//! |---|---|---|
//! | `start` | other daemons | makes a socket, leaves `serve` behind, prints where it listens |
//! | `serve` | `start`, and berthd itself | answers the task service until it is told to end |
//! | `delete` | any daemon | cleans up after a shim that died |
//! | `-info`, `-version` | any daemon | tell about the runtime |
//!
//! `serve` is one thread. Its calls change a [`shim::Shim`] and its tasks; children that end pass through the
//! [`reaper`], to the waiters and, as [`events`], to the daemon.

mod attach;
mod cleanup;
mod events;
mod exit;
mod flags;
mod info;
mod metrics;
mod process;
mod reaper;
mod sandbox;
mod serve;
mod shim;
mod start;
mod stdio;
mod task;

use std::io::Write;
use std::path::PathBuf;

use berth_types::{Error, Result, ResultExt, id};
use prost::Message;

use flags::Flags;

/// Does what the command line asks for; `arguments` are those after the program's name.
///
/// # Errors
/// InvalidArgument for a command line that can't be understood; else the action's.
pub fn run(arguments: impl IntoIterator<Item = String>) -> Result<()> {
    let flags = Flags::parse(arguments)?;
    if flags.version {
        let text = concat!("containerd-shim-berth-v1 ", env!("CARGO_PKG_VERSION"), "\n");
        return print(text.as_bytes());
    }
    if flags.info {
        return print(&info::info().encode_to_vec());
    }
    id::validate("namespace", &flags.namespace)?;
    id::validate("container id", &flags.id)?;
    match flags.action.as_str() {
        "start" => start::start(&flags),
        "serve" => serve::serve(&flags),
        "delete" => cleanup::cleanup(&flags),
        action => Err(Error::invalid_argument(format!(
            "action {action:?} is not one of start, serve and delete"
        ))),
    }
}

/// The bundle: named by a flag, or the working directory.
fn bundle(flags: &Flags) -> Result<PathBuf> {
    match &flags.bundle {
        Some(bundle) => Ok(bundle.clone()),
        None => std::env::current_dir().context(|| "find the working directory"),
    }
}

fn print(bytes: &[u8]) -> Result<()> {
    std::io::stdout().write_all(bytes).context(|| "print the answer")
}
