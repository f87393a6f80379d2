//! The one conversion from our errors to gRPC's.

use tonic::{Code, Status};

use berth_types::Error;

/// The status that a client sees for `error`: the kind becomes the code, the message stays.
pub(crate) fn status(error: Error) -> Status {
    Status::new(Code::from_i32(error.kind().code()), error.message())
}
