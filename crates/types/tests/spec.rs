//! Specifications from images and options, and what a peer reads in them.
#![allow(clippy::unwrap_used)]

use berth_types::Kind;
use berth_types::image::ContainerConfig;
use berth_types::spec::{Bind, ExecOptions, Network, Options, Process, Spec, stop_signal};

fn image() -> ContainerConfig {
    serde_json::from_str(
        r#"{"Entrypoint":["/entry"],"Cmd":["default"],"Env":["PATH=/image","A=1"],
            "WorkingDir":"/work","User":"app","StopSignal":"SIGQUIT"}"#,
    )
    .unwrap()
}

fn options() -> Options {
    Options {
        id: "0123456789abcdef".to_owned(),
        cgroups_path: "/default/a".to_owned(),
        ..Options::default()
    }
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|one| (*one).to_owned()).collect()
}

fn process(options: &Options) -> Process {
    Spec::from_image(&image(), options).unwrap().process.unwrap()
}

#[test]
fn the_image_says_what_runs() {
    let process = process(&options());
    assert_eq!(process.args, ["/entry", "default"]);
    assert_eq!(process.env, ["PATH=/image", "HOSTNAME=0123456789ab", "A=1"]);
    assert_eq!(process.cwd, "/work");
    assert_eq!(process.user.username.as_deref(), Some("app"));
    assert_eq!(stop_signal(&image()).unwrap(), 3);
    assert_eq!(stop_signal(&ContainerConfig::default()).unwrap(), 15);
}

#[test]
fn options_go_over_the_image() {
    let process = process(&Options {
        command: strings(&["other"]),
        env: strings(&["A=2", "B=3=4", "PATH"]),
        tty: true,
        console_size: Some((100, 40)),
        user: "5:6".to_owned(),
        working_directory: "/".to_owned(),
        hostname: "box".to_owned(),
        ..options()
    });
    assert_eq!(process.args, ["/entry", "other"]);
    assert_eq!(process.env, ["HOSTNAME=box", "TERM=xterm", "A=2", "B=3=4"]);
    assert_eq!((process.cwd.as_str(), process.user.username.as_deref()), ("/", Some("5:6")));
    let size = process.console_size.unwrap();
    assert!(process.terminal && (size.width, size.height) == (100, 40));
}

#[test]
fn a_new_entrypoint_drops_the_images_command() {
    let with = |entrypoint: &[&str], command: &[&str]| {
        let entrypoint = Some(strings(entrypoint));
        let options = Options { entrypoint, command: strings(command), ..options() };
        Spec::from_image(&image(), &options).map(|spec| spec.process.unwrap().args)
    };
    assert_eq!(with(&["/new"], &[]).unwrap(), ["/new"]);
    assert_eq!(with(&[""], &["sh"]).unwrap(), ["sh"]);
    assert_eq!(with(&[], &["sh"]).unwrap(), ["sh"]);
    assert_eq!(with(&[], &[]).unwrap_err().kind(), Kind::InvalidArgument);
}

#[test]
fn binds_take_the_place_of_default_mounts_and_come_after_them() {
    let bind = |source: &str, destination: &str, read_only| Bind {
        source: source.to_owned(),
        destination: destination.to_owned(),
        read_only,
    };
    let binds = vec![
        bind("/a", "/data/deep/er", false),
        bind("/b", "/dev//shm/", true),
        bind("/c", "/data", true),
    ];
    let spec = Spec::from_image(&image(), &Options { binds, ..options() }).unwrap();
    let destinations: Vec<_> = spec.mounts.iter().map(|mount| mount.destination.as_str()).collect();
    assert_eq!(destinations[destinations.len() - 3..], ["/data", "/dev//shm/", "/data/deep/er"]);
    assert!(!destinations.contains(&"/dev/shm"));
    assert_eq!(spec.mounts.last().unwrap().options, ["rbind", "rprivate", "rw"]);

    for (source, destination) in
        [("a", "/b"), ("/a", "b"), ("/a", "/"), ("/a", "/b/../c"), ("/a\0", "/b")]
    {
        let binds = vec![bind(source, destination, false)];
        assert!(Spec::from_image(&image(), &Options { binds, ..options() }).is_err());
    }
}

#[test]
fn limits() {
    let spec = Spec::from_image(
        &image(),
        &Options {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            pids: 64,
            read_only: true,
            ..options()
        },
    )
    .unwrap();
    let resources = spec.linux.unwrap().resources.unwrap();
    let (memory, cpu) = (resources.memory.unwrap(), resources.cpu.unwrap());
    assert_eq!((memory.limit, memory.swap), (Some(64 << 20), Some(128 << 20)));
    assert_eq!((cpu.quota, cpu.period), (Some(150_000), Some(100_000)));
    assert_eq!(resources.pids.unwrap().limit, Some(64));
    assert!(spec.root.unwrap().readonly);
    for low in [Options { memory: 1, ..options() }, Options { nano_cpus: 1, ..options() }] {
        assert!(Spec::from_image(&image(), &low).is_err());
    }
}

#[test]
fn the_hosts_network_is_a_missing_namespace() {
    let has_network = |network| {
        let spec = Spec::from_image(&image(), &Options { network, ..options() }).unwrap();
        spec.linux.unwrap().namespaces.iter().any(|namespace| namespace.kind == "network")
    };
    assert!(has_network(Network::None));
    assert!(!has_network(Network::Host));
}

#[test]
fn bad_options_are_refused() {
    for bad in [
        Options { working_directory: "relative".to_owned(), ..options() },
        Options { env: strings(&["=x"]), ..options() },
        Options { env: strings(&["A=\0"]), ..options() },
    ] {
        let error = Spec::from_image(&image(), &bad).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    }
}

#[test]
fn an_exec_has_the_containers_rights_and_its_own_rest() {
    let container = process(&options());
    let exec = container
        .exec(&ExecOptions {
            command: strings(&["ls"]),
            env: strings(&["A=9"]),
            tty: true,
            user: "root".to_owned(),
            ..ExecOptions::default()
        })
        .unwrap();
    assert_eq!(exec.env, ["PATH=/image", "HOSTNAME=0123456789ab", "A=9", "TERM=xterm"]);
    assert_eq!(exec.user.username.as_deref(), Some("root"));
    assert_eq!((exec.cwd.as_str(), exec.terminal), ("/work", true));
    assert_eq!(exec.capabilities, container.capabilities);
    assert!(container.exec(&ExecOptions::default()).is_err());
}

/// The strictest reader of the specification that there is in Rust.
#[test]
fn a_peer_reads_the_same() {
    let options = Options { memory: 64 << 20, nano_cpus: 1_000_000_000, pids: 9, ..options() };
    let ours = Spec::from_image(&image(), &options).unwrap();
    let json = serde_json::to_string(&ours).unwrap();
    let peer: oci_spec::runtime::Spec = serde_json::from_str(&json).unwrap();
    let linux = peer.linux().as_ref().unwrap();
    let seccomp = linux.seccomp().as_ref().unwrap();
    let rules = |spec: &Spec| spec.linux.as_ref().unwrap().seccomp.as_ref().unwrap().syscalls.len();
    assert_eq!(seccomp.syscalls().as_ref().unwrap().len(), rules(&ours));
    let memory = linux.resources().as_ref().unwrap().memory().as_ref().unwrap();
    assert_eq!(memory.limit(), Some(64 << 20));
    let back: Spec = serde_json::from_str(&serde_json::to_string(&peer).unwrap()).unwrap();
    let (ours, theirs) = (ours.linux.unwrap(), back.linux.unwrap());
    assert_eq!(ours.masked_paths, theirs.masked_paths);
    assert_eq!(ours.namespaces, theirs.namespaces);
    assert_eq!(ours.seccomp.unwrap().syscalls, theirs.seccomp.unwrap().syscalls);
}

/// What other engines write and strict readers refuse.
#[test]
fn reading_is_tolerant() {
    let text = r#"{"ociVersion":"9.9","future":{},"mounts":null,"annotations":null,
            "process":{"cwd":"/","args":null,"capabilities":{"bounding":["CAP_OF_TOMORROW"]},
                       "user":{"uid":1,"gid":2}},
            "linux":{"namespaces":[{"type":"tomorrow"}],"seccomp":{"defaultAction":"SCMP_ACT_NEW"},
                     "resources":{"devices":null,"memory":{"limit":-1},"unified":null}}}"#;
    assert!(serde_json::from_str::<oci_spec::runtime::Spec>(text).is_err());
    let spec: Spec = serde_json::from_str(text).unwrap();
    assert_eq!(spec.process.unwrap().capabilities.unwrap().bounding, ["CAP_OF_TOMORROW"]);
    assert_eq!(spec.linux.unwrap().namespaces[0].kind, "tomorrow");
}
