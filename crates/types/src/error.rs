//! What went wrong, as a kind that a program branches on and a message that a person acts on.
//!
//! The kinds are those of gRPC's status codes as containerd uses them, because every error may
//! travel to a client. An error keeps its kind from where it arises to the edge, where it becomes
//! a gRPC or ttrpc status; in between it only gains context. Return an error or log it, not both.
//!
//! Choose the kind by what the caller can do:
//!
//! - [`Kind::InvalidArgument`]: change the request; no state would make it right.
//! - [`Kind::NotFound`], [`Kind::AlreadyExists`]: the named thing is not there, or is.
//! - [`Kind::FailedPrecondition`]: the thing is in the wrong state; change that first.
//! - [`Kind::Unavailable`]: try again, something is busy or on its way.
//! - [`Kind::Internal`]: nothing the caller did; it belongs in a report.

use std::fmt;
use std::io;

/// A result whose error is berth's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kinds of failure, numbered as gRPC numbers its status codes
/// (<https://grpc.io/docs/guides/status-codes/>); ttrpc uses the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum Kind {
    /// The caller gave up.
    Cancelled = 1,
    /// No kind is known, as when a peer reported none.
    Unknown = 2,
    /// The request can't be right in any state.
    InvalidArgument = 3,
    /// A deadline passed; the operation may yet take effect.
    DeadlineExceeded = 4,
    /// The named thing is not there.
    NotFound = 5,
    /// The thing to be made is there.
    AlreadyExists = 6,
    /// The caller, or the daemon, may not do this.
    PermissionDenied = 7,
    /// A disk, quota or limit is exhausted.
    ResourceExhausted = 8,
    /// The thing is in a state that forbids this.
    FailedPrecondition = 9,
    /// A concurrent operation was in the way.
    Aborted = 10,
    /// An offset beyond the end.
    OutOfRange = 11,
    /// Not offered here.
    Unimplemented = 12,
    /// A fault of berth's or of the machine's.
    Internal = 13,
    /// Not now; a retry may succeed.
    Unavailable = 14,
    /// Stored data is damaged.
    DataLoss = 15,
    /// Credentials are missing or wrong.
    Unauthenticated = 16,
}

impl Kind {
    /// The status code of gRPC and ttrpc.
    pub fn code(self) -> i32 {
        self as i32
    }

    /// The kind of a status code; [`Kind::Unknown`] for numbers that name no failure.
    pub fn from_code(code: i32) -> Self {
        match code {
            1 => Kind::Cancelled,
            3 => Kind::InvalidArgument,
            4 => Kind::DeadlineExceeded,
            5 => Kind::NotFound,
            6 => Kind::AlreadyExists,
            7 => Kind::PermissionDenied,
            8 => Kind::ResourceExhausted,
            9 => Kind::FailedPrecondition,
            10 => Kind::Aborted,
            11 => Kind::OutOfRange,
            12 => Kind::Unimplemented,
            13 => Kind::Internal,
            14 => Kind::Unavailable,
            15 => Kind::DataLoss,
            16 => Kind::Unauthenticated,
            _ => Kind::Unknown,
        }
    }
}

/// A failure: its [`Kind`], and a message that says what failed, on which object, and what to do.
#[derive(Clone, Debug)]
pub struct Error {
    kind: Kind,
    message: String,
}

impl Error {
    /// An error of `kind`. Prefer the constructor named after the kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// An I/O failure while doing `what` ("write ingest data of …"). The kind follows the error
    /// number where it tells something about the machine: a full disk is
    /// [`Kind::ResourceExhausted`], a refusal [`Kind::PermissionDenied`]. That a file is missing
    /// says nothing about the caller's object, so it is [`Kind::Internal`]: callers for whom it
    /// means NotFound look at the [`io::ErrorKind`] themselves.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        use io::ErrorKind as E;
        let kind = match error.kind() {
            E::StorageFull | E::QuotaExceeded | E::FileTooLarge | E::OutOfMemory => {
                Kind::ResourceExhausted
            }
            E::PermissionDenied | E::ReadOnlyFilesystem => Kind::PermissionDenied,
            E::TimedOut => Kind::DeadlineExceeded,
            _ => Kind::Internal,
        };
        Self::new(kind, format!("{what}: {error}"))
    }

    /// The kind, which callers branch on.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The message, without the kind.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same kind, with what the message calls `inner` called `outer`: a name that a caller
    /// knows.
    #[must_use]
    pub fn renaming(mut self, inner: &str, outer: &str) -> Self {
        self.message = self.message.replace(inner, outer);
        self
    }

    /// The same kind, with `context` before the message.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }
}

macro_rules! constructors {
    ($($name:ident $kind:ident),* $(,)?) => {
        impl Error {
            $(
                #[doc = concat!("An error of [`Kind::", stringify!($kind), "`].")]
                pub fn $name(message: impl Into<String>) -> Self {
                    Self::new(Kind::$kind, message)
                }
            )*
        }
    };
}

constructors! {
    cancelled Cancelled,
    unknown Unknown,
    invalid_argument InvalidArgument,
    deadline_exceeded DeadlineExceeded,
    not_found NotFound,
    already_exists AlreadyExists,
    permission_denied PermissionDenied,
    resource_exhausted ResourceExhausted,
    failed_precondition FailedPrecondition,
    aborted Aborted,
    out_of_range OutOfRange,
    unimplemented Unimplemented,
    internal Internal,
    unavailable Unavailable,
    data_loss DataLoss,
    unauthenticated Unauthenticated,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Adds what was being done to a failure.
pub trait ResultExt<T> {
    /// Puts `what()` before the message, keeping the kind; an [`io::Error`] gets its kind as
    /// [`Error::io`] chooses it.
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T, Error> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| error.context(what()))
    }
}

impl<T> ResultExt<T> for Result<T, io::Error> {
    fn context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|error| Error::io(what(), &error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for code in 1..=16 {
            assert_eq!(Kind::from_code(code).code(), code);
        }
        assert_eq!(Kind::from_code(0), Kind::Unknown);
        assert_eq!(Kind::from_code(99), Kind::Unknown);
    }

    #[test]
    fn context_keeps_the_kind() {
        let error = Error::not_found("image \"a\" is not here").context("run");
        assert_eq!(error.kind(), Kind::NotFound);
        assert_eq!(error.to_string(), "run: image \"a\" is not here");
    }

    #[test]
    fn a_full_disk_is_resource_exhausted() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(Error::io("write", &full).kind(), Kind::ResourceExhausted);
        let missing = io::Error::from_raw_os_error(2);
        assert_eq!(Error::io("open", &missing).kind(), Kind::Internal);
    }
}
