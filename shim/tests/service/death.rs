//! The shim dies; the action `delete` cleans up.

use berth_types::Kind;

use crate::rig::{Names, Rig};

fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[tokio::test]
async fn a_killed_shims_container_is_killed_and_removed() {
    let mut rig = Rig::new().await;
    let pid = rig.run("sleep 1000 & sleep 1000", &Names::default()).await;
    rig.shim.kill().unwrap();
    rig.shim.wait().unwrap();
    assert!(alive(pid));
    let response = rig.clean_up();
    assert_eq!(response.exit_status, 137);
    assert!(response.exited_at.is_some());
    rig.until("it is left", |_| !alive(pid)).await;
    rig.assert_no_cgroup();
    // Again, as after a daemon that died meanwhile.
    assert_eq!(rig.clean_up().exit_status, 137);
}

#[tokio::test]
async fn an_exit_that_a_killed_shim_recorded_is_not_lost() {
    let mut rig = Rig::new().await;
    rig.run("exit 5", &Names::default()).await;
    assert_eq!(rig.wait("").await, 5);
    let exited_at = rig.state("").await.unwrap().exited_at;
    rig.shim.kill().unwrap();
    rig.shim.wait().unwrap();
    let response = rig.clean_up();
    assert_eq!((response.exit_status, response.exited_at), (5, exited_at));
}

#[tokio::test]
async fn a_container_that_was_not_started_dies_with_its_shim() {
    let mut rig = Rig::new().await;
    let pid = rig.create("sleep 1000", &Names::default()).await.unwrap();
    rig.shim.kill().unwrap();
    rig.shim.wait().unwrap();
    rig.clean_up();
    rig.until("it is left", |_| !alive(pid)).await;
    assert_eq!(rig.state("").await.unwrap_err().kind(), Kind::Unavailable);
}
