//! Links a program statically where the machine has a static C library. A program that starts for
//! each container, or each command, would else spend a third of its start on loading libraries.
//!
//! Only these programs: a static C library can't load the name services that the daemon may need,
//! so that the compiler's own option, which is for all of a build, is not it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// The libraries that Rust's standard library links, and what each is linked with instead.
/// `libgcc_s`, which unwinds, has no static form of that name.
const LIBRARIES: [(&str, &str); 3] =
    [("libc", "libc.a"), ("libm", "libm.a"), ("libgcc_s", "libgcc_eh.a")];

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=../static.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return Ok(());
    }
    // Another machine's libraries would be another compiler's to find.
    if env::var("HOST") != env::var("TARGET") {
        return Ok(());
    }
    let found: Option<Vec<_>> =
        LIBRARIES.iter().map(|(name, file)| Some((name, find(file)?))).collect();
    let Some(found) = found else { return Ok(()) };
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    for (name, path) in found {
        // A linker script, which the linker finds before the shared library of that name.
        fs::write(out.join(format!("{name}.a")), format!("INPUT({})\n", path.display()))?;
    }
    // Arguments rather than a search path, which tests would get too.
    println!("cargo::rustc-link-arg-bins=-L{}", out.display());
    println!("cargo::rustc-link-arg-bins=-static-pie");
    Ok(())
}

/// Where the C compiler has the library `file`.
fn find(file: &str) -> Option<PathBuf> {
    let output = Command::new("cc").arg(format!("-print-file-name={file}")).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    let path = Path::new(path.trim());
    // It repeats the name of what it doesn't have.
    path.is_absolute().then(|| path.to_owned())
}
