//! What makes layers of blobs that are none: programs, and differs of other processes.

use std::io::Read;
use std::path::Path;

use berth_proto::containerd::services::diff::v1::diff_client::DiffClient;
use berth_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use berth_proto::containerd::types::{Descriptor, Mount};
use berth_tests::{Engine, Finished, Flavor, Layer};
use berth_types::Digest;
use tonic::Code;

use super::content::keep;
use super::{Api, code, labels};

/// A layer in letters.
const LETTERS: &str = "application/vnd.example.layer.base64";

/// berth's daemon with a program that makes layers of letters; Debian's containerd ends such a
/// program before it has read all.
fn reading_letters() -> Option<Engine> {
    let mut engine = Engine::prepare()?;
    engine.configure(&format!(
        "version = 2\n[stream_processors.\"example.letters\"]\naccepts = [{LETTERS:?}]\n\
         returns = \"application/vnd.oci.image.layer.v1.tar\"\npath = \"/usr/bin/base64\"\n\
         args = [\"-d\"]\n"
    ));
    engine.start_daemon();
    Some(engine)
}

fn letters() -> (Layer, Vec<u8>) {
    let layer = Layer::of_files(&[("greeting", b"hello")]);
    let text = Finished::run("base64", &["-w0"], layer.blob()).success().stdout;
    (layer, text.into_bytes())
}

/// A request to apply what is in letters to a directory.
fn apply(api: &Api, letters: &[u8], to: &Path) -> ApplyRequest {
    api.engine.ctr_with_input(&["content", "ingest", "letters"], letters).success();
    let diff = Descriptor {
        media_type: LETTERS.into(),
        digest: Digest::of(letters).to_string(),
        size: letters.len() as i64,
        ..Descriptor::default()
    };
    let mount = Mount {
        r#type: "bind".into(),
        source: to.to_str().unwrap().into(),
        options: vec!["rbind".into(), "rw".into()],
        ..Mount::default()
    };
    ApplyRequest { diff: Some(diff), mounts: vec![mount], ..ApplyRequest::default() }
}

#[tokio::test]
async fn diff_programs_make_layers_of_what_they_accept() {
    let Some(engine) = reading_letters() else { return };
    let api = Api::of(engine).await;
    let (layer, text) = letters();
    let directory = tempfile::tempdir().unwrap();
    let request = apply(&api, &text, directory.path());
    let mut client = api.client(DiffClient::new);
    let applied = client.apply(api.request(request)).await.unwrap().into_inner().applied.unwrap();
    assert_eq!(std::fs::read(directory.path().join("greeting")).unwrap(), b"hello");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(layer.blob()).read_to_end(&mut bytes).unwrap();
    assert_eq!(applied.digest, Digest::of(&bytes).to_string());

    let broken = b"no letters at all!".to_vec();
    let request = apply(&api, &broken, directory.path());
    let error = client.apply(api.request(request)).await.unwrap_err();
    assert!(error.message().contains("base64"), "{error}");
}

#[tokio::test]
async fn diff_proxies_are_asked_for_what_is_not_built_in() {
    let Some(differ) = reading_letters() else { return };
    let differ = Api::of(differ).await;
    let Some(mut engine) = Engine::prepare() else { return };
    engine.configure(&format!(
        "[proxy_plugins.other]\ntype = \"diff\"\naddress = {:?}\n",
        differ.engine.address()
    ));
    engine.start_daemon();
    let api = Api::of(engine).await;
    let (_, text) = letters();
    let directory = tempfile::tempdir().unwrap();
    let request = apply(&api, &text, directory.path());
    let mut client = api.client(DiffClient::new);
    // It has a content store of its own.
    let missing = client.apply(api.request(request.clone())).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound, "{missing}");
    assert!(missing.message().contains("differ other"), "{missing}");
    let there = ["--namespace", api.engine.namespace(), "content", "ingest", "letters"];
    differ.engine.ctr_with_input(&there, &text).success();
    client.apply(api.request(request.clone())).await.unwrap();
    assert_eq!(std::fs::read(directory.path().join("greeting")).unwrap(), b"hello");

    let mut unknown = request;
    unknown.diff.as_mut().unwrap().media_type = "application/vnd.example.other".into();
    assert_eq!(code(client.apply(api.request(unknown)).await), Code::Unimplemented);
}

/// The tree `directory` as one mount.
fn bound(directory: &Path, access: &str) -> Mount {
    Mount {
        r#type: "bind".into(),
        source: directory.to_str().unwrap().into(),
        options: vec!["rbind".into(), access.into()],
        ..Mount::default()
    }
}

fn sh(directory: &Path, script: &str) -> String {
    let script = format!("set -e; cd {}; {script}", directory.display());
    Finished::run("sh", &["-c", &script], b"").success().stdout
}

/// Names, kinds, modes, owners, links, sizes and times of all that is in a tree, and what is in it.
fn contents(directory: &Path) -> String {
    let files = "find . -mindepth 1 -printf '%P|%y|%m|%U|%G|%l|%n|' \
                 \\( -type f -printf '%s|%T@' -o -type l -printf '' -o -printf '' \\) -printf '\\n'";
    let digests = "find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";
    let attributes = "getfattr -R -h -d -m - -e hex . 2>/dev/null || true";
    sh(directory, &format!("{files} | LC_ALL=C sort; {digests}; {attributes}"))
}

/// A part of this machine's own root file system, changed in every way that there is, becomes a
/// layer, which makes the one of the other again.
#[tokio::test]
async fn diffs_of_two_trees_and_back() {
    let api = Api::start().await;
    keep(&api).await;
    let directory = tempfile::tempdir().unwrap();
    let [lower, upper] = ["lower", "upper"].map(|name| directory.path().join(name));
    std::fs::create_dir(&lower).unwrap();
    let parts =
        "etc usr/lib/x86_64-linux-gnu/perl-base usr/share/zoneinfo/Europe var/lib/dpkg/info";
    sh(&lower, &format!("for part in {parts}; do mkdir -p $part; cp -a /$part/. $part; done"));
    sh(
        &lower,
        "ln etc/passwd etc/linked; mkfifo pipe; mknod null c 1 3; mkdir -p gone/below old/dir",
    );
    sh(
        &lower,
        "rm -f etc/resolv.conf; echo 1 > old/dir/file; echo 2 > kind; touch -d @7 etc/passwd",
    );
    sh(directory.path(), "cp -a lower upper; cp -a lower made");
    sh(&upper, "rm -r gone etc/linked null; rm kind; mkdir kind; echo 3 > kind/inside; rm -r old");
    sh(
        &upper,
        "mkdir old; echo 4 > old/new; chmod 4711 var/lib/dpkg/info/l*; chown 7:8 etc/passwd",
    );
    sh(&upper, "ln -s nowhere dangling; echo x >> etc/hosts; touch -h -d @99 etc/os-release");
    sh(&upper, "ln etc/hosts etc/hosts-again");
    // containerd tells times by the second, and of attributes capabilities alone.
    let second = match api.engine.flavor() {
        Flavor::Berth => {
            sh(&upper, "setfattr -n user.test -v yes etc/hosts");
            "88.123456789"
        }
        Flavor::Containerd => "88",
    };
    let changed = "etc/hosts kind/inside old/new var/lib/dpkg/info/l*";
    sh(&upper, &format!("touch -d @{second} {changed}"));
    let expected = contents(&upper);
    assert_ne!(expected, contents(&lower));

    let mut client = api.client(DiffClient::new);
    let gzip = "application/vnd.oci.image.layer.v1.tar+gzip";
    let kinds = match api.engine.flavor() {
        Flavor::Berth => &[gzip, "application/vnd.oci.image.layer.v1.tar+zstd"][..],
        // Debian's containerd reads zstd but does not write it.
        Flavor::Containerd => &[gzip],
    };
    for (number, kind) in kinds.iter().enumerate() {
        let request = DiffRequest {
            left: vec![bound(&lower, "ro")],
            right: vec![bound(&upper, "ro")],
            media_type: kind.to_string(),
            r#ref: format!("diff-{number}"),
            labels: labels(&[("a", "1")]),
            ..DiffRequest::default()
        };
        let diff =
            client.diff(api.leased("work", request)).await.unwrap().into_inner().diff.unwrap();
        assert_eq!(diff.media_type, *kind);
        let tree = directory.path().join(format!("made-{number}"));
        sh(directory.path(), &format!("cp -a made {}", tree.display()));
        let mounts = vec![bound(&tree, "rw")];
        let request = ApplyRequest { diff: Some(diff), mounts, ..ApplyRequest::default() };
        client.apply(api.request(request)).await.unwrap();
        let made = contents(&tree);
        let different =
            made.lines().zip(expected.lines()).find(|(made, expected)| made != expected);
        assert!(made == expected, "{kind}: {different:?}");
    }
}
