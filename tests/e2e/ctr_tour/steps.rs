//! What is typed on the tour.

use std::fs;

use berth_tests::{Image, Layer, wait_until};
use berth_types::Digest;

use super::Tour;

const BUSYBOX: &str = "docker.io/library/busybox:latest";

/// An image of two layers.
fn image(name: &str) -> Image {
    Image::busybox(name).layer(Layer::of_files(&[("etc/second", b"layer\n")]))
}

pub(super) fn namespaces(tour: &mut Tour) {
    tour.ctr("namespaces create second a=b");
    tour.ctr("namespaces create second");
    tour.ctr("namespaces create ../x");
    tour.ctr("namespaces ls");
    tour.ctr("namespaces label second a=");
    tour.ctr("namespaces label second c=d");
    tour.ctr("namespaces ls");
    tour.ctr("namespaces ls -q");
    tour.ctr("namespaces rm second");
    tour.ctr("namespaces rm second");
    tour.ctr("namespaces rm never");
}

pub(super) fn images(tour: &mut Tour, pulled: &str) {
    let archive = tour.file("image.tar");
    fs::write(&archive, image(BUSYBOX).archive()).unwrap();
    tour.ctr(&format!("images import {archive}"));
    tour.ctr("images ls");
    tour.ctr("images ls -q");
    tour.ctr("images ls name~=nothing");
    tour.ctr("images ls name=");
    tour.ctr("images check");
    tour.ctr(&format!("images label {BUSYBOX} a=b c=d"));
    tour.ctr(&format!("images label {BUSYBOX} a="));
    tour.ctr("images label nobody a=b");
    tour.ctr("images ls labels.c==d");
    tour.ctr(&format!("images tag {BUSYBOX} example.com/other:1"));
    tour.ctr(&format!("images tag {BUSYBOX} example.com/other:1"));
    tour.ctr(&format!("images tag --force {BUSYBOX} example.com/other:1"));
    tour.ctr("images tag nobody example.com/other:2");
    tour.ctr("images rm example.com/other:1 nobody");
    let exported = tour.file("exported.tar");
    tour.ctr(&format!("images export {exported} {BUSYBOX}"));
    tour.ctr(&format!("images export {exported} nobody"));
    tour.ctr(&format!("images import --base-name example.com/again {exported}"));
    tour.ctr(&format!("images convert --oci --uncompress {BUSYBOX} example.com/flat:1"));
    tour.ctr("images ls -q");
    let mounted = tour.file("mounted");
    fs::create_dir(&mounted).unwrap();
    tour.ctr(&format!("images mount {BUSYBOX} {mounted}"));
    assert_eq!(fs::read(format!("{mounted}/etc/second")).unwrap(), b"layer\n");
    tour.ctr(&format!("images unmount --rm {mounted}"));
    tour.ctr(&format!("images tag {BUSYBOX} {pulled}"));
    tour.ctr(&format!("images push --plain-http {pulled}"));
    tour.ctr(&format!("images rm --sync {pulled}"));
    tour.ctr(&format!("images pull --plain-http {pulled}"));
    tour.ctr(&format!("images pull --plain-http {pulled}-missing"));
    tour.ctr(&format!("images rm --sync {pulled} example.com/flat:1"));
    tour.ctr("images ls");
}

pub(super) fn content(tour: &mut Tour, pulled: &str) {
    tour.ctr("content ls");
    tour.ctr("content ls -q");
    let config = Digest::of(&image(BUSYBOX).config_document());
    tour.ctr(&format!("content get {config}"));
    tour.ctr(&format!("content label {config} a=b"));
    tour.ctr("content ls labels.a==b");
    tour.ctr(&format!("content label {config} a="));
    let zeros = format!("sha256:{}", "0".repeat(64));
    tour.ctr(&format!("content get {zeros}"));
    tour.ctr("content get sha256:short");
    tour.ctr(&format!("content label {zeros} a=b"));
    tour.ctr(&format!("content rm {zeros}"));
    tour.ctr_with_input("content ingest loose", b"loose bytes");
    tour.ctr_with_input("content ingest loose", b"loose bytes");
    tour.ctr_with_input("content ingest --expected-size 3 wrong", b"four");
    tour.ctr_with_input(&format!("content ingest --expected-digest {zeros} wrong2"), b"four");
    tour.ctr("content active");
    let loose = Digest::of(b"loose bytes");
    tour.ctr(&format!("content get {loose}"));
    tour.ctr(&format!("content rm {loose}"));
    tour.ctr(&format!("content rm {loose}"));
    tour.ctr(&format!("content fetch --plain-http {pulled}"));
    tour.ctr(&format!("images rm --sync {pulled}"));
    tour.ctr("content prune references --dry");
}

pub(super) fn leases(tour: &mut Tour) {
    tour.ctr("leases create --id mine --expires 0 a=b");
    tour.ctr("leases create --id mine");
    tour.ctr("leases ls");
    tour.ctr("leases ls -q");
    tour.ctr("leases ls id==other");
    tour.ctr("leases rm mine");
    tour.ctr("leases rm --sync mine");
}

pub(super) fn snapshots(tour: &mut Tour) {
    tour.ctr("snapshots ls");
    tour.ctr("snapshots tree");
    tour.ctr("snapshots prepare empty");
    tour.ctr("snapshots prepare empty");
    tour.ctr("snapshots prepare child nobody");
    tour.ctr("snapshots info empty");
    tour.ctr("snapshots info nobody");
    tour.ctr("snapshots mounts /target empty");
    tour.ctr("snapshots mounts /target nobody");
    tour.ctr("snapshots label empty a=b");
    tour.ctr("snapshots commit one empty");
    tour.ctr("snapshots commit two empty");
    tour.ctr("snapshots prepare work one");
    tour.ctr("snapshots prepare child work");
    tour.ctr("snapshots mounts /target work");
    tour.ctr("snapshots mounts /target work");
    tour.ctr("snapshots info one");
    tour.ctr("snapshots ls");
    tour.ctr("snapshots tree");
    tour.ctr("snapshots usage work");
    tour.ctr("snapshots diff --media-type application/vnd.oci.image.layer.v1.tar work one");
    tour.ctr("snapshots rm one");
    tour.ctr("snapshots rm work one");
    tour.ctr("snapshots rm one");
    tour.ctr("snapshots --snapshotter nobodys ls");
}

pub(super) fn containers(tour: &mut Tour) {
    tour.ctr(&format!("containers create --label a=b {BUSYBOX} c sleep 1000"));
    tour.ctr(&format!("containers create {BUSYBOX} c sleep 1000"));
    tour.ctr(&format!("containers create {BUSYBOX} bad/id sleep 1000"));
    tour.ctr("containers create nobody d sleep 1000");
    tour.ctr("containers ls");
    tour.ctr("containers ls -q");
    tour.ctr("containers ls labels.a==b");
    tour.ctr("containers label c x=y a=");
    tour.ctr("containers info nobody");
    tour.ctr("containers rm nobody");
}

pub(super) fn tasks(tour: &mut Tour) {
    tour.ctr("tasks ls -q");
    tour.ctr("tasks exec --exec-id e c true");
    tour.ctr("tasks kill c");
    tour.ctr("tasks start nobody");
    tour.ctr("tasks start -d c");
    tour.ctr("tasks start -d c");
    tour.ctr("tasks ls -q");
    tour.ctr("tasks exec --exec-id e c false");
    tour.ctr("tasks exec --exec-id e c echo out");
    tour.ctr("tasks exec --exec-id e c no-such-command");
    tour.ctr("tasks exec --exec-id bad/id c true");
    tour.ctr("tasks rm c");
    tour.ctr("containers rm c");
    tour.ctr("tasks pause c");
    tour.ctr("tasks resume c");
    tour.ctr("tasks metrics nobody");
    tour.ctr("tasks ps nobody");
    tour.ctr("tasks kill nobody");
    tour.ctr("tasks kill --exec-id nothing c");
    tour.ctr("tasks kill -s NOSUCH c");
    tour.ctr("tasks kill -s KILL c");
    let tour_ref: &Tour = tour;
    wait_until("the end of the task", || tour_ref.quietly("tasks ls").stdout.contains("STOPPED"));
    tour.ctr("tasks kill c");
    tour.ctr("tasks exec --exec-id e c true");
    tour.ctr("tasks pause c");
    tour.ctr("tasks rm c");
    tour.ctr("tasks rm c");
    tour.ctr("containers rm c");
    tour.ctr("containers ls");
    tour.ctr(&format!("run --rm {BUSYBOX} r echo out"));
    tour.ctr(&format!("run --rm {BUSYBOX} r false"));
    tour.ctr(&format!("run --rm {BUSYBOX} r /etc/second"));
    tour.ctr(&format!("run --rm --env A=b --cwd /tmp {BUSYBOX} r env"));
    tour.ctr(&format!("run --rm --read-only --memory-limit 67108864 {BUSYBOX} r touch /x"));
    tour.ctr(&format!("run --rm --runtime io.containerd.nobodys.v9 {BUSYBOX} r true"));
    tour.ctr(&format!("run --rm --runtime nobodys {BUSYBOX} r true"));
    tour.ctr("containers ls -q");
}

pub(super) fn last(tour: &mut Tour) {
    // What is garbage goes at different times.
    tour.ctr("leases create --id sweep");
    tour.ctr("leases rm --sync sweep");
    tour.ctr("content ls -q");
    tour.ctr("snapshots ls");
    tour.ctr("images ls -q");
    tour.ctr(&format!("images rm --sync docker.io/library/none:1 {BUSYBOX}"));
    tour.ctr("content ls -q");
    tour.ctr("snapshots ls");
}
