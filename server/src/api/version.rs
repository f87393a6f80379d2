//! `containerd.services.version.v1.Version`.

use tonic::{Request, Response, Status};

use berth_proto::containerd::services::version::v1::{VersionResponse, version_server};

/// The version that clients see. They compare it with containerd's, so it starts with the
/// containerd whose API this is; berth's own version is the build metadata of the same semver.
pub(crate) const VERSION: &str = concat!("2.1.0+berth.", env!("CARGO_PKG_VERSION"));

/// The commit that packagers build from, if they say so.
const REVISION: Option<&str> = option_env!("BERTH_REVISION");

/// Says what runs here.
#[derive(Debug)]
pub(crate) struct Version;

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: VERSION.to_owned(),
            revision: REVISION.unwrap_or_default().to_owned(),
        }))
    }
}
