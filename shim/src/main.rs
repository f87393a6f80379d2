//! The berth shim: runs the processes of one container for a daemon that speaks containerd's shim
//! protocol, berthd or another.

use std::process::ExitCode;

fn main() -> ExitCode {
    match containerd_shim_berth_v1::service::run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("containerd-shim-berth-v1: {error}");
            ExitCode::FAILURE
        }
    }
}
