use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info, InfoRequest, ListContentRequest, ListStatusesRequest,
    ReadContentRequest, StatusRequest, UpdateRequest, WriteAction, WriteContentRequest,
    WriteContentResponse,
};
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{CreateRequest, DeleteRequest};
use berth_types::Digest;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Status, Streaming};

use super::{Api, code, labels, mask, oversize};

type Client = ContentClient<Channel>;

/// The lease that content is made under, so that nothing is collected before a test wants it.
const LEASE: &str = "work";

/// Makes the lease.
pub(super) async fn keep(api: &Api) {
    let create = CreateRequest { id: LEASE.into(), ..Default::default() };
    api.client(LeasesClient::new).create(api.request(create)).await.unwrap();
}

/// Ends it, and with it what nothing else keeps.
pub(super) async fn let_go(api: &Api) {
    let delete = DeleteRequest { id: LEASE.into(), sync: true };
    api.client(LeasesClient::new).delete(api.request(delete)).await.unwrap();
}

/// A write session.
struct Session {
    requests: mpsc::Sender<WriteContentRequest>,
    responses: Streaming<WriteContentResponse>,
}

impl Session {
    /// Opens a session with its first request; containerd answers nothing before that.
    async fn open(
        api: &Api,
        client: &mut Client,
        first: WriteContentRequest,
    ) -> Result<(Self, WriteContentResponse), Status> {
        let (requests, receiver) = mpsc::channel(4);
        requests.send(first).await.unwrap();
        let opened = client.write(api.leased(LEASE, ReceiverStream::new(receiver))).await?;
        let mut session = Self { requests, responses: opened.into_inner() };
        let response = session.next().await?;
        Ok((session, response))
    }

    async fn next(&mut self) -> Result<WriteContentResponse, Status> {
        Ok(self.responses.message().await?.unwrap())
    }

    async fn ask(&mut self, request: WriteContentRequest) -> Result<WriteContentResponse, Status> {
        self.requests.send(request).await.unwrap();
        self.next().await
    }
}

fn write(action: WriteAction, reference: &str, offset: i64, data: &[u8]) -> WriteContentRequest {
    WriteContentRequest {
        action: action.into(),
        r#ref: reference.into(),
        offset,
        data: data.to_vec().into(),
        ..Default::default()
    }
}

/// A blob in one message.
pub(super) async fn put(api: &Api, data: &[u8], with: &[(&str, &str)]) -> Result<Digest, Status> {
    let mut client = api.client(ContentClient::new);
    let digest = Digest::of(data);
    let request = WriteContentRequest {
        total: data.len() as i64,
        expected: digest.to_string(),
        labels: labels(with),
        ..write(WriteAction::Commit, &format!("put-{digest}"), 0, data)
    };
    Session::open(api, &mut client, request).await?;
    Ok(digest)
}

pub(super) async fn has(api: &Api, digest: &Digest) -> bool {
    let info = InfoRequest { digest: digest.to_string() };
    code(api.client(ContentClient::new).info(api.request(info)).await) == Code::Ok
}

async fn read(
    api: &Api,
    client: &mut Client,
    digest: &Digest,
    offset: i64,
    size: i64,
) -> Result<Vec<u8>, Status> {
    let request = ReadContentRequest { digest: digest.to_string(), offset, size };
    let mut frames = client.read(api.request(request)).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(frame) = frames.message().await? {
        assert_eq!(frame.offset, bytes.len() as i64);
        bytes.extend_from_slice(&frame.data);
    }
    Ok(bytes)
}

#[tokio::test]
async fn content_is_written_in_sessions() {
    let api = Api::start().await;
    keep(&api).await;
    let mut client = api.client(ContentClient::new);
    let first = write(WriteAction::Stat, "ref", 0, b"");
    let (mut session, begun) = Session::open(&api, &mut client, first).await.unwrap();
    assert_eq!(begun.offset, 0);
    let response = session.ask(write(WriteAction::Write, "ref", 0, b"first ")).await.unwrap();
    assert_eq!(response.offset, 6);
    let (_, busy) =
        match Session::open(&api, &mut client, write(WriteAction::Stat, "ref", 0, b"")).await {
            Ok(_) => panic!("two sessions with one ref"),
            Err(status) => ((), status),
        };
    assert_eq!(busy.code(), Code::Unavailable);
    let status = StatusRequest { r#ref: "ref".into() };
    let status = client.status(api.request(status)).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.r#ref.as_str(), status.offset), ("ref", 6));
    let statuses = client.list_statuses(api.request(ListStatusesRequest::default())).await;
    assert_eq!(statuses.unwrap().into_inner().statuses.len(), 1);
    let gap = session.ask(write(WriteAction::Write, "ref", 100, b"x")).await.unwrap_err();
    assert_eq!(gap.code(), Code::OutOfRange);
    drop(session);

    // A session that was cut is gone on with.
    let resumed = loop {
        let again = write(WriteAction::Stat, "ref", 0, b"");
        match Session::open(&api, &mut client, again).await {
            Ok(resumed) => break resumed,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    let (mut session, response) = resumed;
    assert_eq!(response.offset, 6);
    let digest = Digest::of(b"first second");
    let commit = WriteContentRequest {
        total: 12,
        expected: digest.to_string(),
        labels: labels(&[("a", "1")]),
        ..write(WriteAction::Commit, "ref", 6, b"second")
    };
    assert_eq!(session.ask(commit).await.unwrap().digest, digest.to_string());
    assert_eq!(read(&api, &mut client, &digest, 0, 0).await.unwrap(), b"first second");
    assert_eq!(read(&api, &mut client, &digest, 6, 3).await.unwrap(), b"sec");
    let past = read(&api, &mut client, &digest, 13, 0).await.unwrap_err();
    assert_eq!(past.code(), Code::OutOfRange);
    let missing = StatusRequest { r#ref: "ref".into() };
    assert_eq!(code(client.status(api.request(missing)).await), Code::NotFound);
    let again = put(&api, b"first second", &[]).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);
}

#[tokio::test]
async fn what_is_not_as_announced_is_no_content() {
    let api = Api::start().await;
    keep(&api).await;
    let mut client = api.client(ContentClient::new);
    let other = Digest::of(b"other").to_string();
    let bad = [
        WriteContentRequest { expected: other, ..write(WriteAction::Commit, "a", 0, b"data") },
        WriteContentRequest { total: 3, ..write(WriteAction::Commit, "b", 0, b"data") },
    ];
    for request in bad {
        let refused = Session::open(&api, &mut client, request).await.err().unwrap();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    let nameless = write(WriteAction::Stat, "", 0, b"");
    let refused = Session::open(&api, &mut client, nameless).await.err().unwrap();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(!has(&api, &Digest::of(b"data")).await);
    for reference in ["a", "b"] {
        let abort = AbortRequest { r#ref: reference.into() };
        client.abort(api.request(abort)).await.unwrap();
    }
    let abort = AbortRequest { r#ref: "nobody".into() };
    assert_eq!(code(client.abort(api.request(abort)).await), Code::NotFound);
}

#[tokio::test]
async fn content_has_labels_and_is_listed() {
    let api = Api::start().await;
    keep(&api).await;
    let mut client = api.client(ContentClient::new);
    let one = put(&api, b"one", &[("a", "1")]).await.unwrap();
    let two = put(&api, b"two", &[]).await.unwrap();
    let update = |digest: &Digest, with, paths: &[&str]| UpdateRequest {
        info: Some(Info { digest: digest.to_string(), labels: with, ..Info::default() }),
        update_mask: mask(paths),
    };
    let changed = update(&one, labels(&[("b", "2")]), &["labels.b"]);
    let changed = client.update(api.request(changed)).await.unwrap().into_inner().info.unwrap();
    assert_eq!(changed.labels, labels(&[("a", "1"), ("b", "2")]));
    let refused = client.update(api.request(update(&one, labels(&[]), &["size"]))).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let long = client.update(api.request(update(&one, oversize(), &["labels"]))).await;
    assert_eq!(code(long), Code::InvalidArgument);
    let nobody = Digest::of(b"nobody");
    let missing = client.update(api.request(update(&nobody, labels(&[]), &["labels"]))).await;
    assert_eq!(code(missing), Code::NotFound);

    let mut list = async |filter: &str| {
        let list = ListContentRequest { filters: vec![filter.to_owned()] };
        let mut stream = client.list(api.request(list)).await?.into_inner();
        let mut found = Vec::new();
        while let Some(message) = stream.message().await? {
            found.extend(message.info.into_iter().map(|info| info.digest));
        }
        Ok::<_, Status>(found)
    };
    assert_eq!(list("labels.b==2").await.unwrap(), [one.to_string()]);
    assert_eq!(list(&format!("digest=={two}")).await.unwrap(), [two.to_string()]);
    assert_eq!(list("").await.unwrap().len(), 2);
    assert_eq!(list("digest=").await.unwrap_err().code(), Code::InvalidArgument);
    let delete = DeleteContentRequest { digest: one.to_string() };
    client.delete(api.request(delete.clone())).await.unwrap();
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
    let gone = read(&api, &mut client, &one, 0, 0).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// A client whose connection ends after `limit` bytes of what it sends.
async fn cut_after(api: &Api, limit: u64) -> Client {
    let address = api.engine.address();
    let connector = tower::service_fn(move |_: Uri| {
        let address = address.clone();
        async move {
            let (near, far) = tokio::io::duplex(64 << 10);
            let engine = UnixStream::connect(address).await?;
            tokio::spawn(async move {
                let (mut answers, mut to) = tokio::io::split(engine);
                let (sent, mut back) = tokio::io::split(far);
                let mut sent = sent.take(limit);
                tokio::select! {
                    _ = tokio::io::copy(&mut sent, &mut to) => {}
                    _ = tokio::io::copy(&mut answers, &mut back) => {}
                }
            });
            std::io::Result::Ok(TokioIo::new(near))
        }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    ContentClient::new(endpoint.connect_with_connector(connector).await.unwrap())
}

/// A connection that ends in the middle of a message leaves what came before it.
#[tokio::test]
async fn connections_that_are_cut_leave_whole_messages() {
    let api = Api::start().await;
    keep(&api).await;
    let part = vec![b'x'; 100_000];
    let mut cut = cut_after(&api, 250_000).await;
    let parts = (0..5).map(|number| {
        let write = write(WriteAction::Write, "ref", number * 100_000, &part);
        WriteContentRequest { total: 500_000, ..write }
    });
    let (requests, receiver) = mpsc::channel(5);
    let mut parts = parts.collect::<Vec<_>>().into_iter();
    requests.send(parts.next().unwrap()).await.unwrap();
    let session = cut.write(api.leased(LEASE, ReceiverStream::new(receiver))).await;
    let mut answers = session.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().unwrap().offset, 100_000);
    for part in parts {
        requests.send(part).await.unwrap();
    }
    while let Ok(Some(_)) = answers.message().await {}
    let mut client = api.client(ContentClient::new);
    let digest = Digest::of(&[b'x'; 500_000]);
    assert!(!has(&api, &digest).await);

    let (mut session, begun) = loop {
        let again = write(WriteAction::Stat, "ref", 0, b"");
        match Session::open(&api, &mut client, again).await {
            Ok(resumed) => break resumed,
            Err(status) => assert_eq!(status.code(), Code::Unavailable),
        }
        tokio::task::yield_now().await;
    };
    assert!([100_000, 200_000].contains(&begun.offset), "{begun:?}");
    let rest = vec![b'x'; 500_000 - begun.offset as usize];
    let commit = WriteContentRequest {
        total: 500_000,
        expected: digest.to_string(),
        ..write(WriteAction::Commit, "ref", begun.offset, &rest)
    };
    assert_eq!(session.ask(commit).await.unwrap().digest, digest.to_string());
    assert!(has(&api, &digest).await);
}

/// What clients of a session can rely on beside its offsets, as with containerd.
#[tokio::test]
async fn sessions_end_with_their_last_answer_once_more() {
    let api = Api::start().await;
    keep(&api).await;
    let mut client = api.client(ContentClient::new);
    let mut run = async |requests: Vec<WriteContentRequest>| {
        let session = client.write(api.leased(LEASE, tokio_stream::iter(requests))).await?;
        let (mut answers, mut offsets) = (session.into_inner(), Vec::new());
        while let Some(answer) = answers.message().await? {
            offsets.push(answer.offset);
        }
        Ok::<_, Status>(offsets)
    };
    assert_eq!(run(vec![write(WriteAction::Stat, "a", 0, b"")]).await.unwrap(), [0, 0]);
    assert_eq!(run(vec![write(WriteAction::Write, "a", 0, b"abc")]).await.unwrap(), [3, 3]);
    // At 0 it begins anew; below, it says nothing of the place.
    assert_eq!(run(vec![write(WriteAction::Write, "a", 0, b"ab")]).await.unwrap(), [2, 2]);
    assert_eq!(run(vec![write(WriteAction::Write, "a", -7, b"c")]).await.unwrap(), [3, 3]);
    assert_eq!(run(vec![write(WriteAction::Commit, "a", 3, b"d")]).await.unwrap(), [4, 4]);
    assert!(has(&api, &Digest::of(b"abcd")).await);

    // What is no digest is one that no bytes have.
    let nonsense = |action| WriteContentRequest {
        expected: "nonsense".into(),
        ..write(action, "b", 0, b"bytes")
    };
    assert_eq!(run(vec![nonsense(WriteAction::Write)]).await.unwrap(), [5, 5]);
    let refused = run(vec![nonsense(WriteAction::Commit)]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(!has(&api, &Digest::of(b"bytes")).await);

    // A session that hears of what has come meanwhile ends, and its bytes with it.
    let known = WriteContentRequest {
        expected: Digest::of(b"abcd").to_string(),
        ..write(WriteAction::Write, "c", 1, b"bcd")
    };
    let refused = run(vec![write(WriteAction::Write, "c", 0, b"a"), known]).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists);
    let ask = api.request(StatusRequest { r#ref: "c".into() });
    assert_eq!(code(client.status(ask).await), Code::NotFound);

    // More than is there is all that is there.
    let digest = Digest::of(b"abcd");
    assert_eq!(read(&api, &mut client, &digest, 2, 100).await.unwrap(), b"cd");
    assert_eq!(read(&api, &mut client, &digest, -1, -1).await.unwrap(), b"abcd");
}
