//! Which tasks there are, and which sandboxes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Error, Result};
use tokio::sync::Notify;

/// All things of one kind that the daemon has, by namespace and id. Its lock covers a look or a
/// change, never a call.
pub(crate) struct Table<T> {
    /// What its things are called.
    noun: &'static str,
    namespaces: Mutex<BTreeMap<String, BTreeMap<String, Slot<T>>>>,
    /// Told when something has been made, or a name has become free.
    changed: Notify,
}

enum Slot<T> {
    /// A name taken by what is being made.
    Reserved,
    Made(Arc<T>),
}

impl<T> Table<T> {
    /// An empty table of things called `noun`.
    pub(crate) fn new(noun: &'static str) -> Self {
        Self { noun, namespaces: Mutex::default(), changed: Notify::new() }
    }

    /// Takes a name for something to be made. While something is being made under it, that is
    /// waited for: who is told that it exists can use it.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(crate) async fn reserve(&self, namespace: &str, id: &str) -> Result<Reservation<'_, T>> {
        loop {
            // Registered before the look, so that no change in between is missed.
            let changed = self.changed.notified();
            if let Some(taken) = self.take(namespace, id)? {
                return Ok(taken);
            }
            changed.await;
        }
    }

    /// The same at once; `None` while something is being made.
    fn take(&self, namespace: &str, id: &str) -> Result<Option<Reservation<'_, T>>> {
        let mut namespaces = self.lock();
        let slots = namespaces.entry(namespace.to_owned()).or_default();
        match slots.get(id) {
            Some(Slot::Reserved) => return Ok(None),
            Some(Slot::Made(_)) => {
                return Err(Error::already_exists(format!("{} {id}: already exists", self.noun)));
            }
            None => slots.insert(id.to_owned(), Slot::Reserved),
        };
        Ok(Some(Reservation {
            table: self,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            filled: false,
        }))
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn get(&self, namespace: &str, id: &str) -> Result<Arc<T>> {
        self.find(namespace, id).ok_or_else(|| self.not_found(id))
    }

    pub(crate) fn find(&self, namespace: &str, id: &str) -> Option<Arc<T>> {
        match self.lock().get(namespace)?.get(id)? {
            Slot::Made(thing) => Some(Arc::clone(thing)),
            Slot::Reserved => None,
        }
    }

    pub(crate) fn not_found(&self, id: &str) -> Error {
        Error::not_found(format!("{} {id} not found", self.noun))
    }

    /// The things of one namespace, in order of their ids.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<T>> {
        let namespaces = self.lock();
        made(namespaces.get(namespace).into_iter().flat_map(BTreeMap::values))
    }

    /// The things of all namespaces.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        made(self.lock().values().flat_map(BTreeMap::values))
    }

    /// Gives a name free.
    pub(crate) fn remove(&self, namespace: &str, id: &str) {
        let mut namespaces = self.lock();
        if let Some(slots) = namespaces.get_mut(namespace) {
            slots.remove(id);
            if slots.is_empty() {
                namespaces.remove(namespace);
            }
        }
        drop(namespaces);
        self.changed.notify_waiters();
    }

    fn insert(&self, namespace: &str, id: &str, thing: Arc<T>) {
        let mut namespaces = self.lock();
        let slots = namespaces.entry(namespace.to_owned()).or_default();
        slots.insert(id.to_owned(), Slot::Made(thing));
        drop(namespaces);
        self.changed.notify_waiters();
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Slot<T>>>> {
        // No code panics while it holds the lock, and the map is consistent at every step.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that are made.
fn made<'a, T: 'a>(slots: impl Iterator<Item = &'a Slot<T>>) -> Vec<Arc<T>> {
    slots
        .filter_map(|slot| match slot {
            Slot::Made(thing) => Some(Arc::clone(thing)),
            Slot::Reserved => None,
        })
        .collect()
}

/// A name taken. It is given free again unless what it is for comes.
pub(crate) struct Reservation<'a, T> {
    table: &'a Table<T>,
    namespace: String,
    id: String,
    filled: bool,
}

impl<T> Reservation<'_, T> {
    /// What it is for is made.
    pub(crate) fn fill(mut self, thing: Arc<T>) {
        self.table.insert(&self.namespace, &self.id, thing);
        self.filled = true;
    }
}

impl<T> Drop for Reservation<'_, T> {
    fn drop(&mut self) {
        if !self.filled {
            self.table.remove(&self.namespace, &self.id);
        }
    }
}
