//! Create and Run: make a container, and start it where asked.

use std::collections::HashMap;
use std::time::SystemTime;

use berth_proto::berth::v1::stream_response::Message;
use berth_proto::berth::v1::{ContainerOptions, CreateRequest, CreateResponse};
use berth_proto::containerd::events::{ContainerCreate, container_create};
use berth_proto::containerd::services::containers::v1::Container as Record;
use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::types::Mount;
use berth_snapshotter::VOLATILE;
use berth_store::Durability;
use berth_tasks::DEFAULT_RUNTIME;
use berth_types::labels::Labels;
use berth_types::spec::{Spec, stop_signal};
use berth_types::{Error, Kind, Result};
use prost_types::Any;

use super::launch::Launch;
use super::{Attached, Containers, Responses, options};
use crate::files::Files;
use crate::images::Obtained;
use crate::name;
use crate::progress::Listener;
use crate::rows::{self, Row};

/// What a specification in a record is called, as containerd's clients call it.
const SPEC_TYPE: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

/// What a container is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To be started later.
    Later,
    /// To be started at once.
    Start,
    /// To be started at once with a client attached.
    Attach,
}

/// A container that was made.
struct Made {
    row: Row,
    launch: Launch,
}

impl Containers {
    /// Makes a container; starts it where that is asked for.
    ///
    /// # Errors
    /// Those of the image's pull; `AlreadyExists` for a name that is taken; `InvalidArgument` for
    /// options that can't be right. One that can't be started is kept unless it is temporary.
    pub async fn create(&self, request: CreateRequest) -> Result<CreateResponse> {
        let options = given(request.options)?;
        let purpose = if request.start { Purpose::Start } else { Purpose::Later };
        let id = name::new_id()?;
        let live = self.engine.0.lives.enter(self.namespace(), &id);
        let _changing = live.changing.lock().await;
        let nobody: Listener = Box::new(|_| Box::pin(std::future::ready(())));
        live.begin();
        let Made { row, launch } = self.make(&id, options, purpose, &nobody).await?;
        let name = row.name.clone();
        if request.start {
            self.launch(&live, launch, row, false).await?;
        }
        Ok(CreateResponse { id, name })
    }

    /// Makes a container and starts it with a client attached, who also hears of the image's pull.
    ///
    /// # Errors
    /// As for [`create`](Self::create).
    pub async fn run(&self, options: ContainerOptions, client: Responses) -> Result<Attached> {
        let id = name::new_id()?;
        let live = self.engine.0.lives.enter(self.namespace(), &id);
        let _changing = live.changing.lock().await;
        let listener: Listener = Box::new(move |progress| {
            let client = client.clone();
            // A client that is gone hears nothing; the container is made all the same.
            Box::pin(async move { drop(client.send(Message::Pull(progress)).await) })
        });
        live.begin();
        let Made { row, launch } = self.make(&id, options, Purpose::Attach, &listener).await?;
        self.launch(&live, launch, row, true).await
    }

    /// Makes a container, all of it or nothing.
    async fn make(
        &self,
        id: &str,
        options: ContainerOptions,
        purpose: Purpose,
        listener: &Listener,
    ) -> Result<Made> {
        let names = name::candidates(&options.name)?;
        let images = self.engine.images(self.scope.clone());
        let image = images.obtain(&options.image, &options.pull, listener).await?;
        let files = Files::of(&self.engine.parts().root, self.namespace(), id);
        let config = &image.resolved.image.config;
        let spec = options::spec(self.namespace(), id, &options, config, &files)?;
        let row = row(&spec, options, &image, purpose)?;
        let record = record(id, &spec, &row, &image, self.scope.snapshotter()?)?;
        let (record, row) = self.insert(record, row, names).await?;
        match self.furnish(&record, &row, &spec, &image).await {
            Ok(rootfs) => Ok(Made { launch: Launch::new(record, &row, rootfs, files.log()), row }),
            Err(error) => {
                self.discard(id, Durability::Buffered).await;
                Err(error)
            }
        }
    }

    /// Writes record and row. What they need follows, and with it they reach the disk.
    async fn insert(&self, record: Record, row: Row, names: Vec<String>) -> Result<(Record, Row)> {
        let namespace = self.namespace().to_owned();
        let store = &self.engine.parts().store;
        let (record, row) = store
            .write(Durability::Buffered, move |transaction| {
                rows::insert(transaction, &namespace, record, row, names)
            })
            .await?;
        let runtime = container_create::Runtime { name: DEFAULT_RUNTIME.to_owned(), options: None };
        let event = ContainerCreate {
            id: record.id.clone(),
            image: record.image.clone(),
            runtime: Some(runtime),
        };
        self.engine.publish(self.namespace(), "/containers/create", &event);
        Ok((record, row))
    }

    /// Makes the files and the snapshot; returns the mounts of the root file system.
    async fn furnish(
        &self,
        record: &Record,
        row: &Row,
        spec: &Spec,
        image: &Obtained,
    ) -> Result<Vec<Mount>> {
        let (id, snapshotter) = (record.id.as_str(), record.snapshotter.as_str());
        self.make_files(id, spec, row)?;
        let snapshots = self.scope.snapshots(snapshotter)?;
        let parent = image.resolved.chain_id().map(ToString::to_string).unwrap_or_default();
        let mounts = match snapshots.prepare(id, &parent, labels(row)).await {
            Err(error) if error.kind() == Kind::NotFound => {
                let images = self.engine.images(self.scope.clone());
                images.unpack(image, snapshotter).await?;
                snapshots.prepare(id, &parent, labels(row)).await?
            }
            mounts => mounts?,
        };
        Ok(super::launch::mounts(mounts))
    }

    /// Makes the container's own files, as far as they are missing.
    pub(super) fn make_files(&self, id: &str, spec: &Spec, row: &Row) -> Result<Files> {
        let files = Files::of(&self.engine.parts().root, self.namespace(), id);
        let hostname = spec.hostname.as_deref().unwrap_or_default();
        let options = row.options.as_ref();
        files.create(hostname, options.is_some_and(options::is_on_host_network))?;
        Ok(files)
    }
}

/// Options that must be there.
fn given(options: Option<ContainerOptions>) -> Result<ContainerOptions> {
    options.ok_or_else(|| Error::invalid_argument("the request has no container options"))
}

/// A temporary container's files need not survive a crash.
fn labels(row: &Row) -> Labels {
    let label = row.is_temporary().then(|| (VOLATILE.to_owned(), String::new()));
    label.into_iter().collect()
}

fn row(spec: &Spec, options: ContainerOptions, image: &Obtained, purpose: Purpose) -> Result<Row> {
    let config = &image.resolved.image.config;
    let mut labels: HashMap<_, _> = config.labels.clone().into_iter().collect();
    labels.extend(options.labels.clone());
    Ok(Row {
        image_id: image.resolved.config.digest.to_string(),
        command: spec.process.as_ref().map(|process| process.args.clone()).unwrap_or_default(),
        stop_signal: stop_signal(config)?,
        // As Docker: who is attached from the start, or may be later, is the one who types. At a
        // terminal somebody else may take over.
        stdin_once: purpose != Purpose::Start && !options.tty,
        labels,
        started_at: (purpose != Purpose::Later).then(|| SystemTime::now().into()),
        options: Some(options),
        ..Row::default()
    })
}

fn record(
    id: &str,
    spec: &Spec,
    row: &Row,
    image: &Obtained,
    snapshotter: String,
) -> Result<Record> {
    let json = serde_json::to_vec(spec)
        .map_err(|error| Error::internal(format!("write a specification: {error}")))?;
    Ok(Record {
        id: id.to_owned(),
        // The image's own stay in the row: they may be longer than a record's may, and must not
        // mean anything to the collection of garbage.
        labels: row.options.as_ref().map(|options| options.labels.clone()).unwrap_or_default(),
        image: image.name.clone(),
        runtime: Some(Runtime { name: DEFAULT_RUNTIME.to_owned(), options: None }),
        spec: Some(Any { type_url: SPEC_TYPE.to_owned(), value: json }),
        snapshotter,
        snapshot_key: id.to_owned(),
        ..Record::default()
    })
}
