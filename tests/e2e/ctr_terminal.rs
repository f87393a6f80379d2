//! Terminals through Debian's `ctr`.

use berth_tests::{Engine, Image};

const IMAGE: &str = "docker.io/library/busybox:latest";

#[test]
fn a_container_has_the_terminal_of_its_user() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    // `ctr` passes the window's size on once the container runs.
    let wait = "until [ \"$(stty size 2>/dev/null)\" ]; do sleep 0.01; done";
    let script = format!("tty; echo $TERM; {wait}; stty size");
    let run = engine.ctr_on_terminal(&["run", "-t", "--rm", IMAGE, "one", "sh", "-c", &script]);
    assert_eq!(run.success().stdout, "/dev/pts/0\nxterm\n33 99\n");
}

#[test]
fn an_exec_has_a_terminal_of_its_own() {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let exec = ["tasks", "exec", "-t", "--exec-id", "e", "one", "sh", "-c", "tty; exit 4"];
    let run = engine.ctr_on_terminal(&exec).exited(4);
    assert_eq!(run.stdout.lines().next(), Some("/dev/pts/0"));
}
