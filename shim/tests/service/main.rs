//! The shim as daemons meet it: the real program, spoken to over its socket, with real containers.
//! Needs root.

mod attach;
mod bootstrap;
mod death;
mod events;
mod lifecycle;
mod limits;
mod rig;
mod streams;
