//! The event exchange: whoever changes something publishes an event, whoever asked for it gets it.
//!
//! An event travels as containerd's `Envelope`: a time, the namespace it belongs to, a topic such
//! as `/tasks/exit`, and a message. The exchange keeps nothing for subscribers to come, but exits
//! while a daemon has just started; each subscriber gets every matching event once, in the order
//! of publication. Publishing never waits: a subscriber that falls [`QUEUE_LIMIT`] behind is ended
//! instead of slowing others or missing events unawares.

mod exchange;
mod queue;
mod topic;
mod view;

pub use berth_proto::containerd::types::Envelope;
pub use exchange::{Exchange, Subscription};
pub use queue::QUEUE_LIMIT;
