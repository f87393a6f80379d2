//! A container in Docker's layout.

use berth_proto::berth::v1::{Bind, Container, ContainerOptions, InspectResponse, Network, State};
use serde_json::{Map, Value, json};

use super::parse;
use crate::commands::ps;
use crate::human::rfc3339;

/// With the OCI specification beside it.
pub(super) fn document(inspected: InspectResponse) -> Value {
    let container = inspected.container.unwrap_or_default();
    let options = inspected.options.unwrap_or_default();
    let spec = parse(&inspected.spec);
    let image = parse(&inspected.image_config);
    let id = if container.image_id.is_empty() { &container.image } else { &container.image_id };
    json!({
        "Id": container.id,
        "Name": format!("/{}", ps::name(&container)),
        "Created": rfc3339(container.created_at),
        "Path": container.command.first(),
        "Args": container.command.get(1..).unwrap_or_default(),
        "State": state(&container),
        "Image": id,
        "LogPath": inspected.log_path,
        "RestartCount": 0,
        "Driver": inspected.snapshotter,
        "Platform": "linux",
        "SnapshotKey": inspected.snapshot_key,
        "Mounts": options.binds.iter().map(mount).collect::<Vec<_>>(),
        "Config": config(&container, &options, &image["config"], &spec),
        "HostConfig": host_config(&options, &inspected.runtime),
        "NetworkSettings": network_settings(&options),
        "Spec": spec,
    })
}

fn state(container: &Container) -> Value {
    json!({
        "Status": ps::state(container),
        "Running": matches!(container.state(), State::Running | State::Paused),
        "Paused": container.state() == State::Paused,
        "Restarting": false,
        "OOMKilled": container.oom_killed,
        "Dead": false,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": "",
        "StartedAt": rfc3339(container.started_at),
        "FinishedAt": rfc3339(container.finished_at),
        "Health": null,
    })
}

fn mount(bind: &Bind) -> Value {
    json!({
        "Type": "bind",
        "Source": bind.source,
        "Destination": bind.destination,
        "Mode": if bind.read_only { "ro" } else { "" },
        "RW": !bind.read_only,
        "Propagation": "rprivate",
    })
}

/// What was asked for over what the image says. When the image is gone, or another client made the
/// container, that is what runs.
fn config(container: &Container, options: &ContainerOptions, image: &Value, spec: &Value) -> Value {
    let process = &spec["process"];
    let (env, command, entrypoint) = match image {
        Value::Null => (process["env"].clone(), json!(container.command), Value::Null),
        _ => {
            let (command, entrypoint) = command(options, image);
            (environment(&image["Env"], &options.env), command, entrypoint)
        }
    };
    let first = |ours: &str, theirs: &Value, default: &Value| match (ours, theirs) {
        ("", Value::String(text)) => text.clone(),
        ("", _) => default.as_str().unwrap_or_default().to_owned(),
        (ours, _) => ours.to_owned(),
    };
    let default = |of: &Value| if image.is_null() { of.clone() } else { Value::Null };
    json!({
        "Hostname": first(&options.hostname, &spec["hostname"], &Value::Null),
        "User": first(&options.user, &image["User"], &default(&process["user"]["username"])),
        "Tty": options.tty,
        "OpenStdin": options.stdin,
        "Env": env,
        "Cmd": command,
        "Image": container.image,
        "ExposedPorts": image["ExposedPorts"],
        "Volumes": image["Volumes"],
        "WorkingDir": first(&options.working_directory, &image["WorkingDir"], &default(&process["cwd"])),
        "Entrypoint": entrypoint,
        "Labels": container.labels,
        "StopSignal": image["StopSignal"],
    })
}

/// As Docker: a new entrypoint doesn't get the command that was meant for the old one.
fn command(options: &ContainerOptions, image: &Value) -> (Value, Value) {
    let list = |values: &[String]| match values {
        [] => Value::Null,
        values => json!(values),
    };
    match (&options.entrypoint, &options.command[..]) {
        (Some(entrypoint), command) => (list(command), list(&entrypoint.values)),
        (None, []) => (image["Cmd"].clone(), image["Entrypoint"].clone()),
        (None, command) => (list(command), image["Entrypoint"].clone()),
    }
}

/// The image's variables, each replaced where it was asked for otherwise, and those asked for.
fn environment(image: &Value, asked: &[String]) -> Value {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let image = image.as_array().into_iter().flatten().filter_map(Value::as_str);
    let kept = image.filter(|of_image| !asked.iter().any(|ours| name(ours) == name(of_image)));
    kept.map(str::to_owned).chain(asked.iter().cloned()).collect::<Vec<_>>().into()
}

fn network_mode(options: &ContainerOptions) -> &'static str {
    if options.network() == Network::Host { "host" } else { "none" }
}

fn host_config(options: &ContainerOptions, runtime: &str) -> Value {
    let resources = options.resources.unwrap_or_default();
    let bind = |bind: &Bind| {
        let mode = if bind.read_only { ":ro" } else { "" };
        format!("{}:{}{mode}", bind.source, bind.destination)
    };
    json!({
        "AutoRemove": options.remove,
        "Binds": options.binds.iter().map(bind).collect::<Vec<_>>(),
        "NetworkMode": network_mode(options),
        "PortBindings": {},
        "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 },
        "Privileged": false,
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
    let mut config = Map::new();
    if log.max_size > 0 {
        config.insert("max-size".to_owned(), log.max_size.to_string().into());
    }
    if log.max_files > 0 {
        config.insert("max-file".to_owned(), log.max_files.to_string().into());
    }
    let driver = if log.driver.is_empty() { "json-file" } else { &log.driver };
    json!({ "Type": driver, "Config": config })
}

/// There are no addresses and no ports; scripts find the places where they would be.
fn network_settings(options: &ContainerOptions) -> Value {
    let none = json!({ "IPAddress": "", "Gateway": "", "MacAddress": "", "IPPrefixLen": 0 });
    let mut networks = Map::new();
    networks.insert(network_mode(options).to_owned(), none);
    json!({
        "Bridge": "",
        "SandboxKey": "",
        "Ports": {},
        "IPAddress": "",
        "IPPrefixLen": 0,
        "Gateway": "",
        "MacAddress": "",
        "Networks": networks,
    })
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::v1::StringList;

    use super::*;

    fn seen(options: ContainerOptions, image: &Value) -> Value {
        document(InspectResponse {
            options: Some(options),
            spec: json!({ "process": { "env": ["S=1"], "cwd": "/spec" } }).to_string().into(),
            image_config: if image.is_null() { Vec::new() } else { image.to_string().into() },
            ..InspectResponse::default()
        })
    }

    #[test]
    fn what_was_asked_for_stands_over_what_the_image_says() {
        let image = json!({ "config": {
            "Env": ["A=1", "B=2"], "Cmd": ["c"], "Entrypoint": ["e"], "User": "u", "WorkingDir": "/w",
        }});
        let plain = seen(ContainerOptions::default(), &image)["Config"].clone();
        assert_eq!(plain["Env"], json!(["A=1", "B=2"]));
        assert_eq!((&plain["Cmd"], &plain["Entrypoint"]), (&json!(["c"]), &json!(["e"])));
        assert_eq!((&plain["User"], &plain["WorkingDir"]), (&json!("u"), &json!("/w")));
        let asked = ContainerOptions {
            env: vec!["B=3".into(), "C=4".into()],
            entrypoint: Some(StringList { values: vec!["n".into()] }),
            user: "me".into(),
            ..ContainerOptions::default()
        };
        let asked = seen(asked, &image)["Config"].clone();
        assert_eq!(asked["Env"], json!(["A=1", "B=3", "C=4"]));
        assert_eq!((&asked["Cmd"], &asked["Entrypoint"]), (&Value::Null, &json!(["n"])));
        assert_eq!((&asked["User"], &asked["WorkingDir"]), (&json!("me"), &json!("/w")));
    }

    #[test]
    fn without_its_image_a_container_shows_what_runs() {
        let config = seen(ContainerOptions::default(), &Value::Null)["Config"].clone();
        assert_eq!(config["Env"], json!(["S=1"]));
        assert_eq!((&config["WorkingDir"], &config["Entrypoint"]), (&json!("/spec"), &Value::Null));
    }
}
