//! What the engine hears of: ends, kills for want of memory, and containers that others delete.

use std::future::Future;

use berth_events::{Envelope, Exchange, Subscription};
use berth_proto::containerd::events::{ContainerDelete, TaskExit, TaskOom};
use berth_store::Durability;
use berth_types::{Kind, Result};
use prost::{Message, Name};

use crate::Engine;
use crate::files::Files;
use crate::rows;

const EXIT: &str = "/tasks/exit";
const OUT_OF_MEMORY: &str = "/tasks/oom";
const DELETION: &str = "/containers/delete";

/// Subscribes to what the engine must know.
pub(crate) fn subscribe(events: &Exchange) -> Result<Subscription> {
    events.subscribe(&[EXIT, OUT_OF_MEMORY, DELETION].map(|topic| format!("topic=={topic:?}")))
}

impl Engine {
    /// Sees containers to their ends, for ever.
    pub async fn run(self) {
        let mut subscription = self.take_subscription();
        loop {
            let Some(heard) = subscription.as_mut() else {
                tracing::error!("the engine can't hear of exits any more: start berthd again");
                return;
            };
            match heard.next().await {
                Ok(envelope) => {
                    if let Some(exit) = self.hear(&envelope).await {
                        let (engine, namespace) = (self.clone(), envelope.namespace.clone());
                        tokio::spawn(async move {
                            if let Some(ended) = engine.note_end(&namespace, exit).await {
                                engine.clear_away(ended).await;
                            }
                        });
                    }
                }
                Err(error) => {
                    tracing::error!(%error, "exits may have been missed; they are looked for");
                    subscription = subscribe(&self.parts().events).ok();
                    self.look_for_ends().await;
                }
            }
        }
    }

    /// Takes note of an event. The exit of an init is returned, to be noted by itself.
    pub(crate) async fn hear(&self, envelope: &Envelope) -> Option<TaskExit> {
        let event = envelope.event.as_ref().map(|event| &*event.value).unwrap_or_default();
        match envelope.topic.as_str() {
            EXIT => {
                let exit: TaskExit = decoded(event)?;
                // The exit of an exec is told to whoever started it.
                return (exit.id == exit.container_id).then_some(exit);
            }
            OUT_OF_MEMORY => {
                let TaskOom { container_id } = decoded(event)?;
                self.note_want_of_memory(&envelope.namespace, container_id).await;
            }
            DELETION => {
                let ContainerDelete { id } = decoded(event)?;
                self.forget_deleted(&envelope.namespace, &id);
            }
            _ => {}
        }
        None
    }

    /// Written before the exit that it caused is heard of.
    fn note_want_of_memory(&self, namespace: &str, id: String) -> impl Future<Output = ()> + use<> {
        let (store, namespace) = (self.parts().store.clone(), namespace.to_owned());
        async move {
            let noted = store.write_from_reserve(Durability::Buffered, move |transaction| {
                rows::change(transaction, &namespace, &id, |row| row.oom_killed = true)
            });
            if let Err(error) = noted.await {
                tracing::warn!(%error, "that memory ran out in a container is not noted");
            }
        }
    }

    /// Removes the files of a container whose record another client deleted. The engine's own
    /// removals have removed them.
    fn forget_deleted(&self, namespace: &str, id: &str) {
        let record = self.scope(namespace).and_then(|scope| scope.containers().get(id));
        if record.is_err_and(|error| error.kind() == Kind::NotFound)
            && let Err(error) = Files::of(&self.parts().root, namespace, id).remove()
        {
            tracing::warn!(id, %error, "files of a deleted container are left behind");
        }
    }
}

/// An event of its topic's type; anything else is nobody's event.
fn decoded<M: Message + Default>(event: &[u8]) -> Option<M> {
    M::decode(event).inspect_err(|error| tracing::warn!(%error, "an event is malformed")).ok()
}

impl Engine {
    /// Tells subscribers of a change that is made. The change stands even if nobody can be told.
    pub(crate) fn publish(&self, namespace: &str, topic: &str, event: &impl Name) {
        if let Err(error) = self.parts().events.publish(namespace, topic, event) {
            tracing::warn!(%error, topic, "an event could not be published");
        }
    }
}
