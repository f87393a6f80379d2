//! The operator's command of the berth container engine.

fn main() {}
