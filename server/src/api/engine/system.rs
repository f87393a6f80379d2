//! `berth.v1.System`.

use tonic::{Request, Response, Status};

use berth_proto::berth::v1::{
    CheckRequest, CheckResponse, InfoRequest, InfoResponse, system_server,
};

use super::{Messages, stream};
use crate::api::backend::Backend;
use crate::api::status::status;

/// The daemon itself.
pub(in crate::api) struct System(pub(in crate::api) Backend);

#[tonic::async_trait]
impl system_server::System for System {
    type CheckStream = Messages<CheckResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let scope = self.0.scope(request.metadata())?;
        self.0.engine.info(scope).map(Response::new).map_err(status)
    }

    async fn check(
        &self,
        request: Request<CheckRequest>,
    ) -> Result<Response<Self::CheckStream>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let CheckRequest { repair } = request.into_inner();
        let engine = self.0.engine.clone();
        let check = move |client| async move { engine.check(scope, repair, client).await };
        Ok(Response::new(stream(check, |message| message)))
    }
}
