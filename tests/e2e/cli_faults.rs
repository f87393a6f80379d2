//! `berth` while clients, shims and images misbehave.

use std::fs::File;
use std::io::Read;
use std::process::{Child, Command, Stdio};

use berth_tests::{Engine, Finished, Image, leaks, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

const IMAGE: &str = "docker.io/library/busybox:latest";
const BUSYBOX: &str = "busybox";

fn engine() -> Option<Engine> {
    let engine = Engine::berth()?;
    engine.import(&Image::busybox(IMAGE));
    Some(engine)
}

fn sleeper(engine: &Engine, name: &str) {
    engine.cli(&["run", "-d", "--name", name, BUSYBOX, "sleep", "1000"]).success();
}

/// Sends a signal to the one shim of this test.
fn signal_shim(engine: &Engine, signal: Signal) {
    let shims = leaks::shims(engine.namespace());
    assert_eq!(shims.len(), 1, "{shims:?}");
    kill(Pid::from_raw(shims[0]), signal).unwrap();
}

/// What `inspect` says of a container's state.
fn state(engine: &Engine, name: &str) -> Value {
    let text = engine.cli(&["inspect", name]).success().stdout;
    serde_json::from_str::<Value>(&text).unwrap()[0]["State"].take()
}

/// All rows of `ps -a`, of which none may tell of an end that was not seen.
fn rows(engine: &Engine) -> String {
    let list = engine.cli(&["ps", "-a"]).success().stdout;
    assert!(!list.contains("Exited (0)"), "{list}");
    list
}

fn silent(command: &mut Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn cli_a_beginning_is_no_end() {
    let Some(engine) = engine() else { return };
    for _ in 0..5 {
        let mut run = silent(&mut engine.cli_command(&["run", "-d", BUSYBOX, "sleep", "1000"]));
        while run.try_wait().unwrap().is_none() {
            rows(&engine);
        }
    }
}

#[test]
fn cli_how_a_run_ended_without_its_shim_is_not_made_up() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    for _ in 0..10 {
        signal_shim(&engine, Signal::SIGKILL);
        wait_until("the end to be seen", || rows(&engine).contains("Exited (137)"));
        engine.cli(&["start", "one"]).success();
    }
}

#[test]
fn cli_the_end_of_a_run_is_not_that_of_the_next() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    for _ in 0..10 {
        let before = state(&engine, "one")["Pid"].take();
        signal_shim(&engine, Signal::SIGKILL);
        // Starting what still runs changes nothing: one of many comes just after the end.
        wait_until("a new run", || {
            let starts = (0..8).map(|_| silent(&mut engine.cli_command(&["start", "one"])));
            for mut start in starts.collect::<Vec<_>>() {
                assert!(start.wait().unwrap().success());
            }
            let state = state(&engine, "one");
            state["Status"] == "running" && state["Pid"] != before
        });
        let state = state(&engine, "one");
        assert_eq!(state["FinishedAt"], "0001-01-01T00:00:00Z", "{state}");
    }
}

#[test]
fn cli_a_shim_that_hangs_is_named_and_holds_up_no_other() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    signal_shim(&engine, Signal::SIGSTOP);
    sleeper(&engine, "two");
    for command in [&["exec", "one", "true"][..], &["start", "one"], &["attach", "one"]] {
        let refused = engine.cli(command).complains("gives no answer");
        assert_ne!(refused.code, 0);
        assert_eq!(engine.cli(&["exec", "two", "echo", "on"]).success().line(), "on");
    }
    let list = engine.cli(&["ps"]).success().stdout;
    assert_eq!(list.matches("Up ").count(), 2, "{list}");
    for shim in leaks::shims(engine.namespace()) {
        kill(Pid::from_raw(shim), Signal::SIGCONT).unwrap();
    }
    assert_eq!(engine.cli(&["exec", "one", "echo", "back"]).success().line(), "back");
}

#[test]
fn cli_an_exec_whose_client_is_lost_in_a_jam_ends() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    let processes = || engine.cli(&["exec", "one", "ps"]).success().stdout;
    let mut clients: Vec<_> = (0..5)
        .map(|_| {
            let zeros = File::open("/dev/zero").unwrap();
            let mut command = engine.cli_command(&["exec", "-i", "one", "cat"]);
            command.stdin(zeros).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    wait_until("the processes to start", || processes().matches(" cat\n").count() == 5);
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_until("the processes to end", || !processes().contains(" cat\n"));
}

#[test]
fn cli_clients_whose_input_is_not_read_leave_nothing() {
    let Some(engine) = engine() else { return };
    let run = ["run", "-d", "-i", "--name", "one", BUSYBOX, "sleep", "1000"];
    engine.cli(&run).success();
    let descriptors = || {
        let shim = leaks::shims(engine.namespace())[0];
        std::fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count()
    };
    let before = descriptors();
    let mut clients: Vec<_> = (0..10)
        .map(|_| {
            let zeros = File::open("/dev/zero").unwrap();
            let mut command = engine.cli_command(&["attach", "one"]);
            command.stdin(zeros).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        })
        .collect();
    wait_until("the clients to be attached", || descriptors() >= before + clients.len());
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_until("their descriptors to be closed", || descriptors() <= before);
}

#[test]
fn cli_a_reader_that_leaves_is_no_failure() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    for args in [&["info"][..], &["inspect", "one"], &["version"], &["ps"], &["stop", "-t0", "one"]]
    {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = engine.cli_command(args);
        let output = command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
}

#[test]
fn cli_output_that_nobody_reads_ends_the_command_quietly() {
    let Some(engine) = engine() else { return };
    let args = ["run", "--rm", BUSYBOX, "sh", "-c", "echo one; sleep 0.2; echo two; exec sleep 9"];
    let mut run = engine.cli_command(&args);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 4];
    run.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(141), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    let running = engine.cli(&["ps", "-q"]).success().stdout;
    engine.cli(&["rm", "-f", running.trim()]).success();
}

#[test]
fn cli_what_is_typed_wrong_has_dockers_status() {
    let Some(engine) = Engine::berth() else { return };
    let wrong: [(&[&str], i32, &str); 5] = [
        (&["run", "--memory", "much", BUSYBOX], 125, "invalid argument \"much\" for \"--memory\""),
        (&["run", "--no-such", BUSYBOX], 125, "unknown flag: --no-such\nSee 'berth run --help'."),
        (&["ps", "--no-such"], 125, "unknown flag: --no-such"),
        (&["run"], 1, "requires at least 1 argument"),
        (&["no-such"], 1, "'no-such' is not a berth command"),
    ];
    for (args, code, words) in wrong {
        engine.cli(args).exited(code).complains(words);
    }
    engine.cli(&[]).success();
    assert!(engine.cli(&["run", "--help"]).success().stdout.contains("Usage"));
}

#[test]
fn cli_what_an_image_says_cannot_drive_the_terminal() {
    let Some(engine) = Engine::berth() else { return };
    let hostile = Image::busybox("docker.io/library/hostile:1")
        .config("Cmd", json!(["\x1b[2J", "a\nb"]))
        .config("User", json!("\x1b[2J"));
    engine.import(&hostile);
    engine.cli(&["create", "--name", "one", "hostile:1"]).success();
    let list = engine.cli(&["ps", "-a"]).success().stdout;
    assert!(list.contains(r#""\u{1b}[2J a\nb""#), "{list}");
    let start = engine.cli(&["start", "one"]);
    for Finished { stdout, stderr, .. } in [&start, &engine.cli(&["images"])] {
        assert!(!stdout.contains('\x1b') && !stderr.contains('\x1b'), "{stdout}{stderr}");
    }
    assert!(start.stderr.contains(r"\u{1b}[2J"), "{}", start.stderr);
}

#[test]
fn cli_a_shim_that_is_killed_takes_its_execs_along() {
    let Some(engine) = engine() else { return };
    sleeper(&engine, "one");
    for _ in 0..3 {
        let mut execs: Vec<_> = (0..3)
            .map(|_| silent(&mut engine.cli_command(&["exec", "one", "sleep", "1000"])))
            .collect();
        let processes = || engine.cli(&["exec", "one", "ps"]).success().stdout;
        wait_until("the execs to start", || processes().matches("sleep 1000").count() == 4);
        signal_shim(&engine, Signal::SIGKILL);
        for exec in &mut execs {
            assert_eq!(exec.wait().unwrap().code(), Some(137));
        }
        wait_until("the end to be seen", || rows(&engine).contains("Exited (137)"));
        engine.cli(&["start", "one"]).success();
    }
}

#[test]
fn cli_a_shim_that_is_killed_while_it_starts_leaves_nothing() {
    let Some(engine) = engine() else { return };
    for round in 0..20 {
        let args = ["run", "-d", BUSYBOX, "sleep", "1000"];
        let mut run = silent(&mut engine.cli_command(&args));
        let mut shims = Vec::new();
        while shims.is_empty() && run.try_wait().unwrap().is_none() {
            shims = leaks::shims(engine.namespace());
        }
        // Each time a little later.
        std::thread::sleep(std::time::Duration::from_micros(500) * round);
        for shim in shims {
            // It may just have ended.
            let _ = kill(Pid::from_raw(shim), Signal::SIGKILL);
        }
        run.wait().unwrap();
        wait_until("the shim's end", || leaks::shims(engine.namespace()).is_empty());
        wait_until("the end to be seen", || {
            !engine.cli(&["ps", "-a"]).success().stdout.contains(" Up ")
        });
        for container in engine.cli(&["ps", "-a", "-q"]).success().stdout.lines() {
            engine.cli(&["rm", "-f", container]).success();
        }
    }
}

#[test]
fn cli_output_goes_on_without_the_daemon() {
    let Some(mut engine) = engine() else { return };
    let script = "sleep 0.3; seq 1 1000000";
    engine.cli(&["run", "-d", "--name", "one", BUSYBOX, "sh", "-c", script]).success();
    let pid = state(&engine, "one")["Pid"].to_string();
    engine.stop_daemon(Signal::SIGKILL);
    wait_until("the container's end", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z"))
    });
    engine.start_daemon();
    assert_eq!(engine.cli(&["wait", "one"]).success().line(), "0");
    let logs = engine.cli(&["logs", "one"]).success().stdout;
    assert!(logs.lines().zip(1..).all(|(line, number)| line == number.to_string()));
    assert_eq!(logs.lines().count(), 1_000_000);
}

/// They are not waited for, because nothing in them is anybody's work.
#[test]
fn cli_a_containers_own_files_come_back_after_a_power_cut() {
    let Some(engine) = engine() else { return };
    let show = ["sh", "-c", "cat /etc/hostname /etc/hosts"];
    let create = [&["create", "--name", "one", "-h", "box", BUSYBOX][..], &show].concat();
    let id = engine.cli(&create).success().line().to_owned();
    let own = engine.root().join("containers").join(engine.namespace()).join(id);
    let shown = || engine.cli(&["start", "-a", "one"]).success().stdout;
    let before = shown();
    assert!(before.starts_with("box\n127.0.0.1\tlocalhost\n"), "{before}");
    std::fs::write(own.join("hostname"), "").unwrap();
    std::fs::remove_file(own.join("resolv.conf")).unwrap();
    assert_eq!(shown(), before);
    std::fs::remove_dir_all(own).unwrap();
    assert_eq!(shown(), before);
    engine.cli(&["rm", "one"]).success();
}

/// What is done to a bundle while no daemon is there.
type Damage = fn(&std::path::Path);

#[test]
fn cli_a_container_whose_bundle_was_damaged_is_not_lost() {
    let Some(mut engine) = engine() else { return };
    let state_directory = engine.address().parent().unwrap().to_owned();
    let damages: [(Damage, bool); 4] = [
        (|bundle| std::fs::write(bundle.join("address"), "unix:///nowhere").unwrap(), true),
        (|bundle| std::fs::write(bundle.join("config.json"), "{").unwrap(), true),
        (|bundle| std::fs::remove_dir_all(bundle).unwrap(), true),
        // Nothing leads to the shim any more: all that can be done is to end it.
        (
            |bundle| {
                let address = std::fs::read_to_string(bundle.join("address")).unwrap();
                std::fs::remove_file(address.trim_start_matches("unix://")).unwrap();
                std::fs::write(bundle.join("config.json"), "{").unwrap();
            },
            false,
        ),
    ];
    for (damage, runs_on) in damages {
        let id = engine.cli(&["run", "-d", BUSYBOX, "sleep", "1000"]).success().line().to_owned();
        engine.stop_daemon(Signal::SIGKILL);
        let bundle = state_directory.join("io.containerd.runtime.v2.task");
        damage(&bundle.join(engine.namespace()).join(&id));
        engine.start_daemon();
        assert_eq!(engine.cli(&["ps", "-q"]).success().stdout.is_empty(), !runs_on);
        if runs_on {
            assert_eq!(engine.cli(&["exec", &id, "echo", "on"]).success().line(), "on");
        }
        engine.cli(&["rm", "-f", &id]).success();
        wait_until("the shim's end", || leaks::shims(engine.namespace()).is_empty());
        let left = leaks::find(engine.namespace(), [&state_directory, engine.root()]);
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Flips and truncations of any file of a bundle. `DAMAGES` says how many.
#[test]
fn cli_a_bundle_may_be_damaged_anywhere() {
    let Some(mut engine) = engine() else { return };
    let state_directory = engine.address().parent().unwrap().to_owned();
    let bundles = state_directory.join("io.containerd.runtime.v2.task").join(engine.namespace());
    let damages = std::env::var("DAMAGES").map_or(12, |damages| damages.parse().unwrap());
    for round in 0..damages {
        let id = engine.cli(&["run", "-d", BUSYBOX, "sleep", "1000"]).success().line().to_owned();
        engine.stop_daemon(Signal::SIGKILL);
        let entries = std::fs::read_dir(bundles.join(&id)).unwrap().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut files: Vec<_> = files.map(|entry| entry.path()).collect();
        files.sort();
        let file = &files[round % files.len()];
        let mut bytes = std::fs::read(file).unwrap();
        let at = if bytes.is_empty() { 0 } else { round * 7919 % bytes.len() };
        match bytes.get_mut(at) {
            Some(byte) if round / files.len() % 2 == 0 => *byte ^= 1 << (round % 8),
            _ => bytes.truncate(at),
        }
        std::fs::write(file, bytes).unwrap();
        let what = format!("byte {at} of {}", file.display());
        engine.start_daemon();
        let listed = engine.cli(&["ps", "-a", "-q", "--no-trunc"]).success().stdout;
        assert!(listed.lines().any(|line| line == id), "{what}: {listed}");
        assert_eq!(engine.cli(&["rm", "-f", &id]).code, 0, "{what}");
        wait_until("the shim's end", || leaks::shims(engine.namespace()).is_empty());
        let left = leaks::find(engine.namespace(), [&state_directory, engine.root()]);
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}
