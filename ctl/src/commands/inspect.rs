//! `berth inspect`

use berth_proto::berth::v1::{
    Container, ContainerOptions, InspectImageRequest, InspectImageResponse, InspectRequest,
    InspectResponse, Network, State,
};
use clap::Args;
use serde_json::{Value, json};

use super::ps;
use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::human::rfc3339;
use crate::output::{complain, say};

/// Return low-level information on containers and images
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// Containers or images, by name or id
    #[arg(required = true)]
    objects: Vec<String>,
}

impl Inspect {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let (mut found, mut code) = (Vec::new(), 0);
        for object in self.objects {
            match inspect(daemon, &object).await {
                Ok(value) => found.push(value),
                Err(failure) if failure.is_not_found() => {
                    complain(format_args!("Error: No such object: {object}"));
                    code = 1;
                }
                Err(failure) => return Err(failure),
            }
        }
        say(format_args!("{:#}", Value::Array(found)));
        Ok(code)
    }
}

/// A container of that name, or else an image.
async fn inspect(daemon: &Daemon, object: &str) -> Outcome<Value> {
    let request = InspectRequest { container: object.to_owned() };
    match daemon.containers().await?.inspect(request).await.map_err(Failure::from) {
        Ok(response) => return Ok(container(response.into_inner())),
        Err(failure) if failure.is_not_found() => {}
        Err(failure) => return Err(failure),
    }
    let request = InspectImageRequest { image: object.to_owned() };
    Ok(image(daemon.images().await?.inspect(request).await?.into_inner()))
}

/// Docker's layout, with the OCI specification beside it.
fn container(inspected: InspectResponse) -> Value {
    let container = inspected.container.unwrap_or_default();
    let options = inspected.options.unwrap_or_default();
    json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Created": rfc3339(container.created_at),
        "Path": container.command.first(),
        "Args": container.command.get(1..).unwrap_or_default(),
        "State": state(&container),
        "Image": container.image,
        "LogPath": inspected.log_path,
        "Driver": inspected.snapshotter,
        "SnapshotKey": inspected.snapshot_key,
        "Config": config(&container, &options),
        "HostConfig": host_config(&options, &inspected.runtime),
        "Spec": parse(&inspected.spec),
    })
}

fn state(container: &Container) -> Value {
    json!({
        "Status": ps::state(container),
        "Running": matches!(container.state(), State::Running | State::Paused),
        "Paused": container.state() == State::Paused,
        "OOMKilled": container.oom_killed,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "StartedAt": rfc3339(container.started_at),
        "FinishedAt": rfc3339(container.finished_at),
    })
}

fn config(container: &Container, options: &ContainerOptions) -> Value {
    json!({
        "Hostname": options.hostname,
        "User": options.user,
        "Tty": options.tty,
        "OpenStdin": options.stdin,
        "Env": options.env,
        "Cmd": options.command,
        "Entrypoint": options.entrypoint.as_ref().map(|entrypoint| &entrypoint.values),
        "WorkingDir": options.working_directory,
        "Image": options.image,
        "Labels": container.labels,
    })
}

fn host_config(options: &ContainerOptions, runtime: &str) -> Value {
    let resources = options.resources.unwrap_or_default();
    let bind = |bind: &berth_proto::berth::v1::Bind| {
        let mode = if bind.read_only { ":ro" } else { "" };
        format!("{}:{}{mode}", bind.source, bind.destination)
    };
    json!({
        "AutoRemove": options.remove,
        "Binds": options.binds.iter().map(bind).collect::<Vec<_>>(),
        "NetworkMode": if options.network() == Network::Host { "host" } else { "none" },
        "Init": options.init,
        "LogConfig": log_config(options),
        "ReadonlyRootfs": options.read_only,
        "Memory": resources.memory,
        "NanoCpus": resources.nano_cpus,
        "PidsLimit": resources.pids,
        "Runtime": runtime,
    })
}

/// Options are text, as Docker has them.
fn log_config(options: &ContainerOptions) -> Value {
    let log = options.log.clone().unwrap_or_default();
    let mut config = serde_json::Map::new();
    if log.max_size > 0 {
        config.insert("max-size".to_owned(), log.max_size.to_string().into());
    }
    if log.max_files > 0 {
        config.insert("max-file".to_owned(), log.max_files.to_string().into());
    }
    let driver = if log.driver.is_empty() { "json-file" } else { &log.driver };
    json!({ "Type": driver, "Config": config })
}

fn image(inspected: InspectImageResponse) -> Value {
    let image = inspected.image.unwrap_or_default();
    let config = parse(&inspected.config);
    let digest = format!("{}@{}", repository(&image.name), image.digest);
    json!({
        "Id": image.id,
        "RepoTags": [image.name],
        "RepoDigests": [digest],
        "Created": rfc3339(image.created_at),
        "Size": image.size,
        "Os": config["os"],
        "Architecture": config["architecture"],
        "Config": config["config"],
        "RootFS": { "Type": "layers", "Layers": config["rootfs"]["diff_ids"] },
        "Manifest": parse(&inspected.manifest),
    })
}

fn repository(name: &str) -> String {
    name.parse::<berth_types::Reference>()
        .map_or_else(|_| name.to_owned(), |reference| reference.familiar_name())
}

/// JSON as the daemon stored it; null where it is none.
fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap_or_default()
}
