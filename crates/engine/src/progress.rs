//! The progress of a pull, told to a client as fast as it listens.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_proto::berth::v1::layer_progress::Phase as WirePhase;
use berth_proto::berth::v1::{LayerProgress, PullProgress};
use berth_pull::{Phase, Progress};
use futures_util::future::BoxFuture;
use tokio::sync::Notify;

/// How long changes are gathered before they are told.
const PAUSE: Duration = Duration::from_millis(50);

/// What is not told yet.
#[derive(Default)]
struct Board {
    /// Each layer once, as it stands now.
    changed: Mutex<Vec<LayerProgress>>,
    news: Notify,
}

/// Whom to tell. What it returns is done when the client has room for more, or is gone.
pub(crate) type Listener = Box<dyn Fn(PullProgress) -> BoxFuture<'static, ()> + Send + Sync>;

/// Does `work` and tells `listener` of its progress.
pub(crate) async fn tell_of<T, F: Future<Output = T>>(
    work: impl FnOnce(Progress) -> F,
    listener: &Listener,
) -> T {
    let board = Arc::new(Board::default());
    let note = board.clone();
    let mut work = pin!(work(Progress::new(move |layer| note.note(layer))));
    loop {
        let done = tokio::select! {
            done = &mut work => Some(done),
            () = board.something() => None,
        };
        let layers = board.take();
        if !layers.is_empty() {
            listener(PullProgress { layers, ..PullProgress::default() }).await;
        }
        if let Some(done) = done {
            return done;
        }
    }
}

impl Board {
    fn note(&self, layer: berth_pull::LayerProgress) {
        let layer = to_wire(layer);
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        match changed.iter_mut().find(|known| known.digest == layer.digest) {
            Some(known) => *known = layer,
            None => changed.push(layer),
        }
        self.news.notify_one();
    }

    async fn something(&self) {
        self.news.notified().await;
        tokio::time::sleep(PAUSE).await;
    }

    fn take(&self) -> Vec<LayerProgress> {
        std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn to_wire(layer: berth_pull::LayerProgress) -> LayerProgress {
    let phase = match layer.phase {
        Phase::Waiting => WirePhase::Waiting,
        // A pull sends nothing.
        Phase::Downloading | Phase::Uploading => WirePhase::Downloading,
        Phase::Extracting => WirePhase::Extracting,
        Phase::Done => WirePhase::Done,
        Phase::Exists => WirePhase::Exists,
    };
    LayerProgress {
        digest: layer.digest.to_string(),
        phase: phase.into(),
        current: layer.current,
        total: layer.total,
    }
}

#[cfg(test)]
mod tests {
    use berth_types::Digest;

    use super::*;

    fn layer(content: &str, phase: Phase, current: u64) -> berth_pull::LayerProgress {
        let digest = Digest::of(content.as_bytes());
        berth_pull::LayerProgress { digest, phase, current, total: 9 }
    }

    #[tokio::test]
    async fn what_stands_at_the_end_is_told_once_for_each_layer() {
        let board = Board::default();
        board.note(layer("a", Phase::Waiting, 0));
        board.note(layer("b", Phase::Exists, 9));
        board.note(layer("a", Phase::Downloading, 5));
        let told = board.take();
        assert_eq!(told.len(), 2);
        assert_eq!((told[0].phase(), told[0].current), (WirePhase::Downloading, 5));
        assert_eq!(told[1].phase(), WirePhase::Exists);
        assert!(board.take().is_empty());
    }
}
