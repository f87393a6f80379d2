//! Attached clients: what they get, and what becomes of their input.

use std::time::Duration;

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_ttrpc::{Client, Options, Receiver, Sender, Stream};
use berth_types::{Kind, Result};

use crate::rig::{HANGS, Names, Rig};

struct Attached {
    _connection: Client,
    sender: Sender,
    receiver: Receiver,
}

async fn try_attach(rig: &Rig, exec_id: &str, lossless: bool) -> Result<Attached> {
    let connection = Client::connect(&rig.path("socket")).await?;
    let stream = connection.stream("berth.shim.v1.Streams", "Attach", &Options::default()).await?;
    let Stream { sender, mut receiver } = stream;
    let first = AttachRequest {
        id: rig.id.clone(),
        exec_id: exec_id.to_owned(),
        lossless,
        ..Default::default()
    };
    sender.send(&first).await?;
    let answer = receiver.next::<AttachResponse>().await?;
    assert_eq!(answer, Some(AttachResponse::default()));
    Ok(Attached { _connection: connection, sender, receiver })
}

async fn attach(rig: &Rig, exec_id: &str) -> Attached {
    try_attach(rig, exec_id, true).await.unwrap()
}

impl Attached {
    async fn write(&self, text: &str) {
        let message = AttachRequest { stdin: text.to_owned().into(), ..Default::default() };
        self.sender.send(&message).await.unwrap();
    }

    async fn close_stdin(&self) {
        let message = AttachRequest { close_stdin: true, ..Default::default() };
        self.sender.send(&message).await.unwrap();
    }

    /// Both outputs, to their end.
    async fn read(&mut self) -> Result<(String, String)> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let all = async {
            while let Some(piece) = self.receiver.next::<AttachResponse>().await? {
                stdout.extend_from_slice(&piece.stdout);
                stderr.extend_from_slice(&piece.stderr);
            }
            Ok(())
        };
        tokio::time::timeout(HANGS, all).await.expect("it hangs")?;
        Ok((String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap()))
    }

    /// Standard output up to `text`.
    async fn read_until(&mut self, text: &str) {
        let mut stdout = Vec::new();
        let all = async {
            while !stdout.ends_with(text.as_bytes()) {
                let piece = self.receiver.next::<AttachResponse>().await.unwrap().unwrap();
                stdout.extend_from_slice(&piece.stdout);
            }
        };
        tokio::time::timeout(HANGS, all).await.expect("it hangs");
    }
}

fn names(stdin: &str) -> Names {
    Names {
        stdin: stdin.to_owned(),
        stdout: "attach:".to_owned(),
        stderr: "attach:".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_client_that_attaches_before_the_start_misses_nothing() {
    let mut rig = Rig::new().await;
    rig.create("seq 1 200000; echo error >&2", &names("")).await.unwrap();
    let mut client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let (stdout, stderr) = client.read().await.unwrap();
    assert!(stdout == expected, "{} bytes in place of {}", stdout.len(), expected.len());
    assert_eq!(stderr, "error\n");
    assert_eq!(attach(&rig, "").await.read().await.unwrap(), Default::default());
}

#[tokio::test]
async fn input_is_the_clients_until_it_ends() {
    let mut rig = Rig::new().await;
    rig.create("cat; echo end", &names("attach:once")).await.unwrap();
    let mut client = attach(&rig, "").await;
    client.write("before the start\n").await;
    rig.start("").await.unwrap();
    let text = "x".repeat(100_000) + "\n";
    client.write(&text).await;
    client.close_stdin().await;
    let (stdout, _) = client.read().await.unwrap();
    assert_eq!(stdout, format!("before the start\n{text}end\n"));
}

#[tokio::test]
async fn a_client_that_is_lost_ends_the_input_that_was_only_its() {
    let mut rig = Rig::new().await;
    rig.create("cat; sleep 0.1; exit 4", &names("attach:once")).await.unwrap();
    let client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    client.write("typing").await;
    drop(client);
    assert_eq!(rig.wait("").await, 4);
}

#[tokio::test]
async fn a_client_that_is_lost_in_a_jam_ends_the_input_that_was_only_its() {
    let mut rig = Rig::new().await;
    rig.create("cat; exit 4", &names("attach:once")).await.unwrap();
    let client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    let text = "x".repeat(100_000);
    let jam = async {
        loop {
            client.write(&text).await;
        }
    };
    // It reads nothing of what comes back, so that in the end nothing moves any more.
    let _: Result<(), _> = tokio::time::timeout(Duration::from_millis(300), jam).await;
    drop(client);
    assert_eq!(rig.wait("").await, 4);
}

#[tokio::test]
async fn clients_may_come_and_go() {
    let mut rig = Rig::new().await;
    rig.create("while read line; do echo got $line; done; echo end", &names("attach:keep"))
        .await
        .unwrap();
    let mut first = attach(&rig, "").await;
    rig.start("").await.unwrap();
    first.write("one\n").await;
    first.read_until("got one\n").await;
    first.close_stdin().await;
    drop(first);
    let (mut second, mut watcher) = (attach(&rig, "").await, attach(&rig, "").await);
    watcher.sender.close().await.unwrap();
    second.write("two\n").await;
    second.read_until("got two\n").await;
    rig.close_stdin("").await;
    assert_eq!(second.read().await.unwrap().0, "end\n");
    let rest = async {
        let mut text = Vec::new();
        while let Some(piece) = watcher.receiver.next::<AttachResponse>().await.unwrap() {
            text.extend_from_slice(&piece.stdout);
        }
        text
    };
    assert_eq!(rest.await, b"got two\nend\n");
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_the_container_runs_on() {
    let mut rig = Rig::new().await;
    rig.create("dd if=/dev/zero bs=65536 count=1000; exit 6", &names("")).await.unwrap();
    let mut slow = try_attach(&rig, "", false).await.unwrap();
    rig.start("").await.unwrap();
    assert_eq!(rig.wait("").await, 6);
    assert_eq!(slow.read().await.unwrap_err().kind(), Kind::ResourceExhausted);
}

#[tokio::test]
async fn the_container_waits_for_a_lossless_client_until_that_leaves() {
    let mut rig = Rig::new().await;
    rig.create("dd if=/dev/zero bs=65536 count=1000; exit 6", &names("")).await.unwrap();
    let client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(200), rig.wait(""));
    assert!(waiting.await.is_err(), "it did not wait");
    drop(client);
    assert_eq!(rig.wait("").await, 6);
}

#[tokio::test]
async fn a_client_gets_what_is_logged_too() {
    let mut rig = Rig::new().await;
    let path = rig.path("a-json.log");
    let uri = format!("log+json-file://{}", path.display());
    let names = Names { stdout: uri.clone(), stderr: uri, ..Default::default() };
    rig.create("echo both", &names).await.unwrap();
    let mut client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    assert_eq!(client.read().await.unwrap().0, "both\n");
    rig.wait("").await;
    assert!(std::fs::read_to_string(path).unwrap().contains("both"));
}

#[tokio::test]
async fn an_exec_can_be_attached_to_before_it_starts() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    rig.exec("one", "cat; exit 2", &names("attach:once")).await.unwrap();
    let mut client = attach(&rig, "one").await;
    rig.start("one").await.unwrap();
    client.write("through\n").await;
    client.close_stdin().await;
    assert_eq!(client.read().await.unwrap().0, "through\n");
    assert_eq!(rig.wait("one").await, 2);
}

#[tokio::test]
async fn a_terminal_is_attached_to() {
    let mut rig = Rig::new().await;
    let names = Names { terminal: true, stderr: String::new(), ..names("attach:keep") };
    rig.create("read line; tty; exit 1", &names).await.unwrap();
    let mut client = attach(&rig, "").await;
    rig.start("").await.unwrap();
    client.write("go\n").await;
    assert_eq!(client.read().await.unwrap().0, "go\r\n/dev/pts/0\r\n");
}

#[tokio::test]
async fn nothing_can_be_attached_to_what_is_not_there() {
    let mut rig = Rig::new().await;
    assert_eq!(try_attach(&rig, "", true).await.err().unwrap().kind(), Kind::NotFound);
    rig.create("true", &names("")).await.unwrap();
    assert_eq!(try_attach(&rig, "none", true).await.err().unwrap().kind(), Kind::NotFound);
}

#[tokio::test]
async fn clients_that_leave_leave_nothing() {
    let mut rig = Rig::new().await;
    rig.create("sleep 1000", &names("attach:keep")).await.unwrap();
    rig.start("").await.unwrap();
    drop(attach(&rig, "").await);
    let before = rig.descriptors();
    for _ in 0..50 {
        drop(attach(&rig, "").await);
        let watcher = attach(&rig, "").await;
        watcher.sender.close().await.unwrap();
    }
    rig.until("connections are left", |rig| rig.descriptors() <= before).await;
}
