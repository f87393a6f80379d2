//! Containers for real: namespaces, mounts, rights, hooks, terminals, attacks, leaks. Needs root.
//!
//! Creating containers is for processes with one thread, which the usual test harness is not: here
//! each case runs in a process of its own, one after the other. Arguments are parts of names.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attacks;
mod exec;
mod failures;
mod filesystem;
mod hooks;
mod rig;
mod rights;
mod start;
mod terminal;

use std::io::{Read, Seek};
use std::process::{Child, Command, ExitCode};
use std::time::{Duration, Instant};

/// Names the case that a child is to run.
const CASE: &str = "CONTAINER_TEST_CASE";

/// A test.
type Case = (&'static str, fn());

/// Lists functions with their names.
#[macro_export]
macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// The cases of this file.
        pub(crate) const CASES: &[(&str, fn())] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name)),*];
    };
}

fn all() -> Vec<Case> {
    [
        start::CASES,
        filesystem::CASES,
        rights::CASES,
        hooks::CASES,
        terminal::CASES,
        exec::CASES,
        failures::CASES,
        attacks::CASES,
    ]
    .concat()
}

fn main() -> ExitCode {
    if let Ok(case) = std::env::var(CASE) {
        for (_, run) in all().into_iter().filter(|(name, _)| *name == case) {
            run();
            rig::assert_nothing_left();
        }
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filters: Vec<&String> = arguments.iter().filter(|word| !word.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|part| name.contains(*part));
    let cases: Vec<Case> = all().into_iter().filter(|(name, _)| chosen(name)).collect();
    if arguments.iter().any(|word| word == "--list") {
        cases.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let failed: Vec<&str> =
        cases.iter().filter_map(|(name, _)| (!passes(name)).then_some(*name)).collect();
    println!("\n{} passed, {} failed: {failed:?}", cases.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str) -> bool {
    let output = tempfile::tempfile().unwrap();
    let copy = || output.try_clone().unwrap();
    let executable = std::env::current_exe().unwrap();
    let mut command = Command::new(executable);
    let mut child = command.env(CASE, name).stdout(copy()).stderr(copy()).spawn().unwrap();
    let success = ends_well(&mut child);
    println!("test {name} ... {}", if success { "ok" } else { "FAILED" });
    if !success {
        let mut text = String::new();
        copy().rewind().unwrap();
        copy().read_to_string(&mut text).unwrap();
        println!("{text}");
    }
    success
}

/// Whether `child` succeeds before it counts as hanging.
fn ends_well(child: &mut Child) -> bool {
    let hangs = Instant::now() + Duration::from_secs(60);
    while Instant::now() < hangs {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("it hangs");
    child.kill().unwrap();
    child.wait().unwrap();
    false
}
