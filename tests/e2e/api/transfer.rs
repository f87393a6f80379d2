//! Images in one call, with streams beside it: containerd has it since 1.7, Debian's does not.

use berth_proto::containerd::services::streaming::v1::StreamInit;
use berth_proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use berth_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use berth_proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use berth_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, ImageExportStream, ImageImportStream, ImageStore,
    OciRegistry, Progress, RegistryResolver, WindowUpdate,
};
use berth_tests::{Access, Engine, Image, Registry, USER};
use prost::{Message, Name};
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use super::{Api, code};

const IMAGE: &str = "docker.io/library/busybox:latest";

pub(super) fn pack<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::full_name(), value: message.encode_to_vec() }
}

/// A stream that this client has opened.
pub(super) struct Stream {
    outgoing: mpsc::Sender<Any>,
    incoming: Streaming<Any>,
}

impl Stream {
    pub(super) async fn open(api: &Api, id: &str) -> Result<Self, Status> {
        let (outgoing, receiver) = mpsc::channel(4);
        outgoing.send(pack(&StreamInit { id: id.into() })).await.unwrap();
        let mut client = api.client(StreamingClient::new);
        let opened = client.stream(api.request(ReceiverStream::new(receiver))).await?;
        let mut incoming = opened.into_inner();
        let greeting = incoming.message().await?.unwrap();
        assert_eq!(greeting.type_url, "google.protobuf.Empty");
        Ok(Self { outgoing, incoming })
    }

    async fn next<M: Message + Name + Default>(&mut self) -> Option<M> {
        let message = self.incoming.message().await.unwrap()?;
        assert_eq!(message.type_url, M::full_name());
        Some(M::decode(&*message.value).unwrap())
    }

    async fn send<M: Message + Name>(&self, message: &M) {
        // The server may need no more.
        self.outgoing.send(pack(message)).await.ok();
    }

    /// Sends bytes as the server has room for them.
    async fn upload(mut self, mut bytes: &[u8]) {
        let mut window = 0;
        while !bytes.is_empty() {
            while window == 0 {
                let update: WindowUpdate = self.next().await.unwrap();
                window += usize::try_from(update.update).unwrap();
            }
            let (data, rest) = bytes.split_at(bytes.len().min(window).min(32 << 10));
            self.send(&Data { data: data.to_vec() }).await;
            window -= data.len();
            bytes = rest;
        }
        drop(self.outgoing);
        while self.incoming.message().await.unwrap().is_some() {}
    }

    /// Receives bytes, a small window at a time.
    pub(super) async fn download(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.send(&WindowUpdate { update: 1000 }).await;
        while let Some(Data { data }) = self.next().await {
            assert!(data.len() <= 1000);
            bytes.extend_from_slice(&data);
            self.send(&WindowUpdate { update: i32::try_from(data.len()).unwrap() }).await;
        }
        bytes
    }

    async fn progress(mut self) -> Vec<Progress> {
        let mut all = Vec::new();
        while let Some(progress) = self.next().await {
            all.push(progress);
        }
        all
    }
}

pub(super) fn store(name: &str) -> Any {
    pack(&ImageStore { name: name.into(), ..Default::default() })
}

pub(super) async fn transfer(
    api: &Api,
    source: Any,
    destination: Any,
    progress: &str,
) -> Result<tonic::Response<()>, Status> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: Some(TransferOptions { progress_stream: progress.into() }),
    };
    api.client(TransferClient::new).transfer(api.request(request)).await
}

#[tokio::test]
async fn an_image_is_imported_tagged_and_exported() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let archive = Image::busybox(IMAGE).archive();
    let (upload, progress) =
        (Stream::open(&api, "up").await.unwrap(), Stream::open(&api, "progress").await.unwrap());
    let import = ImageImportStream { stream: "up".into(), ..Default::default() };
    let (done, (), told) = tokio::join!(
        transfer(&api, pack(&import), store(""), "progress"),
        upload.upload(&archive),
        progress.progress()
    );
    done.unwrap();
    assert!(told.iter().any(|progress| progress.name == IMAGE), "{told:?}");
    transfer(&api, store(IMAGE), store("example.com/other:1"), "").await.unwrap();
    let names = api.engine.ctr(&["images", "ls", "-q"]).success();
    assert_eq!(names.stdout, format!("{IMAGE}\nexample.com/other:1\n"));
    api.engine.ctr(&["run", "--rm", IMAGE, "one", "true"]).success();

    let download = Stream::open(&api, "down").await.unwrap();
    let export = ImageExportStream { stream: "down".into(), ..Default::default() };
    let (done, bytes) =
        tokio::join!(transfer(&api, store(IMAGE), pack(&export), ""), download.download());
    done.unwrap();
    api.engine.ctr(&["images", "rm", "--sync", IMAGE, "example.com/other:1"]).success();
    let file = api.engine.path("exported.tar");
    std::fs::write(&file, bytes).unwrap();
    api.engine.ctr(&["images", "import", file.to_str().unwrap()]).success();
    assert_eq!(api.engine.ctr(&["images", "ls", "-q"]).success().line(), IMAGE);
}

#[tokio::test]
async fn an_image_is_pulled() {
    let Some(engine) = Engine::berth() else { return };
    let registry = tokio::task::spawn_blocking(Registry::start).await.unwrap();
    let api = Api::of(engine).await;
    let name = registry.reference("demo:one");
    let registry = tokio::task::spawn_blocking(move || {
        registry.push(&Image::busybox("demo:one"));
        registry
    });
    let registry = registry.await.unwrap();
    let from = pack(&OciRegistry { reference: name, resolver: None });
    let progress = Stream::open(&api, "progress").await.unwrap();
    let (done, told) = tokio::join!(
        transfer(&api, from, store("example.com/mine:1"), "progress"),
        progress.progress()
    );
    done.unwrap();
    assert!(told.iter().any(|progress| progress.event == "complete"), "{told:?}");
    let names = api.engine.ctr(&["images", "ls", "-q"]).success();
    assert_eq!(names.line(), "example.com/mine:1");

    // And sent to another repository, which has nothing of it.
    let again = registry.reference("other/place:two");
    let to = || pack(&OciRegistry { reference: again.clone(), resolver: None });
    let progress = Stream::open(&api, "progress").await.unwrap();
    let (done, told) = tokio::join!(
        transfer(&api, store("example.com/mine:1"), to(), "progress"),
        progress.progress()
    );
    done.unwrap();
    assert!(told.iter().any(|progress| progress.event == "complete"), "{told:?}");
    transfer(&api, store("example.com/mine:1"), to(), "").await.unwrap();
    api.engine.ctr(&["images", "rm", "--sync", "example.com/mine:1"]).success();
    transfer(&api, to(), store("back"), "").await.unwrap();
    assert_eq!(api.engine.ctr(&["images", "ls", "-q"]).success().line(), "back");
    let missing = transfer(&api, store("nobody"), to(), "").await;
    assert_eq!(code(missing), Code::NotFound);
    tokio::task::spawn_blocking(move || drop(registry)).await.unwrap();
}

#[tokio::test]
async fn credentials_are_asked_for_on_a_stream() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let registry = tokio::task::spawn_blocking(|| {
        let registry = Registry::with(false, Access::Token);
        registry.push(&Image::busybox("team/box:1"));
        registry
    });
    let registry = registry.await.unwrap();
    let name = registry.reference("team/box:1");
    let at = |reference: &str| {
        let resolver = RegistryResolver { auth_stream: "auth".into(), ..Default::default() };
        pack(&OciRegistry { reference: reference.into(), resolver: Some(resolver) })
    };
    let answers = |mut stream: Stream, password: &'static str| {
        let host = registry.host();
        tokio::spawn(async move {
            let request: AuthRequest = stream.next().await.unwrap();
            assert_eq!(request.host, host);
            let mut response = AuthResponse {
                username: USER.0.into(),
                secret: password.into(),
                ..AuthResponse::default()
            };
            response.set_auth_type(AuthType::Credentials);
            stream.send(&response).await;
            while stream.incoming.message().await.is_ok_and(|message| message.is_some()) {}
        })
    };
    let wrong = answers(Stream::open(&api, "auth").await.unwrap(), "wrong");
    let refused = transfer(&api, at(&name), store("mine"), "").await;
    assert_eq!(code(refused), Code::Unauthenticated);
    wrong.await.unwrap();
    let right = answers(Stream::open(&api, "auth").await.unwrap(), USER.1);
    transfer(&api, at(&name), store("mine"), "").await.unwrap();
    right.await.unwrap();
    let right = answers(Stream::open(&api, "auth").await.unwrap(), USER.1);
    let elsewhere = registry.reference("team/other:2");
    transfer(&api, store("mine"), at(&elsewhere), "").await.unwrap();
    right.await.unwrap();
    tokio::task::spawn_blocking(move || drop(registry)).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_transferred_is_refused() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let import = pack(&ImageImportStream { stream: "nobodys".into(), ..Default::default() });
    let missing = transfer(&api, import.clone(), store(""), "").await;
    assert_eq!(code(missing), Code::NotFound);
    assert_eq!(code(transfer(&api, store("a"), store("b"), "").await), Code::NotFound);
    assert_eq!(code(transfer(&api, import.clone(), import, "").await), Code::Unimplemented);
    let kept = Stream::open(&api, "twice").await.unwrap();
    assert_eq!(Stream::open(&api, "twice").await.err().unwrap().code(), Code::AlreadyExists);
    drop(kept);
    // An archive that is cut leaves nothing.
    let stream = Stream::open(&api, "cut").await.unwrap();
    let import = pack(&ImageImportStream { stream: "cut".into(), ..Default::default() });
    let archive = Image::busybox(IMAGE).archive();
    let (cut, ()) = tokio::join!(
        transfer(&api, import, store(""), ""),
        stream.upload(&archive[..archive.len() / 2])
    );
    assert_ne!(code(cut), Code::Ok);
    assert_eq!(api.engine.ctr(&["images", "ls", "-q"]).success().line(), "");
}
