//! `process.terminal` and `process.consoleSize`.

use std::fs::File;
use std::io::Read;
use std::os::unix::net::UnixListener;

use berth_tests::Terminal;
use serde_json::json;

use crate::rig::{Rig, on_both, receive};

/// Calls `verb` with a socket for the terminal, and returns the terminal.
fn with_socket(rig: &Rig, verb: &[&str], rest: &[&str]) -> File {
    let path = rig.bundle().join("console");
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let socket = ["--console-socket", path.to_str().unwrap()];
    rig.call(&[verb, &socket, &[&rig.id], rest].concat()).success();
    File::from(receive(&listener.accept().unwrap().0).1)
}

fn read_all(mut master: File) -> String {
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = master.read_to_end(&mut text);
    String::from_utf8(text).unwrap().replace('\r', "")
}

/// config.md, "Process": `terminal` attaches a terminal, which is `/dev/console` too
/// (config-linux.md, "Default Devices"), and `consoleSize` is its size.
#[test]
fn a_terminal_is_sent_to_a_socket() {
    on_both(|rig| {
        let line = "test -t 0 && test -t 2 && tty && stty size; \
                    echo one > /dev/console; echo two > /dev/tty";
        rig.spec["process"]["args"] = json!(["sh", "-c", line]);
        rig.spec["process"]["terminal"] = json!(true);
        rig.spec["process"]["consoleSize"] = json!({ "height": 33, "width": 44 });
        rig.write_spec();
        let master = with_socket(rig, &["create"], &[]);
        rig.verb(&["start"]).success();
        assert_eq!(read_all(master), "/dev/pts/0\n33 44\none\ntwo\n");
        rig.wait_for_end();
        rig.verb(&["delete"]).success();
    });
}

/// runc's manual: a terminal that nobody would hold, and a socket without a terminal, are refused.
#[test]
fn a_terminal_needs_a_holder() {
    on_both(|rig| {
        rig.spec["process"]["terminal"] = json!(true);
        rig.create(&["true"]).exited(1);
        rig.spec["process"]["terminal"] = json!(false);
        rig.write_spec();
        rig.verb(&["create", "--console-socket", "/nowhere"]).exited(1);
    });
}

/// runc's manual: `run` and `exec` join the caller's terminal to the process's.
#[test]
fn the_callers_terminal_is_joined() {
    on_both(|rig| {
        rig.spec["process"]["terminal"] = json!(true);
        rig.spec["process"]["args"] = json!(["sh", "-c", "tty; read line; echo got $line; exit 5"]);
        rig.write_spec();
        let mut command = rig.command();
        command.arg("run").arg("--bundle").arg(rig.bundle()).arg(&rig.id);
        let mut terminal = Terminal::start(command);
        terminal.shows("/dev/pts/0");
        terminal.types(b"word\r");
        terminal.shows("got word");
        assert_eq!(terminal.ends(), 5);
    });
    on_both(|rig| {
        rig.with_sleeper(|rig| {
            let mut command = rig.command();
            command.args(["exec", "-t", &rig.id, "sh", "-c", "tty; exit 3"]);
            let mut terminal = Terminal::start(command);
            terminal.shows("/dev/pts/0");
            assert_eq!(terminal.ends(), 3);
            let master = with_socket(rig, &["exec", "-d", "-t"], &["sh", "-c", "echo from exec"]);
            assert_eq!(read_all(master), "from exec\n");
        });
    });
}
