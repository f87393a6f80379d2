//! The event exchange: publishers, subscribers and topics.
