//! Rows as messages: found, listed, written.

use std::marker::PhantomData;

use berth_store::DbResultExt;
use berth_store::redb::{
    Key, ReadTransaction, ReadableTable, TableDefinition, Value, WriteTransaction,
};
use berth_types::{Error, Result};
use prost::Message;

use crate::schema::Rows;

/// The rows of one table, each the message `M`.
pub(crate) struct Records<M> {
    rows: Rows,
    /// What a row is called in messages.
    noun: &'static str,
    message: PhantomData<M>,
}

/// A transaction of either kind, to read from.
pub(crate) trait Source {
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_>;
}

impl Source for ReadTransaction {
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_> {
        self.open_table(table).db()
    }
}

impl Source for WriteTransaction {
    fn open<K: Key + 'static, V: Value + 'static>(
        &self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<impl ReadableTable<K, V> + '_> {
        self.open_table(table).db()
    }
}

impl<M: Message + Default> Records<M> {
    pub(crate) const fn new(rows: Rows, noun: &'static str) -> Self {
        Self { rows, noun, message: PhantomData }
    }

    pub(crate) fn find(&self, source: &impl Source, ns: &str, id: &str) -> Result<Option<M>> {
        let table = source.open(self.rows)?;
        let row = table.get((ns, id)).db()?;
        row.map(|row| self.decode(id, row.value())).transpose()
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn get(&self, source: &impl Source, ns: &str, id: &str) -> Result<M> {
        self.find(source, ns, id)?.ok_or_else(|| self.not_found(id))
    }

    /// The rows of a namespace that are `wanted`, in order of their ids.
    pub(crate) fn list(
        &self,
        source: &impl Source,
        ns: &str,
        wanted: impl Fn(&M) -> bool,
    ) -> Result<Vec<M>> {
        let mut found = Vec::new();
        self.each_of(source, ns, |_, message| {
            if wanted(&message) {
                found.push(message);
            }
            Ok(())
        })?;
        Ok(found)
    }

    /// The ids of a namespace's rows that begin with `prefix`, in order.
    pub(crate) fn ids(&self, source: &impl Source, ns: &str, prefix: &str) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for row in source.open(self.rows)?.range((ns, prefix)..).db()? {
            let (key, _) = row.db()?;
            match key.value() {
                (of, id) if of == ns && id.starts_with(prefix) => ids.push(id.to_owned()),
                _ => break,
            }
        }
        Ok(ids)
    }

    /// Visits the rows of a namespace with their ids.
    pub(crate) fn each_of(
        &self,
        source: &impl Source,
        ns: &str,
        mut visit: impl FnMut(&str, M) -> Result<()>,
    ) -> Result<()> {
        let after = format!("{ns}\0");
        let table = source.open(self.rows)?;
        for row in table.range((ns, "")..(after.as_str(), "")).db()? {
            let (key, value) = row.db()?;
            let (_, id) = key.value();
            visit(id, self.decode(id, value.value())?)?;
        }
        Ok(())
    }

    /// Visits all rows with their namespaces and ids.
    pub(crate) fn each(
        &self,
        source: &impl Source,
        mut visit: impl FnMut(&str, &str, M) -> Result<()>,
    ) -> Result<()> {
        let table = source.open(self.rows)?;
        for row in table.iter().db()? {
            let (key, value) = row.db()?;
            let (ns, id) = key.value();
            visit(ns, id, self.decode(id, value.value())?)?;
        }
        Ok(())
    }

    pub(crate) fn put(&self, to: &WriteTransaction, ns: &str, id: &str, message: &M) -> Result<()> {
        let encoded = message.encode_to_vec();
        to.open_table(self.rows).db()?.insert((ns, id), encoded.as_slice()).db()?;
        Ok(())
    }

    /// # Errors
    /// `NotFound`.
    pub(crate) fn delete(&self, from: &WriteTransaction, ns: &str, id: &str) -> Result<()> {
        let removed = from.open_table(self.rows).db()?.remove((ns, id)).db()?.is_some();
        if removed { Ok(()) } else { Err(self.not_found(id)) }
    }

    pub(crate) fn not_found(&self, id: &str) -> Error {
        Error::not_found(format!("{} {id:?}: not found", self.noun))
    }

    pub(crate) fn exists(&self, id: &str) -> Error {
        Error::already_exists(format!("{} {id:?}: already exists", self.noun))
    }

    fn decode(&self, id: &str, row: &[u8]) -> Result<M> {
        M::decode(row).map_err(|error| {
            Error::data_loss(format!(
                "the record of {} {id:?} is damaged ({error}): delete it and make it anew",
                self.noun
            ))
        })
    }
}
