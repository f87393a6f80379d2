//! The guest: what it is given, and what it wrote.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Finished, Image, Layer, Registry, noise};
use berth_types::Digest;
use tempfile::TempDir;

use crate::log::{Log, SECTOR};

/// The disk, and the filesystem at its beginning, in MiB.
const DISK: (u64, u64) = (512, 510);

/// A guest that has run.
pub(crate) struct Guest {
    pub(crate) registry: Registry,
    pub(crate) namespace: String,
    pub(crate) config: String,
    pub(crate) log: Log,
    /// When what was begun and acknowledged.
    pub(crate) marks: Vec<(usize, String)>,
    /// The disk as it was before.
    pub(crate) base: PathBuf,
    /// Where it was mounted: records name files by their whole paths.
    pub(crate) place: PathBuf,
    /// An archive of the third image.
    pub(crate) archive: PathBuf,
    _directory: TempDir,
}

impl Guest {
    /// Lets a guest work, with berth configured by `config`.
    pub(crate) fn run(config: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let registry = Registry::start();
        let [one, two, three] = images();
        registry.push(&one);
        registry.push(&two);
        let (base, disk, archive) = (path("base"), path("disk"), path("three.tar"));
        fs::write(&archive, three.archive()).unwrap();
        make_disk(&base);
        copy(&base, &disk);

        // A port is taken once.
        let namespace = format!("power-{}", registry.host().rsplit(':').next().unwrap());
        let (sector, place) = (DISK.1 << 20, path("place"));
        fs::create_dir(&place).unwrap();
        let root = path("root");
        prepare(&root, &registry);
        fs::copy(&archive, root.join("three.tar")).unwrap();
        fs::write(root.join("config.toml"), config).unwrap();
        let settings = [
            ("MARKS", (sector / SECTOR).to_string()),
            ("PLACE", place.display().to_string()),
            ("HOST", registry.host()),
            ("NAMESPACE", namespace.clone()),
        ];
        let settings: String = settings.map(|(name, value)| format!("{name}={value}\n")).concat();
        fs::write(root.join("settings"), settings).unwrap();

        boot(&root, &disk, &path("log"));
        let log = Log::read(&path("log"));
        let marks = log.marks(sector);
        assert_eq!(marks.last().map(|(_, mark)| mark.as_str()), Some("end"));
        let (config, _directory) = (config.to_owned(), directory);
        Self { registry, namespace, config, log, marks, base, place, archive, _directory }
    }
}

/// Images that share their base; one is loaded from an archive.
fn images() -> [Image; 3] {
    let image = |name: &str, seed, length| {
        let noise = noise(seed, length);
        let sums = format!("{}  /noise\n", Digest::of(&noise).hex());
        let files: Vec<_> =
            (0..50).map(|file| (format!("many/{file}"), vec![b'x'; 5000])).collect();
        let mut all: Vec<_> =
            files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
        all.push(("sums", sums.as_bytes()));
        Image::busybox(name)
            .layer(Layer::of_files(&[("noise", noise.as_slice())]))
            .layer(Layer::of_files(&all))
    };
    [
        image("one", 1, 1 << 20),
        image("two", 2, 3 << 20),
        image("docker.io/library/three:latest", 3, 1 << 20),
    ]
}

/// Copies a disk that is mostly empty.
pub(crate) fn copy(from: &Path, to: &Path) {
    Finished::run("cp", &["--sparse=always".as_ref(), from, to], b"").success();
}

fn make_disk(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(DISK.0 << 20).unwrap();
    let size = format!("{}M", DISK.1);
    let options = ["-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0"];
    let all = [&options[..], &[path.to_str().unwrap(), &size]].concat();
    Finished::run("mkfs.ext4", &all, b"").success();
}

/// Makes the guest's root: the programs, which `tests/guest/power` has gathered, and what is new.
fn prepare(root: &Path, registry: &Registry) {
    let programs = std::env::var("GUEST_ROOT").expect("run tests/guest/power");
    Finished::run("cp", &["-a".as_ref(), Path::new(&programs), root], b"").success();
    registry.copy_to(root);
    for name in ["payload", "inside"] {
        let path = root.join(name);
        fs::write(&path, include_str!("payload")).unwrap();
        Finished::run("chmod", &["+x".as_ref(), path.as_path()], b"").success();
    }
}

fn boot(root: &Path, disk: &Path, log: &Path) {
    let mut boot = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/boot"));
    boot.arg(root).env("BERTH_GUEST_DISK", disk).env("BERTH_GUEST_DISK_LOG", log);
    boot.env("BERTH_GUEST_MEMORY", "2048");
    let ended = Finished::leaving(&mut boot);
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
}
