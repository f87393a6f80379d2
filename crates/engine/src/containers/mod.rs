//! Containers by name or id, one file for each verb.

mod attach;
mod create;
mod exec;
mod find;
mod inspect;
mod kill;
mod launch;
mod list;
mod logs;
mod options;
mod pause;
mod remove;
mod rename;
mod restart;
mod session;
mod start;
mod state;
mod stop;
mod top;
mod wait;

use berth_metadata::Scope;

use crate::Engine;

pub use logs::Entries;
pub use session::{Attached, Requests, Responses};

/// The containers of a namespace.
#[derive(Clone)]
pub struct Containers {
    pub(crate) engine: Engine,
    pub(crate) scope: Scope,
}

impl Containers {
    fn namespace(&self) -> &str {
        self.scope.namespace()
    }
}
