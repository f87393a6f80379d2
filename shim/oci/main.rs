//! `berth-oci`, the shim's runtime as an OCI runtime command line, with runc's flags, files and
//! messages where clients depend on them.
//!
//! A container here has no shim: `create` leaves a first process behind that belongs to whoever
//! adopts it, and every later command finds the container by its [`record`].

mod birth;
mod cli;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod figures;
mod foreground;
mod kill;
mod life;
mod list;
mod lock;
mod pause;
mod ps;
mod record;
mod removal;
mod resume;
mod run;
mod seal;
mod spec;
mod start;
mod state;
mod streams;
mod terminal;
mod update;

use std::process::ExitCode;

use berth_types::ResultExt;
use clap::Parser;

use cli::Arguments;

fn main() -> ExitCode {
    let Arguments { global, verb } = Arguments::parse();
    let failure = verb.failure();
    let told_elsewhere = global.log.is_some();
    // Before anything is opened here, which would get the numbers of descriptors that aren't there.
    let descriptors = verb.check_descriptors();
    let prepared = global.start_log().and(descriptors).and_then(|()| verb.prepare());
    let done = prepared.and_then(|()| {
        // Containers are created by a process with one thread.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context(|| "start the runtime")?.block_on(verb.run(&global))
    });
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Clients read the log file, if they named one, or this program's standard error.
            if told_elsewhere {
                tracing::error!("{}", error.message());
            }
            eprintln!("berth-oci: {}", error.message());
            ExitCode::from(failure)
        }
    }
}
