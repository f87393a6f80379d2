//! Which tasks there are, and which sandboxes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Error, Result};

/// All things of one kind that the daemon has, by namespace and id. Its lock covers a look or a
/// change, never a call.
pub(crate) struct Table<T> {
    /// What its things are called.
    noun: &'static str,
    namespaces: Mutex<BTreeMap<String, BTreeMap<String, Slot<T>>>>,
}

enum Slot<T> {
    /// A name taken by what is being made.
    Reserved,
    Made(Arc<T>),
}

impl<T> Table<T> {
    /// An empty table of things called `noun`.
    pub(crate) fn new(noun: &'static str) -> Self {
        Self { noun, namespaces: Mutex::default() }
    }

    /// Takes a name for something to be made.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(crate) fn reserve(&self, namespace: &str, id: &str) -> Result<Reservation<'_, T>> {
        let mut namespaces = self.lock();
        let slots = namespaces.entry(namespace.to_owned()).or_default();
        if slots.contains_key(id) {
            return Err(Error::already_exists(format!("{} {id}: already exists", self.noun)));
        }
        slots.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation {
            table: self,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            filled: false,
        })
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
    }

    fn insert(&self, namespace: &str, id: &str, thing: Arc<T>) {
        let mut namespaces = self.lock();
        let slots = namespaces.entry(namespace.to_owned()).or_default();
        slots.insert(id.to_owned(), Slot::Made(thing));
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
