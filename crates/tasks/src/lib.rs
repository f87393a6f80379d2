//! Tasks and the shims that run them.
