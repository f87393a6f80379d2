//! Start, stop and refusal, and what the daemon says of itself.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod daemon;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use daemon::{BERTHD, Daemon};
use rustix::process::Signal;

#[test]
fn a_second_daemon_on_the_root_is_refused_and_the_first_serves_on() {
    let daemon = Daemon::start();
    let output = daemon.command().output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(&format!("process {}", daemon.pid())), "{error}");
    daemon.ctr_ok(&["version"]);
}

#[test]
fn another_root_does_not_take_the_tasks_over() {
    let daemon = Daemon::start();
    let output = daemon.command_on("other", "state", "other.sock").output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("state ") && error.contains("is in use by another berthd"), "{error}");
    daemon.ctr_ok(&["version"]);
}

#[test]
fn other_directories_do_not_take_the_socket_over() {
    let daemon = Daemon::start();
    let output = daemon.command_on("other", "others", "b.sock").output().unwrap();
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("another daemon answers"), "{error}");
    daemon.ctr_ok(&["version"]);
}

#[test]
fn signals_stop_it_cleanly_and_it_starts_again_also_after_a_kill() {
    let mut daemon = Daemon::start();
    let uuid = |daemon: &Daemon| {
        let version = daemon.ctr_ok(&["version"]);
        version.lines().find(|line| line.contains("UUID")).unwrap().to_owned()
    };
    let before = uuid(&daemon);
    for (signal, code) in [(Signal::TERM, Some(0)), (Signal::INT, Some(0)), (Signal::KILL, None)] {
        assert_eq!(daemon.stop(signal), code);
        daemon.boot();
        assert_eq!(uuid(&daemon), before);
    }
}

#[test]
fn the_service_manager_is_told_when_clients_are_served_and_when_no_longer() {
    let mut daemon = Daemon::new();
    let manager = UnixDatagram::bind(daemon.path("notify")).unwrap();
    daemon.environment.push(("NOTIFY_SOCKET", daemon.path("notify").into()));
    daemon.boot();
    let mut message = [0; 64];
    let received = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..received], b"READY=1\n");
    daemon.stop(Signal::TERM);
    let received = manager.recv(&mut message).unwrap();
    assert_eq!(&message[..received], b"STOPPING=1\n");
}

#[test]
fn other_users_are_not_served_even_if_the_mode_lets_them_in() {
    let daemon = Daemon::start();
    fs::set_permissions(daemon.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    fs::set_permissions(daemon.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = daemon.socket();
    let version = ["--address", socket.to_str().unwrap(), "--connect-timeout", "1s", "version"];
    let stranger = Command::new("ctr").args(version).uid(65534).gid(65534).output().unwrap();
    assert!(!stranger.status.success());
    daemon.ctr_ok(&["version"]);
}

#[test]
fn directories_and_socket_are_closed_to_others() {
    let daemon = Daemon::start();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&daemon.root()), 0o700);
    assert_eq!(mode(&daemon.path("state")), 0o711);
    assert_eq!(mode(&daemon.socket()), 0o600);
}

#[test]
fn a_malformed_configuration_is_refused_with_its_line_and_unknown_keys_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.toml");
    let dump = |text: &str| {
        fs::write(&file, text).unwrap();
        Command::new(BERTHD).arg("-c").arg(&file).args(["config", "dump"]).output().unwrap()
    };
    let bad = dump("version = 2\nroot = 7\n");
    assert!(!bad.status.success());
    let error = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(error.contains("config.toml") && error.contains("line 2"), "{error}");

    let good = dump("version = 3\nroot = \"/elsewhere\"\n");
    assert!(good.status.success());
    assert!(String::from_utf8_lossy(&good.stdout).contains("root = \"/elsewhere\""));

    let missing = Command::new(BERTHD).args(["-c", "/nowhere/config.toml"]).output().unwrap();
    assert!(!missing.status.success());
    assert!(String::from_utf8_lossy(&missing.stderr).contains("does not exist"));
}

#[test]
fn ctr_sees_version_and_plugins() {
    let daemon = Daemon::start();
    assert!(daemon.ctr_ok(&["version"]).contains("2.1.0+berth."));
    let plugins = daemon.ctr_ok(&["plugins", "ls", "type==io.containerd.snapshotter.v1"]);
    assert_eq!(plugins.lines().count(), 4, "{plugins}");
    for name in ["erofs", "native", "overlayfs"] {
        assert!(
            plugins.lines().any(|line| line.contains(name) && line.contains("ok")),
            "{plugins}"
        );
    }
}
