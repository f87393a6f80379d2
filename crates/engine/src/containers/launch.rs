//! From a container that is made to a running one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_proto::berth::v1::{Exited, Log};
use berth_proto::containerd::services::containers::v1::Container as Record;
use berth_proto::containerd::types::Mount;
use berth_tasks::{Attachment, Create, Task};
use berth_types::{Kind, Result};

use super::session::{Attached, Process};
use super::{Containers, options};
use crate::live::Live;
use crate::rows::Row;

/// The exit code for those who waited for the end of a run that could not begin.
const NEVER_RAN: u32 = 128;

/// All that a start needs.
pub(super) struct Launch {
    record: Record,
    rootfs: Vec<Mount>,
    /// Where output goes, in the shim's words.
    output: String,
    tty: bool,
    /// Where input comes from, in the shim's words.
    stdin: &'static str,
}

impl Launch {
    pub(super) fn new(record: Record, row: &Row, rootfs: Vec<Mount>, log: PathBuf) -> Self {
        let options = row.options.as_ref();
        let stdin = match options.is_some_and(|options| options.stdin) {
            false => "",
            true if row.stdin_once => "attach:once",
            true => "attach:keep",
        };
        let tty = options.is_some_and(|options| options.tty);
        let log_options = options.and_then(|options| options.log.clone()).unwrap_or_default();
        Self { record, rootfs, output: output(&log, &log_options), tty, stdin }
    }

    fn into_create(self, namespace: &str) -> Create {
        Create {
            namespace: namespace.to_owned(),
            id: self.record.id,
            runtime: self.record.runtime.unwrap_or_default().name,
            spec: self.record.spec.unwrap_or_default().value,
            rootfs: self.rootfs,
            stdin: self.stdin.to_owned(),
            stderr: if self.tty { String::new() } else { self.output.clone() },
            stdout: self.output,
            terminal: self.tty,
            ..Create::default()
        }
    }
}

impl Containers {
    /// Starts a container for the run that has begun, attaching a client first where asked. If it can't be started,
    /// its row is as `before` and without this run, or it is removed if it is temporary. The caller
    /// holds the container's `changing`.
    ///
    /// # Errors
    /// Those of the shim.
    pub(super) async fn launch(
        &self,
        live: &Arc<Live>,
        launch: Launch,
        before: Row,
        attach: bool,
    ) -> Result<Attached> {
        let id = launch.record.id.clone();
        let stdin = !launch.stdin.is_empty();
        let attendance = live.attend();
        let started = match before.options.as_ref().map(options::make_bound_directories) {
            Some(Err(error)) => Err(error),
            _ => self.start_task(launch, attach).await,
        };
        match started {
            Ok((task, attachment)) => {
                let process = Process { pid: task.pid(), task, exec_id: String::new() };
                let attachment = attachment.map(|attachment| (attachment, stdin));
                Ok(Attached::new(process, attachment, vec![attendance]))
            }
            Err(error) => {
                self.take_back(&id, before).await;
                attendance.run().end(Exited { code: NEVER_RAN, ..Exited::default() });
                Err(error)
            }
        }
    }

    async fn start_task(
        &self,
        launch: Launch,
        attach: bool,
    ) -> Result<(Arc<Task>, Option<Attachment>)> {
        let tasks = &self.engine.parts().tasks;
        let task = tasks.create(launch.into_create(self.namespace())).await?;
        let start = async {
            let attachment = if attach { Some(task.attach("", true).await?) } else { None };
            task.start("").await?;
            Ok(attachment)
        };
        match start.await {
            Ok(attachment) => Ok((task, attachment)),
            Err(error) => {
                self.delete_task(task.id()).await;
                Err(error)
            }
        }
    }

    /// Deletes a task, if there is one. A failure is reported in the log: the daemon's next start
    /// tries again.
    pub(crate) async fn delete_task(&self, id: &str) {
        match self.engine.parts().tasks.delete(self.namespace(), id).await {
            Err(error) if error.kind() != Kind::NotFound => {
                tracing::warn!(id, %error, "an ended task is left behind");
            }
            _ => {}
        }
    }
}

/// A snapshotter's mounts as shims take them.
pub(super) fn mounts(mounts: Vec<berth_snapshotter::Mount>) -> Vec<Mount> {
    let to_wire = |mount: berth_snapshotter::Mount| Mount {
        r#type: mount.kind,
        source: mount.source,
        target: String::new(),
        options: mount.options,
    };
    mounts.into_iter().map(to_wire).collect()
}

/// Whether a container has no log.
pub(super) fn is_unlogged(log: &Log) -> bool {
    log.driver == "none"
}

/// Where output goes that is logged as `options` say, to `path` if at all.
fn output(path: &Path, options: &Log) -> String {
    if is_unlogged(options) {
        return "attach:".to_owned();
    }
    let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3f");
    match options.max_size {
        0 => format!("log+json-file://{path}"),
        size => {
            let files = options.max_files.max(1);
            format!("log+json-file://{path}?max-size={size}&max-file={files}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_characters_of_a_log_path_are_encoded() {
        let path = Path::new("/a/b?%.log");
        assert_eq!(output(path, &Log::default()), "log+json-file:///a/b%3f%25.log");
        let rotated = Log { max_size: 1000, max_files: 3, ..Log::default() };
        let uri = output(path, &rotated);
        assert_eq!(uri, "log+json-file:///a/b%3f%25.log?max-size=1000&max-file=3");
        let none = Log { driver: "none".to_owned(), ..Log::default() };
        assert_eq!(output(path, &none), "attach:");
    }
}
