//! One at a time for each key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Slot = Arc<tokio::sync::Mutex<()>>;

/// Locks by key, first come, first served. Keys that no one holds or waits for take no memory.
pub(crate) struct Locks<K>(Mutex<HashMap<K, Slot>>);

/// The lock of one key, until this is dropped.
pub(crate) struct Guard<'a, K: Eq + Hash> {
    locks: &'a Locks<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash + Clone> Locks<K> {
    pub(crate) fn new() -> Self {
        Self(Mutex::default())
    }

    /// Waits until no one else holds `key`.
    pub(crate) async fn lock(&self, key: K) -> Guard<'_, K> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slots.entry(key.clone()).or_default().clone()
        };
        // Made before waiting, so that giving up while waiting tidies up too.
        let mut guard = Guard { locks: self, key, held: None };
        guard.held = Some(slot.lock_owned().await);
        guard
    }
}

impl<K: Eq + Hash> Drop for Guard<'_, K> {
    fn drop(&mut self) {
        let mut slots = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.held = None;
        // Others take their part of the slot under the same lock.
        if slots.get(&self.key).is_some_and(|slot| Arc::strong_count(slot) == 1) {
            slots.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn one_at_a_time_for_a_key_and_nothing_kept() {
        let locks = Locks::new();
        let inside = AtomicUsize::new(0);
        let work = async {
            let _guard = locks.lock("a").await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        let others = (0..10).map(|_| async {
            let _guard = locks.lock("a").await;
            assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
        });
        tokio::join!(work, futures_util::future::join_all(others));
        assert!(locks.0.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn giving_up_while_waiting_keeps_nothing() {
        let locks = Locks::new();
        let first = locks.lock("a").await;
        let waiting = tokio::time::timeout(std::time::Duration::ZERO, locks.lock("a"));
        assert!(waiting.await.is_err());
        let _other = locks.lock("b").await;
        drop(first);
        assert_eq!(locks.0.lock().unwrap().len(), 1);
    }
}
