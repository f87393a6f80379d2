//! What goes on around a container at the moment.
//!
//! Whoever starts, ends, attaches to or waits for a container enters its [`Live`] and meets the
//! others there. It is only there while somebody is in it: nothing in it is a state of the
//! container. A *run* is from one start of the container to its end.
//!
//! Who waits enters first and looks at the row and the task then; who ends a run writes the row
//! first and tells those in the run then, staying until all is done, which includes the writing.
//! So nobody waits for an end that has been.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use berth_proto::berth::v1::Exited;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// All containers around which something goes on, by namespace and id.
#[derive(Default)]
pub(crate) struct Lives(Mutex<HashMap<(String, String), Weak<Live>>>);

impl Lives {
    /// Enters what goes on around a container.
    pub(crate) fn enter(&self, namespace: &str, id: &str) -> Arc<Live> {
        let key = (namespace.to_owned(), id.to_owned());
        let mut lives = lock(&self.0);
        if let Some(live) = lives.get(&key).and_then(Weak::upgrade) {
            return live;
        }
        if lives.len() == lives.capacity() {
            lives.retain(|_, live| live.strong_count() > 0);
        }
        let live = Arc::new(Live::default());
        lives.insert(key, Arc::downgrade(&live));
        live
    }
}

/// One container.
#[derive(Default)]
pub(crate) struct Live {
    /// Held by whoever starts the container, removes it, or deletes its task.
    pub(crate) changing: tokio::sync::Mutex<()>,
    run: Mutex<Arc<Run>>,
}

impl Live {
    /// The present run, or the last one. Who waits for its end stays in `self` meanwhile.
    pub(crate) fn run(&self) -> Arc<Run> {
        lock(&self.run).clone()
    }

    /// Begins a run.
    pub(crate) fn begin(&self) -> Arc<Run> {
        let run = Arc::new(Run::default());
        *lock(&self.run) = run.clone();
        run
    }

    /// Keeps what is left of the present run, once it has ended, until a client has read all of
    /// its output.
    pub(crate) fn attend(self: &Arc<Self>) -> Attendance {
        let mut attendance = self.run().attend();
        attendance.live = Some(self.clone());
        attendance
    }
}

/// One run of a container.
pub(crate) struct Run {
    exit: watch::Sender<Option<Exited>>,
    attendants: watch::Sender<usize>,
    hurried: CancellationToken,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            exit: watch::Sender::new(None),
            attendants: watch::Sender::new(0),
            hurried: CancellationToken::new(),
        }
    }
}

impl Run {
    /// Tells how the run ended; the first to say so is believed.
    pub(crate) fn end(&self, exited: Exited) {
        self.exit.send_if_modified(|known| known.is_none() && known.replace(exited).is_none());
    }

    /// How it ended, if it has.
    pub(crate) fn known(&self) -> Option<Exited> {
        *self.exit.borrow()
    }

    /// Waits for the end.
    pub(crate) async fn ended(&self) -> Exited {
        let mut exit = self.exit.subscribe();
        let known = exit.wait_for(Option::is_some).await.ok().and_then(|known| *known);
        // The sender lives as long as `self`, so that there is an exit.
        known.unwrap_or_default()
    }

    /// Adds a client to a run that no container has: that of an exec.
    pub(crate) fn attend(self: &Arc<Self>) -> Attendance {
        self.attendants.send_modify(|count| *count += 1);
        Attendance { run: self.clone(), live: None }
    }

    /// Returns when no client reads any more, or somebody can't wait for that.
    pub(crate) async fn unattended(&self) {
        let mut attendants = self.attendants.subscribe();
        tokio::select! {
            _ = attendants.wait_for(|count| *count == 0) => {}
            () = self.hurried.cancelled() => {}
        }
    }

    /// Clients that still read are not waited for.
    pub(crate) fn hurry(&self) {
        self.hurried.cancel();
    }
}

/// A client that reads output. See [`Live::attend`].
pub(crate) struct Attendance {
    run: Arc<Run>,
    /// Where the run's end is told.
    live: Option<Arc<Live>>,
}

impl Attendance {
    /// The run that is attended.
    pub(crate) fn run(&self) -> &Run {
        &self.run
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.run.attendants.send_modify(|count| *count -= 1);
    }
}

/// Every change is one step, so that a panic elsewhere leaves it whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_take_part_meet_and_leave_nothing() {
        let lives = Lives::default();
        let first = lives.enter("default", "a");
        assert!(Arc::ptr_eq(&first, &lives.enter("default", "a")));
        assert!(!Arc::ptr_eq(&first, &lives.enter("other", "a")));
        for number in 0..10_000 {
            lives.enter("default", &number.to_string());
        }
        assert!(Arc::ptr_eq(&first, &lives.enter("default", "a")));
        assert!(lock(&lives.0).len() < 1000);
    }

    #[tokio::test]
    async fn an_end_is_told_once_and_to_all() {
        let live = Live::default();
        let run = live.begin();
        run.end(Exited { code: 3, ..Default::default() });
        run.end(Exited { code: 4, ..Default::default() });
        assert_eq!(run.ended().await.code, 3);
        assert!(!Arc::ptr_eq(&run, &live.begin()));
    }

    #[tokio::test]
    async fn an_attended_run_is_there_when_its_end_is_told() {
        let lives = Lives::default();
        let live = lives.enter("default", "a");
        live.begin();
        let attendance = live.attend();
        drop(live);
        lives.enter("default", "a").run().end(Exited { code: 3, ..Default::default() });
        assert_eq!(attendance.run().ended().await.code, 3);
    }

    #[tokio::test]
    async fn attendants_are_waited_for_unless_somebody_hurries() {
        let run = Arc::new(Run::default());
        run.unattended().await;
        let attendance = run.attend();
        let waiting = tokio::spawn({
            let run = run.clone();
            async move { run.unattended().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(attendance);
        waiting.await.unwrap();
        let _late = run.attend();
        run.hurry();
        run.unattended().await;
    }
}
