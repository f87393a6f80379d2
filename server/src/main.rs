//! The berth daemon: containerd's API and berth's own on one socket.
//!
//! `boot.rs` is the composition root and reads as the boot order; `api/` has one file for each
//! service; `config/` is the configuration file.

mod api;
mod args;
mod boot;
mod calls;
mod collect;
mod config;
mod content;
mod embedded;
mod listen;
mod metrics;
mod operations;
mod registries;
mod restart;
mod root;
mod shutdown;
mod snapshotters;
mod tcp;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Args, Command, ConfigCommand};
use crate::config::Config;

/// Threads that run requests. Hashing, unpacking and file I/O have threads of their own, which
/// end when idle, so a few suffice and keep an idle daemon small.
const WORKERS: usize = 2;

/// Threads that may wait at a time. A client that stalls while it sends or receives an archive has
/// one, which must not be the last.
const BLOCKING: usize = 4096;

/// How long a stop waits for threads that hang in the disk.
const FAREWELL: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("berthd: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers the `config` subcommands or serves until a signal asks to stop.
fn run(args: Args) -> anyhow::Result<()> {
    if let Some(Command::Config { command: ConfigCommand::Default }) = args.command {
        print!("{}", Config::default().to_toml()?);
        return Ok(());
    }
    let (config, unknown) = args.load()?;
    match args.command {
        Some(Command::Config { command: ConfigCommand::Migrate }) => {
            print!("{}", config.migrated().to_toml()?);
            return Ok(());
        }
        Some(Command::Config { .. }) => {
            print!("{}", config.to_toml()?);
            return Ok(());
        }
        None => {}
    }
    start_log(&config)?;
    for key in unknown {
        tracing::warn!(%key, "unknown configuration key is ignored");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let outcome = runtime.block_on(boot::serve(config));
    runtime.shutdown_timeout(FAREWELL);
    Ok(outcome?)
}

/// Sends the log to standard error at the configured level; `RUST_LOG` refines it by module.
fn start_log(config: &Config) -> anyhow::Result<()> {
    let level = config.debug.level.as_filter();
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .try_init()
        .map_err(|error| anyhow::anyhow!("start the log: {error}"))
}
