//! A bundle's `config.json`, up to the point where something would be made: every document is
//! refused, or a container that can be planned.

#![no_main]

use std::path::PathBuf;

use berth_types::spec::Spec;
use containerd_shim_berth_v1::container::{self, Container, CreateRequest, Io};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(spec) = container::parse::<Spec>(text) else { return };
    let request = CreateRequest {
        id: "fuzz".to_owned(),
        bundle: PathBuf::from("/nowhere"),
        rootfs: Vec::new(),
        spec,
        io: Io::Terminal,
        no_new_keyring: false,
        no_pivot: false,
        preserved_fds: 0,
        gate: None,
    };
    // An error is as good as a plan: what counts is that there is one of both.
    let _ = Container::check(&request);
});
