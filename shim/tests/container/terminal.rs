//! Terminals.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use berth_types::spec::{ConsoleSize, Process};
use containerd_shim_berth_v1::container::{Container, Io};

use crate::rig::{Rig, block_on, wait};

crate::cases![
    a_terminal_of_the_containers,
    a_terminal_for_an_exec,
    the_streams_must_agree_with_the_spec,
    a_terminal_needs_devpts,
];

/// Everything that is printed until the last program closes the terminal.
fn read_all(master: OwnedFd) -> String {
    let mut text = Vec::new();
    // The end of a terminal is an error.
    let _ = File::from(master).read_to_end(&mut text);
    String::from_utf8(text).unwrap().replace('\r', "")
}

fn a_terminal_of_the_containers() {
    block_on(async {
        let mut rig = Rig::new();
        let line = "tty; stty size; stat -c %t:%T /dev/console; echo to > /dev/console; echo to > /dev/tty; test -t 2 && echo err";
        let process = rig.process();
        process.args = ["sh", "-c", line].map(str::to_owned).to_vec();
        process.terminal = true;
        process.console_size = Some(ConsoleSize { height: 33, width: 77 });
        let mut container = Container::create(rig.request(Io::Terminal)).await.unwrap();
        let master = container.take_terminal().unwrap();
        container.start().await.unwrap();
        let text = read_all(master);
        assert_eq!(text, "/dev/pts/0\n33 77\n88:0\nto\nto\nerr\n");
        assert_eq!(wait(container.init()), Some(0));
        container.destroy().await.unwrap();
    });
}

fn a_terminal_for_an_exec() {
    let mut rig = Rig::new();
    let template = rig.spec.process.clone().unwrap();
    rig.with_sleeper(async |container| {
        let args = ["sh", "-c", "tty; echo $0 > /dev/tty"].map(str::to_owned).to_vec();
        let process = Process { args, terminal: true, ..template };
        let mut process = container.exec(&process, Io::Terminal).await.unwrap();
        assert_eq!(read_all(process.terminal.take().unwrap()), "/dev/pts/0\nsh\n");
        assert_eq!(wait(&process), Some(0));
    });
}

fn the_streams_must_agree_with_the_spec() {
    let mut rig = Rig::new();
    rig.process().args = vec!["true".into()];
    block_on(async {
        assert!(Container::create(rig.request(Io::Terminal)).await.is_err());
    });
}

fn a_terminal_needs_devpts() {
    let mut rig = Rig::new();
    rig.spec.mounts.retain(|mount| mount.destination != "/dev/pts");
    rig.process().args = vec!["true".into()];
    rig.process().terminal = true;
    block_on(async {
        let error = Container::create(rig.request(Io::Terminal)).await.unwrap_err();
        assert!(error.message().contains("/dev/pts"), "{error}");
    });
}
