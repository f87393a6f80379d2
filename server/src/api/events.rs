//! `containerd.services.events.v1.Events`.

use std::pin::Pin;

use futures_util::stream;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use berth_events::Subscription;
use berth_proto::containerd::services::events::v1::{
    ForwardRequest, PublishRequest, SubscribeRequest, events_server,
};
use berth_proto::containerd::types::Envelope;
use berth_types::Error;

use super::backend::Backend;
use super::status::status;

/// What happens, for whoever listens.
pub(crate) struct Events(pub(crate) Backend);

#[tonic::async_trait]
impl events_server::Events for Events {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let scope = self.0.scope(request.metadata())?;
        let PublishRequest { topic, event } = request.into_inner();
        let published =
            self.0.events.publish_any(scope.namespace(), &topic, event.unwrap_or_default());
        published.map(Response::new).map_err(status)
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request.into_inner().envelope;
        let envelope = envelope
            .ok_or_else(|| status(Error::invalid_argument("there is no event to forward")))?;
        self.0.events.forward(envelope).map(Response::new).map_err(status)
    }

    /// Sees the events of all namespaces, as with containerd.
    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = request.into_inner().filters;
        let subscription = self.0.events.subscribe(&filters).map_err(status)?;
        Ok(Response::new(Box::pin(stream::unfold(Some(subscription), next))))
    }
}

/// The next event of a subscription; the last item is why it ended.
async fn next(
    subscription: Option<Subscription>,
) -> Option<(Result<Envelope, Status>, Option<Subscription>)> {
    let mut subscription = subscription?;
    match subscription.next().await {
        Ok(envelope) => Some((Ok(Envelope::clone(&envelope)), Some(subscription))),
        Err(error) => Some((Err(status(error)), None)),
    }
}
