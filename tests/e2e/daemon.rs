//! Starts that are refused, and clients that find no daemon.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use berth_tests::{Engine, Finished, Image, leaks};
use nix::sys::signal::Signal;
use redb::TableDefinition;

const IMAGE: &str = "docker.io/library/busybox:latest";

/// The daemon's message when it does not start.
fn refusal(engine: &Engine) -> String {
    let output = engine.daemon_command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[test]
fn daemon_refuses_a_malformed_configuration_and_says_where() {
    let Some(mut engine) = Engine::prepare() else { return };
    let cases = [
        ("root = \n", "line 1"),
        ("version = 4\n[debug]\nlevel = \"loud\"\n", "line 3"),
        ("version = 4\n[debug]\nlevel = \"loud\"\n", "loud"),
        ("[grpc]\nuid = \"nobody\"\n", "line 2"),
        ("[grpc]\nuid = \"nobody\"\n", "uid"),
        ("version = 9\n", "version 9"),
        ("state = \"here\"\n", "state must be an absolute path"),
        ("[registries.\"a.example:5000\"]\nplain-http = true\n", "line 2"),
        ("[registries.\"a.example:5000\"]\nplain-http = true\n", "plain-http"),
        ("[registries.\"https://a.example\"]\n", "https://a.example"),
        ("[registries.\"a.example\"]\nusername = \"me\"\n", "password_file"),
    ];
    for (text, words) in cases {
        engine.configure(text);
        let said = refusal(&engine);
        assert!(said.contains(words) && said.contains("berthd: config"), "{text}: {said}");
        assert!(!engine.root().exists(), "{text}");
    }
    engine
        .configure("version = 4\nnew_key = 1\n[registries.\"a.example:5000\"]\ninsecure = true\n");
    engine.start_daemon();
    assert!(engine.log().contains("new_key"), "{}", engine.log());
}

#[test]
fn daemon_refuses_a_database_of_a_newer_release_and_loses_nothing() {
    let Some(mut engine) = Engine::berth() else { return };
    engine.import(&Image::busybox("docker.io/library/busybox:latest"));
    engine.stop_daemon(Signal::SIGTERM);
    let file = engine.root().join("berth.db");
    let known = set_schema_version(&file, 1000);
    let said = refusal(&engine);
    assert!(said.contains("schema version 1000") && said.contains("berth.db"), "{said}");
    assert_eq!(set_schema_version(&file, known), 1000);
    engine.start_daemon();
    engine.cli(&["run", "--rm", "busybox", "true"]).success();
}

/// Answers the version that was there.
fn set_schema_version(file: &Path, version: u64) -> u64 {
    let database = redb::Database::open(file).unwrap();
    let transaction = database.begin_write().unwrap();
    let table = TableDefinition::<&str, u64>::new("schema");
    let old =
        transaction.open_table(table).unwrap().insert("version", version).unwrap().unwrap().value();
    transaction.commit().unwrap();
    old
}

#[test]
fn daemon_refuses_a_root_that_another_has() {
    let Some(engine) = Engine::berth() else { return };
    let said = refusal(&engine);
    assert!(said.contains(&format!("process {}", engine.daemon_pid())), "{said}");
    assert!(said.contains("choose another --root"), "{said}");
    engine.cli(&["ps"]).success();
}

#[test]
fn daemon_and_shims_have_sockets_that_are_closed_to_others() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox("docker.io/library/busybox:latest"));
    engine.cli(&["run", "-d", "busybox", "sleep", "1000"]).success();
    let state = engine.address().parent().unwrap().to_owned();
    let found =
        Finished::run("find", &[state.to_str().unwrap(), "-type", "s", "-printf", "%m\n"], b"");
    assert_eq!(found.success().stdout, "600\n".repeat(3));
}

#[test]
fn daemon_that_does_not_run_is_asked_for() {
    let Some(mut engine) = Engine::prepare() else { return };
    let address = engine.address();
    let where_it_is = format!("unix://{}", address.display());
    let asks = |engine: &Engine, args: &[&str], code| {
        engine
            .cli(args)
            .exited(code)
            .complains("Is the berth daemon running?")
            .complains(&where_it_is);
    };
    asks(&engine, &["ps"], 1);
    engine.start_daemon();
    engine.stop_daemon(Signal::SIGKILL);
    // The socket is still there, and nobody answers.
    assert!(address.exists());
    asks(&engine, &["pull", "busybox"], 1);
    asks(&engine, &["run", "busybox"], 125);
}

#[test]
fn daemon_tells_other_users_who_may_ask() {
    let Some(engine) = Engine::berth() else { return };
    let command = engine.cli_command(&["ps"]);
    let mut args = vec!["--reuid=65534".into(), "--regid=65534".into(), "--clear-groups".into()];
    // A copy that everybody may execute, wherever the tests were built.
    let program = tempfile::Builder::new().prefix("berth").tempdir_in("/tmp").unwrap();
    let copy = program.path().join("berth");
    fs::copy(command.get_program(), &copy).unwrap();
    let status = Command::new("chmod").arg("-R").arg("a+rx").arg(program.path()).status().unwrap();
    assert!(status.success());
    args.push(copy.into_os_string());
    args.extend(command.get_args().map(ToOwned::to_owned));
    // The socket's own mode keeps them out, not a directory above it.
    let open = Command::new("chmod").arg("a+rx").arg(engine.path("")).status().unwrap();
    assert!(open.success());
    Finished::run("setpriv", &args, b"")
        .exited(1)
        .complains("permission denied")
        .complains("run berth as root");
    engine.cli(&["ps"]).success();
}

#[test]
fn the_daemon_enters_the_control_group_of_its_configuration() {
    let Some(mut engine) = Engine::prepare() else { return };
    let path = format!("/{}", engine.namespace());
    engine.configure(&format!("version = 4\n[cgroup]\npath = \"{path}\"\n"));
    engine.start_daemon();
    let groups = format!("/proc/{}/cgroup", engine.daemon_pid());
    let inside = std::fs::read_to_string(groups).unwrap();
    assert!(inside.lines().any(|line| line.ends_with(&format!(":{path}"))), "{inside}");
}

/// CVE-2020-15257, CVE-2021-41103, CVE-2024-25621: other users of the machine reach neither the
/// sockets nor the files, and no socket lies where a network namespace is all that it takes.
#[test]
fn other_users_are_kept_out() {
    let Some(engine) = Engine::berth() else { return };
    engine.import(&Image::busybox(IMAGE));
    engine.ctr(&["run", "-d", IMAGE, "one", "sleep", "1000"]).success();
    let state = engine.address().parent().unwrap().to_owned();
    // As /var/lib and /run are.
    fs::set_permissions(engine.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    let others_see = |path: &Path| {
        let mut list = Command::new("setpriv");
        list.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "ls"]).arg(path);
        Finished::leaving(&mut list).code == 0
    };
    assert!(others_see(&engine.path("")));
    let bundles = state.join("io.containerd.runtime.v2.task").join(engine.namespace());
    for closed in [engine.root(), &state, &bundles, &bundles.join("one"), &state.join("s")] {
        assert!(closed.is_dir(), "{closed:?}");
        assert!(!others_see(closed), "{closed:?} is open");
    }

    let mut processes = leaks::shims(engine.namespace());
    processes.push(engine.daemon_pid() as i32);
    let sockets = fs::read_to_string("/proc/net/unix").unwrap();
    let abstracts = sockets.lines().filter(|line| line.contains(" @"));
    let inodes: Vec<_> = abstracts.filter_map(|line| line.split_whitespace().nth(6)).collect();
    let mut seen = 0;
    for pid in processes {
        for descriptor in fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let Some(target) = target.to_str().and_then(|text| text.strip_prefix("socket:["))
            else {
                continue;
            };
            seen += 1;
            assert!(!inodes.contains(&target.trim_end_matches(']')), "{pid} has an abstract one");
        }
    }
    assert!(seen > 2);
    for socket in [engine.address(), state.join("d.sock.ttrpc")] {
        assert_eq!(fs::metadata(socket).unwrap().mode() & 0o777, 0o600);
    }
}
