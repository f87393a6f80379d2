//! Containers that stay: `create`, `start`, `stop`, `kill`, `rm`, `ps`, `logs`, `exec`, `attach`,
//! `wait` and `inspect` of `berth`.

use std::fs;
use std::process::Stdio;

use berth_tests::{Engine, Finished, Image, Terminal, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

const IMAGE: &str = "docker.io/library/busybox:latest";
const BUSYBOX: &str = "busybox";

fn engine() -> Option<Engine> {
    let engine = Engine::berth()?;
    engine.import(&Image::busybox(IMAGE));
    Some(engine)
}

/// Runs a shell in the background as the container `one`.
fn background(engine: &Engine, script: &str) -> String {
    let run = engine.cli(&["run", "-d", "--name", "one", BUSYBOX, "sh", "-c", script]);
    run.success().line().to_owned()
}

/// What `inspect` says of the container `one`.
fn inspect(engine: &Engine) -> Value {
    let text = engine.cli(&["inspect", "one"]).success().stdout;
    let mut all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.remove(0)
}

/// The row of the container `one` in the list of all.
fn row(engine: &Engine) -> String {
    let list = engine.cli(&["ps", "-a"]).success().stdout;
    list.lines().find(|line| line.ends_with(" one")).unwrap_or_default().to_owned()
}

fn wait(engine: &Engine) -> String {
    engine.cli(&["wait", "one"]).success().line().to_owned()
}

#[test]
fn cli_a_container_is_created_started_stopped_and_removed() {
    let Some(engine) = engine() else { return };
    let created = engine.cli(&["create", "--name", "one", BUSYBOX, "sleep", "1000"]).success();
    let id = created.line();
    assert_eq!(id.len(), 64);
    assert!(row(&engine).contains("Created"), "{}", row(&engine));
    assert_eq!(engine.cli(&["ps", "-q"]).success().line(), "");
    assert_eq!(engine.cli(&["start", "one"]).success().line(), "one");
    assert!(row(&engine).contains("Up "), "{}", row(&engine));
    // Starting a running one changes nothing.
    let pid = inspect(&engine)["State"]["Pid"].clone();
    engine.cli(&["start", "one"]).success();
    assert_eq!(inspect(&engine)["State"]["Pid"], pid);
    // By the beginning of its id.
    assert_eq!(engine.cli(&["stop", "-t", "0", &id[..8]]).success().line(), &id[..8]);
    assert!(row(&engine).contains("Exited (137)"), "{}", row(&engine));
    // Stopping a stopped one changes nothing.
    engine.cli(&["stop", "one"]).success();
    engine.cli(&["start", "one"]).success();
    assert!(row(&engine).contains("Up "), "{}", row(&engine));
    engine
        .cli(&["rm", "one"])
        .exited(1)
        .complains("stop the container before removing or force remove");
    engine.cli(&["rm", "-f", "one"]).success();
    assert_eq!(row(&engine), "");
    engine.cli(&["rm", "one"]).exited(1).complains("No such container: one");
    let forced = engine.cli(&["rm", "-f", "one"]).success();
    assert_eq!(forced.stdout, "");
    forced.complains("No such container: one");
}

#[test]
fn cli_unknown_containers_are_named_in_every_answer() {
    let Some(engine) = engine() else { return };
    for args in [
        &["start", "nobody"][..],
        &["stop", "nobody"],
        &["kill", "nobody"],
        &["rm", "nobody"],
        &["logs", "nobody"],
        &["exec", "nobody", "true"],
        &["attach", "nobody"],
        &["wait", "nobody"],
        &["restart", "nobody"],
        &["top", "nobody"],
    ] {
        engine.cli(args).exited(1).complains("No such container: nobody");
    }
    engine.cli(&["inspect", "nobody"]).exited(1).complains("No such object: nobody");
}

#[test]
fn cli_exit_codes_and_times_stay() {
    let Some(mut engine) = engine() else { return };
    background(&engine, "exit 42");
    assert_eq!(wait(&engine), "42");
    assert!(row(&engine).contains("Exited (42)"), "{}", row(&engine));
    let state = inspect(&engine)["State"].clone();
    assert_eq!((&state["ExitCode"], &state["Status"]), (&42.into(), &"exited".into()));
    assert!(state["FinishedAt"].as_str() >= state["StartedAt"].as_str(), "{state}");
    engine.stop_daemon(Signal::SIGKILL);
    engine.start_daemon();
    assert_eq!(inspect(&engine)["State"], state);
    engine.cli(&["start", "one"]).success();
    assert_eq!(wait(&engine), "42");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_what_happens_without_the_daemon_is_known_after_it() {
    let Some(mut engine) = engine() else { return };
    background(&engine, "until [ -e /go ]; do sleep 0.05; done; exit 9");
    let temporary = ["run", "-d", "--rm", "--name", "two", BUSYBOX, "sh", "-c"];
    engine.cli(&[&temporary[..], &["until [ -e /go ]; do sleep 0.05; done"]].concat()).success();
    // Temporary ones are written within a second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let pid = inspect(&engine)["State"]["Pid"].as_u64().unwrap();
    let other = engine.cli(&["inspect", "two"]).success().stdout;
    let other: Value = serde_json::from_str(&other).unwrap();
    let other = other[0]["State"]["Pid"].as_u64().unwrap();
    engine.stop_daemon(Signal::SIGKILL);
    for pid in [pid, other] {
        fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        wait_until("the end", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        });
    }
    engine.start_daemon();
    assert!(row(&engine).contains("Exited (9)"), "{}", row(&engine));
    wait_until("the temporary one to be gone", || {
        engine.cli(&["ps", "-a", "-q"]).success().stdout.lines().count() == 1
    });
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_running_containers_outlive_the_daemon() {
    let Some(mut engine) = engine() else { return };
    background(&engine, "echo before; until [ -e /go ]; do sleep 0.05; done; echo after; exit 3");
    engine.stop_daemon(Signal::SIGTERM);
    engine.start_daemon();
    assert!(row(&engine).contains("Up "), "{}", row(&engine));
    engine.cli(&["exec", "one", "touch", "/go"]).success();
    assert_eq!(wait(&engine), "3");
    assert_eq!(engine.cli(&["logs", "one"]).success().stdout, "before\nafter\n");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_stop_asks_first_and_kills_then() {
    let Some(engine) = engine() else { return };
    background(&engine, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    wait_until("the trap", || engine.cli(&["logs", "one"]).success().stdout == "ready\n");
    engine.cli(&["stop", "one"]).success();
    assert!(row(&engine).contains("Exited (5)"), "{}", row(&engine));
    engine.cli(&["rm", "one"]).success();
    background(&engine, "trap '' TERM; echo ready; while :; do sleep 0.05; done");
    wait_until("the trap", || engine.cli(&["logs", "one"]).success().stdout == "ready\n");
    engine.cli(&["stop", "-t", "1", "one"]).success();
    assert!(row(&engine).contains("Exited (137)"), "{}", row(&engine));
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_an_image_chooses_its_stop_signal() {
    let Some(engine) = engine() else { return };
    let name = "docker.io/library/signal:1";
    engine.import(&Image::busybox(name).config("StopSignal", "SIGUSR1".into()));
    let script = "trap 'exit 6' USR1; echo ready; while :; do sleep 0.05; done";
    engine.cli(&["run", "-d", "--name", "one", "signal:1", "sh", "-c", script]).success();
    wait_until("the trap", || engine.cli(&["logs", "one"]).success().stdout == "ready\n");
    engine.cli(&["stop", "one"]).success();
    assert!(row(&engine).contains("Exited (6)"), "{}", row(&engine));
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_paused_containers_are_stopped_and_removed() {
    let Some(engine) = engine() else { return };
    let id = background(&engine, "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    wait_until("the trap", || engine.cli(&["logs", "one"]).success().stdout == "ready\n");
    engine.ctr(&["tasks", "pause", &id]).success();
    assert!(row(&engine).contains("(Paused)"), "{}", row(&engine));
    engine.cli(&["exec", "one", "true"]).exited(1).complains("paused");
    engine.cli(&["stop", "one"]).success();
    assert!(row(&engine).contains("Exited (5)"), "{}", row(&engine));
    engine.cli(&["start", "one"]).success();
    engine.ctr(&["tasks", "pause", &id]).success();
    engine.cli(&["rm", "-f", "one"]).success();
}

#[test]
fn cli_kill_sends_signals_to_running_containers_only() {
    let Some(engine) = engine() else { return };
    background(&engine, "trap 'echo got' HUP; echo ready; while :; do sleep 0.05; done");
    let logged = |text: &str| engine.cli(&["logs", "one"]).success().stdout == text;
    wait_until("the trap", || logged("ready\n"));
    engine.cli(&["kill", "-s", "HUP", "one"]).success();
    wait_until("the signal", || logged("ready\ngot\n"));
    engine.cli(&["kill", "one"]).success();
    assert_eq!(wait(&engine), "137");
    engine.cli(&["kill", "one"]).exited(1).complains("is not running");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_logs_are_kept_followed_and_cut() {
    let Some(engine) = engine() else { return };
    let until = |file: &str| format!("until [ -e /{file} ]; do sleep 0.05; done");
    // Two streams have no order between them: the third line waits for the first two.
    let script = format!("echo 1; echo 2 >&2; {}; echo 3; {}; echo 4", until("a"), until("b"));
    background(&engine, &script);
    let logged = |stdout: &str| {
        let logs = engine.cli(&["logs", "one"]).success();
        (logs.stdout.as_str(), logs.stderr.as_str()) == (stdout, "2\n")
    };
    wait_until("two lines", || logged("1\n"));
    engine.cli(&["exec", "one", "touch", "/a"]).success();
    wait_until("three lines", || logged("1\n3\n"));
    assert_eq!(engine.cli(&["logs", "--tail", "1", "one"]).success().stdout, "3\n");
    assert_eq!(engine.cli(&["logs", "--tail", "0", "one"]).success().stdout, "");
    for all in ["--tail=-1", "-n-1", "--tail=all", "--since=2026-11-24"] {
        assert_eq!(engine.cli(&["logs", all, "one"]).success().stdout, "1\n3\n", "{all}");
    }
    assert_eq!(engine.cli(&["logs", "--tail", "-1", "one"]).success().stdout, "1\n3\n");
    assert_eq!(engine.cli(&["logs", "--since", "1h", "one"]).success().stdout, "1\n3\n");
    assert_eq!(engine.cli(&["logs", "--until", "1h", "one"]).success().stdout, "");
    let stamped = engine.cli(&["logs", "-t", "--tail", "1", "one"]).success().stdout;
    assert!(stamped.starts_with("20") && stamped.ends_with("Z 3\n"), "{stamped}");
    let follower = engine
        .cli_command(&["logs", "-f", "--tail", "1", "one"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    engine.cli(&["exec", "one", "touch", "/b"]).success();
    // It ends with the container.
    let followed = follower.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), "3\n4\n");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_an_exec_is_as_asked_for() {
    let Some(engine) = engine() else { return };
    background(&engine, "sleep 1000");
    let exec = |args: &[&str]| engine.cli(&[&["exec"], args].concat());
    assert_eq!(exec(&["one", "sh", "-c", "echo $FLAVOUR; pwd"]).success().stdout, "busybox\n/\n");
    let both = exec(&["one", "sh", "-c", "echo out; echo err >&2; exit 4"]).exited(4);
    assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    let asked = ["-e", "A=b", "-w", "/tmp", "-u", "user", "one", "sh", "-c", "echo $A; pwd; id -u"];
    assert_eq!(exec(&asked).success().stdout, "b\n/tmp\n1000\n");
    let cat = engine.cli_with_input(&["exec", "-i", "one", "cat"], b"through");
    assert_eq!(cat.success().stdout, "through");
    exec(&["one", "no-such-command"]).exited(127).complains("executable file not found");
    exec(&["one", "/etc/passwd"]).exited(126).complains("permission denied");
    exec(&["-w", "/nodir", "one", "ls"]).exited(126).complains("/nodir");
    exec(&["-d", "one", "no-such-command"]).exited(1).complains("executable file not found");
    assert_eq!(exec(&["-d", "one", "touch", "/mark"]).success().stdout, "");
    wait_until("the detached command", || exec(&["one", "ls", "/mark"]).code == 0);
    let mut terminal = Terminal::start(engine.cli_command(&["exec", "-it", "one", "sh"]));
    terminal.types(b"tty; stty size; exit 8\n");
    assert_eq!(terminal.ends(), 8);
    assert!(terminal.shown().contains("/dev/pts/0\r\n33 99\r\n"), "{}", terminal.shown());
    engine.cli(&["kill", "one"]).success();
    exec(&["one", "true"]).exited(1).complains("is not running");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_start_and_attach_miss_nothing() {
    let Some(engine) = engine() else { return };
    engine.cli(&["create", "--name", "one", BUSYBOX, "sh", "-c", "echo first; exit 7"]).success();
    for _ in 0..5 {
        let start = engine.cli(&["start", "-a", "one"]).exited(7);
        assert_eq!(start.stdout, "first\n");
    }
    engine.cli(&["attach", "one"]).exited(1).complains("stopped container");
    engine.cli(&["rm", "one"]).success();
    engine.cli(&["create", "-i", "--name", "one", BUSYBOX, "cat"]).success();
    let cat = engine.cli_with_input(&["start", "-ai", "one"], b"typed");
    assert_eq!(cat.success().stdout, "typed");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_several_clients_attach() {
    let Some(engine) = engine() else { return };
    background(&engine, "until [ -e /go ]; do sleep 0.05; done; echo seen; exit 2");
    let attach = || {
        let mut command = engine.cli_command(&["attach", "--no-stdin", "one"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    };
    let clients = [attach(), attach()];
    // Nothing tells when they are attached; what they get then they get both.
    std::thread::sleep(std::time::Duration::from_millis(500));
    // It may be killed with the container, whose end it brings about.
    engine.cli(&["exec", "one", "touch", "/go"]);
    for client in clients {
        let output = client.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(output.stdout, b"seen\n");
    }
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_containers_of_other_clients_are_seen_and_driven() {
    let Some(engine) = engine() else { return };
    engine.ctr(&["run", "-d", IMAGE, "theirs", "sleep", "1000"]).success();
    let list = engine.cli(&["ps"]).success().stdout;
    assert!(list.contains("theirs") && list.contains("Up"), "{list}");
    assert_eq!(engine.cli(&["exec", "theirs", "echo", "x"]).success().stdout, "x\n");
    engine.cli(&["stop", "-t", "0", "theirs"]).success();
    engine.cli(&["start", "theirs"]).exited(1);
    engine.cli(&["rm", "theirs"]).success();
    assert_eq!(engine.ctr(&["containers", "ls", "-q"]).success().line(), "");
}

#[test]
fn cli_another_client_deletes_a_container_with_its_name() {
    let Some(engine) = engine() else { return };
    let id = background(&engine, "exit 0");
    wait(&engine);
    let directory = engine.root().join("containers").join(engine.namespace()).join(&id);
    assert!(directory.is_dir());
    wait_until("its task to be gone", || engine.ctr(&["tasks", "ls", "-q"]).success().line() == "");
    engine.ctr(&["containers", "rm", &id]).success();
    assert_eq!(row(&engine), "");
    wait_until("its files to be gone", || !directory.exists());
    background(&engine, "exit 0");
    wait(&engine);
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_lists_are_tables_and_json() {
    let Some(engine) = engine() else { return };
    background(&engine, "sleep 1000");
    let list = engine.cli(&["ps", "--format", "json", "--no-trunc"]).success();
    let container: Value = serde_json::from_str(list.line()).unwrap();
    assert_eq!(container["Names"], "one");
    assert_eq!(container["Image"], BUSYBOX);
    assert_eq!(container["State"], "running");
    assert_eq!(container["Command"], "\"sh -c sleep 1000\"");
    engine.cli(&["rm", "-f", "one"]).success();
}

#[test]
fn cli_one_of_many_gets_a_name() {
    let Some(engine) = engine() else { return };
    let create = || {
        let mut command = engine.cli_command(&["create", "--name", "one", BUSYBOX, "true"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let clients: Vec<_> = (0..20).map(|_| create()).collect();
    let codes: Vec<_> =
        clients.into_iter().map(|mut client| client.wait().unwrap().code()).collect();
    assert_eq!(codes.iter().filter(|code| **code == Some(0)).count(), 1, "{codes:?}");
    assert_eq!(engine.cli(&["ps", "-a", "-q"]).success().stdout.lines().count(), 1);
    let directories = engine.root().join("containers").join(engine.namespace());
    assert_eq!(fs::read_dir(directories).unwrap().count(), 1);
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_without_a_daemon_says_how_to_start_it() {
    let Some(mut engine) = Engine::berth() else { return };
    engine.stop_daemon(Signal::SIGTERM);
    let ps: Finished = engine.cli(&["ps"]).exited(1);
    ps.complains("Is the berth daemon running?");
    engine.cli(&["run", "--rm", BUSYBOX]).exited(125).complains("Is the berth daemon running?");
}
