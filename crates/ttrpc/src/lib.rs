//! ttrpc, the protocol between containerd, its shims and now berth: many calls over one local
//! connection, without HTTP (<https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md>).
//!
//! [`Client`] makes unary calls and opens two-way streams; [`Server`] answers both through a
//! [`Handler`]. Messages are prost's. A failure travels as a gRPC status and arrives with the
//! [`Kind`](berth_types::Kind) that it left with.
//!
//! The protocol has no flow control of its own. A stream whose reader is slow therefore stops the
//! reading of its whole connection, and the socket's back pressure reaches the writer: a stream
//! that may be slow should own its connection.
//!
//! Everything runs as tasks of the caller's tokio runtime, with one thread or many. A connection
//! costs two tasks and a 512-byte buffer.

mod client;
mod frame;
mod message;
mod outbox;
mod request;
mod server;
mod socket;
mod stream;

pub use client::{Client, Options};
pub use frame::MAX_MESSAGE;
pub use request::{Peer, Request};
pub use server::{Handler, Server};
pub use stream::{Receiver, Sender, Stream};
