//! As whom a program runs and what it may do.

use berth_types::spec::{Capabilities, Rlimit, default_seccomp};

use crate::rig::Rig;

crate::cases![
    root_by_default,
    numbers_and_groups,
    a_user_by_name,
    an_unknown_user_is_refused,
    the_default_capabilities,
    no_capabilities_for_other_users,
    ambient_capabilities_reach_other_users,
    unknown_capabilities_are_left_out,
    no_new_privileges_is_set,
    the_filter_is_in_force,
    the_filter_is_in_force_with_no_new_privileges,
    limits_are_set_and_clamped,
    the_umask_is_the_specs,
    the_oom_score_is_the_specs,
    no_signal_is_ignored_or_blocked,
    no_descriptor_is_inherited,
    streams_belong_to_the_user,
    the_personality_is_the_specs,
];

fn root_by_default() {
    assert_eq!(Rig::new().run(&["id"]).text(), "uid=0(root) gid=0(root) groups=0(root)");
}

fn numbers_and_groups() {
    let mut rig = Rig::new();
    let user = &mut rig.process().user;
    (user.uid, user.gid, user.additional_gids) = (1000, 2000, vec![5, 6]);
    let output = rig.run(&["grep", "-E", "^(Uid|Gid|Groups)", "/proc/self/status"]);
    let expected = "Uid:\t1000\t1000\t1000\t1000\nGid:\t2000\t2000\t2000\t2000\nGroups:\t5 6 2000";
    assert_eq!(output.text(), expected);
}

fn a_user_by_name() {
    let mut rig = Rig::new();
    rig.process().user.username = Some("app".into());
    let expected = "uid=1000(app) gid=1000(app) groups=1000(app),2000(web)";
    assert_eq!(rig.run(&["id"]).text(), expected);
    assert!(rig.run(&["env"]).text().contains("HOME=/srv/app"));
}

fn an_unknown_user_is_refused() {
    let mut rig = Rig::new();
    rig.process().user.username = Some("nobody-here".into());
    let error = rig.try_run(&["id"]).unwrap_err();
    assert!(error.message().contains("nobody-here"), "{error}");
}

fn status(rig: &mut Rig) -> Vec<String> {
    let output = rig.run(&["grep", "^Cap", "/proc/self/status"]);
    output.text().lines().map(|line| line[8..].to_owned()).collect()
}

fn the_default_capabilities() {
    let docker = "00000000a80425fb";
    let none = "0000000000000000";
    assert_eq!(status(&mut Rig::new()), [none, docker, docker, docker, none]);
}

fn no_capabilities_for_other_users() {
    let mut rig = Rig::new();
    rig.process().user.uid = 1000;
    let sets = status(&mut rig);
    assert_eq!(sets[0..3], ["0000000000000000"; 3].map(str::to_owned));
    assert_eq!(sets[3], "00000000a80425fb");
}

fn ambient_capabilities_reach_other_users() {
    let mut rig = Rig::new();
    rig.process().user.uid = 1000;
    let one = vec!["CAP_NET_BIND_SERVICE".to_owned()];
    rig.process().capabilities = Some(Capabilities {
        bounding: one.clone(),
        effective: one.clone(),
        inheritable: one.clone(),
        permitted: one.clone(),
        ambient: one,
    });
    assert_eq!(status(&mut rig), ["0000000000000400"; 5].map(str::to_owned));
}

fn unknown_capabilities_are_left_out() {
    let mut rig = Rig::new();
    let capabilities = rig.process().capabilities.as_mut().unwrap();
    capabilities.bounding.push("CAP_OF_THE_FUTURE".into());
    assert_eq!(status(&mut rig)[3], "00000000a80425fb");
}

fn no_new_privileges_is_set() {
    let line = ["grep", "NoNewPrivs", "/proc/self/status"];
    assert_eq!(Rig::new().run(&line).text(), "NoNewPrivs:\t0");
    let mut rig = Rig::new();
    rig.process().no_new_privileges = true;
    assert_eq!(rig.run(&line).text(), "NoNewPrivs:\t1");
}

/// `unshare` needs a right besides the capability, which only the filter takes.
fn filtered(rig: &mut Rig) {
    let admin = "CAP_SYS_ADMIN".to_owned();
    let capabilities = rig.process().capabilities.as_mut().unwrap();
    for set in
        [&mut capabilities.bounding, &mut capabilities.effective, &mut capabilities.permitted]
    {
        set.push(admin.clone());
    }
    let line = "grep Seccomp: /proc/self/status; unshare -m true || echo refused";
    let output = rig.sh(line);
    assert_eq!(output.text(), "Seccomp:\t2\nrefused", "{output:?}");
    rig.linux().seccomp = None;
    assert_eq!(rig.sh(line).text(), "Seccomp:\t0");
}

fn the_filter_is_in_force() {
    let mut rig = Rig::new();
    rig.linux().seccomp = Some(default_seccomp(&[]));
    filtered(&mut rig);
}

fn the_filter_is_in_force_with_no_new_privileges() {
    let mut rig = Rig::new();
    rig.linux().seccomp = Some(default_seccomp(&[]));
    rig.process().no_new_privileges = true;
    rig.process().user.uid = 1000;
    let capabilities = rig.process().capabilities.as_mut().unwrap();
    capabilities.inheritable.push("CAP_SYS_ADMIN".into());
    capabilities.ambient.push("CAP_SYS_ADMIN".into());
    filtered(&mut rig);
}

fn limits_are_set_and_clamped() {
    let mut rig = Rig::new();
    let limit = |kind: &str, soft, hard| Rlimit { kind: kind.into(), soft, hard };
    let list = vec![
        limit("RLIMIT_NOFILE", 100, 200),
        limit("RLIMIT_CORE", 0, 0),
        limit("RLIMIT_NPROC", 1 << 40, u64::MAX),
    ];
    rig.process().rlimits = list;
    let output = rig.sh("ulimit -Sn; ulimit -Hn; ulimit -Hc");
    assert_eq!(output.text(), "100\n200\n0");
}

fn the_umask_is_the_specs() {
    assert_eq!(Rig::new().sh("umask").text(), "0022");
    let mut rig = Rig::new();
    rig.process().user.umask = Some(0o077);
    assert_eq!(rig.sh("umask").text(), "0077");
}

fn the_oom_score_is_the_specs() {
    let mut rig = Rig::new();
    rig.process().oom_score_adj = Some(321);
    assert_eq!(rig.run(&["cat", "/proc/self/oom_score_adj"]).text(), "321");
    rig.process().oom_score_adj = Some(-999);
    let score: i32 = rig.run(&["cat", "/proc/self/oom_score_adj"]).text().parse().unwrap();
    assert!(score == -999 || score == 0, "neither set nor left: {score}");
}

fn no_signal_is_ignored_or_blocked() {
    let output = Rig::new().run(&["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
    assert_eq!(output.text(), "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000");
}

fn no_descriptor_is_inherited() {
    // As a careless daemon leaves it.
    let leak = std::fs::File::open("/").unwrap();
    rustix::io::fcntl_setfd(&leak, rustix::io::FdFlags::empty()).unwrap();
    // The third is the directory that ls reads.
    assert_eq!(Rig::new().run(&["ls", "/proc/self/fd"]).text(), "0\n1\n2\n3");
}

fn streams_belong_to_the_user() {
    let mut rig = Rig::new();
    rig.process().user.uid = 1000;
    assert_eq!(rig.sh("echo again > /dev/stdout; stat -L -c %u /dev/stderr").text(), "1000");
}

fn the_personality_is_the_specs() {
    let mut rig = Rig::new();
    let personality = berth_types::spec::Personality { domain: "LINUX32".into(), flags: vec![] };
    rig.linux().personality = Some(personality);
    assert_eq!(rig.run(&["uname", "-m"]).text(), "i686");
}
