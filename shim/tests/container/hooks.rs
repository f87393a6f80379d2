//! Hooks, their order and their failures.

use std::fs;

use berth_types::Kind;
use berth_types::spec::{Hook, Hooks};

use crate::rig::{Rig, Streams, block_on};

crate::cases![
    hooks_run_in_their_order_with_the_state,
    a_failing_hook_fails_the_create_with_its_words,
    a_hanging_hook_is_killed,
    a_failing_poststart_hook_stops_the_container,
    hooks_in_the_container_see_it,
];

fn hook(line: &str) -> Vec<Hook> {
    vec![Hook {
        path: "/bin/sh".into(),
        args: ["sh", "-c", line].map(str::to_owned).to_vec(),
        env: vec!["PATH=/usr/bin:/bin".into()],
        timeout: None,
    }]
}

fn hooks_run_in_their_order_with_the_state() {
    let mut rig = Rig::new();
    let log = rig.bundle().join("log");
    let note = |name: &str| hook(&format!("(printf '{name} '; cat; echo) >> {}", log.display()));
    rig.spec.hooks = Some(Hooks {
        prestart: note("prestart"),
        create_runtime: note("createRuntime"),
        create_container: note("createContainer"),
        start_container: Vec::new(),
        poststart: note("poststart"),
        poststop: note("poststop"),
    });
    rig.spec.annotations.insert("a".into(), "b".into());
    rig.run(&["true"]);
    let text = fs::read_to_string(log).unwrap();
    let names: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let order = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    assert_eq!(names, order);
    for (line, status) in
        text.lines().zip(["creating", "creating", "creating", "running", "stopped"])
    {
        let state = line.split_once(' ').unwrap().1;
        let state: serde_json::Value = serde_json::from_str(state).unwrap();
        assert_eq!(state["status"], status);
        assert_eq!(state["bundle"], rig.bundle().to_str().unwrap());
        assert_eq!(state["annotations"]["a"], "b");
        assert_eq!(state["pid"].as_i64().is_some_and(|pid| pid > 1), status != "stopped");
    }
}

fn a_failing_hook_fails_the_create_with_its_words() {
    for station in 0..3 {
        let mut rig = Rig::new();
        let mut hooks = Hooks::default();
        let fails = hook("echo this is why >&2; exit 3");
        match station {
            0 => hooks.prestart = fails,
            1 => hooks.create_runtime = fails,
            _ => hooks.create_container = fails,
        }
        rig.spec.hooks = Some(hooks);
        let error = rig.try_run(&["true"]).unwrap_err();
        assert!(error.message().contains("this is why"), "{error}");
    }
}

fn a_hanging_hook_is_killed() {
    let mut rig = Rig::new();
    let mut hanging = hook("exec sleep 1000");
    hanging[0].timeout = Some(1);
    rig.spec.hooks = Some(Hooks { create_runtime: hanging, ..Hooks::default() });
    let error = rig.try_run(&["true"]).unwrap_err();
    assert_eq!(error.kind(), Kind::DeadlineExceeded, "{error}");
}

fn a_failing_poststart_hook_stops_the_container() {
    let mut rig = Rig::new();
    rig.spec.hooks = Some(Hooks { poststart: hook("echo why >&2; exit 1"), ..Hooks::default() });
    let error = rig.try_run(&["sleep", "1000"]).unwrap_err();
    assert!(error.message().contains("why"), "{error}");
}

fn hooks_in_the_container_see_it() {
    block_on(async {
        let mut rig = Rig::new();
        rig.spec.hooks =
            Some(Hooks { start_container: hook("echo $$ > /seen"), ..Hooks::default() });
        let mut container = rig.create(&["true"], &Streams::new()).await.unwrap();
        assert!(!rig.root().join("seen").exists());
        container.start().await.unwrap();
        crate::rig::wait(container.init());
        assert_eq!(fs::read_to_string(rig.root().join("seen")).unwrap(), "2\n");
        container.destroy().await.unwrap();
    });
}
