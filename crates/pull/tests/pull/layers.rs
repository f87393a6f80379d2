//! Layers on top of each other: what containers of an image see.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_archive::{Options, Whiteouts, apply};
use berth_pull::read;
use berth_sys::mount;
use berth_types::{Kind, Result};
use rustix::fs::{XattrFlags, setxattr};
use rustix::mount::MountAttrFlags;

use crate::docker::{self, DockerRegistry};
use crate::fixture::{Fixture, NAMESPACE, snapshotter};
use crate::image::{Layer, LayerBuilder, TestImage, layered, layout, noise};

const NAME: [(&str, &str); 1] = [("io.containerd.image.name", "docker.io/library/a:b")];

/// The tree that containers of an image see, until the descriptor is closed.
async fn mounted(fixture: &Fixture, image: &TestImage) -> (OwnedFd, PathBuf) {
    let scope = fixture.scope(NAMESPACE);
    let platform = "linux/amd64".parse().unwrap();
    let resolved = read(&scope, &image.descriptor(), &platform).await.unwrap();
    let chain_id = resolved.chain_id().unwrap();
    let snapshots = scope.snapshots(snapshotter()).unwrap();
    let mounts = snapshots.prepare("test", chain_id.as_str(), Default::default()).await.unwrap();
    let options: Vec<_> = mounts[0].options.iter().map(String::as_str).collect();
    let overlay = mount::overlay(&options, MountAttrFlags::empty()).unwrap().unwrap();
    let path = format!("/proc/self/fd/{}/.", overlay.as_raw_fd()).into();
    (overlay, path)
}

fn names(root: &Path, path: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(path)).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn layers_depend_on_each_other_as_they_should() {
    let registry = DockerRegistry::start(docker::Options::default());
    let image = layered();
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    let (_overlay, root) = mounted(&fixture, &image).await;
    assert_eq!(names(&root, "a"), ["kept"]);
    assert_eq!(names(&root, "opaque"), ["new"]);
    assert_eq!(names(&root, "etc"), ["hosts", "motd", "passwd", "passwd.link", "top"]);
    // Three upper layers left out `etc`; it is still the base's.
    let etc = fs::metadata(root.join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid(), etc.mtime()), (0o750, 7, 1_700_000_000));
    let (file, link) = (root.join("etc/passwd"), root.join("etc/passwd.link"));
    assert_eq!(fs::metadata(file).unwrap().ino(), fs::metadata(&link).unwrap().ino());
    assert_eq!(fs::read(link).unwrap(), b"root:x:0:0::/:/bin/sh\n");
    assert_eq!(fs::read(root.join("hello")).unwrap(), noise(1, 300_000));
}

/// Two layers that link into lower ones, one of them by way of the other, with all that may stand
/// around a link.
fn linking() -> TestImage {
    let base = LayerBuilder::new()
        .directory("bin", 0o755, 0)
        .special_file("bin/sudo", 0o4755, 33, b"program")
        .file("bin/old", b"old")
        .directory("gone", 0o755, 0)
        .file("gone/moved", b"moved");
    let first = LayerBuilder::new()
        .link("bin/su", "bin/sudo")
        .link("bin/twin", "bin/old")
        .file("bin/old", b"new")
        .link("bin/moved", "gone/moved")
        .file(".wh.gone", b"");
    let plain = LayerBuilder::new().file("bin/plain", b"plain");
    let second = LayerBuilder::new()
        .link("bin/again", "bin/su")
        .link("bin/own", "bin/plain")
        .directory("bin", 0o700, 5);
    let layers = vec![base.end().gzip(), first.end().gzip(), plain.end(), second.end().zstd()];
    TestImage::new("amd64", layers)
}

#[tokio::test]
async fn hard_links_into_lower_layers_copy_up() {
    let registry = DockerRegistry::start(docker::Options::default());
    let image = linking();
    let reference = image.push(&registry, "a").await;
    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    let (_overlay, root) = mounted(&fixture, &image).await;
    let stat = |path: &str| fs::metadata(root.join(path)).unwrap();
    let content = |path: &str| String::from_utf8(fs::read(root.join(path)).unwrap()).unwrap();
    let expected = ["again", "moved", "old", "own", "plain", "su", "sudo", "twin"];
    assert_eq!(names(&root, "bin"), expected);
    assert_eq!(names(&root, ""), ["bin"]);
    for name in ["bin/sudo", "bin/su", "bin/again"] {
        assert_eq!((stat(name).mode() & 0o7777, stat(name).uid()), (0o4755, 33), "{name}");
        assert_eq!(stat(name).mtime(), 1_700_000_000, "{name}");
    }
    assert_eq!(stat("bin/again").ino(), stat("bin/su").ino());
    assert_eq!(content("bin/twin"), "old", "a link is to the file as it was");
    assert_eq!(content("bin/old"), "new");
    assert_eq!(content("bin/moved"), "moved");
    assert_eq!(stat("bin/own").ino(), stat("bin/plain").ino());
    let bin = stat("bin");
    assert_eq!((bin.mode() & 0o7777, bin.uid(), bin.mtime()), (0o700, 5, 1_700_000_000));
}

#[tokio::test]
async fn a_hard_link_to_what_no_layer_has_is_refused() {
    let registry = DockerRegistry::start(docker::Options::default());
    let alone = LayerBuilder::new().link("a", "missing").end();
    let base = LayerBuilder::new().file("b", b"b").end();
    let whited_out = LayerBuilder::new().file(".wh.b", b"").link("c", "b").end();
    let images = [vec![alone.clone()], vec![base.clone(), alone], vec![base, whited_out]];
    for layers in images {
        let reference = TestImage::new("amd64", layers).push(&registry, "a").await;
        let fixture = Fixture::new().await;
        let error = fixture.pull(&reference).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
        assert!(error.message().contains("is a hard link to"), "{error}");
        fixture.assert_empty().await;
    }
}

#[tokio::test]
async fn many_layers_and_a_link_through_all_of_them() {
    let layer = |n: u32| LayerBuilder::new().file(&format!("f{n}"), b"x").end();
    let mut layers: Vec<_> = (0..150).map(layer).collect();
    layers.push(LayerBuilder::new().link("link", "f0").end());
    let image = TestImage::new("amd64", layers);
    let fixture = Fixture::new().await;
    fixture.import(layout(&image, &NAME)).await.unwrap();
    let (_overlay, root) = mounted(&fixture, &image).await;
    assert_eq!(fs::metadata(root.join("f0")).unwrap().nlink(), 2);
    assert_eq!(names(&root, "").len(), 151);
}

/// Where the members of chosen layers are.
const PATHS: [&str; 6] = ["p", "q", "d/p", "d/q", "e/p", "e/q"];

/// A fixed sequence of choices.
struct Choices(u64);

impl Choices {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }

    fn of<'a>(&mut self, among: &[&'a str]) -> &'a str {
        among[self.below(among.len() as u64) as usize]
    }

    /// A layer of a few members on a few paths, so that they meet.
    fn layer(&mut self) -> Layer {
        let mut layer = LayerBuilder::new();
        let (mut directories, mut paths) = (vec!["d", "e"], PATHS.to_vec());
        if self.below(5) == 0 {
            let gone = directories.swap_remove(self.below(2) as usize);
            paths.retain(|path| !path.starts_with(gone));
            layer = layer.file(&format!(".wh.{gone}"), b"");
        }
        for directory in directories.iter().filter(|_| self.below(3) > 0) {
            layer = layer.directory(directory, 0o700, 1);
        }
        for _ in 0..1 + self.below(6) {
            let path = self.of(&paths);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
            layer = match self.below(7) {
                0..=2 => layer.file(path, format!("{}", self.0).as_bytes()),
                3 | 4 => layer.link(path, self.of(&PATHS)),
                5 => layer.file(format!("{parent}/.wh.{name}").trim_matches('/'), b""),
                _ => layer.file(&format!("{}/.wh..wh..opq", self.of(&directories)), b""),
            };
        }
        layer.end()
    }
}

/// Applies the layers one after the other to one tree, as if no layer were a directory of its own.
fn apply_in_order(layers: &[Layer], to: &Path) -> Result<()> {
    let root = File::open(to).unwrap();
    for layer in layers {
        let how = Options { whiteouts: Whiteouts::Remove, ..Options::default() };
        apply(layer.tar.as_slice(), root.as_fd(), &how)?;
    }
    Ok(())
}

/// The files below `root`: path, mode, owner and content. Which of them are links of one is left
/// out, since a copy up ends that.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, u32, Option<Vec<u8>>)> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let content = metadata.is_file().then(|| fs::read(&path).unwrap());
            let name = path.strip_prefix(root).unwrap().to_owned();
            found.insert(name, (metadata.mode(), metadata.uid(), content));
            if metadata.is_dir() {
                directories.push(path);
            }
        }
    }
    found
}

#[tokio::test]
async fn stacked_layers_are_what_layers_in_one_tree_are() {
    let (mut whole, mut refusals) = (0, 0);
    for seed in 1..60_u64 {
        let mut choices = Choices(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let base = LayerBuilder::new().directory("d", 0o755, 0).directory("e", 0o755, 0);
        let base = PATHS.iter().fold(base, |base, path| base.file(path, path.as_bytes()));
        let mut layers = vec![base.end()];
        layers.resize_with(2 + choices.below(3) as usize, || choices.layer());
        let one_tree = tempfile::tempdir().unwrap();
        let expected = apply_in_order(&layers, one_tree.path());
        let image = TestImage::new("amd64", layers);
        let fixture = Fixture::new().await;
        let imported = fixture.import(layout(&image, &NAME)).await;
        match expected {
            Ok(()) => {
                imported.unwrap();
                let (_overlay, root) = mounted(&fixture, &image).await;
                assert_eq!(tree(&root), tree(one_tree.path()), "seed {seed}");
                whole += 1;
            }
            // A link into what the layer itself removes.
            Err(expected) => {
                let error = imported.unwrap_err();
                let refused =
                    matches!(error.kind(), Kind::FailedPrecondition | Kind::InvalidArgument);
                assert!(refused, "seed {seed}: {error}; {expected}");
                refusals += 1;
            }
        }
    }
    assert!(whole > 20 && refusals > 5, "{whole} {refusals}");
}

#[tokio::test]
async fn attributes_of_left_out_directories_are_those_below() {
    let fixture = Fixture::new().await;
    let base = LayerBuilder::new().directory("d", 0o1770, 9).file("d/a", b"a").end();
    let above = LayerBuilder::new().file("d/b", b"b").end();
    let linking = LayerBuilder::new().link("d/c", "d/a").file("d/.wh.b", b"").end();
    let base_image = TestImage::new("amd64", vec![base.clone()]);
    fixture.import(layout(&base_image, &NAME)).await.unwrap();
    let scope = fixture.scope(NAMESPACE);
    let snapshots = scope.snapshots(snapshotter()).unwrap();
    let chain = fixture.snapshots().await[0].key.clone();
    let below = snapshots.layers(&chain).await.unwrap().remove(0);
    if snapshotter() == "overlayfs" {
        let below = format!("/proc/self/fd/{}/d", below.as_raw_fd());
        setxattr(&below, "user.note", b"n", XattrFlags::empty()).unwrap();
    }

    let image = TestImage::new("amd64", vec![base, above, linking]);
    fixture.import(layout(&image, &NAME)).await.unwrap();
    let (_overlay, root) = mounted(&fixture, &image).await;
    assert_eq!(names(&root, "d"), ["a", "c"]);
    let d = fs::metadata(root.join("d")).unwrap();
    assert_eq!((d.mode() & 0o7777, d.uid(), d.mtime()), (0o1770, 9, 1_700_000_000));
    let mut note = [0; 1];
    if snapshotter() == "overlayfs" {
        assert_eq!(rustix::fs::getxattr(root.join("d"), "user.note", &mut note), Ok(1));
    }
}
