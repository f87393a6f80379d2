//! The program of the embedded image: a friendly greeting, and a few small commands to try
//! containers with. It is compiled without dependencies into one static file.
//!
//! The command is the name the program is called by (`/bin/true` is a link to it) or else its
//! first argument.

use std::env;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

/// Exit status of a command that is used wrongly.
const USAGE: u8 = 2;

const GREETING: &str = "\
Hello from a berth container!

This program runs as process 1 of its own namespaces, from the image that berth carries in itself.
Try next:
  berth run --rm berth.local/hello:latest id
  berth run --rm -e NAME=value berth.local/hello:latest env
  berth run --rm -it debian:stable bash
";

fn main() -> ExitCode {
    let mut arguments: Vec<String> =
        env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let called = arguments.first().map(String::as_str).unwrap_or_default();
    let name = Path::new(called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let mut name = name.to_owned();
    if !arguments.is_empty() {
        arguments.remove(0);
    }
    if !is_command(&name) || name == "hello" && !arguments.is_empty() {
        name = if arguments.is_empty() { "hello".to_owned() } else { arguments.remove(0) };
    }
    match run(&name, &arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _ = writeln!(io::stderr(), "{name}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `name` is a command of this program.
fn is_command(name: &str) -> bool {
    matches!(name, "hello" | "true" | "false" | "echo" | "sleep" | "cat" | "env" | "id")
}

/// Runs one command and returns its exit status.
fn run(name: &str, arguments: &[String]) -> io::Result<u8> {
    match name {
        "hello" => io::stdout().write_all(GREETING.as_bytes()).map(|()| 0),
        "true" => Ok(0),
        "false" => Ok(1),
        "echo" => writeln!(io::stdout(), "{}", arguments.join(" ")).map(|()| 0),
        "sleep" => sleep(arguments),
        "cat" => cat(arguments),
        "env" => print_environment(),
        "id" => print_identity(),
        _ => {
            writeln!(io::stderr(), "{name}: there is no such command in this image")?;
            Ok(127)
        }
    }
}

/// `sleep SECONDS`, where the seconds may have a fraction.
fn sleep(arguments: &[String]) -> io::Result<u8> {
    let duration = arguments
        .first()
        .and_then(|text| text.parse::<f64>().ok())
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match duration {
        Some(duration) => {
            thread::sleep(duration);
            Ok(0)
        }
        None => {
            writeln!(io::stderr(), "usage: sleep SECONDS")?;
            Ok(USAGE)
        }
    }
}

/// `cat [FILE]...`; without files it copies standard input.
fn cat(files: &[String]) -> io::Result<u8> {
    let mut output = io::stdout();
    if files.is_empty() {
        io::copy(&mut io::stdin(), &mut output)?;
    }
    let mut code = 0;
    for name in files {
        if let Err(error) = File::open(name).and_then(|mut file| io::copy(&mut file, &mut output)) {
            writeln!(io::stderr(), "cat: {name}: {error}")?;
            code = 1;
        }
    }
    output.flush()?;
    Ok(code)
}

/// `env`: one variable on each line.
fn print_environment() -> io::Result<u8> {
    let mut output = io::stdout();
    for (name, value) in env::vars_os() {
        writeln!(output, "{}={}", name.to_string_lossy(), value.to_string_lossy())?;
    }
    Ok(0)
}

/// `id`: the numbers of user, group and further groups, as the kernel has them.
fn print_identity() -> io::Result<u8> {
    let status = fs::read_to_string("/proc/self/status")?;
    let numbers = |key: &str| -> Vec<&str> {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_default().split_whitespace().collect()
    };
    // Real, effective, saved and file system id: the effective one counts.
    let effective = |key| numbers(key).get(1).copied().unwrap_or("?");
    let groups = numbers("Groups:").join(",");
    writeln!(
        io::stdout(),
        "uid={} gid={} groups={groups}",
        effective("Uid:"),
        effective("Gid:")
    )?;
    Ok(0)
}
