//! A Debian root filesystem, and two layers of packages installed in it, as a distribution's
//! image and one built on it have them. The packages come from Debian's mirror.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use berth_tests::{Image, Layer};
use serde_json::json;
use tempfile::NamedTempFile;

/// What each layer above the root filesystem installs.
const PACKAGES: [&[&str]; 2] = [&["git", "python3"], &["gcc", "libc6-dev"]];

/// The layers' tars.
pub(crate) fn make_layers() -> Result<Vec<Vec<u8>>> {
    let root = tempfile::Builder::new().prefix("bd").tempdir_in("/tmp")?;
    let path = root.path();
    run(Command::new("debootstrap").args(["--variant=minbase", "stable"]).arg(path))?;
    let mut layers = vec![tar(path, None)?];
    for packages in PACKAGES {
        let before = NamedTempFile::new_in("/tmp")?;
        let mut install = Command::new("chroot");
        install.arg(path).env("DEBIAN_FRONTEND", "noninteractive");
        install.args(["apt-get", "install", "-qy", "--no-install-recommends"]).args(packages);
        run(&mut install)?;
        layers.push(tar(path, Some(before.path()))?);
    }
    Ok(layers)
}

/// The image of layers that were made of these tars.
pub(crate) fn image(name: &str, layers: Vec<Layer>) -> Image {
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Image::of(name, layers).config("Env", json!([path])).config("Cmd", json!(["bash"]))
}

/// All of a directory, or what was changed in it since `since` was.
fn tar(directory: &Path, since: Option<&Path>) -> Result<Vec<u8>> {
    let mut find = Command::new("find");
    find.current_dir(directory).args([".", "-mindepth", "1"]);
    since.map(|since| find.arg("-cnewer").arg(since));
    let names = find.args(["-printf", "%P\\0"]).stderr(Stdio::inherit()).output()?;
    ensure!(names.status.success(), "{find:?}: {}", names.status);
    let list = NamedTempFile::new_in("/tmp")?;
    fs::write(list.path(), names.stdout)?;
    let mut tar = Command::new("tar");
    tar.current_dir(directory).args(["--numeric-owner", "--no-recursion", "--null", "-cf", "-"]);
    let made = tar.arg("-T").arg(list.path()).stderr(Stdio::inherit()).output()?;
    ensure!(made.status.success(), "{tar:?}: {}", made.status);
    Ok(made.stdout)
}

fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(File::create("/dev/null")?);
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
