//! What Docker users expect above containers and tasks.
