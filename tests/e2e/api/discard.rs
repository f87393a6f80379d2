//! Layers whose blobs are dropped once they are unpacked, and come back where they are needed.
//! containerd has the option for Kubernetes alone, and makes nothing again.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use berth_proto::containerd::types::transfer::{ImageExportStream, OciRegistry};
use berth_tests::{Engine, Image, Layer, Registry};
use berth_types::Digest;
use nix::sys::signal::Signal;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use super::Api;
use super::transfer::{Stream, pack, store, transfer};

const DISCARD: &str =
    "version = 3\n[plugins.'io.containerd.cri.v1.images']\ndiscard_unpacked_layers = true\n";

const MIB: usize = 1 << 20;

/// berth that drops layers, and what asks it.
struct Discarding {
    api: Api,
    runtime: Runtime,
}

impl Discarding {
    fn start() -> Option<Self> {
        Self::with(DISCARD)
    }

    fn with(config: &str) -> Option<Self> {
        let mut engine = Engine::prepare()?;
        engine.configure(config);
        engine.start_daemon();
        let runtime = Runtime::new().unwrap();
        let api = runtime.block_on(Api::of(engine));
        Some(Self { api, runtime })
    }

    /// Starts the daemon again with another configuration.
    fn configured(mut self, config: &str) -> Self {
        let mut engine = self.api.engine;
        engine.stop_daemon(Signal::SIGTERM);
        engine.configure(config);
        engine.start_daemon();
        self.api = self.runtime.block_on(Api::of(engine));
        self
    }

    fn engine(&self) -> &Engine {
        &self.api.engine
    }

    fn push(&self, image: &str, to: &str) -> Result<(), Status> {
        let to = pack(&OciRegistry { reference: to.to_owned(), resolver: None });
        self.runtime.block_on(transfer(&self.api, store(image), to, "")).map(drop)
    }

    fn export(&self, image: &str) -> Result<Vec<u8>, Status> {
        self.runtime.block_on(async {
            let download = Stream::open(&self.api, "down").await.unwrap();
            let export = ImageExportStream { stream: "down".into(), ..Default::default() };
            let exported = transfer(&self.api, store(image), pack(&export), "");
            let (done, bytes) = tokio::join!(exported, download.download());
            done.map(|_| bytes)
        })
    }

    /// The digests of all blobs that are here, and what they take.
    fn blobs(&self) -> (Vec<String>, u64) {
        let directory = self.engine().root().join("content/blobs/sha256");
        let files = fs::read_dir(directory).unwrap().map(Result::unwrap);
        let mut size = 0;
        let mut digests: Vec<_> = files
            .map(|file| {
                size += file.metadata().unwrap().len();
                format!("sha256:{}", file.file_name().to_str().unwrap())
            })
            .collect();
        digests.sort();
        (digests, size)
    }

    /// Asserts that only the documents of `images` are here.
    #[track_caller]
    fn assert_discarded(&self, images: &[&Image]) {
        let documents = images.iter().flat_map(|image| [image.manifest(), image.config_document()]);
        let mut expected: Vec<_> =
            documents.map(|document| Digest::of(&document).to_string()).collect();
        expected.sort();
        let (digests, size) = self.blobs();
        assert_eq!(digests, expected);
        assert!(size < 100_000, "{size} bytes");
    }

    fn sees(&self, image: &str, script: &str) -> String {
        self.engine().cli(&["run", "--rm", image, "sh", "-c", script]).success().stdout
    }
}

/// Layers that can be made again: gzip as the harness makes it, and none at all.
fn own(name: &str) -> Image {
    let plain = Layer::of_noise("noise", 7, MIB).uncompressed();
    Image::busybox(name).layer(plain).layer(Layer::of_files(&[("own", b"own\n")]))
}

/// One more that can't.
fn foreign(name: &str) -> Image {
    let text: Vec<u8> = (0..200_000_u32).flat_map(|n| format!("{n:x} ").into_bytes()).collect();
    own(name).layer(Layer::of_files(&[("text", &text)]).compressed_elsewhere())
}

#[test]
fn discarded_layers_are_pushed_as_they_were() {
    let Some(berth) = Discarding::start() else { return };
    let (from, to) = (Registry::start(), Registry::start());
    let image = foreign("demo:1");
    from.push(&image);
    let name = from.reference("demo:1");
    berth.engine().cli(&["pull", &name]).success();
    berth.assert_discarded(&[&image]);
    assert_eq!(berth.sees(&name, "cat /own; sha256sum /noise | cut -c1-8 | wc -c"), "own\n9\n");

    // What is unpacked is not fetched again, and no damage to who collects garbage.
    let fetched = from.blob_fetches();
    berth.engine().cli(&["pull", &name]).success();
    assert_eq!(from.blob_fetches(), fetched);
    berth.engine().ctr(&["images", "tag", &name, "again:1"]).success();
    berth.engine().ctr(&["images", "rm", "--sync", "again:1"]).success();
    assert_eq!(berth.sees(&name, "cat /own"), "own\n");

    berth.push(&name, &to.reference("copy:1")).unwrap();
    // Only the one that can't be made again.
    assert_eq!(from.blob_fetches(), fetched + 1);
    berth.assert_discarded(&[&image]);
    let Some(other) = Discarding::with("version = 3\n") else { return };
    other.engine().cli(&["pull", &to.reference("copy:1")]).success();
    let (digests, _) = other.blobs();
    for layer in image.layers() {
        assert!(digests.contains(&layer.digest().to_string()));
    }
    assert!(digests.contains(&Digest::of(&image.manifest()).to_string()));
    assert_eq!(other.sees(&to.reference("copy:1"), "cat /own"), "own\n");
}

#[test]
fn discarded_layers_are_exported_as_they_were() {
    let Some(berth) = Discarding::start() else { return };
    let from = Registry::start();
    let image = foreign("demo:1");
    from.push(&image);
    let name = from.reference("demo:1");
    berth.engine().cli(&["pull", &name]).success();
    let archive = berth.export(&name).unwrap();
    berth.assert_discarded(&[&image]);
    drop(from);

    let other = Engine::start();
    let file = other.path("exported.tar");
    fs::write(&file, archive).unwrap();
    other.ctr(&["images", "import", file.to_str().unwrap()]).success();
    other.ctr(&["run", "--rm", &name, "one", "grep", "-q", "own", "/own"]).success();
    let check = other.ctr(&["images", "check", &format!("name=={name}")]).success();
    assert!(check.stdout.contains("complete (5/5)"), "{}", check.stdout);
    // Imported layers stay: nobody else may have them.
    let Some(berth) = Discarding::start() else { return };
    let import = ["images", "import", file.to_str().unwrap()];
    berth.engine().ctr(&import).success();
    assert!(berth.blobs().1 > MIB as u64);
}

#[test]
fn without_the_registry_what_can_be_packed_again_is() {
    let Some(berth) = Discarding::start() else { return };
    let (mut from, to) = (Registry::start(), Registry::start());
    let (own, foreign) = (own("own:1"), foreign("foreign:1"));
    from.push(&own);
    from.push(&foreign);
    for image in [&own, &foreign] {
        berth.engine().cli(&["pull", &from.reference(image.name())]).success();
    }
    berth.assert_discarded(&[&own, &foreign]);
    from.stop();
    berth.push(&from.reference("own:1"), &to.reference("own:1")).unwrap();
    assert!(!berth.export(&from.reference("own:1")).unwrap().is_empty());

    let name = from.reference("foreign:1");
    let lost = foreign.layers()[3].digest().to_string();
    let refusals = [berth.push(&name, &to.reference("foreign:1")), berth.export(&name).map(|_| ())];
    for refused in refusals {
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
        let said = refused.message();
        for words in [&lost, "discard_unpacked_layers", "not known how it was compressed"] {
            assert!(said.contains(words), "{said}");
        }
        assert!(said.contains(&from.reference("foreign")), "{said}");
    }
    berth.assert_discarded(&[&own, &foreign]);
    assert_eq!(berth.sees(&name, "cat /own"), "own\n");
}

#[test]
fn another_snapshotter_needs_no_blobs() {
    let Some(berth) = Discarding::start() else { return };
    let mut from = Registry::start();
    let image = foreign("demo:1");
    from.push(&image);
    let name = from.reference("demo:1");
    berth.engine().cli(&["pull", &name]).success();
    from.stop();
    let digest = berth.sees(&name, "sha256sum /noise /text /bin/busybox");
    for snapshotter in ["overlayfs", "native"] {
        let label = format!("containerd.io/defaults/snapshotter={snapshotter}");
        let namespace = berth.engine().namespace();
        berth.engine().ctr(&["namespaces", "label", namespace, &label]).success();
        assert_eq!(berth.sees(&name, "sha256sum /noise /text /bin/busybox"), digest);
    }
    berth.assert_discarded(&[&image]);
}

/// The images of layers, by what they hold.
fn image_with(engine: &Engine, bytes: &[u8]) -> (PathBuf, u64) {
    let layers = fs::read_dir(engine.root().join("snapshots/erofs")).unwrap();
    for layer in layers.map(|layer| layer.unwrap().path().join("layer.erofs")) {
        let Ok(content) = fs::read(&layer) else { continue };
        if let Some(at) = content.windows(bytes.len()).position(|window| window == bytes) {
            return (layer, at as u64);
        }
    }
    panic!("no image holds it");
}

#[test]
fn a_damaged_image_makes_no_layer() {
    let Some(berth) = Discarding::start() else { return };
    let (mut from, to) = (Registry::start(), Registry::start());
    let image = own("own:1");
    from.push(&image);
    let name = from.reference("own:1");
    berth.engine().cli(&["pull", &name]).success();
    let (layer, at) = image_with(berth.engine(), &berth_tests::noise(7, 64));
    let file = File::options().read(true).write(true).open(layer).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at + 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at + 1000).unwrap();

    // As long as the registry has the layer, it is fetched.
    assert!(!berth.export(&name).unwrap().is_empty());
    from.stop();
    let lost = berth.push(&name, &to.reference("own:1")).unwrap_err();
    assert_eq!(lost.code(), Code::DataLoss, "{lost}");
    assert!(lost.message().contains("is damaged"), "{lost}");
    file.write_all_at(&byte, at + 1000).unwrap();
    berth.push(&name, &to.reference("own:1")).unwrap();
}

#[test]
fn the_option_counts_from_the_next_pull_on() {
    let Some(berth) = Discarding::with("version = 3\n") else { return };
    let from = Registry::start();
    let image = foreign("demo:1");
    from.push(&image);
    let name = from.reference("demo:1");
    berth.engine().cli(&["pull", &name]).success();
    let all = berth.blobs();
    assert!(all.1 > MIB as u64);
    let fetched = from.blob_fetches();

    let berth = berth.configured(DISCARD);
    assert_eq!(berth.blobs(), all);
    berth.engine().cli(&["pull", &name]).success();
    berth.assert_discarded(&[&image]);
    assert_eq!(from.blob_fetches(), fetched);

    let berth = berth.configured("version = 3\n");
    berth.engine().cli(&["pull", &name]).success();
    assert_eq!(berth.blobs(), all);
    assert_eq!(from.blob_fetches(), fetched + image.layers().len());
    berth.engine().cli(&["rmi", &name]).success();
    assert_eq!(berth.blobs(), (Vec::new(), 0));
    assert_eq!(berth.engine().snapshots(), 0);
}

#[test]
fn a_repair_brings_no_discarded_blobs_back() {
    let Some(discarding) = Discarding::start() else { return };
    let registry = Registry::start();
    let image = foreign("one");
    registry.push(&image);
    let name = registry.reference("one");
    let engine = discarding.engine();
    engine.cli(&["pull", &name]).success();
    discarding.assert_discarded(&[&image]);
    let mended = |found: &str| {
        let check = engine.cli(&["system", "check"]).exited(1).stdout;
        assert!(check.contains(found), "{check}");
        engine.cli(&["system", "check", "--repair"]).success();
        engine.cli(&["system", "check"]).success();
        discarding.assert_discarded(&[&image]);
    };
    for document in [image.config_document(), image.manifest()] {
        let digest = Digest::of(&document).to_string();
        engine.ctr(&["content", "rm", &digest]).success();
        mended(&format!("blob {digest}: missing"));
    }
    let (layer, _) = image_with(engine, b"own\n");
    fs::write(layer, "").unwrap();
    mended("zero bytes");
    assert_eq!(discarding.sees(&name, "cat /own"), "own\n");
}
