//! `berth.v1.System`.

use tonic::{Request, Response, Status};

use berth_proto::berth::v1::{InfoRequest, InfoResponse, system_server};

use crate::api::backend::Backend;
use crate::api::status::status;

/// The daemon itself.
pub(in crate::api) struct System(pub(in crate::api) Backend);

#[tonic::async_trait]
impl system_server::System for System {
    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        self.0.engine.info(scope).map(Response::new).map_err(status)
    }
}
