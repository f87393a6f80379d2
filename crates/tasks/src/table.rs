//! Which tasks there are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use berth_types::{Error, Result};

use crate::Task;

/// All tasks of the daemon, by namespace and id. Its lock covers a look or a change, never a call.
#[derive(Default)]
pub(crate) struct Table {
    namespaces: Mutex<BTreeMap<String, BTreeMap<String, Slot>>>,
}

enum Slot {
    /// A name taken by a task that is being made.
    Reserved,
    Task(Arc<Task>),
}

impl Table {
    /// Takes a name for a task to be made.
    ///
    /// # Errors
    /// `AlreadyExists` when it is taken.
    pub(crate) fn reserve(&self, namespace: &str, id: &str) -> Result<Reservation<'_>> {
        let mut namespaces = self.lock();
        let tasks = namespaces.entry(namespace.to_owned()).or_default();
        if tasks.contains_key(id) {
            return Err(Error::already_exists(format!("task {id}: already exists")));
        }
        tasks.insert(id.to_owned(), Slot::Reserved);
        Ok(Reservation {
            table: self,
            namespace: namespace.to_owned(),
            id: id.to_owned(),
            filled: false,
        })
    }

    pub(crate) fn get(&self, namespace: &str, id: &str) -> Option<Arc<Task>> {
        match self.lock().get(namespace)?.get(id)? {
            Slot::Task(task) => Some(Arc::clone(task)),
            Slot::Reserved => None,
        }
    }

    /// The tasks of one namespace, in order of their ids.
    pub(crate) fn list(&self, namespace: &str) -> Vec<Arc<Task>> {
        let namespaces = self.lock();
        tasks(namespaces.get(namespace).into_iter().flat_map(BTreeMap::values))
    }

    /// The tasks of all namespaces.
    pub(crate) fn all(&self) -> Vec<Arc<Task>> {
        tasks(self.lock().values().flat_map(BTreeMap::values))
    }

    /// Gives a name free.
    pub(crate) fn remove(&self, namespace: &str, id: &str) {
        let mut namespaces = self.lock();
        if let Some(tasks) = namespaces.get_mut(namespace) {
            tasks.remove(id);
            if tasks.is_empty() {
                namespaces.remove(namespace);
            }
        }
    }

    fn insert(&self, namespace: &str, id: &str, task: Arc<Task>) {
        let mut namespaces = self.lock();
        namespaces.entry(namespace.to_owned()).or_default().insert(id.to_owned(), Slot::Task(task));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<String, Slot>>> {
        // No code panics while it holds the lock, and the map is consistent at every step.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Those that are made.
fn tasks<'a>(slots: impl Iterator<Item = &'a Slot>) -> Vec<Arc<Task>> {
    slots
        .filter_map(|slot| match slot {
            Slot::Task(task) => Some(Arc::clone(task)),
            Slot::Reserved => None,
        })
        .collect()
}

/// A name taken. It is given free again unless the task comes.
pub(crate) struct Reservation<'a> {
    table: &'a Table,
    namespace: String,
    id: String,
    filled: bool,
}

impl Reservation<'_> {
    /// The task is made.
    pub(crate) fn fill(mut self, task: Arc<Task>) {
        self.table.insert(&self.namespace, &self.id, task);
        self.filled = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.table.remove(&self.namespace, &self.id);
        }
    }
}
