//! Our client and our server with each other: what the protocol promises and no peer tests.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use berth_ttrpc::{Client, Handler, MAX_MESSAGE, Options, Request, Server, Stream};
use berth_types::{Error, Kind, Result};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

#[derive(Default)]
struct Echo {
    jammed: Arc<Notify>,
    finished: Arc<Notify>,
    abandoned: Arc<Notify>,
    slow_done: AtomicBool,
}

impl Handler for Echo {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        match request.method.as_str() {
            "Echo" => Ok(request.decode::<String>()?.encode_to_vec()),
            "Metadata" => {
                Ok(request.metadata("key").unwrap_or_default().to_owned().encode_to_vec())
            }
            "Peer" => Ok((request.peer.pid.unwrap_or_default() as u32).encode_to_vec()),
            "Fail" => {
                let code = request.decode::<u32>()?;
                Err(Error::new(Kind::from_code(code as i32), format!("failure {code}")))
            }
            "Slow" => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.slow_done.store(true, Ordering::SeqCst);
                self.finished.notify_one();
                Ok(Vec::new())
            }
            "Forever" => {
                request.abandoned().await;
                self.abandoned.notify_one();
                Ok(Vec::new())
            }
            "Large" => Ok(vec![0; MAX_MESSAGE + 1].encode_to_vec()),
            _ => Err(request.unimplemented()),
        }
    }

    async fn stream(&self, request: Request, stream: Stream) -> Result<()> {
        let Stream { sender, mut receiver } = stream;
        match request.method.as_str() {
            "Echo" => {
                while let Some(text) = receiver.next::<String>().await? {
                    sender.send(&text).await?;
                }
                Ok(())
            }
            "Jam" => {
                self.jammed.notify_one();
                loop {
                    let sent = sender.send(&"x".repeat(100_000)).await;
                    if sent.is_err() {
                        self.abandoned.notify_one();
                    }
                    sent?;
                }
            }
            "Deaf" => {
                request.abandoned().await;
                self.abandoned.notify_one();
                Ok(())
            }
            "Flood" => {
                for number in 0..10_000u32 {
                    sender.send(&number).await?;
                }
                Err(Error::aborted("flooded"))
            }
            _ => Err(request.unimplemented()),
        }
    }
}

struct Running {
    _directory: tempfile::TempDir,
    path: PathBuf,
    echo: Arc<Echo>,
}

fn serve() -> Running {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let echo = Arc::new(Echo::default());
    let server = Server::new(echo.clone());
    tokio::spawn(async move { server.serve(&listener).await });
    Running { _directory: directory, path, echo }
}

async fn echo(client: &Client, text: &str) -> Result<String> {
    client.call("test.Echo", "Echo", &text.to_owned(), &Options::default()).await
}

#[tokio::test]
async fn calls_run_side_by_side() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let client = client.clone();
        calls.spawn(async move {
            let text = number.to_string();
            assert_eq!(echo(&client, &text).await.unwrap(), text);
        });
    }
    assert_eq!(calls.join_all().await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_share_a_connection() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..1000 {
        let client = client.clone();
        calls.spawn(async move { echo(&client, &number.to_string()).await.unwrap() });
    }
    assert_eq!(calls.join_all().await.len(), 1000);
}

#[tokio::test]
async fn every_kind_arrives_as_it_left() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options::default();
    for code in 1..=16u32 {
        let error = client.call::<u32, ()>("test.Echo", "Fail", &code, &options).await.unwrap_err();
        assert_eq!(error.kind(), Kind::from_code(code as i32));
        assert_eq!(error.message(), format!("failure {code}"));
    }
}

#[tokio::test]
async fn an_unknown_method_is_unimplemented() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options::default();
    let error = client.call::<(), ()>("test.Echo", "Nothing", &(), &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
    let mut stream = client.stream("test.Echo", "Nothing", &options).await.unwrap();
    let error = stream.receiver.next::<()>().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unimplemented);
}

#[tokio::test]
async fn metadata_and_peer_reach_the_handler() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options { metadata: vec![("key".into(), "value".into())], timeout: None };
    let value: String = client.call("test.Echo", "Metadata", &(), &options).await.unwrap();
    assert_eq!(value, "value");
    let pid: u32 = client.call("test.Echo", "Peer", &(), &options).await.unwrap();
    assert_eq!(pid, std::process::id());
}

#[tokio::test]
async fn a_late_answer_is_deadline_exceeded_and_the_work_goes_on() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options::timeout(Duration::from_millis(5));
    let error = client.call::<(), ()>("test.Echo", "Slow", &(), &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded);
    server.echo.finished.notified().await;
    assert!(server.echo.slow_done.load(Ordering::SeqCst));
}

#[tokio::test]
async fn work_survives_its_caller_and_waiting_does_not() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options::default();
    let slow = tokio::spawn({
        let (client, options) = (client.clone(), options.clone());
        async move { client.call::<(), ()>("test.Echo", "Slow", &(), &options).await }
    });
    let forever = tokio::spawn({
        let (client, options) = (client.clone(), options.clone());
        async move { client.call::<(), ()>("test.Echo", "Forever", &(), &options).await }
    });
    echo(&client, "both are under way").await.unwrap();
    slow.abort();
    forever.abort();
    let _ = (slow.await, forever.await);
    drop(client);
    server.echo.finished.notified().await;
    server.echo.abandoned.notified().await;
}

#[tokio::test]
async fn a_stream_carries_both_ways() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let Stream { sender, mut receiver } =
        client.stream("test.Echo", "Echo", &Options::default()).await.unwrap();
    for number in 0..100 {
        sender.send(&format!("message {number}")).await.unwrap();
        let answer = receiver.next::<String>().await.unwrap().unwrap();
        assert_eq!(answer, format!("message {number}"));
    }
    sender.close().await.unwrap();
    assert_eq!(receiver.next::<String>().await.unwrap(), None);
}

#[tokio::test]
async fn a_client_that_leaves_a_jam_is_noticed() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let stream = client.stream("test.Echo", "Jam", &Options::default()).await.unwrap();
    server.echo.jammed.notified().await;
    // Neither side reads, until both wait for the other.
    let text = "x".repeat(100_000);
    let jam = async { while stream.sender.send(&text).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_millis(200), jam).await.is_err());
    drop((stream, client));
    server.echo.abandoned.notified().await;
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_that_is_not_read_is_noticed() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let stream = client.stream("test.Echo", "Deaf", &Options::default()).await.unwrap();
    let text = "x".repeat(100_000);
    let jam = async { while stream.sender.send(&text).await.is_ok() {} };
    assert!(tokio::time::timeout(Duration::from_millis(200), jam).await.is_err());
    drop((stream, client));
    server.echo.abandoned.notified().await;
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let mut stream = client.stream("test.Echo", "Flood", &Options::default()).await.unwrap();
    for expected in 0..10_000u32 {
        if expected % 1000 == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(stream.receiver.next::<u32>().await.unwrap(), Some(expected));
    }
    let error = stream.receiver.next::<u32>().await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::Aborted, "flooded"));
}

#[tokio::test]
async fn an_answer_too_large_fails_alone() {
    let server = serve();
    let client = Client::connect(&server.path).await.unwrap();
    let options = Options::default();
    let error = client.call::<(), ()>("test.Echo", "Large", &(), &options).await.unwrap_err();
    assert_eq!(error.kind(), Kind::ResourceExhausted);
    assert_eq!(echo(&client, "still here").await.unwrap(), "still here");
}

#[tokio::test]
async fn a_lost_connection_fails_what_waits_on_it() {
    let (near, far) = UnixStream::pair().unwrap();
    let client = Client::from_stream(near).unwrap();
    let mut stream = client.stream("test.Echo", "Echo", &Options::default()).await.unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { echo(&client, "lost").await }
    });
    tokio::task::yield_now().await;
    drop(far);
    client.closed().await;
    assert_eq!(call.await.unwrap().unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(stream.receiver.next::<()>().await.unwrap_err().kind(), Kind::Unavailable);
    assert_eq!(echo(&client, "later").await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn nobody_listening_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let error = Client::connect(&directory.path().join("socket")).await.err().unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_malformed_frame_closes_the_connection() {
    let server = serve();
    let mut raw = UnixStream::connect(&server.path).await.unwrap();
    raw.write_all(&[0xff; 10]).await.unwrap();
    assert_eq!(raw.read(&mut [0; 1]).await.unwrap(), 0);

    let (near, far) = StdStream::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    let client = Client::from_stream(UnixStream::from_std(near).unwrap()).unwrap();
    std::io::Write::write_all(&mut &far, &[0xff; 10]).unwrap();
    let error = echo(&client, "to a peer that talks nonsense").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Internal);
    assert!(error.message().contains("malformed"));
}

#[tokio::test]
async fn a_request_that_is_no_request_is_answered() {
    let server = serve();
    let mut raw = UnixStream::connect(&server.path).await.unwrap();
    // Payload 0xff is no protobuf; then a valid request on an even stream, which is not allowed.
    raw.write_all(&[0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0xff]).await.unwrap();
    raw.write_all(&[0, 0, 0, 0, 0, 0, 0, 2, 1, 0]).await.unwrap();
    for stream in [1u8, 2] {
        let mut header = [0; 10];
        raw.read_exact(&mut header).await.unwrap();
        assert_eq!((header[7], header[8]), (stream, 2));
        let mut payload = vec![0; header[3] as usize];
        raw.read_exact(&mut payload).await.unwrap();
        // Response.status.code, the first field of the first field.
        assert_eq!(payload[2..4], [8, Kind::InvalidArgument.code() as u8]);
    }
}
