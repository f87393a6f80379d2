//! Against the published `ttrpc` crate and containerd's shim bindings, in both directions.
//!
//! Message types are chosen for their wire form: a `String` is a message whose field 1 is a
//! string, as in `CreateTaskRequest.id`; a `u32` one whose field 1 is an unsigned integer, as in
//! `CreateTaskResponse.pid`.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail by panicking")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_ttrpc::{Client, Handler, Options, Request, Server, Stream};
use berth_types::{Error, Kind, Result};
use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, StartRequest};
use containerd_shim_protos::shim_async::{Task, TaskClient, create_task};
use prost::Message;
use tokio::net::UnixListener;
use ttrpc::asynchronous as peer;
use ttrpc::context::with_duration;

const SERVICE: &str = "containerd.task.v3.Task";

struct OurTask;

impl Handler for OurTask {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        assert_eq!(request.service, SERVICE);
        match request.method.as_str() {
            "Create" => {
                assert_eq!(request.decode::<String>()?, "one");
                assert_eq!(request.metadata("key"), Some("value"));
                assert!(request.deadline.is_some());
                Ok(42u32.encode_to_vec())
            }
            "Start" => Err(Error::not_found("no task \"one\"")),
            _ => Err(request.unimplemented()),
        }
    }

    async fn stream(&self, request: Request, mut stream: Stream) -> Result<()> {
        while let Some(text) = stream.receiver.next::<String>().await? {
            stream.sender.send(&text.to_uppercase()).await?;
        }
        if request.method == "Fail" { Err(Error::aborted("as asked")) } else { Ok(()) }
    }
}

fn our_server() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let server = Server::new(Arc::new(OurTask));
    tokio::spawn(async move { server.serve(&listener).await });
    (directory, format!("unix://{}", path.display()))
}

fn status(error: ttrpc::Error) -> (ttrpc::Code, String) {
    match error {
        ttrpc::Error::RpcStatus(status) => (status.code(), status.message),
        other => panic!("not a status: {other}"),
    }
}

#[tokio::test]
async fn their_client_calls_our_server() {
    let (_directory, address) = our_server();
    let client = TaskClient::new(peer::Client::connect(&address).await.unwrap());
    let mut context = with_duration(Duration::from_secs(10));
    context.add("key".into(), "value".into());
    let request = CreateTaskRequest { id: "one".into(), ..Default::default() };
    let answer = client.create(context.clone(), &request).await.unwrap();
    assert_eq!(answer.pid, 42);

    let error = client.start(context.clone(), &StartRequest::default()).await.unwrap_err();
    assert_eq!(status(error), (ttrpc::Code::NOT_FOUND, "no task \"one\"".into()));
    let error = client.pids(context, &Default::default()).await.unwrap_err();
    assert_eq!(status(error).0, ttrpc::Code::UNIMPLEMENTED);
}

fn stream_request(method: &str, payload: Vec<u8>) -> ttrpc::Request {
    ttrpc::Request { service: SERVICE.into(), method: method.into(), payload, ..Default::default() }
}

#[tokio::test]
async fn their_client_streams_to_our_server() {
    let (_directory, address) = our_server();
    let client = peer::Client::connect(&address).await.unwrap();
    let mut both = client.new_stream(stream_request("Upper", vec![]), true, true).await.unwrap();
    for text in ["one", "two", ""] {
        both.send(text.to_owned().encode_to_vec()).await.unwrap();
        let answer = both.recv().await.unwrap();
        assert_eq!(String::decode(answer.as_slice()).unwrap(), text.to_uppercase());
    }
    both.close_send().await.unwrap();
    assert!(matches!(both.recv().await, Err(ttrpc::Error::Eof)));

    let one_way = stream_request("Fail", "three".to_owned().encode_to_vec());
    let mut down = client.new_stream(one_way, false, true).await.unwrap();
    let answer = down.recv().await.unwrap();
    assert_eq!(String::decode(answer.as_slice()).unwrap(), "THREE");
    let error = down.recv().await.unwrap_err();
    assert_eq!(status(error), (ttrpc::Code::ABORTED, "as asked".into()));
}

struct TheirTask;

#[async_trait]
impl Task for TheirTask {
    async fn create(
        &self,
        context: &peer::TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        assert_eq!(request.id, "one");
        assert_eq!(context.metadata["key"], ["value"]);
        assert_eq!(context.timeout_nano, 10_000_000_000);
        Ok(CreateTaskResponse { pid: 42, ..Default::default() })
    }

    async fn start(
        &self,
        _: &peer::TtrpcContext,
        _: StartRequest,
    ) -> ttrpc::Result<containerd_shim_protos::api::StartResponse> {
        let status = ttrpc::get_status(ttrpc::Code::NOT_FOUND, "no task \"one\"");
        Err(ttrpc::Error::RpcStatus(status))
    }
}

struct TheirEcho;

#[async_trait]
impl peer::StreamHandler for TheirEcho {
    async fn handler(
        &self,
        _: peer::TtrpcContext,
        mut stream: peer::StreamInner,
    ) -> ttrpc::Result<Option<ttrpc::Response>> {
        loop {
            match stream.recv().await {
                Ok(payload) => stream.send(payload).await?,
                Err(ttrpc::Error::Eof) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

async fn their_server(directory: &Path) -> (peer::Server, PathBuf) {
    let path = directory.join("socket");
    let echo: Arc<dyn peer::StreamHandler + Send + Sync> = Arc::new(TheirEcho);
    let service = peer::Service {
        methods: HashMap::new(),
        streams: HashMap::from([("Echo".to_owned(), echo)]),
    };
    let mut server = peer::Server::new()
        .bind(&format!("unix://{}", path.display()))
        .unwrap()
        .register_service(create_task(Arc::new(TheirTask)))
        .register_service(HashMap::from([("test.Stream".to_owned(), service)]));
    server.start().await.unwrap();
    (server, path)
}

#[tokio::test]
async fn our_client_calls_their_server() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, path) = their_server(directory.path()).await;
    let client = Client::connect(&path).await.unwrap();
    let options = Options {
        timeout: Some(Duration::from_secs(10)),
        metadata: vec![("key".into(), "value".into())],
    };
    let pid: u32 = client.call(SERVICE, "Create", &"one".to_owned(), &options).await.unwrap();
    assert_eq!(pid, 42);
    let error = client.call::<(), ()>(SERVICE, "Start", &(), &options).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (Kind::NotFound, "no task \"one\""));
}

#[tokio::test]
async fn our_client_streams_to_their_server() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, path) = their_server(directory.path()).await;
    let client = Client::connect(&path).await.unwrap();
    let Stream { sender, mut receiver } =
        client.stream("test.Stream", "Echo", &Options::default()).await.unwrap();
    for text in ["one", "two", "three"] {
        sender.send(&text.to_owned()).await.unwrap();
        assert_eq!(receiver.next::<String>().await.unwrap().as_deref(), Some(text));
    }
    sender.close().await.unwrap();
    assert_eq!(receiver.next::<String>().await.unwrap(), None);
}
