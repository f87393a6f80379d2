//! `berth ps`

use berth_proto::berth::v1::{Container, ListRequest, State};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Daemon;
use crate::failure::Outcome;
use crate::human;
use crate::output::say;
use crate::progress::short;
use crate::table::{self, Format};

/// List containers
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Only print ids
    #[arg(short, long)]
    quiet: bool,
    /// Don't shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// How to print the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Ps {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let request = ListRequest { all: self.all };
        let containers = daemon.containers().await?.list(request).await?.into_inner().containers;
        let truncate = !self.no_trunc;
        if self.quiet {
            for container in &containers {
                say(id(container, truncate));
            }
        } else if self.format == Format::Json {
            table::print_json(containers.iter().map(|container| object(container, truncate)));
        } else {
            let heading =
                ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
            let rows: Vec<_> = containers.iter().map(|one| row(one, truncate)).collect();
            table::print(&heading, &rows);
        }
        Ok(0)
    }
}

fn row(container: &Container, truncate: bool) -> Vec<String> {
    vec![
        id(container, truncate).to_owned(),
        container.image.clone(),
        command(container, truncate),
        format!("{} ago", human::since(container.created_at)),
        status(container),
        String::new(),
        container.name.clone(),
    ]
}

/// Docker's field names.
fn object(container: &Container, truncate: bool) -> Value {
    let labels: Vec<_> =
        container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    json!({
        "ID": id(container, truncate),
        "Image": container.image,
        "Command": command(container, truncate),
        "CreatedAt": human::rfc3339(container.created_at),
        "RunningFor": format!("{} ago", human::since(container.created_at)),
        "Ports": "",
        "State": state(container),
        "Status": status(container),
        "Names": container.name,
        "Labels": labels.join(","),
    })
}

fn id(container: &Container, truncate: bool) -> &str {
    if truncate { short(&container.id) } else { &container.id }
}

/// The command cut to twenty characters, quoted with its quotes and control characters escaped.
fn command(container: &Container, truncate: bool) -> String {
    let command = container.command.join(" ");
    if truncate && command.chars().count() > 20 {
        let start: String = command.chars().take(19).collect();
        return format!("{:?}", start + "…");
    }
    format!("{command:?}")
}

/// Docker's word for a state.
pub(crate) fn state(container: &Container) -> &'static str {
    match container.state() {
        State::Created => "created",
        State::Running => "running",
        State::Paused => "paused",
        State::Exited => "exited",
        State::Unknown => "unknown",
    }
}

fn status(container: &Container) -> String {
    match container.state() {
        State::Created => "Created".to_owned(),
        State::Running => format!("Up {}", human::since(container.started_at)),
        State::Paused => format!("Up {} (Paused)", human::since(container.started_at)),
        State::Exited => {
            let code = container.exit_code;
            format!("Exited ({code}) {} ago", human::since(container.finished_at))
        }
        State::Unknown => "Unknown".to_owned(),
    }
}
