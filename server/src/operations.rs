//! Operations that belong to the daemon, not to the connection that asked for them.

use std::future::Future;
use std::time::Duration;

use tokio_util::task::TaskTracker;

use berth_types::{Error, Result};

/// The mutating calls under way. Each runs in a task of its own: when its caller disconnects or
/// gives up, it still ends or rolls back, and a stop of the daemon waits for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Operations {
    tracker: TaskTracker,
}

impl Operations {
    /// Runs `operation` to its end, even when the returned future is dropped.
    ///
    /// # Errors
    /// That of the operation; [`Kind::Internal`](berth_types::Kind::Internal) if it panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tracker
            .spawn(operation)
            .await
            .unwrap_or_else(|error| Err(Error::internal(format!("the operation died: {error}"))))
    }

    /// Where further work is counted that a stop waits for.
    pub(crate) fn tracker(&self) -> TaskTracker {
        self.tracker.clone()
    }

    /// Waits until all operations have ended, at most for `patience`. Returns whether they have.
    pub(crate) async fn drain(&self, patience: Duration) -> bool {
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn an_abandoned_operation_still_ends() {
        let operations = Operations::default();
        let (go, gone) = oneshot::channel::<()>();
        let (done, outcome) = oneshot::channel();
        let call = operations.run(async move {
            gone.await.ok();
            done.send(()).ok();
            Ok(())
        });
        let mut call = Box::pin(call);
        assert!(futures_poll_once(&mut call).await, "the operation waits");
        drop(call);
        go.send(()).unwrap();
        outcome.await.unwrap();
        assert!(operations.drain(Duration::from_secs(60)).await);
    }

    /// Polls once; whether the future is still pending.
    async fn futures_poll_once(future: &mut (impl Future + Unpin)) -> bool {
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut *future).poll(cx).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let operations = Operations::default();
        let error = operations.run::<()>(async { panic!("lost") }).await.unwrap_err();
        assert_eq!(error.kind(), berth_types::Kind::Internal);
    }
}
