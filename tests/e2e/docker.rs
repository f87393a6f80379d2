//! Debian's `dockerd` lets the engine run its containers, as `docker` users see them: with our
//! shim, with runc's, and on Debian's containerd for comparison.

use std::fs;

use berth_tests::{Docker, Engine, Image, wait_until};
use nix::sys::signal::Signal;

const IMAGE: &str = "busybox:test";

/// Where Debian's package puts runc's shim.
const RUNC_SHIM: &str = "/usr/bin/containerd-shim-runc-v2";

/// The engine with its own shim.
fn engine() -> Engine {
    Engine::start()
}

/// berth with runc's shim; `None` where the engine under test is containerd, which has no other.
fn engine_with_runc() -> Option<Engine> {
    let mut engine = Engine::prepare()?;
    engine.configure(&format!("[runtimes]\n\"io.containerd.runc.v2\" = {RUNC_SHIM:?}\n"));
    engine.start_daemon();
    Some(engine)
}

fn docker(engine: &Engine) -> Docker {
    let docker = Docker::start(engine);
    docker.load(&Image::busybox(IMAGE));
    docker
}

/// A field of what Docker knows about a container.
fn inspect(docker: &Docker, id: &str, field: &str) -> String {
    docker.call(&["inspect", "--format", &format!("{{{{{field}}}}}"), id]).success().line().into()
}

/// A container's whole life.
fn life(engine: &Engine) {
    let docker = docker(engine);
    let run = docker.call(&["run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 7"]);
    let run = run.exited(7);
    assert_eq!((run.line(), run.stderr.trim_end()), ("out", "err"));
    let piped = docker.call_with_input(&["run", "--rm", "-i", IMAGE, "cat"], b"through the pipe\n");
    assert_eq!(piped.success().line(), "through the pipe");

    let script = "trap 'echo asked; exit 5' TERM; echo up; while :; do sleep 0.1; done";
    docker.call(&["run", "-d", "--name", "one", IMAGE, "sh", "-c", script]).success();
    wait_until("the first line", || docker.call(&["logs", "one"]).stdout == "up\n");
    assert_eq!(inspect(&docker, "one", ".State.Status"), "running");
    assert_eq!(docker.call(&["exec", "one", "id", "-u"]).success().line(), "0");
    docker.call(&["exec", "one", "sh", "-c", "exit 3"]).exited(3);
    let input = docker.call_with_input(&["exec", "-i", "one", "cat"], b"to an exec\n");
    assert_eq!(input.success().line(), "to an exec");
    assert!(docker.call(&["top", "one"]).success().stdout.contains("echo up"));
    assert!(docker.call(&["stats", "--no-stream", "one"]).success().stdout.contains("one"));
    docker.call(&["pause", "one"]).success();
    assert_eq!(inspect(&docker, "one", ".State.Status"), "paused");
    docker.call(&["unpause", "one"]).success();
    docker.call(&["update", "--memory", "64m", "--memory-swap", "64m", "one"]).success();
    docker.call(&["restart", "one"]).success();
    wait_until("the second life", || docker.call(&["logs", "one"]).stdout == "up\nasked\nup\n");
    docker.call(&["stop", "one"]).success();
    assert_eq!(inspect(&docker, "one", ".State.ExitCode"), "5");
    docker.call(&["rm", "one"]).success();
    assert_eq!(docker.call(&["ps", "-aq"]).success().line(), "");
    assert_eq!(engine.ctr(&["containers", "ls", "-q"]).success().line(), "");
    assert_eq!(engine.ctr(&["tasks", "ls", "-q"]).success().line(), "");
}

/// A command that can't be run, in Docker's words and with its exit codes.
fn bad_commands(engine: &Engine) {
    let docker = docker(engine);
    let missing = docker.call(&["run", "--rm", IMAGE, "no-such-command"]).exited(127);
    missing.complains("exec: \"no-such-command\": executable file not found in $PATH");
    let missing = docker.call(&["run", "--rm", IMAGE, "/no/such/file"]).exited(127);
    missing.complains("/no/such/file").complains("no such file or directory");
    let barred = docker.call(&["run", "--rm", IMAGE, "/etc/passwd"]).exited(126);
    barred.complains("exec: \"/etc/passwd\": permission denied");
    docker.call(&["run", "-d", "--name", "one", IMAGE, "sleep", "1000"]).success();
    let missing = docker.call(&["exec", "one", "no-such-command"]);
    assert_eq!(missing.code, 126, "{}", missing.stdout);
    assert!(missing.stdout.contains("executable file not found in $PATH"), "{}", missing.stdout);
    assert_eq!(docker.call(&["exec", "one", "echo", "alive"]).success().line(), "alive");
    docker.call(&["rm", "-f", "one"]).success();
    assert_eq!(docker.call(&["ps", "-aq"]).success().line(), "");
}

/// What Docker's flags ask of a container's processes.
fn flags(engine: &Engine) {
    let docker = docker(engine);
    let run = |flags: &[&str], words: &[&str]| {
        docker.call(&[&["run", "--rm"], flags, &[IMAGE], words].concat()).success()
    };
    let limited = ["--user", "1000:2000", "--read-only", "--cap-drop", "ALL", "--init"];
    assert_eq!(run(&limited, &["id", "-u"]).line(), "1000");
    assert_eq!(
        run(&["--env", "A=b", "--workdir", "/tmp"], &["sh", "-c", "echo $A $PWD"]).line(),
        "b /tmp"
    );
    assert_eq!(run(&["--hostname", "here"], &["hostname"]).line(), "here");
    assert_eq!(run(&["-t"], &["tty"]).line().trim(), "/dev/pts/0");
    assert_eq!(run(&["--ulimit", "nofile=77:88"], &["sh", "-c", "ulimit -n"]).line(), "77");
    assert_eq!(
        run(&["--tmpfs", "/scratch:size=1m"], &["stat", "-f", "-c", "%T", "/scratch"]).line(),
        "tmpfs"
    );
    assert_eq!(run(&["--pid", "host"], &["sh", "-c", "test $$ != 1 && echo host"]).line(), "host");
    let shared = engine.path("shared");
    fs::create_dir(&shared).unwrap();
    run(&["--volume", &format!("{}:/v", shared.display())], &["sh", "-c", "echo hi > /v/file"]);
    assert_eq!(fs::read_to_string(shared.join("file")).unwrap(), "hi\n");
    let flags = ["run", "--name", "big", "--memory", "16m", "--memory-swap", "16m", IMAGE];
    let script = ["sh", "-c", "x=a; while :; do x=$x$x; done"];
    let oom = docker.call(&[&flags[..], &script].concat());
    assert_eq!(oom.code, 137, "{}", oom.stderr);
    assert_eq!(inspect(&docker, "big", ".State.OOMKilled"), "true");
    docker.call(&["rm", "big"]).success();
}

/// An image is built, changed by hand, and committed.
fn build(engine: &Engine) {
    let docker = docker(engine);
    let context = engine.path("context");
    fs::create_dir(&context).unwrap();
    let recipe = format!(
        "FROM {IMAGE}\nCOPY greeting /greeting\nRUN echo built >> /greeting\n\
         CMD [\"cat\", \"/greeting\"]\n"
    );
    fs::write(context.join("Dockerfile"), recipe).unwrap();
    fs::write(context.join("greeting"), "hello\n").unwrap();
    docker.call(&["build", "--tag", "made", context.to_str().unwrap()]).success();
    assert_eq!(docker.call(&["run", "--rm", "made"]).success().stdout, "hello\nbuilt\n");
    docker.call(&["run", "--name", "hand", "made", "rm", "/greeting"]).success();
    assert_eq!(docker.call(&["diff", "hand"]).success().line(), "D /greeting");
    docker.call(&["commit", "hand", "changed"]).success();
    docker.call(&["rm", "hand"]).success();
    docker.call(&["run", "--rm", "changed", "test", "!", "-e", "/greeting"]).success();
}

#[test]
fn a_containers_life() {
    life(&engine());
}

#[test]
fn a_containers_life_with_runcs_shim() {
    let Some(engine) = engine_with_runc() else { return };
    life(&engine);
}

#[test]
fn what_cannot_be_run() {
    bad_commands(&engine());
}

#[test]
fn what_cannot_be_run_with_runcs_shim() {
    let Some(engine) = engine_with_runc() else { return };
    bad_commands(&engine);
}

#[test]
fn flags_reach_the_container() {
    flags(&engine());
}

#[test]
fn flags_reach_the_container_with_runcs_shim() {
    let Some(engine) = engine_with_runc() else { return };
    flags(&engine);
}

/// runc can't give all capabilities where it has not all itself.
#[test]
fn a_container_may_be_privileged() {
    let Some(engine) = Engine::berth() else { return };
    let docker = docker(&engine);
    let script = "mount -t tmpfs none /tmp && touch /tmp/x";
    docker.call(&["run", "--rm", "--privileged", IMAGE, "sh", "-c", script]).success();
}

#[test]
fn images_are_built() {
    build(&engine());
}

/// Containers go on while either daemon is away, and their exits are told afterwards.
#[test]
fn daemons_come_and_go() {
    let mut engine = engine();
    let mut docker = docker(&engine);
    docker.call(&["run", "-d", "--name", "one", IMAGE, "sleep", "1000"]).success();
    let pid = inspect(&docker, "one", ".State.Pid");
    docker.stop_daemon(Signal::SIGTERM);
    docker.start_daemon();
    assert_eq!(inspect(&docker, "one", ".State.Pid"), pid);
    assert_eq!(docker.call(&["exec", "one", "echo", "x"]).success().line(), "x");
    drop(docker);

    engine.stop_daemon(Signal::SIGKILL);
    engine.start_daemon();
    let docker = Docker::start(&engine);
    assert_eq!(inspect(&docker, "one", ".State.Pid"), pid);
    docker.call(&["kill", "one"]).success();
    wait_until("the end", || inspect(&docker, "one", ".State.Status") == "exited");
    assert_eq!(inspect(&docker, "one", ".State.ExitCode"), "137");
    docker.call(&["start", "one"]).success();
    assert_eq!(docker.call(&["exec", "one", "echo", "again"]).success().line(), "again");
    docker.call(&["rm", "-f", "one"]).success();
}

/// The engine is started anew under Docker's feet, which finds it again and hears of exits: with
/// Debian's containerd it does not hear of those that it missed.
#[test]
fn the_engine_is_restarted_below() {
    let Some(mut engine) = Engine::berth() else { return };
    let docker = docker(&engine);
    docker.call(&["run", "-d", "--name", "one", IMAGE, "sleep", "1000"]).success();
    docker.call(&["run", "-d", "--name", "two", IMAGE, "sh", "-c", "sleep 1; exit 9"]).success();
    let pid = inspect(&docker, "two", ".State.Pid");
    engine.stop_daemon(Signal::SIGKILL);
    wait_until("the end of one while nobody listens", || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z"))
    });
    engine.start_daemon();
    wait_until("the exit", || inspect(&docker, "two", ".State.Status") == "exited");
    assert_eq!(inspect(&docker, "two", ".State.ExitCode"), "9");
    assert_eq!(docker.call(&["exec", "one", "echo", "x"]).success().line(), "x");
    docker.call(&["kill", "one"]).success();
    wait_until("the exit", || inspect(&docker, "one", ".State.Status") == "exited");
    docker.call(&["rm", "one", "two"]).success();
}
