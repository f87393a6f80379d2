//! Labels beside those that Debian's containerd leaves after a pull of the same image.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_types::image::media_type;
use serde_json::json;
use tempfile::TempDir;

use crate::docker::{DockerRegistry, Options};
use crate::fixture::{Fixture, NAMESPACE, snapshotter};
use crate::image::{LayerBuilder, TestImage};

/// Labels by digest or key.
type Labels = BTreeMap<String, BTreeSet<String>>;

/// A containerd on scratch directories. It ends with this value.
struct Containerd {
    process: Child,
    directory: TempDir,
}

impl Containerd {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let process = Command::new("containerd")
            .args(["--config", "/dev/null", "--root"])
            .arg(at("root"))
            .arg("--state")
            .arg(at("state"))
            .arg("--address")
            .arg(at("socket"))
            .stderr(Stdio::null())
            .spawn()
            .expect("containerd is installed");
        let started = Self { process, directory };
        let begun = Instant::now();
        while UnixStream::connect(started.socket()).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(60), "containerd takes no connections");
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    fn ctr(&self, arguments: &[&str]) -> String {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", NAMESPACE])
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it has of each blob, from the last column of the listing.
    fn labels_of_content(&self) -> Labels {
        let listing = self.ctr(&["content", "ls"]);
        let rows = listing.lines().skip(1).map(|row| {
            let columns: Vec<_> = row.split('\t').filter(|column| !column.is_empty()).collect();
            let labels = columns.last().unwrap().split(',').map(str::to_owned).collect();
            (columns[0].to_owned(), labels)
        });
        rows.collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn labels_of_content(fixture: &Fixture) -> Labels {
    let infos = fixture.scope(NAMESPACE).content().list(&[]).unwrap();
    let labelled = infos.into_iter().map(|info| {
        let labels = info.labels.iter().map(|(key, value)| format!("{key}={value}"));
        (info.digest, labels.collect())
    });
    labelled.collect()
}

#[tokio::test]
async fn labels_are_containerds() {
    let registry = DockerRegistry::start(Options::default());
    let image = |architecture: &str| {
        let layer = |name: &str| LayerBuilder::new().file(name, architecture.as_bytes()).end();
        TestImage::new(architecture, vec![layer("a").gzip(), layer("b").gzip(), layer("c")])
    };
    let (arm, amd) = (image("arm64"), image("amd64"));
    arm.push(&registry, "some/image").await;
    let reference = amd.push(&registry, "some/image").await;
    let index = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [arm.entry("linux/arm64"), amd.entry("linux/amd64")],
    });
    let index = serde_json::to_vec(&index).unwrap();
    registry.put_manifest("some/image", "v1", media_type::OCI_INDEX, &index).await;

    let containerd = Containerd::start();
    let platform = ["--platform", "linux/amd64"];
    containerd.ctr(&[&["images", "pull", "--plain-http"], &platform[..], &[&reference]].concat());
    let theirs = containerd.labels_of_content();
    // The snapshotters need not be the same.
    let kept_by = |name| format!("containerd.io/gc.ref.snapshot.{name}=");
    let ours = kept_by(snapshotter());
    let renamed = |label: String| label.replace(&kept_by("overlayfs"), &ours);
    let theirs: Labels = theirs
        .into_iter()
        .map(|(digest, labels)| (digest, labels.into_iter().map(renamed).collect()))
        .collect();
    let fixture = Fixture::new().await;
    fixture.pull(&reference).await.unwrap();
    assert_eq!(labels_of_content(&fixture).await, theirs);

    let keys = |listing: &str| -> BTreeSet<String> {
        listing.lines().map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    };
    let mut theirs = keys(&containerd.ctr(&["snapshots", "ls"]));
    theirs.remove("KEY");
    let ours = fixture.snapshots().await;
    assert!(ours.iter().all(|info| info.labels.is_empty()));
    assert_eq!(ours.into_iter().map(|info| info.key).collect::<BTreeSet<_>>(), theirs);
    let names = keys(&containerd.ctr(&["images", "ls", "--quiet"]));
    let images = fixture.scope(NAMESPACE).images().list(&[]).unwrap();
    assert!(images.iter().all(|image| image.labels.is_empty()));
    assert_eq!(images.into_iter().map(|image| image.name).collect::<BTreeSet<_>>(), names);
}
