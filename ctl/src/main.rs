//! `berth`, the operator's command: a client of the daemon's gRPC API that keeps no state.
//!
//! Each command is one file under `commands/`, with its flags, its calls and its output. Names,
//! flags, columns, exit codes and messages are those that Docker's users know.

#![deny(clippy::print_stdout, clippy::print_stderr, reason = "they panic when nobody reads")]

mod cli;
mod client;
mod commands;
mod detach;
mod environment;
mod failure;
mod filter;
mod human;
mod logging;
mod options;
mod output;
mod parse;
mod progress;
mod session;
mod table;
mod template;
mod terminal;
mod transfer;

use std::process::exit;

use crate::output::{complain, say};

fn main() {
    let cli = parse::parse(std::env::args_os()).unwrap_or_else(|refused| {
        if refused.is_answer() {
            say(&refused)
        } else {
            complain(&refused)
        }
        exit(refused.status())
    });
    // One thread: a command waits for one thing at a time, and a thread pool would cost more
    // than most commands take.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => Err(failure::Failure::new(format!("cannot start: {error}"))),
    };
    // `exit` rather than a return: a thread may still be blocked in a read of standard input.
    match result {
        Ok(code) => exit(code),
        Err(failure) => {
            complain(&failure);
            exit(failure.code());
        }
    }
}
