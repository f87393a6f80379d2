//! The payloads of request and response frames (`ttrpc.Request`, `ttrpc.Response`,
//! `google.rpc.Status`).

use berth_types::{Error, Kind, Result};
use bytes::Bytes;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RequestMessage {
    #[prost(string, tag = "1")]
    pub(crate) service: String,
    #[prost(string, tag = "2")]
    pub(crate) method: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) payload: Bytes,
    /// 0 for no limit.
    #[prost(int64, tag = "4")]
    pub(crate) timeout_nano: i64,
    #[prost(message, repeated, tag = "5")]
    pub(crate) metadata: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    #[prost(string, tag = "2")]
    pub(crate) value: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseMessage {
    #[prost(message, optional, tag = "1")]
    pub(crate) status: Option<Status>,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) payload: Bytes,
}

/// Without the details, which no containerd service sends.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
}

impl ResponseMessage {
    pub(crate) fn new(outcome: Result<Vec<u8>>) -> Self {
        match outcome {
            Ok(payload) => Self { status: None, payload: payload.into() },
            Err(error) => Self {
                status: Some(Status {
                    code: error.kind().code(),
                    message: error.message().to_owned(),
                }),
                payload: Bytes::new(),
            },
        }
    }

    /// The payload, or the failure that the status names.
    pub(crate) fn outcome(self) -> Result<Bytes> {
        match self.status {
            Some(status) if status.code != 0 => {
                Err(Error::new(Kind::from_code(status.code), status.message))
            }
            _ => Ok(self.payload),
        }
    }
}
