//! redb's errors as berth's.

use std::io::ErrorKind;

use berth_types::{Error, Result};

/// What to do about a damaged database, as the end of a message.
const RECOVER: &str = "stop berthd, move the database file away and start again: images are \
                       pulled anew, containers must be made anew";

/// Turns the results of redb into berth's.
pub trait DbResultExt<T> {
    /// Chooses the kind by what an operator can do:
    ///
    /// - `ResourceExhausted`: the disk is full.
    /// - `DataLoss`: a checksum or the structure is wrong; the message says how to start anew.
    /// - `FailedPrecondition`: another process has the file.
    /// - `Unavailable`: an earlier I/O failure closed the database; the next call opens it again.
    /// - `Internal`: anything else.
    fn db(self) -> Result<T>;
}

impl<T, E: Into<redb::Error>> DbResultExt<T> for Result<T, E> {
    fn db(self) -> Result<T> {
        self.map_err(|error| from_redb(error.into()))
    }
}

fn from_redb(error: redb::Error) -> Error {
    use redb::Error as E;
    match error {
        E::Io(error) if error.kind() == ErrorKind::InvalidData => damaged(&error.to_string()),
        E::Io(error) => Error::io("database", &error),
        E::Corrupted(what) => damaged(&what),
        E::DatabaseAlreadyOpen | E::LockProtocolMismatch => Error::failed_precondition(
            "the database is open in another process: stop the other berthd, or choose another root",
        ),
        E::UpgradeRequired(version) => Error::failed_precondition(format!(
            "the database has the unknown file format {version}: use the release that wrote it"
        )),
        E::PreviousIo | E::DatabaseClosed => {
            Error::unavailable("the database closed after an I/O failure: try again")
        }
        other => Error::internal(format!("database: {other}")),
    }
}

pub(crate) fn damaged(what: &str) -> Error {
    Error::data_loss(format!("the database is damaged ({what}): {RECOVER}"))
}
