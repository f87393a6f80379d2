//! One live writer for each ref.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use berth_types::{Error, Result};

/// The refs that have a writer, and since when.
#[derive(Clone, Default)]
pub(crate) struct Locks(Arc<Mutex<HashMap<String, Instant>>>);

/// A ref that is locked until this is dropped.
pub(crate) struct Lock {
    locks: Locks,
    reference: String,
}

impl Locks {
    /// # Errors
    /// `Unavailable` when another writer has it.
    pub(crate) fn lock(&self, reference: &str) -> Result<Lock> {
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = locked.get(reference) {
            return Err(Error::unavailable(format!(
                "ref {reference} locked for {:.1?} by another writer",
                since.elapsed()
            )));
        }
        locked.insert(reference.to_owned(), Instant::now());
        Ok(Lock { locks: self.clone(), reference: reference.to_owned() })
    }

    /// The refs that have a writer now.
    pub(crate) fn locked(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut locked = self.locks.0.lock().unwrap_or_else(PoisonError::into_inner);
        locked.remove(&self.reference);
    }
}
