//! ttrpc connections on which anything may come, for the server and for the client: both end them
//! or answer, and nobody waits for ever.

#![no_main]

use std::cell::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_ttrpc::{Client, Handler, Options, Request, Server, Stream};
use berth_types::Result;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, Runtime};

/// Far more than anything takes.
const LIMIT: Duration = Duration::from_secs(10);

struct Echo;

impl Handler for Echo {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        request.decode::<String>().map(String::into_bytes)
    }

    async fn stream(&self, _request: Request, mut stream: Stream) -> Result<()> {
        while let Some(text) = stream.receiver.next::<String>().await? {
            stream.sender.send(&text).await?;
        }
        Ok(())
    }
}

/// A runtime with a server on a socket.
struct Bench {
    runtime: Runtime,
    path: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("make a directory").keep();
        let path = directory.join("socket");
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(async { UnixListener::bind(&path).expect("listen") });
        runtime.spawn(async move { Server::new(Arc::new(Echo)).serve(&listener).await });
        Self { runtime, path }
    }

    /// The server hears `bytes` and the end.
    async fn ask(&self, bytes: &[u8]) {
        let (mut read, mut write) =
            UnixStream::connect(&self.path).await.expect("connect").into_split();
        let speak = async {
            // It may have hung up by then.
            let _ = write.write_all(bytes).await;
            drop(write);
        };
        let mut answers = Vec::new();
        let listen = read.read_to_end(&mut answers);
        let _ = tokio::join!(speak, listen);
    }

    /// A client hears `bytes` in answer to a call, and the end.
    async fn answer(&self, bytes: &[u8]) {
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        let client = Client::from_stream(ours).expect("a client");
        let call = async {
            let options = Options::default();
            let _ = client.call::<_, String>("service", "Method", &String::new(), &options).await;
        };
        let speak = async {
            let _ = theirs.read(&mut [0; 1024]).await;
            let _ = theirs.write_all(bytes).await;
            drop(theirs);
        };
        tokio::join!(call, speak);
    }
}

thread_local! {
    static BENCH: OnceCell<Bench> = const { OnceCell::new() };
}

fuzz_target!(|bytes: &[u8]| {
    let Some((side, bytes)) = bytes.split_first() else { return };
    BENCH.with(|bench| {
        let bench = bench.get_or_init(Bench::new);
        bench.runtime.block_on(async {
            let done = async {
                match side % 2 {
                    0 => bench.ask(bytes).await,
                    _ => bench.answer(bytes).await,
                }
            };
            tokio::time::timeout(LIMIT, done).await.expect("somebody waits for ever");
        });
    });
});
