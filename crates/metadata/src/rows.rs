//! Messages that only the database sees.

use berth_proto::containerd::services::containers::v1::Container;
use berth_proto::containerd::services::content::v1::Info;
use berth_proto::containerd::services::images::v1::Image;
use berth_proto::containerd::services::leases::v1::Lease;
use berth_proto::containerd::types::Sandbox;
use prost_types::Timestamp;

use crate::records::Records;
use crate::schema;

pub(crate) const IMAGES: Records<Image> = Records::new(schema::IMAGES, "image");
pub(crate) const CONTAINERS: Records<Container> = Records::new(schema::CONTAINERS, "container");
pub(crate) const CONTENT: Records<Info> = Records::new(schema::CONTENT, "content");
pub(crate) const INGESTS: Records<IngestRow> = Records::new(schema::INGESTS, "ingest");
pub(crate) const LEASES: Records<Lease> = Records::new(schema::LEASES, "lease");
pub(crate) const SANDBOXES: Records<Sandbox> = Records::new(schema::SANDBOXES, "sandbox");

/// An ingest of a namespace.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct IngestRow {
    /// Its ref in the content store.
    #[prost(string, tag = "1")]
    pub(crate) backend: String,
    /// The blob that it will be, when the content store has that blob already; else empty.
    #[prost(string, tag = "2")]
    pub(crate) expected: String,
    /// When it may be collected; absent when a lease keeps it.
    #[prost(message, optional, tag = "3")]
    pub(crate) expires: Option<Timestamp>,
}
