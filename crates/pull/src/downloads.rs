//! How many layers are fetched at the same time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::Semaphore;

/// The turns of each registry, over all operations: one that hardly sends anything holds up nobody
/// who fetches from another.
pub(crate) struct Downloads {
    most: usize,
    registries: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Downloads {
    /// At most so many from each registry.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, registries: Mutex::default() }
    }

    /// The turns at the registry `domain`.
    pub(crate) fn from(&self, domain: &str) -> Arc<Semaphore> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = registries.get(domain).and_then(Weak::upgrade) {
            return turns;
        }
        registries.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(self.most));
        registries.insert(domain.to_owned(), Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_are_shared_by_registry_and_kept_as_long_as_they_are_used() {
        let downloads = Downloads::new(2);
        let (one, again, other) = (downloads.from("a"), downloads.from("a"), downloads.from("b"));
        assert!(Arc::ptr_eq(&one, &again) && !Arc::ptr_eq(&one, &other));
        drop((one, again));
        drop(downloads.from("c"));
        let registries = downloads.registries.lock().unwrap();
        assert!(!registries.contains_key("a") && registries.contains_key("b"));
    }
}
