//! FIFOs as containerd's clients make them, files, logs, terminals.

use std::path::PathBuf;
use std::time::SystemTime;

use berth_logs::{Query, Reader};
use berth_proto::berth::shim::v1::{ReopenLogsRequest, ReopenLogsResponse};
use berth_proto::containerd::task::v3 as api;
use berth_ttrpc::Options;
use berth_types::Kind;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use crate::rig::{HANGS, Names, Rig};

/// Reads a FIFO to its end, as clients do, from before there is a writer.
fn read(path: PathBuf) -> JoinHandle<Vec<u8>> {
    tokio::task::spawn_blocking(move || std::fs::read(path).unwrap())
}

async fn ends<T>(work: JoinHandle<T>) -> T {
    tokio::time::timeout(HANGS, work).await.expect("it hangs").unwrap()
}

fn name(path: &std::path::Path) -> String {
    path.to_str().unwrap().to_owned()
}

struct Fifos {
    names: Names,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
}

fn fifos(rig: &Rig, prefix: &str) -> Fifos {
    let stdout = rig.fifo(&format!("{prefix}stdout"));
    let stderr = rig.fifo(&format!("{prefix}stderr"));
    let names = Names { stdout: name(&stdout), stderr: name(&stderr), ..Default::default() };
    Fifos { names, stdout: read(stdout), stderr: read(stderr) }
}

#[tokio::test]
async fn all_output_arrives_in_fifos() {
    let mut rig = Rig::new().await;
    let fifos = fifos(&rig, "");
    rig.run("seq 1 200000; echo error >&2", &fifos.names).await;
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_eq!(ends(fifos.stdout).await, expected.as_bytes());
    assert_eq!(ends(fifos.stderr).await, b"error\n");
}

#[tokio::test]
async fn short_lived_output_is_never_lost() {
    for _ in 0..20 {
        let mut rig = Rig::new().await;
        let fifos = fifos(&rig, "");
        rig.create_with(&["echo", "short"], &fifos.names).await.unwrap();
        rig.start("").await.unwrap();
        assert_eq!(ends(fifos.stdout).await, b"short\n");
        ends(fifos.stderr).await;
    }
}

#[tokio::test]
async fn input_arrives_until_the_client_closes_its_fifo() {
    let mut rig = Rig::new().await;
    let stdin = rig.fifo("stdin");
    let Fifos { mut names, stdout, .. } = fifos(&rig, "");
    names.stdin = name(&stdin);
    rig.run("cat; echo end", &names).await;
    let mut writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
    let text = vec![b'x'; 300_000];
    writer.write_all(&text).await.unwrap();
    drop(writer);
    assert_eq!(ends(stdout).await, [&text[..], b"end\n"].concat());
}

#[tokio::test]
async fn close_io_ends_the_input_of_a_client_that_stays() {
    let mut rig = Rig::new().await;
    let stdin = rig.fifo("stdin");
    let Fifos { mut names, stdout, .. } = fifos(&rig, "");
    names.stdin = name(&stdin);
    rig.run("cat; echo end", &names).await;
    let mut writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
    writer.write_all(b"all of it\n").await.unwrap();
    rig.close_stdin("").await;
    assert_eq!(ends(stdout).await, b"all of it\nend\n");
    drop(writer);
}

#[tokio::test]
async fn a_child_that_holds_the_pipes_holds_up_nobody() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    let fifos = fifos(&rig, "exec-");
    rig.exec(
        "one",
        "(sleep 0.3; echo late; echo alive > /tmp/alive; sleep 1000) & echo now",
        &fifos.names,
    )
    .await
    .unwrap();
    rig.start("one").await.unwrap();
    assert_eq!(ends(fifos.stdout).await, b"now\n");
    assert_eq!(rig.wait("one").await, 0);
    // The child may go on writing.
    while !rig.bundle().join("rootfs/tmp/alive").exists() {
        tokio::task::yield_now().await;
    }
    rig.delete("one").await.unwrap();
}

#[tokio::test]
async fn a_missing_fifo_is_not_found() {
    let mut rig = Rig::new().await;
    let names = Names { stdout: name(&rig.path("nowhere")), ..Default::default() };
    let error = rig.create("true", &names).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.message().contains("nowhere"));
    rig.create("true", &Names::default()).await.unwrap();
}

#[tokio::test]
async fn output_is_appended_to_a_file() {
    let mut rig = Rig::new().await;
    let path = rig.path("deep/er/output");
    let uri = format!("file://{}", path.display());
    let names = Names { stdout: uri.clone(), stderr: uri, ..Default::default() };
    rig.run("echo out; echo error >&2", &names).await;
    rig.wait("").await;
    rig.delete("").await.unwrap();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "out\nerror\n");
}

fn log(rig: &Rig, query: &str) -> (PathBuf, Names) {
    let path = rig.path("a-json.log");
    let uri = format!("log+json-file://{}{query}", path.display());
    (path, Names { stdout: uri.clone(), stderr: uri, ..Default::default() })
}

async fn entries(path: &std::path::Path) -> Vec<berth_logs::Entry> {
    let mut reader = Reader::open(path, Query::default()).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await.unwrap() {
        entries.push(entry);
    }
    entries
}

#[tokio::test]
async fn a_log_is_complete_once_the_exit_is_known() {
    for _ in 0..10 {
        let mut rig = Rig::new().await;
        let (path, names) = log(&rig, "");
        let before = SystemTime::now();
        rig.run("seq 1 1000; printf rest; echo error >&2", &names).await;
        rig.wait("").await;
        let entries = entries(&path).await;
        let of = |stream| {
            let chosen = entries.iter().filter(move |entry| entry.stream == stream);
            chosen.map(|entry| entry.log.as_str()).collect::<String>()
        };
        let mut expected: String = (1..=1000).map(|number| format!("{number}\n")).collect();
        expected.push_str("rest");
        assert_eq!(of(berth_logs::Stream::Stdout), expected);
        assert_eq!(of(berth_logs::Stream::Stderr), "error\n");
        assert!(entries.iter().all(|entry| entry.time >= before));
    }
}

#[tokio::test]
async fn a_log_is_rotated_as_its_name_says() {
    let mut rig = Rig::new().await;
    let (path, names) = log(&rig, "?max-size=10000&max-file=2");
    rig.run("seq 1 1000", &names).await;
    rig.wait("").await;
    assert!(path.with_extension("log.1").exists() && !path.with_extension("log.2").exists());
    assert_eq!(entries(&path).await.last().unwrap().log, "1000\n");
}

#[tokio::test]
async fn a_terminal_is_one_stream_of_a_size() {
    let mut rig = Rig::new().await;
    let (stdin, stdout) = (rig.fifo("stdin"), rig.fifo("stdout"));
    let names =
        Names { terminal: true, stdin: name(&stdin), stdout: name(&stdout), stderr: String::new() };
    let mut reader = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
    rig.run("echo ready; read line; stty size; echo error >&2; exit 3", &names).await;
    let mut text = Vec::new();
    while !text.ends_with(b"ready\r\n") {
        assert_ne!(reader.read_buf(&mut text).await.unwrap(), 0);
    }
    let request = api::ResizePtyRequest {
        id: rig.id.clone(),
        exec_id: String::new(),
        width: 123,
        height: 45,
    };
    rig.call::<_, ()>("ResizePty", &request).await.unwrap();
    let mut writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
    writer.write_all(b"go\n").await.unwrap();
    reader.read_to_end(&mut text).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&text), "ready\r\ngo\r\n45 123\r\nerror\r\n");
    assert_eq!(rig.wait("").await, 3);
}

#[tokio::test]
async fn a_log_of_kubernetes_form_goes_on_after_a_rotation_from_outside() {
    let mut rig = Rig::new().await;
    let (path, input) = (rig.path("0.log"), rig.fifo("stdin"));
    let uri = format!("log+cri://{}", path.display());
    let names = Names { stdin: name(&input), stdout: uri.clone(), stderr: uri, terminal: false };
    rig.run("echo first; read line; echo $line; printf rest >&2", &names).await;
    let is_logged = |text: &str| std::fs::read_to_string(&path).is_ok_and(|log| log.contains(text));
    rig.until("the first line is not logged", |_| is_logged(" stdout F first\n")).await;
    std::fs::rename(&path, rig.path("0.log.old")).unwrap();
    let request = ReopenLogsRequest { id: rig.id.clone(), exec_id: String::new() };
    let options = Options::timeout(HANGS);
    let reopened: berth_types::Result<ReopenLogsResponse> =
        rig.client.call("berth.shim.v1.Streams", "ReopenLogs", &request, &options).await;
    reopened.unwrap();
    let mut writer = pipe::OpenOptions::new().open_sender(&input).unwrap();
    writer.write_all(b"second\n").await.unwrap();
    rig.wait("").await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(lines, ["stdout F second", "stderr P rest"]);
}

/// A logging program that leaves what it gets beside the bundle.
fn logger(rig: &Rig, line: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = rig.path("logger");
    let directory = path.parent().unwrap().display();
    let script = format!("#!/bin/sh\ncd {directory}\n{line}\n");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    format!("binary://{}?key=a+b", path.display())
}

const COLLECTS: &str = "echo $CONTAINER_ID $CONTAINER_NAMESPACE \"$@\" > who; exec 5>&-; \
                        cat <&3 > out & cat <&4 > err & wait; echo done >> who";

#[tokio::test]
async fn a_logging_program_gets_all_output() {
    let mut rig = Rig::new().await;
    let uri = logger(&rig, COLLECTS);
    let names = Names { stdout: uri.clone(), stderr: uri, ..Default::default() };
    rig.run("seq 1 200000; echo error >&2; (sleep 0.1; echo late) &", &names).await;
    assert_eq!(rig.wait("").await, 0);
    rig.delete("").await.unwrap();
    let read = |name| std::fs::read_to_string(rig.path(name)).unwrap();
    assert_eq!(read("who"), format!("{} test key a b\ndone\n", rig.id));
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert!(read("out").starts_with(&expected));
    assert_eq!(read("err"), "error\n");
    rig.until("the program is left", |rig| rig.children() == 0).await;
}

#[tokio::test]
async fn a_logging_program_gets_a_terminals_output_and_may_die() {
    let mut rig = Rig::new().await;
    let uri = logger(&rig, "exec 5>&-; head -n 1 <&3 > out");
    let names = Names { terminal: true, stdout: uri, ..Default::default() };
    rig.run("echo one; sleep 0.1; seq 1 100000; exit 3", &names).await;
    assert_eq!(rig.wait("").await, 3);
    rig.delete("").await.unwrap();
    assert_eq!(std::fs::read_to_string(rig.path("out")).unwrap(), "one\r\n");
}

#[tokio::test]
async fn a_logging_program_that_can_not_be_started_is_named() {
    let mut rig = Rig::new().await;
    let failing = logger(&rig, "exit 1");
    for (uri, kind) in
        [("binary:///nonexistent/logger".to_owned(), Kind::NotFound), (failing, Kind::Aborted)]
    {
        let names = Names { stdout: uri, ..Default::default() };
        let error = rig.create("true", &names).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains("/logger"), "{error}");
    }
    rig.run("true", &Names::default()).await;
}

#[tokio::test]
async fn a_logging_program_that_never_reads_holds_up_no_end() {
    let mut rig = Rig::new().await;
    let uri = logger(&rig, "exec 5>&-; exec sleep 1000");
    let names = Names { stdout: uri, ..Default::default() };
    rig.run("exec yes", &names).await;
    // The others of the shim's calls don't wait for it either.
    rig.exec("one", "exit 4", &Names::default()).await.unwrap();
    rig.start("one").await.unwrap();
    assert_eq!(rig.wait("one").await, 4);
    rig.kill("", 9).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    rig.delete("").await.unwrap();
    rig.until("the program is left", |rig| rig.children() == 0).await;
}

#[tokio::test]
async fn an_exec_that_is_being_started_is_not_deleted() {
    let mut rig = Rig::new().await;
    rig.run("exec sleep 1000", &Names::default()).await;
    let slow = ": > begun; while [ ! -e go ]; do sleep 0.01; done; exec 5>&-; exec cat <&3 > out";
    let names = Names { stdout: logger(&rig, slow), ..Default::default() };
    rig.exec("one", "echo told", &names).await.unwrap();
    let start = rig.start("one");
    let delete = async {
        rig.until("the start", |rig| rig.path("begun").exists()).await;
        let refused = rig.delete("one").await.unwrap_err();
        std::fs::write(rig.path("go"), "").unwrap();
        refused
    };
    let (started, refused) = tokio::join!(start, delete);
    started.unwrap();
    assert_eq!(refused.kind(), Kind::FailedPrecondition, "{refused}");
    assert_eq!(rig.wait("one").await, 0);
    rig.delete("one").await.unwrap();
    assert_eq!(std::fs::read_to_string(rig.path("out")).unwrap(), "told\n");
    // One that never starts can be deleted, and then not be started.
    rig.exec("two", "true", &Names::default()).await.unwrap();
    rig.delete("two").await.unwrap();
    assert_eq!(rig.start("two").await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test]
async fn clients_that_never_open_their_fifos_hold_up_no_end() {
    let mut rig = Rig::new().await;
    let (stdin, stdout) = (rig.fifo("stdin"), rig.fifo("stdout"));
    let stderr = name(&rig.fifo("stderr"));
    let names = Names { stdin: name(&stdin), stdout: name(&stdout), stderr, ..Default::default() };
    rig.run("echo error >&2; exec yes", &names).await;
    rig.exec("one", "exit 4", &Names::default()).await.unwrap();
    rig.start("one").await.unwrap();
    assert_eq!(rig.wait("one").await, 4);
    rig.kill("", 9).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    rig.delete("").await.unwrap();
    rig.assert_no_cgroup();
}

#[tokio::test]
async fn clients_that_open_their_fifos_late_see_their_end() {
    let mut rig = Rig::new().await;
    let (stdout, stderr) = (rig.fifo("stdout"), rig.fifo("stderr"));
    let names = Names { stdout: name(&stdout), stderr: name(&stderr), ..Default::default() };
    rig.run("echo one", &names).await;
    assert_eq!(rig.wait("").await, 0);
    assert_eq!(ends(read(stdout)).await, b"one\n");
    assert_eq!(ends(read(stderr)).await, b"");
    rig.delete("").await.unwrap();
}

#[tokio::test]
async fn a_client_that_closes_its_terminal_early_ends_nothing() {
    let mut rig = Rig::new().await;
    let (stdin, stdout) = (rig.fifo("stdin"), rig.fifo("stdout"));
    let names =
        Names { terminal: true, stdin: name(&stdin), stdout: name(&stdout), ..Default::default() };
    // Both ends are opened at once and left again before the first byte.
    let reader = pipe::OpenOptions::new().open_receiver(&stdout).unwrap();
    rig.create("echo one; sleep 0.1; echo two; exit 3", &names).await.unwrap();
    let writer = pipe::OpenOptions::new().open_sender(&stdin).unwrap();
    drop((reader, writer));
    rig.start("").await.unwrap();
    assert_eq!(rig.wait("").await, 3);
    // The next one reads what is there.
    assert_eq!(ends(read(stdout)).await, b"one\r\ntwo\r\n");
    rig.delete("").await.unwrap();
}
