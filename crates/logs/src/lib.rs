//! Container logs as Docker's `json-file` driver keeps them, one JSON object a line, or as
//! Kubernetes has them ([`Format`]), rotated by size, so that whatever reads such files reads ours.
//!
//! ```text
//! NAME       the current file
//! NAME.1     the one before it
//! NAME.2     …, up to the number of files that is kept
//!
//! {"log":"hello\n","stream":"stdout","time":"2026-01-02T03:04:05.000000006Z"}
//! 2026-01-02T03:04:05.000000006Z stdout F hello
//! ```
//!
//! [`Writer`] belongs to the shim, which outlives the daemon; [`Reader`] to the daemon. They share
//! nothing but the files. An entry whose `log` has no newline at its end is part of a line that
//! was longer than [`MAX_LINE`], or the end of an output that stopped without one.

mod entry;
mod files;
mod reader;
pub mod time;
mod watch;
mod writer;

pub use entry::{Entry, Format, Stream};
pub use reader::{Query, Reader};
pub use writer::{MAX_LINE, Rotation, Writer};
