//! Kills a process at many points of a pull and of a collection, and looks at what is left: an
//! image is there as a whole or not at all, and the next pull works and fetches nothing twice.
//!
//! The points are system calls: strace kills the process as one of its threads enters the n-th of
//! a kind. Run with `--victim` this program is that process. The environment may name the
//! snapshotter, as for the other tests of pulls.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed step fails the test")]

#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../../../registry/tests/registry/support/docker.rs"]
mod docker;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../pull/fixture.rs"]
mod fixture;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../../../registry/tests/registry/support/hostile.rs"]
mod hostile;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../pull/image.rs"]
mod image;
mod inspect;
#[allow(dead_code, reason = "shared with the other tests")]
#[path = "../pull/served.rs"]
mod served;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;

use berth_pull::Blobs;
use berth_types::Digest;

use crate::fixture::{Fixture, NAMESPACE, snapshotter};
use crate::hostile::Server;
use crate::image::{TestImage, layered};
use crate::served::{answer, parts};

/// Kinds of system calls, and which of them kills.
const POINTS: &[(&str, &[u32])] = &[
    // Asking the registry, and reading from it.
    ("connect", &[1, 2]),
    ("recvfrom", &[1, 3, 6]),
    // Blobs and files written, rows written.
    ("pwrite64", &[1, 2, 4, 8, 16, 32]),
    // Blobs and the database on the disk.
    ("fdatasync", &[2, 3, 4, 5]),
    ("fsync", &[1, 2, 3, 4]),
    ("renameat2", &[1]),
    // Trees made.
    ("mkdir", &[1, 4, 8]),
    ("fsmount", &[1]),
    ("utimensat", &[1]),
    ("syncfs", &[1]),
    // Between the pull and the removal.
    ("getpgid", &[1]),
    // Trees and blobs removed, by the pull itself and by the collection that follows.
    ("unlinkat", &[1, 2, 5]),
    ("unlink", &[1]),
];

/// The same, only where layers are directories.
const DIRECTORIES: &[(&str, &[u32])] = &[
    ("mkdirat", &[1]),
    ("mknodat", &[1]),
    ("fsetxattr", &[1]),
    ("linkat", &[1]),
    ("utimensat", &[5]),
    ("syncfs", &[2]),
];

/// The same, only where layers are images: as they are completed, looked into and synced.
const IMAGES: &[(&str, &[u32])] = &[("ftruncate", &[1, 2]), ("fsmount", &[2])];

/// Where a pull that drops the blobs of layers is another one.
const DISCARDING: &[(&str, &[u32])] = &[
    ("pwrite64", &[4, 16, 32]),
    ("fdatasync", &[3, 5]),
    ("getpgid", &[1]),
    ("unlinkat", &[1, 2]),
    ("unlink", &[1]),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.as_slice() {
        [mode, blobs, root, reference] if mode == "--victim" => {
            let blobs = if blobs == "Discard" { Blobs::Discard } else { Blobs::Keep };
            runtime.block_on(live(Path::new(root), reference, blobs));
        }
        _ => runtime.block_on(async {
            let own = if snapshotter() == "erofs" { IMAGES } else { DIRECTORIES };
            kill_at_all_points(Blobs::Keep, POINTS.iter().chain(own)).await;
            kill_at_all_points(Blobs::Discard, DISCARDING).await;
        }),
    }
}

/// What the victim does: pulls an image, and removes it.
async fn live(root: &Path, reference: &str, blobs: Blobs) {
    let fixture = Fixture::open(root, blobs).await;
    fixture.pull(reference).await.unwrap();
    // A call that nothing else makes, to be killed at when the image is there.
    rustix::process::getpgid(None).unwrap();
    fixture.scope(NAMESPACE).images().delete(reference, None).await.unwrap();
    fixture.metadata.collect().await.unwrap();
}

async fn kill_at_all_points(
    blobs: Blobs,
    points: impl IntoIterator<Item = &'static (&'static str, &'static [u32])>,
) {
    let image = layered();
    let all = parts(&image);
    let server = Server::start(move |request, _| answer(&all, request)).await;
    let reference = format!("{}/a:v1", server.domain);
    let mut whole = 0;
    for (call, numbers) in points {
        for number in *numbers {
            println!("kill at {call} {number}, {blobs:?}");
            let root = tempfile::tempdir().unwrap();
            kill_at(call, *number, root.path(), &reference, blobs);
            let fixture = Fixture::open(root.path(), blobs).await;
            whole += usize::from(inspect::is_whole(&fixture).await);
            pull_again(&fixture, &server, &image, &reference).await;
        }
    }
    assert!(whole > 0, "no point came after the image was there");
}

fn kill_at(call: &str, number: u32, root: &Path, reference: &str, blobs: Blobs) {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")])
        .args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")])
        .arg(std::env::current_exe().unwrap())
        .args(["--victim", &format!("{blobs:?}")])
        .args([root.as_os_str(), reference.as_ref()])
        .status()
        .expect("strace is installed");
    assert_eq!(status.signal(), Some(9), "there is no {call} number {number}: {status}");
}

/// Pulls what was interrupted: blobs that are there are not fetched, and nothing else is left.
async fn pull_again(fixture: &Fixture, server: &Server, image: &TestImage, reference: &str) {
    let there = inspect::blobs(fixture);
    let asked_before = server.requests().len();
    fixture.pull(reference).await.unwrap();
    assert!(inspect::is_whole(fixture).await);
    let requests = server.requests().split_off(asked_before);
    for request in requests.iter().filter(|request| request.method == "GET") {
        let again = there.iter().any(|digest| request.path.ends_with(digest.as_str()));
        assert!(!again, "{} is fetched again", request.path);
    }
    fixture.metadata.collect().await.unwrap();
    let documents = [&image.manifest, &image.config].map(|bytes| Digest::of(bytes));
    let kept = if fixture.blobs == Blobs::Keep { &image.layers[..] } else { &[] };
    let layers = kept.iter().map(|layer| layer.descriptor().digest);
    let expected: BTreeSet<_> = layers.chain(documents).collect();
    assert_eq!(inspect::blobs(fixture), expected);
    assert_eq!(fixture.snapshots().await.len(), image.layers.len());
    assert_eq!(fixture.content.statuses(|_| true).unwrap(), []);
    assert_eq!(fixture.scope(NAMESPACE).leases().list(&[]).unwrap(), []);
}
