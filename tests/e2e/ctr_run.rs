//! Containers through Debian's `ctr`.

use berth_tests::{Engine, Image, leaks, wait_until};

const IMAGE: &str = "docker.io/library/busybox:latest";

fn engine() -> Engine {
    let engine = Engine::start();
    engine.import(&Image::busybox(IMAGE));
    engine
}

#[test]
fn run_passes_output_and_exit_status() {
    let engine = engine();
    let run =
        engine.ctr(&["run", "--rm", IMAGE, "one", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let run = run.exited(7);
    assert_eq!((run.line(), run.stderr.trim_end()), ("out", "err"));
    assert_eq!(engine.ctr(&["containers", "ls", "-q"]).success().line(), "");
}

#[test]
fn run_passes_input() {
    let engine = engine();
    // One line and no more: `ctr` may forget to close the input of a task that starts slowly.
    let args = ["run", "--rm", IMAGE, "one", "head", "-n", "1"];
    let run = engine.ctr_with_input(&args, b"through the pipe\n");
    assert_eq!(run.success().line(), "through the pipe");
}

#[test]
fn detached_tasks_are_driven() {
    let engine = engine();
    engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let status = || {
        let list = engine.ctr(&["tasks", "ls"]).success().stdout;
        let row = list.lines().find(|row| row.starts_with("one ")).unwrap_or_default().to_owned();
        row.split_whitespace().nth(2).unwrap_or_default().to_owned()
    };
    assert_eq!(status(), "RUNNING");
    let exec = engine.ctr(&["tasks", "exec", "--exec-id", "e", "one", "sh", "-c", "id -u; exit 3"]);
    assert_eq!(exec.exited(3).line(), "0");
    engine.ctr(&["tasks", "pause", "one"]).success();
    assert_eq!(status(), "PAUSED");
    engine.ctr(&["tasks", "resume", "one"]).success();
    assert_eq!(status(), "RUNNING");
    let metrics = engine.ctr(&["tasks", "metrics", "one"]).success();
    assert!(metrics.stdout.contains("memory.usage_in_bytes"), "{}", metrics.stdout);
    let processes = engine.ctr(&["tasks", "ps", "one"]).success();
    assert_eq!(processes.stdout.lines().count(), 2, "{}", processes.stdout);

    engine.ctr(&["containers", "rm", "one"]).exited(1).complains("delete");
    engine.ctr(&["tasks", "kill", "-s", "KILL", "one"]).success();
    wait_until("the task to stop", || status() == "STOPPED");
    engine.ctr(&["tasks", "rm", "one"]).success().complains("non-zero exit code 137");
    engine.ctr(&["containers", "rm", "one"]).success();
}

#[test]
fn a_missing_command_fails_at_once() {
    let engine = engine();
    let run = engine.ctr(&["run", "--rm", IMAGE, "one", "no-such-command"]);
    assert_ne!(run.code, 0);
    run.complains("executable file not found");
    assert_eq!(engine.ctr(&["tasks", "ls", "-q"]).success().line(), "");
}

/// CVE-2019-5736: what a container may see of the shim leads to no file that can be written.
#[test]
fn the_shims_program_is_out_of_reach() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox(IMAGE));
    engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let [shim] = leaks::shims(engine.namespace())[..] else { panic!("there is one shim") };
    let program = format!("/proc/{shim}/exe");
    let error = std::fs::File::options().write(true).open(&program).expect_err("not writable");
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    // It is executed through a descriptor, and is still found by its name.
    let name = std::fs::read_to_string(format!("/proc/{shim}/comm")).expect("read a name");
    assert_eq!(name, "containerd-shim\n");
}

#[test]
fn output_goes_where_a_log_uri_says() {
    use std::os::unix::fs::PermissionsExt;
    let engine = engine();
    let log = engine.path("log-of-one");
    let uri = format!("file://{}", log.display());
    // Not at once: runc's shim lets one overwrite the other then.
    let script = "echo out; sleep 0.5; echo err >&2";
    engine.ctr(&["run", "-d", "--log-uri", &uri, IMAGE, "one", "sh", "-c", script]).success();
    wait_until("both lines", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        text.contains("out\n") && text.contains("err\n")
    });

    let (program, log) = (engine.path("logger"), engine.path("log-of-two"));
    let collect = "#!/bin/sh\nexec 5>&-\necho $CONTAINER_ID $1 $2 > $2\ncat <&3 >> $2\n";
    std::fs::write(&program, collect).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let uri = format!("binary://{}?to={}", program.display(), log.display());
    engine.ctr(&["run", "-d", "--log-uri", &uri, IMAGE, "two", "seq", "1", "10000"]).success();
    let expected = (1..=10_000).map(|number| format!("{number}\n")).collect::<String>();
    let expected = format!("two to {}\n{expected}", log.display());
    wait_until("all lines", || std::fs::read_to_string(&log).is_ok_and(|text| text == expected));
}

/// An image's labels must not say where output goes, nor run anything of the host's.
#[test]
fn labels_of_an_image_start_no_logging_program() {
    let Some(engine) = Engine::berth() else { return };
    let touched = engine.path("touched");
    let uri = format!("binary:///bin/touch?{}", touched.display());
    let labels = serde_json::json!({
        "containerd.io/restart.loguri": uri,
        "io.containerd.log-uri": uri,
        "nerdctl/log-uri": uri,
    });
    engine.import(&Image::busybox(IMAGE).config("Labels", labels));
    engine.cli(&["run", "--rm", IMAGE, "true"]).success();
    engine.ctr(&["run", "--rm", IMAGE, "one", "true"]).success();
    assert!(!touched.exists());
}
