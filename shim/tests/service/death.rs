//! The shim dies; the action `delete` cleans up.

use berth_types::{Kind, spec};

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

#[tokio::test]
async fn a_shim_that_is_killed_in_a_hook_that_hangs_leaves_nothing() {
    let mut rig = Rig::new().await;
    let begun = rig.path("begun");
    let hook = spec::Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", &format!(": > {}; sleep 1000", begun.display())]
            .map(str::to_owned)
            .to_vec(),
        ..Default::default()
    };
    rig.spec.hooks = Some(spec::Hooks { create_container: vec![hook], ..Default::default() });
    let shim = rustix::process::Pid::from_child(&rig.shim);
    let kill = async {
        while !begun.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        rustix::process::kill_process(shim, rustix::process::Signal::KILL).unwrap();
    };
    let names = Names::default();
    let (created, ()) = tokio::join!(rig.create("true", &names), kill);
    assert_eq!(created.unwrap_err().kind(), Kind::Unavailable);
    rig.shim.wait().unwrap();
    assert_eq!(rig.clean_up().exit_status, 137);
    rig.assert_no_cgroup();
}
