//! The socket on which shims deliver their events: `containerd.services.events.ttrpc.v1.Events`.

use std::sync::Arc;

use berth_events::Envelope;
use berth_proto::containerd::events::TaskExit;
use berth_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use berth_ttrpc::{Handler, Request, Server};
use berth_types::{Error, Result};
use prost::Message;
use tokio::net::UnixListener;

use crate::Tasks;
use crate::exit::Exit;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

impl Tasks {
    /// Serves shims on `listener`, which is bound to [`crate::Config::ttrpc_address`], until the
    /// future is dropped. Only processes of root and of the daemon's own user are answered.
    ///
    /// # Errors
    /// When the listener is of no use any more.
    pub async fn serve_events(&self, listener: &UnixListener) -> Result<()> {
        Server::new(Arc::new(Events(self.clone()))).serve(listener).await
    }

    /// Publishes a shim's event. An exit that is already known is not published again.
    fn forward(&self, envelope: Envelope) -> Result<()> {
        if envelope.topic == "/tasks/exit" && !self.is_news(&envelope)? {
            return Ok(());
        }
        self.events.forward(envelope)
    }

    fn is_news(&self, envelope: &Envelope) -> Result<bool> {
        let event = envelope.event.as_ref().map(|event| &*event.value).unwrap_or_default();
        let exit = TaskExit::decode(event)
            .map_err(|error| Error::invalid_argument(format!("event /tasks/exit: {error}")))?;
        if exit.id != exit.container_id {
            return Ok(true);
        }
        let (namespace, id) = (&envelope.namespace, &exit.container_id);
        let exit = Exit { status: exit.exit_status, at: exit.exited_at };
        if let Some(task) = self.table.find(namespace, id) {
            return Ok(task.announce(exit));
        }
        let is_news = self.early.note(namespace, id, exit);
        // Or else the task may have come just now.
        let by_task = || self.table.find(namespace, id).is_none_or(|task| task.announce(exit));
        Ok(is_news.unwrap_or_else(by_task))
    }
}

struct Events(Tasks);

impl Handler for Events {
    async fn call(&self, request: Request) -> Result<Vec<u8>> {
        if (request.service.as_str(), request.method.as_str()) != (SERVICE, "Forward") {
            return Err(request.unimplemented());
        }
        let ForwardRequest { envelope } = request.decode()?;
        let envelope =
            envelope.ok_or_else(|| Error::invalid_argument("there is no event to forward"))?;
        self.0.forward(envelope)?;
        Ok(Vec::new())
    }
}
