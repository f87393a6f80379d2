//! The content store, and the service of another process that may keep its blobs: a proxy plugin.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use prost_types::Timestamp;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};

use berth_content::{ContentStore, Info, Remote};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    DeleteContentRequest, Info as WireInfo, InfoRequest, ListContentRequest, ReadContentRequest,
    WriteAction, WriteContentRequest, WriteContentResponse,
};
use berth_types::{Digest, Error, Kind, Result, ResultExt};

use crate::config::{Config, ProxyKind};

/// The namespace of the service in which blobs are kept. It is berth's own: what is in it and in
/// none of berth's namespaces is removed.
const NAMESPACE: &str = "berth";

/// Keeps a blob in a containerd that collects garbage.
const ROOT: &str = "containerd.io/gc.root";

/// How long the service may take over a message: long enough to sync a large blob.
const DEADLINE: Duration = Duration::from_secs(120);

/// Bytes of one message.
const FRAME: u64 = 1 << 20;

/// The largest message that is taken.
const MESSAGE_MAX: usize = 16 << 20;

/// Opens the content store, with blobs where the configuration says. Needs a tokio runtime with
/// several threads.
///
/// # Errors
/// Those of the disk; `InvalidArgument` when blobs are to be in two places.
pub(crate) fn open(config: &Config) -> Result<ContentStore> {
    let proxies = config.proxy_plugins.iter();
    let mut services = proxies.filter(|(_, proxy)| proxy.kind == ProxyKind::Content);
    let Some((name, proxy)) = services.next() else { return ContentStore::open(&config.root) };
    if let Some((second, _)) = services.next() {
        return Err(Error::invalid_argument(format!(
            "proxy_plugins: {name} and {second} are both of type \"content\": blobs are kept in \
             one place"
        )));
    }
    let service = Box::new(Service::new(name, &proxy.address));
    ContentStore::open_with(&config.root, Some(service))
}

/// The client of a content service.
struct Service {
    name: String,
    client: ContentClient<Channel>,
    runtime: Handle,
}

impl Service {
    /// The service that listens on the socket at `address`. Nothing is connected before the first
    /// call.
    fn new(name: &str, address: &Path) -> Self {
        let address = address.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let address = address.clone();
            async move { UnixStream::connect(address).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector_lazy(connector);
        let client = ContentClient::new(channel).max_decoding_message_size(MESSAGE_MAX);
        Self { name: name.to_owned(), client, runtime: Handle::current() }
    }

    /// Waits for a conversation with the service.
    fn block<T>(&self, conversation: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::task::block_in_place(|| self.runtime.block_on(conversation))
            .context(|| format!("content service {}", self.name))
    }

    async fn send(&self, digest: &Digest, size: u64, file: &File) -> Result<()> {
        let (requests, receiver) = mpsc::channel(1);
        let mut upload = Upload { digest, size, requests };
        // The service need not answer before it has heard something.
        upload.say(WriteAction::Stat, 0, Vec::new()).await?;
        let receiver = request(ReceiverStream::new(receiver));
        let mut answers = answer(self.client.clone().write(receiver)).await?.into_inner();
        let mut offset = progress(&mut answers).await?;
        while offset < size {
            let mut data = vec![0; (size - offset).min(FRAME) as usize];
            file.read_exact_at(&mut data, offset).context(|| format!("read content {digest}"))?;
            upload.say(WriteAction::Write, offset, data).await?;
            let next = progress(&mut answers).await?;
            if next <= offset {
                return Err(Error::internal(format!("it took nothing of content {digest}")));
            }
            offset = next;
        }
        upload.say(WriteAction::Commit, size, Vec::new()).await?;
        progress(&mut answers).await.map(drop)
    }
}

/// A blob on its way to the service.
struct Upload<'a> {
    digest: &'a Digest,
    size: u64,
    requests: mpsc::Sender<WriteContentRequest>,
}

impl Upload<'_> {
    async fn say(&mut self, action: WriteAction, offset: u64, data: Vec<u8>) -> Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut message = WriteContentRequest {
            action: action.into(),
            total: wire(self.size),
            expected: self.digest.to_string(),
            offset: wire(offset),
            data: data.into(),
            ..Default::default()
        };
        if action == WriteAction::Stat {
            // Uploads of one blob at a time don't wait for each other.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            message.r#ref = format!("{}/{}-{number}", self.digest, std::process::id());
        }
        if action == WriteAction::Commit {
            let now = Timestamp::from(SystemTime::now()).to_string();
            message.labels.insert(ROOT.to_owned(), now);
        }
        let sent = self.requests.send(message).await;
        sent.map_err(|_| Error::unavailable("it ended the upload"))
    }
}

/// How far the service says that an upload is.
async fn progress(answers: &mut Streaming<WriteContentResponse>) -> Result<u64> {
    let answer = message(answers).await?;
    let answer = answer.ok_or_else(|| Error::unavailable("it ended the upload"))?;
    Ok(u64::try_from(answer.offset).unwrap_or_default())
}

impl Remote for Service {
    fn info(&self, digest: &Digest) -> Result<Info> {
        let about = request(InfoRequest { digest: digest.to_string() });
        let info = self.block(answer(self.client.clone().info(about)))?.into_inner().info;
        info.and_then(read_info)
            .ok_or_else(|| Error::internal(format!("it described no content as {digest}")))
    }

    fn list(&self) -> Result<Vec<Info>> {
        self.block(async {
            let mut client = self.client.clone();
            let listing = client.list(request(ListContentRequest::default()));
            let mut batches = answer(listing).await?.into_inner();
            let mut all = Vec::new();
            while let Some(batch) = message(&mut batches).await? {
                all.extend(batch.info.into_iter().filter_map(read_info));
            }
            Ok(all)
        })
    }

    fn fetch(&self, digest: &Digest, to: &mut dyn Write) -> Result<()> {
        self.block(async {
            let whole = ReadContentRequest { digest: digest.to_string(), ..Default::default() };
            let mut client = self.client.clone();
            let mut parts = answer(client.read(request(whole))).await?.into_inner();
            while let Some(part) = message(&mut parts).await? {
                to.write_all(&part.data).context(|| format!("fetch content {digest}"))?;
            }
            Ok(())
        })
    }

    fn keep(&self, digest: &Digest, size: u64, file: &File) -> Result<()> {
        self.block(self.send(digest, size, file))
    }

    fn delete(&self, digest: &Digest) -> Result<()> {
        let about = request(DeleteContentRequest { digest: digest.to_string() });
        self.block(answer(self.client.clone().delete(about))).map(drop)
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = MetadataValue::from_static(NAMESPACE);
    request.metadata_mut().insert("containerd-namespace", namespace);
    request
}

async fn answer<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T> {
    let answered = tokio::time::timeout(DEADLINE, call).await;
    answered.map_err(|_| late())?.map_err(|status| failure(&status))
}

async fn message<T>(messages: &mut Streaming<T>) -> Result<Option<T>> {
    answer(messages.message()).await
}

fn late() -> Error {
    Error::deadline_exceeded(format!("it did not answer within {} s", DEADLINE.as_secs()))
}

fn failure(status: &Status) -> Error {
    Error::new(Kind::from_code(status.code() as i32), status.message())
}

/// What the service says of a blob; nothing for one that no client of berth could ask for.
fn read_info(info: WireInfo) -> Option<Info> {
    let created = info.created_at.and_then(|at| SystemTime::try_from(at).ok());
    Some(Info {
        digest: info.digest.parse().ok()?,
        size: u64::try_from(info.size).ok()?,
        created: created.unwrap_or(SystemTime::UNIX_EPOCH),
    })
}

fn wire(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
