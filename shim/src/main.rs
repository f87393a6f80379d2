//! The berth shim: runs the processes of one container.

fn main() {}
