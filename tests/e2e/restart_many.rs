//! A hundred containers outlive a daemon that is killed, and those that end meanwhile are told of.

use std::collections::BTreeMap;

use berth_tests::{Engine, Finished, Flavor, Image, leaks, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const IMAGE: &str = "docker.io/library/busybox:latest";
const CONTAINERS: usize = 100;
/// How many of them end while no daemon is there.
const ENDING: usize = 20;
/// Ends with 9 when it is asked to, as by `kill`.
const SCRIPT: &str = "trap 'exit 9' TERM; while :; do sleep 1000 & wait; done";
const STARTERS: usize = 4;

fn name(number: usize) -> String {
    format!("c{number}")
}

/// The pids and states of all tasks, by their containers.
fn tasks(engine: &Engine) -> BTreeMap<String, (i32, String)> {
    let list = engine.ctr(&["tasks", "ls"]).success().stdout;
    let rows = list.lines().skip(1).map(|row| {
        let words: Vec<_> = row.split_whitespace().collect();
        (words[0].to_owned(), (words[1].parse().unwrap(), words[2].to_owned()))
    });
    rows.collect()
}

/// Now, so that times can be compared as texts.
fn now() -> String {
    let date = Finished::run("date", &["-u", "+%Y-%m-%dT%H:%M:%S.%N"], b"").success();
    date.line().to_owned()
}

/// The kernel's letter for how a process is; nothing for one that is gone.
fn state(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.split(") ").nth(1)?.chars().next()
}

/// The exits that `ctr events` has written: container, code and time.
fn exits(log: &str, namespace: &str) -> Vec<(String, u64, String)> {
    let mine = log.lines().filter(|line| line.contains(namespace) && line.contains("/tasks/exit"));
    let events = mine.filter_map(|line| {
        let event: serde_json::Value = serde_json::from_str(&line[line.find('{')?..]).ok()?;
        let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
        // It leaves out what is 0.
        let code = event["exit_status"].as_u64().unwrap_or(0);
        Some((text("container_id"), code, text("exited_at")))
    });
    events.collect()
}

#[test]
fn a_hundred_containers_outlive_the_daemon_and_their_ends_are_told_once() {
    let mut engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    std::thread::scope(|scope| {
        for starter in 0..STARTERS {
            let engine = &engine;
            scope.spawn(move || {
                for number in (starter..CONTAINERS).step_by(STARTERS) {
                    let run = ["run", "-d", IMAGE, &name(number), "sh", "-c", SCRIPT];
                    engine.ctr(&run).success();
                }
            });
        }
    });
    let before = tasks(&engine);
    assert_eq!(before.len(), CONTAINERS);
    engine.stop_daemon(Signal::SIGKILL);

    // Half of those that end are asked to, half are killed.
    let begun = now();
    let mut expected = BTreeMap::new();
    for number in 0..ENDING {
        let (signal, code) =
            if number % 2 == 0 { (Signal::SIGTERM, 9) } else { (Signal::SIGKILL, 137) };
        kill(Pid::from_raw(before[&name(number)].0), signal).unwrap();
        expected.insert(name(number), code);
    }
    let ending = || (0..ENDING).map(|number| before[&name(number)].0);
    wait_until("the containers' ends", || ending().all(|pid| state(pid).is_none()));
    // A shim that waits again has noted when.
    wait_until("the shims", || {
        // A child that one has for a moment is called as the shim.
        let shims = leaks::shims(engine.namespace());
        shims.len() == CONTAINERS && shims.iter().all(|shim| state(*shim) == Some('S'))
    });
    let ended = now();
    engine.start_daemon();
    let log = engine.path("events");
    let mut listener = engine.ctr_in_background(&["events"], &log);

    let after = tasks(&engine);
    assert_eq!(after.len(), CONTAINERS);
    for (name, (pid, state)) in &after {
        let expected_state = if expected.contains_key(name) { "STOPPED" } else { "RUNNING" };
        assert_eq!(state, expected_state, "{name}");
        assert_eq!(*pid, before[name].0, "{name}");
    }
    // containerd's subscribers miss what nobody heard.
    if engine.flavor() == Flavor::Berth {
        let heard = || exits(&std::fs::read_to_string(&log).unwrap(), engine.namespace());
        wait_until("the exits", || heard().len() >= ENDING);
        // What comes after this one would be too much.
        engine.ctr(&["run", "--rm", IMAGE, "last", "true"]).success();
        wait_until("the last exit", || heard().iter().any(|(id, ..)| id == "last"));
        let heard: Vec<_> = heard().into_iter().filter(|(id, ..)| id != "last").collect();
        let codes: BTreeMap<_, _> = heard.iter().map(|(id, code, _)| (id.clone(), *code)).collect();
        assert_eq!(heard.len(), ENDING, "{heard:?}");
        assert_eq!(codes, expected);
        for (id, _, at) in &heard {
            let at = at.trim_end_matches('Z');
            assert!(*begun <= *at && *at <= *ended, "{id}: {begun} {at} {ended}");
        }
    }
    listener.stop(Signal::SIGKILL);
    for (id, code) in expected {
        engine.ctr(&["tasks", "rm", &id]).complains(&format!("exit code {code}"));
    }
}
