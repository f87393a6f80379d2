//! What happens often must leave nothing in the shim: no process, no descriptor, no memory.

use std::sync::Arc;

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_proto::containerd::task::v3 as api;
use berth_ttrpc::{Client, Options};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::rig::{Names, Rig};

/// What a shim may grow by, in KiB: much less than one small allocation for each round.
const GROWTH: usize = 1024;

/// How often: ten times more in the long lane.
fn rounds(short: usize) -> usize {
    if std::env::var_os("BERTH_LONG_TESTS").is_some() { short * 10 } else { short }
}

/// What must be as before.
async fn assert_nothing_grew(rig: &Rig, descriptors: usize, memory: usize) {
    rig.until("children are left", |rig| rig.children() == 1).await;
    rig.until("descriptors are left", |rig| rig.descriptors() <= descriptors).await;
    assert_eq!(rig.threads(), 1);
    let now = rig.memory();
    assert!(now <= memory + GROWTH, "{now} KiB after {memory} KiB");
}

async fn exec(rig: &Rig, exec_id: &str) {
    rig.exec(exec_id, "exit 3", &Names::default()).await.unwrap();
    rig.start(exec_id).await.unwrap();
    assert_eq!(rig.wait(exec_id).await, 3);
    rig.delete(exec_id).await.unwrap();
}

#[tokio::test]
async fn execs_leave_nothing() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    for number in 0..50 {
        exec(&rig, &format!("first-{number}")).await;
    }
    let (descriptors, memory) = (rig.descriptors(), rig.memory());
    for number in 0..rounds(1000) {
        exec(&rig, &format!("exec-{number}")).await;
    }
    assert_nothing_grew(&rig, descriptors, memory).await;
}

/// What is done with an exec.
#[derive(Clone, Copy)]
enum Exec {
    /// It ends by itself.
    Ends,
    /// The client has waited for long enough, and kills it.
    TimesOut,
    /// It prints more than anybody reads, until it is killed.
    Floods,
    /// It prints so many MiB, which are read.
    Prints(u64),
}

async fn exec_of(kind: Exec, rig: &Rig, id: &str) {
    let fifo = match kind {
        Exec::Floods | Exec::Prints(_) => Some(rig.fifo(id)),
        Exec::Ends | Exec::TimesOut => None,
    };
    let stdout = fifo.as_ref().map(|path| path.to_str().unwrap().to_owned());
    let names = Names { stdout: stdout.unwrap_or_default(), ..Default::default() };
    let line = match kind {
        Exec::Ends => "exit 137".to_owned(),
        Exec::TimesOut => "exec sleep 1000".to_owned(),
        Exec::Floods => "exec yes".to_owned(),
        Exec::Prints(size) => format!("dd if=/dev/zero bs=1M count={size} 2> /dev/null; exit 137"),
    };
    rig.exec(id, &line, &names).await.unwrap();
    let reader = match (&fifo, kind) {
        (Some(path), Exec::Prints(_)) => {
            let mut fifo = pipe::OpenOptions::new().open_receiver(path).unwrap();
            Some(tokio::spawn(async move {
                let (mut buffer, mut all) = (vec![0; 65_536], 0);
                // Until the shim, which opens it at the start, has closed it.
                loop {
                    match fifo.read(&mut buffer).await.unwrap() {
                        0 if all > 0 => return all,
                        0 => tokio::task::yield_now().await,
                        length => all += length as u64,
                    }
                }
            }))
        }
        _ => None,
    };
    rig.start(id).await.unwrap();
    if matches!(kind, Exec::TimesOut | Exec::Floods) {
        rig.kill(id, 9).await.unwrap();
    }
    assert_eq!(rig.wait(id).await, 137);
    if let (Some(reader), Exec::Prints(size)) = (reader, kind) {
        assert_eq!(reader.await.unwrap(), size << 20);
    }
    rig.delete(id).await.unwrap();
    if let Some(path) = fifo {
        std::fs::remove_file(path).unwrap();
    }
}

/// Runs `count` execs, many at a time.
async fn execs_of(rig: &Arc<Rig>, name: &str, count: usize, large: u64) {
    let room = Arc::new(Semaphore::new(64));
    let mut all = JoinSet::new();
    for number in 0..count {
        let kind = match number % 6 {
            _ if number % 1000 == 999 => Exec::Prints(large),
            0 | 1 => Exec::TimesOut,
            2 => Exec::Floods,
            3 => Exec::Prints(1),
            _ => Exec::Ends,
        };
        let turn = room.clone().acquire_owned().await.unwrap();
        let (rig, id) = (rig.clone(), format!("{name}-{number}"));
        all.spawn(async move {
            exec_of(kind, &rig, &id).await;
            drop(turn);
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn execs_that_are_given_up_leave_nothing() {
    let mut rig = Rig::new().await;
    rig.run("exec sleep 1000", &Names::default()).await;
    let rig = Arc::new(rig);
    execs_of(&rig, "first", 200, 1).await;
    let quiet = rig.descriptors();
    rig.until("descriptors are left", |rig| rig.descriptors() <= quiet).await;
    let (descriptors, memory) = (rig.descriptors(), rig.memory());
    execs_of(&rig, "exec", rounds(1000), if rounds(1) > 1 { 1024 } else { 32 }).await;
    assert_nothing_grew(&rig, descriptors, memory).await;
}

#[tokio::test]
async fn resizes_of_a_terminal_that_nobody_reads_leave_nothing() {
    let mut rig = Rig::new().await;
    let stdout = rig.fifo("stdout").to_str().unwrap().to_owned();
    let names = Names { terminal: true, stdout, ..Default::default() };
    // It prints something at each.
    rig.run("trap 'echo resized' WINCH; while :; do sleep 0.01; done", &names).await;
    let resize = async |number: usize| {
        let (width, height) = (80 + number as u32 % 100, 24);
        let request =
            api::ResizePtyRequest { id: rig.id.clone(), exec_id: String::new(), width, height };
        rig.call::<_, ()>("ResizePty", &request).await.unwrap();
    };
    for number in 0..100 {
        resize(number).await;
    }
    let (descriptors, memory) = (rig.descriptors(), rig.memory());
    for number in 0..10_000 {
        resize(number).await;
    }
    assert_nothing_grew(&rig, descriptors, memory).await;
}

/// Attaches and is gone, half of the time without waiting for the answer.
async fn attach_and_leave(rig: &Rig, number: usize) {
    let client = Client::connect(&rig.path("socket")).await.unwrap();
    let options = Options::default();
    let stream = client.stream("berth.shim.v1.Streams", "Attach", &options);
    let mut stream = stream.await.unwrap();
    let first = AttachRequest { id: rig.id.clone(), lossless: true, ..Default::default() };
    stream.sender.send(&first).await.unwrap();
    if number.is_multiple_of(2) {
        stream.receiver.next::<AttachResponse>().await.unwrap();
    }
}

#[tokio::test]
async fn attaches_that_are_dropped_leave_nothing() {
    let mut rig = Rig::new().await;
    let names = Names {
        stdin: "attach:keep".into(),
        stdout: "attach:".into(),
        stderr: "attach:".into(),
        ..Default::default()
    };
    rig.run("while :; do echo text; sleep 0.01; done", &names).await;
    for number in 0..200 {
        attach_and_leave(&rig, number).await;
    }
    let quiet = rig.descriptors();
    rig.until("descriptors are left", |rig| rig.descriptors() <= quiet).await;
    let (descriptors, memory) = (rig.descriptors(), rig.memory());
    for number in 0..10_000 {
        attach_and_leave(&rig, number).await;
    }
    // The program itself starts one sleep after the other, which are no children of the shim.
    assert_nothing_grew(&rig, descriptors, memory).await;
}
