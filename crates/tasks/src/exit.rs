//! How a process ended.

use std::time::SystemTime;

use prost_types::Timestamp;
use tokio::sync::watch;

/// How something ended, once that is announced, which it is once.
#[derive(Default)]
pub(crate) struct Announcement(watch::Sender<Option<Exit>>);

impl Announcement {
    /// Notes how it ended. Returns whether that is news.
    pub(crate) fn make(&self, exit: Exit) -> bool {
        self.0.send_if_modified(|known| known.is_none() && known.replace(exit).is_none())
    }

    /// How it ended, as far as announced.
    pub(crate) fn get(&self) -> Option<Exit> {
        *self.0.borrow()
    }

    /// Waits for the announcement.
    pub(crate) async fn wait(&self) -> Exit {
        let mut exit = self.0.subscribe();
        let known = exit.wait_for(Option::is_some).await.ok().and_then(|known| *known);
        // The sender lives as long as `self`, so that there is an exit.
        known.unwrap_or_else(Exit::lost)
    }
}

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
