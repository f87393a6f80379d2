//! What can be wrong with something that is kept.

use std::fmt;

/// What is wrong with a file or directory in one of the stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is there and has nothing in it: what a power cut leaves of a file that was not synced.
    Empty,
    /// It is shorter or longer than it was.
    Size {
        /// How many bytes it has.
        found: u64,
        /// How many it should have.
        expected: u64,
    },
    /// Its bytes are others.
    Differs,
    /// The disk, or the kernel's own check of the file, gives it out no more.
    Unreadable(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("missing"),
            Self::Empty => f.write_str("zero bytes"),
            Self::Size { found, expected } => write!(f, "{found} bytes instead of {expected}"),
            Self::Differs => f.write_str("digest differs"),
            Self::Unreadable(why) => write!(f, "can't be read: {why}"),
        }
    }
}
