//! The version of the tables' layout, and the way from older ones.

use berth_types::{Error, Result};
use redb::{Database, ReadableDatabase, TableDefinition, WriteTransaction};

use crate::error::DbResultExt;

/// `"version"` → the layout that the other tables have.
const SCHEMA: TableDefinition<&str, u64> = TableDefinition::new("schema");
const VERSION: &str = "version";

/// A step from one version to the next.
pub(crate) type Migration = fn(&WriteTransaction) -> Result<()>;

/// The step at index `n` leads from version `n` to `n + 1`; their number is the version of this
/// release. An empty file has version 0, and its owners create their tables as they need them.
pub(crate) const MIGRATIONS: &[Migration] = &[|_| Ok(())];

/// Runs the steps that `database` lacks in one transaction, so that a crash leaves the old
/// version whole.
///
/// # Errors
/// `FailedPrecondition` when a newer release wrote it; else those of the steps and of the disk.
pub(crate) fn migrate(database: &Database, steps: &[Migration]) -> Result<()> {
    let newest = steps.len() as u64;
    let found = version(database)?;
    if found > newest {
        return Err(Error::failed_precondition(format!(
            "the database has schema version {found}, this release knows {newest} at most: \
             install the release that wrote it, or choose another root"
        )));
    }
    if found == newest {
        return Ok(());
    }
    let transaction = database.begin_write().db()?;
    for step in steps.iter().skip(found as usize) {
        step(&transaction)?;
    }
    transaction.open_table(SCHEMA).db()?.insert(VERSION, newest).db()?;
    transaction.commit().db()
}

fn version(database: &Database) -> Result<u64> {
    let table = match database.begin_read().db()?.open_table(SCHEMA) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(0),
        other => other.db()?,
    };
    Ok(table.get(VERSION).db()?.map_or(0, |version| version.value()))
}

#[cfg(test)]
mod tests {
    use berth_types::Kind;

    use redb::ReadableTable;

    use super::*;

    const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");

    fn add_one(transaction: &WriteTransaction) -> Result<()> {
        let mut table = transaction.open_table(NUMBERS).db()?;
        let old = table.get("n").db()?.map_or(0, |n| n.value());
        table.insert("n", old + 1).db()?;
        Ok(())
    }

    fn number(database: &Database) -> u64 {
        let read = database.begin_read().unwrap();
        read.open_table(NUMBERS).unwrap().get("n").unwrap().unwrap().value()
    }

    fn fresh() -> (tempfile::TempDir, Database) {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::create(directory.path().join("db")).unwrap();
        (directory, database)
    }

    #[test]
    fn runs_only_the_missing_steps() {
        let (_directory, database) = fresh();
        migrate(&database, &[add_one]).unwrap();
        assert_eq!((version(&database).unwrap(), number(&database)), (1, 1));
        migrate(&database, &[add_one, add_one, add_one]).unwrap();
        assert_eq!((version(&database).unwrap(), number(&database)), (3, 3));
        migrate(&database, &[add_one, add_one, add_one]).unwrap();
        assert_eq!(number(&database), 3);
    }

    #[test]
    fn a_failed_step_leaves_the_old_version_whole() {
        let (_directory, database) = fresh();
        migrate(&database, &[add_one]).unwrap();
        let failing: &[Migration] = &[add_one, add_one, |_| Err(Error::internal("step"))];
        assert!(migrate(&database, failing).is_err());
        assert_eq!((version(&database).unwrap(), number(&database)), (1, 1));
    }

    #[test]
    fn refuses_what_a_newer_release_wrote() {
        let (_directory, database) = fresh();
        migrate(&database, &[add_one, add_one]).unwrap();
        let error = migrate(&database, &[add_one]).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.message().contains("install the release"), "{error}");
    }
}
