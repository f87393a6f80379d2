//! Exits that shims tell of while the tasks of an earlier daemon are still being taken over.
//!
//! A shim delivers what it could not deliver as soon as the events' socket is there, and is asked how
//! its container is at the same time. Each exit is news once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::exit::Exit;

/// What is known of exits before their tasks are; nothing any more once all tasks are known.
pub(crate) struct Early(Mutex<Option<Exits>>);

type Exits = HashMap<(String, String), Exit>;

impl Default for Early {
    fn default() -> Self {
        Self(Mutex::new(Some(Exits::new())))
    }
}

impl Early {
    /// Notes how a task ended. Returns whether that is news; `None` when all tasks are known, which
    /// then know it themselves.
    pub(crate) fn note(&self, namespace: &str, id: &str, exit: Exit) -> Option<bool> {
        let mut exits = self.lock();
        Some(exits.as_mut()?.insert((namespace.to_owned(), id.to_owned()), exit).is_none())
    }

    /// How a task ended, as far as noted.
    pub(crate) fn get(&self, namespace: &str, id: &str) -> Option<Exit> {
        self.lock().as_ref()?.get(&(namespace.to_owned(), id.to_owned())).copied()
    }

    /// All tasks are known.
    pub(crate) fn end(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Exits>> {
        // Each change is one step, so that a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_is_news_once_until_all_tasks_are_known() {
        let early = Early::default();
        let exit = Exit { status: 3, at: None };
        assert_eq!(early.get("default", "a"), None);
        assert_eq!(early.note("default", "a", exit), Some(true));
        assert_eq!(early.note("default", "a", Exit::lost()), Some(false));
        assert_eq!(early.note("other", "a", exit), Some(true));
        early.end();
        assert_eq!((early.note("default", "b", exit), early.get("default", "a")), (None, None));
    }
}
