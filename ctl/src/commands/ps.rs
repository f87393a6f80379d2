//! `berth ps`

use berth_proto::berth::v1::{Container, InspectImageRequest, ListRequest, State};
use clap::Args;
use serde_json::{Value, json};

use crate::client::Daemon;
use crate::failure::{Failure, Outcome};
use crate::filter::{Filter, Filters};
use crate::human;
use crate::output::say;
use crate::progress::short;
use crate::table::{Fields, Format};

const FIELDS: Fields = Fields {
    usual: &["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"],
    titles: &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("Status", "STATUS"),
        ("State", "STATE"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
        ("Labels", "LABELS"),
        ("Mounts", "MOUNTS"),
        ("Networks", "NETWORKS"),
    ],
};

/// List containers
#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Show all containers, not only those that run
    #[arg(short, long)]
    all: bool,
    /// Only those with name=PATTERN, id=PATTERN, status=STATE, label=KEY[=VALUE], exited=CODE or
    /// ancestor=IMAGE; of several with one key any, of labels all
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<Filter>,
    /// Only the last N that were created, in any state
    #[arg(short = 'n', long, value_name = "N", default_value = "-1", hide_default_value = true)]
    last: i64,
    /// Only the last one that was created, in any state
    #[arg(short, long)]
    latest: bool,
    /// Only print ids
    #[arg(short, long)]
    quiet: bool,
    /// Don't shorten ids and commands
    #[arg(long)]
    no_trunc: bool,
    /// How to print the list: table, json, or a template of Go's, such as {{.ID}} {{.Names}}
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    format: Format,
}

impl Ps {
    pub(crate) async fn run(self, daemon: &Daemon) -> Outcome {
        let last = usize::try_from(if self.latest { 1 } else { self.last }).ok().filter(|n| *n > 0);
        let filters = Filters::new(with_ids(daemon, self.filter).await?);
        let request = ListRequest { all: self.all || last.is_some() || filters.name_states() };
        let list = daemon.containers().await?.list(request).await?.into_inner();
        let mut containers = list.containers;
        containers.retain(|container| filters.match_container(container));
        containers.truncate(last.unwrap_or(usize::MAX));
        let truncate = !self.no_trunc;
        if self.quiet {
            for container in &containers {
                say(id(container, truncate));
            }
            return Ok(0);
        }
        let objects: Vec<_> = containers.iter().map(|one| object(one, truncate)).collect();
        FIELDS.print(&self.format, &objects).map(|()| 0)
    }
}

/// Images that containers shall be made of stand with their ids then, where there are such images.
async fn with_ids(daemon: &Daemon, filters: Vec<Filter>) -> Outcome<Vec<Filter>> {
    let mut completed = Vec::new();
    for filter in filters {
        completed.push(match filter {
            Filter::Ancestor(image) => {
                let request = InspectImageRequest { image: image.clone() };
                match daemon.images().await?.inspect(request).await.map_err(Failure::from) {
                    Ok(found) => Filter::Ancestor(found.into_inner().image.unwrap_or_default().id),
                    Err(failure) if failure.is_not_found() => Filter::Ancestor(image),
                    Err(failure) => return Err(failure),
                }
            }
            filter => filter,
        });
    }
    Ok(completed)
}

/// Docker's field names.
fn object(container: &Container, truncate: bool) -> Value {
    let mut labels: Vec<_> =
        container.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.sort();
    json!({
        "ID": id(container, truncate),
        "Image": container.image,
        "Command": command(container, truncate),
        "CreatedAt": human::rfc3339(container.created_at),
        "RunningFor": human::ago(container.created_at),
        "Ports": "",
        "State": state(container),
        "Status": status(container),
        "Names": name(container),
        "Labels": labels.join(","),
        "Mounts": "",
        "Networks": "",
    })
}

fn id(container: &Container, truncate: bool) -> &str {
    if truncate { short(&container.id) } else { &container.id }
}

/// A container of another client has none: its id is what people call it by.
pub(crate) fn name(container: &Container) -> &str {
    if container.name.is_empty() { &container.id } else { &container.name }
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

/// When a container of another client was started is not known.
fn status(container: &Container) -> String {
    let up = || match container.started_at {
        Some(_) => format!("Up {}", human::since(container.started_at)),
        None => "Up".to_owned(),
    };
    match container.state() {
        State::Created => "Created".to_owned(),
        State::Running => up(),
        State::Paused => format!("{} (Paused)", up()),
        State::Exited => match (container.exit_code, container.finished_at) {
            (code, None) => format!("Exited ({code})"),
            (code, at) => format!("Exited ({code}) {}", human::ago(at)),
        },
        State::Unknown => "Unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_of_a_container_is_not_made_up() {
        let container = |state: State| Container {
            id: "theirs".to_owned(),
            state: state.into(),
            ..Container::default()
        };
        assert_eq!(status(&container(State::Running)), "Up");
        assert_eq!(status(&container(State::Paused)), "Up (Paused)");
        assert_eq!(status(&container(State::Exited)), "Exited (0)");
        assert_eq!(name(&container(State::Running)), "theirs");
    }
}
