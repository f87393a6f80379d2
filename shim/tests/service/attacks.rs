//! Containers that mean ill to the shim.

use berth_proto::containerd::v1::types::Status;

use crate::rig::{Names, Rig};

/// "The shim's memory can't be read from a container", not even by one that sees the host's
/// processes and is root: neither what it has in memory nor what it has open.
#[tokio::test]
async fn the_shims_memory_is_not_read_where_processes_are_shared() {
    let mut rig = Rig::new().await;
    rig.spec.linux.as_mut().unwrap().namespaces.retain(|namespace| namespace.kind != "pid");
    let line = format!(
        "cd /proc/{}; for file in mem maps environ auxv; do cat $file && echo $file; done; \
         for fd in fd/*; do ( : < $fd ) && echo fd; ( : >> $fd ) && echo fd; done; \
         ( : < exe ) && echo exe; echo end",
        rig.shim.id()
    );
    let output = rig.path("output");
    let names = Names { stdout: format!("file://{}", output.display()), ..Default::default() };
    rig.run(&line, &names).await;
    rig.wait("").await;
    rig.delete("").await.unwrap();
    let seen = std::fs::read_to_string(output).unwrap();
    assert!(seen.ends_with("end\n"), "{seen}");
    for file in ["mem", "maps", "environ", "auxv", "fd", "exe"] {
        assert!(!seen.lines().any(|line| line == file), "{file}: {seen}");
    }
}

/// A container that stops whoever joins it holds up that one, and nobody else; it ends as any other.
#[tokio::test]
async fn a_container_that_stops_who_joins_it_holds_up_nobody_else() {
    let mut rig = Rig::new().await;
    let line = "echo 1 > /tmp/ready; while :; do for p in /proc/[0-9]*; do \
                [ $p = /proc/1 ] || kill -STOP ${p#/proc/}; done; done 2> /dev/null";
    rig.run(line, &Names::default()).await;
    rig.until("the container", |rig| rig.bundle().join("rootfs/tmp/ready").exists()).await;
    for id in ["one", "two", "three"] {
        rig.exec(id, "exec sleep 1000", &Names::default()).await.unwrap();
    }
    let end = async {
        for _ in 0..20 {
            assert_eq!(rig.status("").await, Status::Running);
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        rig.kill("", 9).await.unwrap();
        rig.wait("").await
    };
    let starts = async { tokio::join!(rig.start("one"), rig.start("two"), rig.start("three")) };
    let (status, _) = tokio::join!(end, starts);
    assert_eq!(status, 137);
    rig.delete("").await.unwrap();
    rig.assert_no_cgroup();
    rig.until("children are left", |rig| rig.children() == 0).await;
}
