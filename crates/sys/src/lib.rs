//! Linux as berth uses it: the only crate with unsafe code and raw system calls.
