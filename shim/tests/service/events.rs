//! The daemon goes and comes; events wait for it.

use crate::rig::{Names, Rig};

#[tokio::test]
async fn events_wait_for_the_daemon_in_their_order() {
    let mut rig = Rig::without_daemon().await;
    rig.run("exit 1", &Names::default()).await;
    rig.wait("").await;
    rig.delete("").await.unwrap();
    rig.start_daemon();
    let topics = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    assert_eq!(rig.topics(4).await, topics);
}

#[tokio::test]
async fn events_find_a_daemon_that_was_restarted() {
    let mut rig = Rig::new().await;
    rig.run("sleep 1000", &Names::default()).await;
    assert_eq!(rig.topics(2).await, ["/tasks/create", "/tasks/start"]);
    rig.stop_daemon();
    rig.kill("", 9).await.unwrap();
    assert_eq!(rig.wait("").await, 137);
    rig.start_daemon();
    assert_eq!(rig.topics(1).await, ["/tasks/exit"]);
}
