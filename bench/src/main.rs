//! Side-by-side benchmarks against installed peers.

fn main() {}
