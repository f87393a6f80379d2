//! `berth run`.

use std::fs;
use std::process::Stdio;

use berth_tests::{Engine, Image, Layer, Terminal, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

const IMAGE: &str = "docker.io/library/busybox:latest";
/// As Docker's users call it.
const BUSYBOX: &str = "busybox";

fn engine() -> Option<Engine> {
    let engine = Engine::berth()?;
    engine.import(&Image::busybox(IMAGE));
    Some(engine)
}

/// What a shell in a new container prints, with flags of `run` before the image.
#[track_caller]
fn shell(engine: &Engine, flags: &[&str], script: &str) -> String {
    let args = [&["run", "--rm"], flags, &[BUSYBOX, "sh", "-c", script]].concat();
    engine.cli(&args).success().line().to_owned()
}

fn containers(engine: &Engine) -> String {
    engine.cli(&["ps", "-a", "-q"]).success().line().to_owned()
}

#[test]
fn cli_the_carried_image_runs_without_a_registry() {
    let Some(engine) = Engine::berth() else { return };
    let run = engine.cli(&["run", "--rm", "berth.local/hello"]).success();
    assert!(run.stdout.starts_with("Hello from a berth container!"), "{}", run.stdout);
}

#[test]
fn cli_files_of_the_engine_lie_where_links_of_the_image_lead() {
    let Some(engine) = Engine::berth() else { return };
    let layer = Layer::new(|tar| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        let (path, target) = ("etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf");
        tar.append_link(&mut header, path, target).unwrap();
    });
    engine.import(&Image::busybox(IMAGE).layer(layer));
    let script = "cat /run/systemd/resolve/stub-resolv.conf; readlink /etc/resolv.conf";
    let run = engine.cli(&["run", "--rm", BUSYBOX, "sh", "-c", script]).success();
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let expected = format!("{host}../run/systemd/resolve/stub-resolv.conf\n");
    assert_eq!(run.stdout, expected);
}

#[test]
fn cli_run_passes_both_outputs_and_the_exit_status() {
    let Some(engine) = engine() else { return };
    let script = "echo out; echo err >&2; exit 7";
    let run = engine.cli(&["run", "--rm", BUSYBOX, "sh", "-c", script]).exited(7);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("out\n", "err\n"));
    for code in [0, 1, 125, 126, 127, 128, 255] {
        engine.cli(&["run", "--rm", BUSYBOX, "sh", "-c", &format!("exit {code}")]).exited(code);
    }
    let killed = "sh -c 'kill -9 $$'; exit $?";
    engine.cli(&["run", "--rm", BUSYBOX, "sh", "-c", killed]).exited(137);
    assert_eq!(containers(&engine), "");
}

#[test]
fn cli_commands_that_cannot_run_have_dockers_statuses() {
    let Some(engine) = engine() else { return };
    for (command, code, words) in [
        ("no-such-command", 127, "executable file not found in $PATH"),
        ("", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ] {
        engine.cli(&["run", "--rm", BUSYBOX, command]).exited(code).complains(words);
    }
    assert_eq!(containers(&engine), "");
    engine.cli(&["run", "--name", "kept", BUSYBOX, "no-such-command"]).exited(127);
    let list = engine.cli(&["ps", "-a"]).success().stdout;
    assert!(list.contains("Created") && list.contains("kept"), "{list}");
    engine.cli(&["rm", "kept"]).success();
}

#[test]
fn cli_input_is_passed_and_ends() {
    let Some(engine) = engine() else { return };
    let input = "a line of some length\n".repeat(200_000);
    let cat = engine.cli_with_input(&["run", "--rm", "-i", BUSYBOX, "cat"], input.as_bytes());
    assert_eq!(cat.success().stdout, input);
    // Without -i there is none.
    let cat = engine.cli_with_input(&["run", "--rm", BUSYBOX, "cat"], b"ignored");
    assert_eq!(cat.success().stdout, "");
    // Who reads only a little of it ends all the same.
    let head =
        engine.cli_with_input(&["run", "--rm", "-i", BUSYBOX, "head", "-n1"], input.as_bytes());
    assert_eq!(head.success().stdout, "a line of some length\n");
}

#[test]
fn cli_all_output_arrives_before_the_end() {
    let Some(engine) = engine() else { return };
    let script = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done";
    let output = shell(&engine, &[], script);
    assert_eq!(output.lines().count(), 20_000);
    assert!(output.ends_with("19999"), "{}", &output[output.len() - 20..]);
}

#[test]
fn cli_the_process_is_as_asked_for() {
    let Some(engine) = engine() else { return };
    assert_eq!(shell(&engine, &["-e", "A=b", "-e", "FLAVOUR=x"], "echo $A $FLAVOUR"), "b x");
    assert_eq!(shell(&engine, &[], "echo $FLAVOUR; pwd; id -u"), "busybox\n/\n0");
    assert_eq!(shell(&engine, &["-w", "/tmp"], "pwd"), "/tmp");
    assert_eq!(
        shell(&engine, &["-u", "user"], "id -u; id -G; echo $HOME"),
        "1000\n1000 2000\n/home"
    );
    assert_eq!(shell(&engine, &["-u", "5:6"], "id -u; id -G"), "5\n6");
    assert_eq!(shell(&engine, &["-h", "box"], "hostname; cat /etc/hostname"), "box\nbox");
    let run = engine.cli(&["run", "--rm", "--entrypoint", "echo", BUSYBOX, "a", "b"]);
    assert_eq!(run.success().line(), "a b");
    engine
        .cli(&["run", "--rm", "-u", "nobody-knows", BUSYBOX, "true"])
        .exited(125)
        .complains("user");
    engine
        .cli(&["run", "--rm", "-w", "relative", BUSYBOX, "true"])
        .exited(125)
        .complains("absolute");
}

#[test]
fn cli_flags_are_typed_as_for_docker() {
    let Some(engine) = engine() else { return };
    assert_eq!(
        shell(&engine, &["-w/tmp", "-eA=b", "-u5", "-m64m"], "echo $A $PWD; id -u"),
        "b /tmp\n5"
    );
    let input = engine.cli_with_input(&["run", "--rm=true", "-it=false", BUSYBOX, "cat"], b"typed");
    assert_eq!(input.success().stdout, "typed");
    let run = engine.cli(&["run", "--rm", "--", BUSYBOX, "echo", "-n", "--", "--rm"]).success();
    assert_eq!(run.stdout, "-- --rm");
    engine.cli(&["run", "-d", "--name=one", BUSYBOX, "sleep", "1000"]).success();
    assert_eq!(engine.cli(&["exec", "-iw/tmp", "one", "pwd", "-P"]).success().line(), "/tmp");
    engine.cli(&["exec", "one"]).exited(1).complains("requires at least 2 arguments");
    engine.cli(&["rm", "one", "-f"]).success();
}

#[test]
fn cli_an_image_says_how_its_containers_start() {
    let Some(engine) = engine() else { return };
    let image = Image::busybox("docker.io/library/configured:1")
        .config("Entrypoint", json!(["echo", "entry"]))
        .config("Cmd", json!(["command"]))
        .config("User", json!("user"))
        .config("WorkingDir", json!("/home"));
    engine.import(&image);
    let run = |args: &[&str]| engine.cli(args).success().line().to_owned();
    assert_eq!(run(&["run", "--rm", "configured:1"]), "entry command");
    assert_eq!(run(&["run", "--rm", "configured:1", "other"]), "entry other");
    assert_eq!(run(&["run", "--rm", "--entrypoint", "pwd", "configured:1"]), "/home");
    assert_eq!(run(&["run", "--rm", "--entrypoint", "id", "configured:1", "-u"]), "1000");
    engine
        .cli(&["run", "--rm", "--entrypoint", "", "configured:1"])
        .exited(125)
        .complains("no command specified");
}

#[test]
fn cli_what_an_image_has_below_run_is_there() {
    let Some(engine) = Engine::berth() else { return };
    let files = Layer::of_files(&[("run/database/README", b"of the image")]);
    engine.import(&Image::busybox(IMAGE).layer(files));
    assert_eq!(shell(&engine, &[], "cat /run/database/README"), "of the image");
}

#[test]
fn cli_limits_are_those_of_the_container() {
    let Some(engine) = engine() else { return };
    let flags = ["--memory", "64m", "--cpus", "0.5", "--pids-limit", "20"];
    let read = "cd /sys/fs/cgroup; if [ -d memory ]; then \
                cat memory/memory.limit_in_bytes cpu/cpu.cfs_quota_us pids/pids.max; \
                else cat memory.max; cut -d' ' -f1 cpu.max; cat pids.max; fi";
    assert_eq!(shell(&engine, &flags, read), "67108864\n50000\n20");
    engine
        .cli(&["run", "--rm", "--memory", "1m", BUSYBOX, "true"])
        .exited(125)
        .complains("the minimum is 6 MiB");
}

#[test]
fn cli_want_of_memory_is_told() {
    let Some(engine) = engine() else { return };
    // The shell holds a string that doubles until it does not fit.
    let script = "x=0123456789abcdef; while :; do x=$x$x; done";
    engine
        .cli(&["run", "--name", "one", "--memory", "16m", BUSYBOX, "sh", "-c", script])
        .exited(137);
    let inspected = engine.cli(&["inspect", "one"]).success().stdout;
    assert!(inspected.contains("\"OOMKilled\": true"), "{inspected}");
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_volumes_are_bound() {
    let Some(engine) = engine() else { return };
    let (there, new) = (engine.path("there"), engine.path("new/one"));
    fs::create_dir(&there).unwrap();
    fs::write(there.join("file"), "content").unwrap();
    let bind = |path: &std::path::Path, rest: &str| format!("{}:{rest}", path.display());
    let writable = bind(&there, "/mnt/a");
    assert_eq!(shell(&engine, &["-v", &writable], "cat /mnt/a/file; echo x > /mnt/a/x"), "content");
    assert_eq!(fs::read_to_string(there.join("x")).unwrap(), "x\n");
    let read_only = bind(&there, "/mnt/a:ro");
    let refused = shell(&engine, &["-v", &read_only], "echo y > /mnt/a/y || echo refused");
    assert_eq!(refused, "refused");
    // As with Docker, what is not there becomes a directory.
    shell(&engine, &["-v", &bind(&new, "/mnt/b")], "touch /mnt/b/z");
    assert!(new.join("z").is_file());
    let twice = engine.cli(&["run", "--rm", "-v", &writable, "-v", &writable, BUSYBOX, "true"]);
    twice.exited(125).complains("Duplicate mount point: /mnt/a");
    let anonymous = engine.cli(&["run", "--rm", "-v", "/v", BUSYBOX, "true"]).exited(125);
    anonymous.complains("anonymous volumes are not there yet: give HOST:CONTAINER");
}

#[test]
fn cli_a_read_only_root_cannot_be_written() {
    let Some(engine) = engine() else { return };
    let script = "touch /x 2>/dev/null || echo root; touch /dev/shm/x && echo shared";
    assert_eq!(shell(&engine, &["--read-only"], script), "root\nshared");
    let script = "for file in hosts hostname resolv.conf; do \
                  echo >>/etc/$file || echo $file; done 2>/dev/null";
    assert_eq!(shell(&engine, &["--read-only"], script), "hosts\nhostname\nresolv.conf");
    assert_eq!(shell(&engine, &[], script), "");
}

#[test]
fn cli_networks_are_none_and_host() {
    let Some(engine) = engine() else { return };
    let interfaces = "cd /sys/class/net; echo *; cat lo/flags";
    assert_eq!(shell(&engine, &[], interfaces), "lo\n0x9");
    assert_eq!(shell(&engine, &["--net", "none"], interfaces), "lo\n0x9");
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let seen = shell(&engine, &["--net", "host"], "readlink /proc/self/ns/net; hostname");
    let name = nix::unistd::gethostname().unwrap();
    assert_eq!(seen, format!("{}\n{}", host.display(), name.display()));
    assert!(shell(&engine, &[], "cat /etc/hosts").contains("localhost"));
}

#[test]
fn cli_a_taken_name_is_refused_and_a_given_up_one_is_free_at_once() {
    let Some(engine) = engine() else { return };
    let id = engine.cli(&["run", "-d", "--name", "one", BUSYBOX, "sleep", "1000"]).success();
    let again = engine.cli(&["run", "--name", "one", BUSYBOX, "true"]).exited(125);
    let words = format!(
        "Conflict. The container name \"/one\" is already in use by container \"{}\"",
        id.line()
    );
    again.complains(&words);
    engine.cli(&["rm", "-f", "one"]).success();
    for _ in 0..20 {
        engine.cli(&["run", "--rm", "--name", "one", BUSYBOX, "true"]).success();
    }
    engine
        .cli(&["run", "--name", "a b", BUSYBOX, "true"])
        .exited(125)
        .complains("Invalid container name");
    assert_eq!(containers(&engine), "");
}

#[test]
fn cli_a_container_goes_on_without_its_client_and_goes_at_its_end() {
    let Some(engine) = engine() else { return };
    let mut client = engine
        .cli_command(&["run", "--rm", "--name", "one", BUSYBOX, "sleep", "1000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the container", || engine.cli(&["ps", "-q"]).success().line() != "");
    client.kill().unwrap();
    client.wait().unwrap();
    engine.cli(&["exec", "one", "true"]).success();
    engine.cli(&["kill", "one"]).success();
    wait_until("its removal", || containers(&engine).is_empty());
}

#[test]
fn cli_signals_of_the_client_reach_the_process() {
    let Some(engine) = engine() else { return };
    let script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    let log = engine.path("client");
    let output = fs::File::create(&log).unwrap();
    let mut client = engine
        .cli_command(&["run", "--rm", BUSYBOX, "sh", "-c", script])
        .stdout(output)
        .spawn()
        .unwrap();
    wait_until("the trap", || fs::read_to_string(&log).unwrap() == "ready\n");
    kill(Pid::from_raw(client.id() as i32), Signal::SIGTERM).unwrap();
    assert_eq!(client.wait().unwrap().code(), Some(9));
}

#[test]
fn cli_who_asks_thrice_in_vain_leaves() {
    let Some(engine) = engine() else { return };
    let script = "trap '' INT; echo ready; while :; do sleep 0.1; done";
    let log = engine.path("client");
    let output = fs::File::create(&log).unwrap();
    let mut client = engine
        .cli_command(&["run", "--rm", "--name", "one", BUSYBOX, "sh", "-c", script])
        .stdout(output.try_clone().unwrap())
        .stderr(output)
        .spawn()
        .unwrap();
    wait_until("the trap", || fs::read_to_string(&log).unwrap() == "ready\n");
    let mut status = None;
    wait_until("the client to leave", || {
        // Signals that come close together may be taken for one.
        let _ = kill(Pid::from_raw(client.id() as i32), Signal::SIGINT);
        std::thread::sleep(std::time::Duration::from_millis(50));
        status = client.try_wait().unwrap();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(130));
    let told = fs::read_to_string(&log).unwrap();
    assert!(told.contains("does not answer"), "{told}");
    engine.cli(&["exec", "one", "true"]).success();
    engine.cli(&["kill", "one"]).success();
    wait_until("its removal", || containers(&engine).is_empty());
}

#[test]
fn cli_a_terminal_is_real() {
    let Some(engine) = engine() else { return };
    let mut terminal = Terminal::start(engine.cli_command(&["run", "--rm", "-it", BUSYBOX, "sh"]));
    terminal.types(b"tty; stty size; echo $((40 + 2))\n");
    terminal.shows("/dev/pts/0\r\n33 99\r\n42\r\n");
    // The key reaches the shell's child and not the client.
    terminal.types(b"sh -c \"echo wai''ting; exec sleep 1000\"\n");
    terminal.shows("waiting");
    terminal.types(b"\x03");
    terminal.types(b"echo go''es on\n");
    terminal.shows("goes on");
    terminal.resize(20, 70);
    terminal.types(b"until stty size | grep '20 70'; do sleep 0.1; done\n");
    terminal.shows("\n20 70\r\n");
    terminal.types(b"exit 5\n");
    assert_eq!(terminal.ends(), 5);
}

#[test]
fn cli_detach_keys_leave_the_container_running() {
    let Some(engine) = engine() else { return };
    let run = engine.cli_command(&["run", "-it", "--name", "one", BUSYBOX, "sh"]);
    let mut terminal = Terminal::start(run);
    terminal.types(b"echo be''gin\n");
    terminal.shows("begin");
    terminal.types(b"\x10\x11");
    assert_eq!(terminal.ends(), 0, "{}", terminal.shown());
    let mut terminal = Terminal::start(engine.cli_command(&["attach", "one"]));
    terminal.types(b"stty size; echo sec''ond\n");
    terminal.shows("33 99\r\nsecond");
    terminal.types(b"exit 6\n");
    assert_eq!(terminal.ends(), 6, "{}", terminal.shown());
    engine.cli(&["rm", "one"]).success();
}

#[test]
fn cli_a_terminal_is_needed_for_one() {
    let Some(engine) = engine() else { return };
    engine.cli(&["run", "--rm", "-it", BUSYBOX, "true"]).exited(125).complains("not a TTY");
    // Without input it need not be: the process has one of its own.
    let run = engine.cli(&["run", "--rm", "-t", BUSYBOX, "tty"]).success();
    assert_eq!(run.stdout, "/dev/pts/0\r\n");
}

#[test]
fn cli_an_init_reaps_hands_on_signals_and_ends_as_its_program() {
    let Some(engine) = engine() else { return };
    let run = |script: &str, code: i32| {
        let args = ["run", "--rm", "--init", BUSYBOX, "sh", "-c", script];
        engine.cli(&args).exited(code).stdout
    };
    assert_eq!(run("echo $$; exit 7", 7), "2\n");
    run("kill -9 $$", 137);
    run("kill -SEGV $$", 139);
    // Orphans are waited for: none is left a zombie.
    let orphans = "for i in 1 2 3; do (sleep 0 &); done; sleep 0.2; ps -o stat | grep -c Z";
    assert_eq!(run(&format!("{orphans}; exit 0"), 0), "0\n");
    // What it is, and that neither its memory nor descriptors of the host are in reach.
    let look = "cat /proc/1/comm; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/fd; \
                head -c 1 /proc/1/mem; cat /proc/1/environ; echo x > /proc/1/exe";
    let args = ["run", "--rm", "--init", BUSYBOX, "sh", "-c", look];
    let seen = engine.cli(&args);
    assert_eq!(seen.stdout.trim(), "init\ninit", "{}", seen.stderr);
    let args = ["run", "--init", "--rm", BUSYBOX, "no-such-command"];
    engine.cli(&args).exited(127).complains("executable file not found in $PATH");
}

#[test]
fn cli_signals_go_through_the_init() {
    let Some(engine) = engine() else { return };
    let script = "trap 'echo asked; exit 5' TERM; echo ready; while :; do sleep 0.1; done";
    engine.cli(&["run", "-d", "--init", "--name", "one", BUSYBOX, "sh", "-c", script]).success();
    wait_until("the program to be ready", || {
        engine.cli(&["logs", "one"]).success().stdout.contains("ready")
    });
    engine.cli(&["stop", "one"]).success();
    assert!(engine.cli(&["logs", "one"]).success().stdout.contains("asked"));
    engine.cli(&["wait", "one"]).success();
    let inspect = engine.cli(&["inspect", "one"]).success().stdout;
    assert!(inspect.contains("\"ExitCode\": 5") && inspect.contains("\"Init\": true"), "{inspect}");
}

#[test]
fn cli_an_init_leaves_the_terminal_to_its_program() {
    let Some(engine) = engine() else { return };
    let args = ["run", "--rm", "-t", "-i", "--init", BUSYBOX, "sh", "-c"];
    let script = "trap 'echo interrupted; exit 3' INT; echo ready; while :; do sleep 0.1; done";
    let command = engine.cli_command(&[&args[..], &[script]].concat());
    let mut terminal = Terminal::start(command);
    terminal.shows("ready");
    terminal.types(b"\x03");
    terminal.shows("interrupted");
    assert_eq!(terminal.ends(), 3);
}

#[test]
fn cli_logs_are_rotated_or_not_kept_as_asked() {
    let Some(engine) = engine() else { return };
    let options = ["--log-opt", "max-size=1k", "--log-opt", "max-file=2"];
    let run = [&["run", "-d", "--name", "one"], &options[..], &[BUSYBOX, "seq", "1", "200"]];
    let id = engine.cli(&run.concat()).success().line().to_owned();
    engine.cli(&["wait", "one"]).success();
    let directory = engine.root().join("containers").join(engine.namespace()).join(&id);
    let log = |suffix: &str| directory.join(format!("{id}-json.log{suffix}"));
    assert!(log("").exists() && log(".1").exists() && !log(".2").exists());
    let logs = engine.cli(&["logs", "one"]).success().stdout;
    assert!(logs.ends_with("\n200\n") && !logs.contains("\n2\n"), "{logs}");

    let run = ["run", "--name", "two", "--log-driver", "none", BUSYBOX, "echo", "seen"];
    assert_eq!(engine.cli(&run).success().stdout, "seen\n");
    assert_ne!(engine.cli(&["logs", "two"]).complains("does not support reading").code, 0);
    let run = ["run", "-d", "--log-driver", "none", BUSYBOX, "seq", "1", "100000"];
    let id = engine.cli(&run).success().line().to_owned();
    assert_eq!(engine.cli(&["wait", &id]).success().line(), "0");
    engine.cli(&["run", "--log-driver", "syslog", BUSYBOX, "true"]).exited(125);
    engine.cli(&["run", "--log-opt", "max-file=2", BUSYBOX, "true"]).exited(125);
}
