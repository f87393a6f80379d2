//! How a process ended.

use std::time::SystemTime;

use prost_types::Timestamp;

/// How a process ended, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Exit {
    /// 0 to 255; 128+n for a process ended by signal n.
    pub status: u32,
    /// When. Shims that don't know leave it out.
    pub at: Option<Timestamp>,
}

impl Exit {
    /// The exit of a process whose shim died: it was killed with it.
    pub(crate) fn lost() -> Self {
        Self { status: 137, at: Some(SystemTime::now().into()) }
    }
}
