//! What a namespace gets for a digest alone: by containerd's default policy what any namespace has,
//! by the other one what a namespace's label opens to all.

use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    InfoRequest, WriteAction, WriteContentRequest,
};
use berth_tests::{Engine, Flavor};
use berth_types::Digest;
use tonic::{Code, Status};

use super::{Api, code, labels};

const BYTES: &[u8] = b"what one namespace has";

/// One session with one request, in a namespace.
async fn write(api: &Api, namespace: &str, request: WriteContentRequest) -> Result<i64, Status> {
    let mut client = api.client(ContentClient::new);
    let requests = tokio_stream::iter([request]);
    let mut answers = client.write(api.request_in(namespace, requests)).await?.into_inner();
    Ok(answers.message().await?.unwrap().offset)
}

/// How much of the blob a namespace need not send any more.
async fn is_there(api: &Api, namespace: &str) -> i64 {
    let stat = WriteContentRequest {
        action: WriteAction::Stat.into(),
        r#ref: "share".into(),
        total: BYTES.len() as i64,
        expected: Digest::of(BYTES).to_string(),
        ..Default::default()
    };
    write(api, namespace, stat).await.unwrap()
}

fn commit(data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: "share".into(),
        total: BYTES.len() as i64,
        expected: Digest::of(BYTES).to_string(),
        data: data.to_vec().into(),
        labels: labels(&[("containerd.io/gc.root", "now")]),
        ..Default::default()
    }
}

async fn has(api: &Api, namespace: &str) -> bool {
    let info = api.request_in(namespace, InfoRequest { digest: Digest::of(BYTES).to_string() });
    code(api.client(ContentClient::new).info(info).await) == Code::Ok
}

#[tokio::test]
async fn namespaces_share_content() {
    let api = Api::start().await;
    write(&api, "one", commit(BYTES)).await.unwrap();
    assert_eq!(is_there(&api, "two").await, BYTES.len() as i64);
    assert!(!has(&api, "two").await, "before it is asked for");
    write(&api, "two", WriteContentRequest { offset: BYTES.len() as i64, ..commit(b"") })
        .await
        .unwrap();
    assert!(has(&api, "two").await);
}

#[tokio::test]
async fn isolated_namespaces_share_what_a_label_opens() {
    let mut engine = Engine::prepare_any();
    engine.configure(
        "version = 2\n[plugins.\"io.containerd.metadata.v1.bolt\"]\n\
         content_sharing_policy = \"isolated\"\n",
    );
    engine.start_daemon();
    let api = Api::of(engine).await;
    write(&api, "one", commit(BYTES)).await.unwrap();
    assert_eq!(is_there(&api, "two").await, 0);
    let refused = write(&api, "two", commit(b"")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(!has(&api, "two").await);
    write(&api, "two", commit(BYTES)).await.unwrap();
    assert!(has(&api, "two").await);

    if api.engine.flavor() == Flavor::Containerd {
        return; // Debian's is older than the label.
    }
    let label = "containerd.io/namespace.shareable=true";
    api.engine.ctr(&["namespaces", "label", "one", label]).success();
    assert_eq!(is_there(&api, "three").await, BYTES.len() as i64);
    write(&api, "three", WriteContentRequest { offset: BYTES.len() as i64, ..commit(b"") })
        .await
        .unwrap();
    assert!(has(&api, "three").await);
}
