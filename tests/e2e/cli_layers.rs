//! Layers that only make sense on top of others, beside what Debian's containerd makes of them.

use berth_tests::{Engine, Flavor, Image, Layer, Registry};
use tar::{Builder, EntryType, Header};

/// Everything below `/data`. Times of directories are left out, since a copy has those of its
/// making, and so are links, since an overlay's copy of a file from below is a file of its own.
const LOOK: &str = "cd /data && find . | sort | while read -r path; do
    [ -d \"$path\" ] && stat -c '%n %F %a %u %g' \"$path\"
    [ -f \"$path\" ] && stat -c '%n %F %a %u %g %Y' \"$path\" && sha256sum \"$path\"
done";

/// One entry of a layer.
fn add(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, what: &str, mode: u32, owner: u64) {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_mtime(1_600_000_000 + u64::from(mode));
    header.set_size(0);
    match kind {
        EntryType::Regular => {
            header.set_size(what.len() as u64);
            tar.append_data(&mut header, path, what.as_bytes()).unwrap();
        }
        EntryType::Directory => tar.append_data(&mut header, path, &b""[..]).unwrap(),
        _ => tar.append_link(&mut header, path, what).unwrap(),
    }
}

/// Layers whose hard links point into lower ones: at a plain file, at one with a special mode, at
/// one that a later layer linked itself, at one that the same layer replaces or removes.
fn linking(name: &str) -> Image {
    use EntryType::{Directory, Link, Regular};
    let base = Layer::new(|tar| {
        add(tar, Directory, "data/", "", 0o750, 7);
        add(tar, Directory, "data/gone/", "", 0o755, 0);
        add(tar, Regular, "data/file", "file", 0o640, 3);
        add(tar, Regular, "data/sudo", "program", 0o4755, 0);
        add(tar, Regular, "data/old", "old", 0o644, 0);
        add(tar, Regular, "data/gone/moved", "moved", 0o600, 5);
    });
    let plain = Layer::new(|tar| add(tar, Regular, "data/plain", "plain", 0o444, 9));
    let first = Layer::new(|tar| {
        add(tar, Link, "data/link", "data/file", 0o640, 3);
        add(tar, Link, "data/su", "data/sudo", 0o4755, 0);
        add(tar, Link, "data/twin", "data/old", 0o644, 0);
        add(tar, Regular, "data/old", "new", 0o600, 1);
    });
    let second = Layer::new(|tar| {
        add(tar, Link, "data/moved", "data/gone/moved", 0o600, 5);
        add(tar, Regular, "data/.wh.gone", "", 0o644, 0);
        add(tar, Link, "data/again", "data/link", 0o640, 3);
        add(tar, Link, "data/plain-too", "data/plain", 0o444, 9);
    });
    [base, plain, first, second].into_iter().fold(Image::busybox(name), Image::layer)
}

#[test]
fn cli_hard_links_into_lower_layers_are_what_containerd_makes_of_them() {
    let Some(engine) = Engine::berth() else { return };
    let registry = Registry::start();
    registry.push(&linking("links:1"));
    let name = registry.reference("links:1");
    engine.cli(&["pull", &name]).success();
    let ours = engine.cli(&["run", "--rm", &name, "sh", "-c", LOOK]).success().stdout;
    let linked = "cd /data && [ su -ef sudo ] && [ plain -ef plain-too ] && [ again -ef link ]";
    engine.cli(&["run", "--rm", &name, "sh", "-c", linked]).success();

    // Its overlays are extracted one by one and refuse such links; its copies take them.
    let containerd = Engine::start_flavor(Flavor::Containerd);
    let copies = ["--snapshotter", "native"];
    let pull = [&["images", "pull", "--plain-http"], &copies[..], &[&name]].concat();
    containerd.ctr(&pull).success();
    let look = ["look", "sh", "-c", LOOK];
    let run = [&["run", "--rm"], &copies[..], &[&name], &look].concat();
    let theirs = containerd.ctr(&run).success().stdout;
    assert!(theirs.contains("./again"), "{theirs}");
    assert_eq!(ours, theirs);
}
