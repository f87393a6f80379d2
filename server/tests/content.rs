//! Content as clients write and read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod daemon;

use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    AbortRequest, Info, InfoRequest, ListStatusesRequest, ReadContentRequest, StatusRequest,
    UpdateRequest, WriteAction, WriteContentRequest, WriteContentResponse,
};
use berth_types::Digest;
use daemon::{Daemon, in_namespace};
use prost_types::FieldMask;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

type Client = ContentClient<Channel>;

/// A write session that is still open.
struct Session {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
}

impl Session {
    async fn open(client: &mut Client, namespace: &str) -> Self {
        let (requests, receiver) = mpsc::channel(1);
        let request = in_namespace(namespace, ReceiverStream::new(receiver));
        Self { requests, responses: client.write(request).await.unwrap().into_inner() }
    }

    async fn ask(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        self.requests.send(request).await.ok();
        self.responses.message().await.map(|response| response.expect("the session ended"))
    }
}

fn request(action: WriteAction, reference: &str) -> WriteContentRequest {
    WriteContentRequest { action: action.into(), r#ref: reference.to_owned(), ..Default::default() }
}

fn commit(reference: &str, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        total: data.len() as i64,
        expected: Digest::of(data).to_string(),
        data: data.to_vec().into(),
        ..request(WriteAction::Commit, reference)
    }
}

/// Writes `data` as a blob in one message.
async fn put(client: &mut Client, namespace: &str, data: &[u8]) -> Result<(), Status> {
    let mut session = Session::open(client, namespace).await;
    session.ask(commit("put", data)).await.map(drop)
}

async fn read(
    client: &mut Client,
    digest: &Digest,
    offset: i64,
    size: i64,
) -> Result<Vec<u8>, Status> {
    let request = ReadContentRequest { digest: digest.to_string(), offset, size };
    let mut frames = client.read(in_namespace("default", request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(frame) = frames.message().await? {
        assert_eq!(frame.offset, bytes.len() as i64);
        bytes.extend_from_slice(&frame.data);
    }
    Ok(bytes)
}

async fn start() -> (Daemon, Client) {
    let daemon = Daemon::start();
    let client = ContentClient::new(daemon.channel().await);
    (daemon, client.max_decoding_message_size(16 << 20))
}

#[tokio::test]
async fn a_blob_written_in_pieces_is_read_back_whole_and_in_parts() {
    let (_daemon, mut client) = start().await;
    let data: Vec<u8> = (0..5_000_000u32).map(|number| (number / 7) as u8).collect();
    let digest = Digest::of(&data);
    let mut session = Session::open(&mut client, "default").await;
    let first = WriteContentRequest {
        total: data.len() as i64,
        expected: digest.to_string(),
        ..request(WriteAction::Stat, "pieces")
    };
    assert_eq!(session.ask(first).await.unwrap().offset, 0);
    for (index, piece) in data.chunks(1 << 20).enumerate() {
        let offset = (index << 20) as i64;
        let data = piece.to_vec().into();
        let write = WriteContentRequest { offset, data, ..request(WriteAction::Write, "pieces") };
        let response = session.ask(write).await.unwrap();
        assert_eq!(response.offset, offset + piece.len() as i64);
    }
    let last = WriteContentRequest {
        offset: data.len() as i64,
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..request(WriteAction::Commit, "pieces")
    };
    assert_eq!(session.ask(last).await.unwrap().digest, digest.as_str());
    // The last answer comes once more.
    let again = session.responses.message().await.unwrap().unwrap();
    assert_eq!(again.digest, digest.as_str());
    assert!(session.responses.message().await.unwrap().is_none());

    assert!(read(&mut client, &digest, 0, 0).await.unwrap() == data);
    assert_eq!(
        read(&mut client, &digest, 1_500_000, 10).await.unwrap(),
        data[1_500_000..1_500_010]
    );
    assert!(read(&mut client, &digest, 5_000_000, 1).await.unwrap().is_empty());
    let past = read(&mut client, &digest, 5_000_001, 1).await.unwrap_err();
    assert_eq!(past.code(), Code::OutOfRange);
    let asked = InfoRequest { digest: digest.to_string() };
    let info =
        client.info(in_namespace("default", asked)).await.unwrap().into_inner().info.unwrap();
    assert_eq!((info.size, info.labels["a"].as_str()), (5_000_000, "b"));
}

#[tokio::test]
async fn wrong_size_and_digest_commit_nothing() {
    let (_daemon, mut client) = start().await;
    let wrong_digest = WriteContentRequest {
        expected: Digest::of(b"other").to_string(),
        ..commit("wrong", b"data")
    };
    let wrong_size = WriteContentRequest { total: 3, ..commit("wrong", b"data") };
    for wrong in [wrong_digest, wrong_size] {
        let error = Session::open(&mut client, "default").await.ask(wrong).await.unwrap_err();
        assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    }
    let asked = InfoRequest { digest: Digest::of(b"data").to_string() };
    let error = client.info(in_namespace("default", asked)).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn an_interrupted_ingest_is_resumed_also_after_a_kill() {
    let (mut daemon, mut client) = start().await;
    let data = b"0123456789";
    let mut session = Session::open(&mut client, "default").await;
    let half = WriteContentRequest {
        total: 10,
        data: data[..4].to_vec().into(),
        ..request(WriteAction::Write, "resumed")
    };
    assert_eq!(session.ask(half).await.unwrap().offset, 4);
    drop((session, client));
    daemon.stop(rustix::process::Signal::KILL);
    daemon.boot();

    let mut client = ContentClient::new(daemon.channel().await);
    let status = StatusRequest { r#ref: "resumed".to_owned() };
    let status = client.status(in_namespace("default", status)).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().offset, 4);
    let mut session = Session::open(&mut client, "default").await;
    let resumed = session.ask(request(WriteAction::Stat, "resumed")).await.unwrap();
    assert_eq!((resumed.offset, resumed.digest), (4, Digest::of(b"0123").to_string()));
    let gap = WriteContentRequest { offset: 5, ..request(WriteAction::Write, "resumed") };
    assert_eq!(session.ask(gap).await.unwrap_err().code(), Code::OutOfRange);
    let mut session = Session::open(&mut client, "default").await;
    let rest = WriteContentRequest {
        offset: 4,
        data: data[4..].to_vec().into(),
        ..commit("resumed", data)
    };
    // The session before may not have let go of the ref yet.
    let mut answer = session.ask(rest.clone()).await;
    while answer.as_ref().is_err_and(|error| error.code() == Code::Unavailable) {
        session = Session::open(&mut client, "default").await;
        answer = session.ask(rest.clone()).await;
    }
    assert_eq!(answer.unwrap().digest, Digest::of(data).to_string());
}

#[tokio::test]
async fn one_writer_has_a_ref_and_an_abort_frees_it() {
    let (_daemon, mut client) = start().await;
    let mut first = Session::open(&mut client, "default").await;
    first.ask(request(WriteAction::Stat, "taken")).await.unwrap();
    let mut second = Session::open(&mut client, "default").await;
    let error = second.ask(request(WriteAction::Stat, "taken")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    let mut elsewhere = Session::open(&mut client, "other").await;
    elsewhere.ask(request(WriteAction::Stat, "taken")).await.unwrap();

    let list = |namespace| in_namespace(namespace, ListStatusesRequest::default());
    let found = client.list_statuses(list("default")).await.unwrap().into_inner().statuses;
    assert_eq!(found.iter().map(|status| &*status.r#ref).collect::<Vec<_>>(), ["taken"]);
    let abort = AbortRequest { r#ref: "taken".to_owned() };
    client.abort(in_namespace("default", abort.clone())).await.unwrap();
    let again = client.abort(in_namespace("default", abort)).await.unwrap_err();
    assert_eq!(again.code(), Code::NotFound);
    assert!(client.list_statuses(list("default")).await.unwrap().into_inner().statuses.is_empty());
}

#[tokio::test]
async fn a_blob_exists_once_and_namespaces_see_only_their_own() {
    let (_daemon, mut client) = start().await;
    put(&mut client, "default", b"shared").await.unwrap();
    let again = put(&mut client, "default", b"shared").await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
    let asked = InfoRequest { digest: Digest::of(b"shared").to_string() };
    let hidden = client.info(in_namespace("other", asked.clone())).await.unwrap_err();
    assert_eq!(hidden.code(), Code::NotFound);

    // Who names digest and size of a blob that is there need not send it again.
    let mut session = Session::open(&mut client, "other").await;
    let first = WriteContentRequest {
        total: 6,
        expected: asked.digest.clone(),
        ..request(WriteAction::Stat, "shared")
    };
    assert_eq!(session.ask(first).await.unwrap().offset, 6);
    let last = WriteContentRequest { offset: 6, ..request(WriteAction::Commit, "shared") };
    session.ask(last).await.unwrap();
    client.info(in_namespace("other", asked)).await.unwrap();
}

#[tokio::test]
async fn malformed_calls_are_refused_and_change_nothing() {
    let (_daemon, mut client) = start().await;
    put(&mut client, "default", b"data").await.unwrap();
    let digest = Digest::of(b"data").to_string();
    let no_namespace = client.info(InfoRequest { digest: digest.clone() }).await.unwrap_err();
    assert_eq!(no_namespace.code(), Code::FailedPrecondition);
    assert_eq!(no_namespace.message(), "namespace is required: failed precondition");
    let no_digest = InfoRequest { digest: "sha256:short".to_owned() };
    let error = client.info(in_namespace("default", no_digest)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let no_ref =
        Session::open(&mut client, "default").await.ask(request(WriteAction::Stat, "")).await;
    assert_eq!(no_ref.unwrap_err().code(), Code::InvalidArgument);

    let labels = [("a".to_owned(), "b".to_owned())].into();
    let update = UpdateRequest {
        info: Some(Info { digest: digest.clone(), labels, ..Default::default() }),
        update_mask: Some(FieldMask { paths: vec!["labels.a".to_owned(), "size".to_owned()] }),
    };
    let error = client.update(in_namespace("default", update)).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    let info = client.info(in_namespace("default", InfoRequest { digest })).await.unwrap();
    assert!(info.into_inner().info.unwrap().labels.is_empty());
}
