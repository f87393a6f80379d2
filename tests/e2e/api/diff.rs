//! What makes layers of blobs that are none: programs, and differs of other processes.

use std::io::Read;

use berth_proto::containerd::services::diff::v1::ApplyRequest;
use berth_proto::containerd::services::diff::v1::diff_client::DiffClient;
use berth_proto::containerd::types::{Descriptor, Mount};
use berth_tests::{Engine, Finished, Layer};
use berth_types::Digest;
use tonic::Code;

use super::{Api, code};

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
fn apply(api: &Api, letters: &[u8], to: &std::path::Path) -> ApplyRequest {
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
