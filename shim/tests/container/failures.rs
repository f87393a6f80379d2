//! What can't be done fails by name and leaves nothing.

use std::fs;

use berth_types::Kind;
use berth_types::spec::{Hook, Hooks, Mount, Rlimit};

use crate::rig::{Rig, Streams, block_on};

crate::cases![
    a_missing_command_fails_at_create,
    a_command_that_is_no_program_fails_at_start,
    invalid_specs_are_refused_by_field,
    a_missing_bind_source_is_named,
    a_mount_that_fails_is_named,
    a_missing_root_is_named,
    a_bad_cgroup_leaves_nothing,
];

fn create_error(rig: &mut Rig, args: &[&str]) -> berth_types::Error {
    block_on(async { rig.create(args, &Streams::new()).await.unwrap_err() })
}

fn a_missing_command_fails_at_create() {
    let mut rig = Rig::new();
    fs::write(rig.root().join("etc/plain"), "").unwrap();
    for (command, words) in [
        ("foo", "exec: \"foo\": executable file not found in $PATH"),
        ("/bin/foo", "exec: \"/bin/foo\": stat /bin/foo: no such file or directory"),
        ("/etc/plain", "exec: \"/etc/plain\": permission denied"),
        ("/etc", "exec: \"/etc\": is a directory"),
    ] {
        let error = create_error(&mut rig, &[command]);
        assert!(error.message().contains(words), "{error}");
    }
}

fn a_command_that_is_no_program_fails_at_start() {
    let mut rig = Rig::new();
    use std::os::unix::fs::PermissionsExt;
    let script = rig.root().join("bin/script");
    fs::write(&script, "no interpreter\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let error = rig.try_run(&["script"]).unwrap_err();
    assert!(error.message().contains("exec format error"), "{error}");
    fs::write(&script, "#!/bin/none\n").unwrap();
    let error = rig.try_run(&["script"]).unwrap_err();
    assert!(error.message().contains("no such file or directory"), "{error}");
}

fn invalid_specs_are_refused_by_field() {
    type Spoil = fn(&mut Rig);
    let cases: [(&str, Spoil); 13] = [
        ("process", |rig| rig.spec.process.as_mut().unwrap().cwd = "tmp".into()),
        ("root", |rig| rig.spec.root = None),
        ("linux.namespaces", |rig| rig.linux().namespaces[0].kind = "ether".into()),
        ("linux.namespaces", |rig| rig.linux().namespaces.retain(|one| one.kind != "mount")),
        ("hostname", |rig| {
            rig.spec.hostname = Some("x".into());
            rig.linux().namespaces.retain(|one| one.kind != "uts");
        }),
        ("linux.sysctl", |rig| {
            drop(rig.linux().sysctl.insert("vm.overcommit_memory".into(), "1".into()))
        }),
        ("process.rlimits", |rig| {
            rig.process().rlimits = vec![Rlimit { kind: "RLIMIT_X".into(), hard: 1, soft: 1 }];
        }),
        ("hooks.poststop", |rig| {
            let hook = Hook { path: "relative".into(), ..Hook::default() };
            rig.spec.hooks = Some(Hooks { poststop: vec![hook], ..Hooks::default() });
        }),
        ("linux.maskedPaths", |rig| rig.linux().masked_paths = vec!["proc".into()]),
        ("linux.rootfsPropagation", |rig| rig.linux().rootfs_propagation = Some("odd".into())),
        ("mounts", |rig| {
            rig.spec.mounts.push(Mount { destination: "/x".into(), ..Mount::default() })
        }),
        ("linux.seccomp", |rig| {
            rig.linux().seccomp.as_mut().unwrap().default_action = "SCMP_ACT_DANCE".into();
        }),
        ("process.user", |rig| rig.process().user.uid = u32::MAX),
    ];
    for (field, spoil) in cases {
        let mut rig = Rig::new();
        spoil(&mut rig);
        let error = create_error(&mut rig, &["true"]);
        assert_eq!(error.kind(), Kind::InvalidArgument, "{field}: {error}");
        assert!(error.message().contains(field), "{field} is not named by: {error}");
    }
}

fn a_missing_bind_source_is_named() {
    let mut rig = Rig::new();
    rig.bind("/no/such/source".as_ref(), "/data", &["rbind"]);
    let error = create_error(&mut rig, &["true"]);
    assert!(
        error.message().contains("/no/such/source") && error.message().contains("/data"),
        "{error}"
    );
}

fn a_mount_that_fails_is_named() {
    let mut rig = Rig::new();
    rig.spec.mounts.push(Mount {
        destination: "/odd".into(),
        kind: Some("tmpfs".into()),
        options: vec!["no-such-option=1".into()],
        ..Mount::default()
    });
    let error = create_error(&mut rig, &["true"]);
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    assert!(
        error.message().contains("/odd") && error.message().contains("no-such-option"),
        "{error}"
    );
}

fn a_missing_root_is_named() {
    let mut rig = Rig::new();
    rig.spec.root.as_mut().unwrap().path = "nowhere".into();
    let error = create_error(&mut rig, &["true"]);
    assert!(error.message().contains("nowhere"), "{error}");
}

fn a_bad_cgroup_leaves_nothing() {
    let mut rig = Rig::new();
    let memory = berth_types::spec::Memory { limit: Some(-7), ..Default::default() };
    rig.linux().resources.as_mut().unwrap().memory = Some(memory);
    let error = create_error(&mut rig, &["true"]);
    assert_eq!(error.kind(), Kind::InvalidArgument, "{error}");
    rig.linux().cgroups_path = Some("/../escape".into());
    assert_eq!(create_error(&mut rig, &["true"]).kind(), Kind::InvalidArgument);
}
