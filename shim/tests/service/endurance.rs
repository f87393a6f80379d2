//! What happens often must leave nothing in the shim: no process, no descriptor, no memory.

use berth_proto::berth::shim::v1::{AttachRequest, AttachResponse};
use berth_proto::containerd::task::v3 as api;
use berth_ttrpc::{Client, Options};

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
