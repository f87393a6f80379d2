//! `--filter`: which containers a list has.

use std::mem::discriminant;
use std::str::FromStr;

use berth_proto::berth::v1::Container;
use berth_types::Reference;
use regex::bytes::{Regex, RegexBuilder};

use crate::commands::ps::{name, state};

/// Docker's states. Some of them no container of ours is ever in.
const STATES: [&str; 7] =
    ["created", "restarting", "running", "removing", "paused", "exited", "dead"];

/// One condition.
#[derive(Clone, Debug)]
pub(crate) enum Filter {
    /// The name has this in it.
    Name(Regex),
    /// The id has this in it.
    Id(Regex),
    /// It is in this state.
    Status(String),
    /// It has a label of this key, and with this value.
    Label(String, Option<String>),
    /// It ended with this status.
    Exited(u32),
    /// It was made of this image.
    Ancestor(String),
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((key, value)) = text.split_once('=') else {
            return Err("give KEY=VALUE".to_owned());
        };
        let pattern = || pattern(value).map_err(|_| format!("{value:?} is no pattern"));
        Ok(match key {
            "name" => Self::Name(pattern()?),
            "id" => Self::Id(pattern()?),
            "status" if STATES.contains(&value) => Self::Status(value.to_owned()),
            "status" => return Err(format!("give one of {}", STATES.join(", "))),
            "label" => match value.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(value.to_owned(), None),
            },
            "exited" => Self::Exited(value.parse().map_err(|_| "give an exit status")?),
            "ancestor" => Self::Ancestor(value.to_owned()),
            _ => {
                return Err(
                    "there are filters by name, id, status, label, exited and ancestor".to_owned()
                );
            }
        })
    }
}

/// As in Go, classes such as `\d` are of ASCII.
fn pattern(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).unicode(false).build()
}

impl Filter {
    fn matches(&self, container: &Container) -> bool {
        match self {
            // Docker's API has a slash before names, and scripts look for it.
            Self::Name(pattern) => {
                let name = name(container);
                pattern.is_match(name.as_bytes()) || pattern.is_match(format!("/{name}").as_bytes())
            }
            Self::Id(pattern) => pattern.is_match(container.id.as_bytes()),
            Self::Status(wanted) => state(container) == wanted,
            Self::Label(key, None) => container.labels.contains_key(key),
            Self::Label(key, Some(value)) => container.labels.get(key) == Some(value),
            Self::Exited(code) => state(container) == "exited" && container.exit_code == *code,
            Self::Ancestor(image) => is_of(container, image),
        }
    }
}

/// Whether a container was made of an image: by its id, or the name that was given.
fn is_of(container: &Container, image: &str) -> bool {
    let canonical =
        |name: &str| name.parse::<Reference>().ok().map(|name| name.canonical().to_string());
    container.image_id == image
        || canonical(&container.image).is_some_and(|name| Some(name) == canonical(image))
}

/// All conditions. Of those of one kind one must hold, of labels all.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Filter>);

impl Filters {
    pub(crate) fn new(filters: Vec<Filter>) -> Self {
        Self(filters)
    }

    /// Whether states are asked for, and so not only containers that run.
    pub(crate) fn name_states(&self) -> bool {
        self.0.iter().any(|filter| matches!(filter, Filter::Status(_)))
    }

    /// Whether a container is to be listed.
    pub(crate) fn match_container(&self, container: &Container) -> bool {
        self.0.iter().all(|filter| match filter {
            Filter::Label(..) => filter.matches(container),
            _ => self
                .0
                .iter()
                .filter(|other| discriminant(*other) == discriminant(filter))
                .any(|other| other.matches(container)),
        })
    }
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::v1::State;

    use super::*;

    #[test]
    fn conditions_of_one_kind_are_alternatives_and_labels_are_not() {
        let container = Container {
            id: "0123".into(),
            name: "web-1".into(),
            image: "busybox".into(),
            image_id: "sha256:77".into(),
            state: State::Exited.into(),
            exit_code: 3,
            labels: [("a".into(), "b".into()), ("c".into(), String::new())].into(),
            ..Container::default()
        };
        let cases: [(&[&str], bool); 16] = [
            (&[], true),
            (&["name=web"], true),
            (&["name=^/?web-1$"], true),
            (&["name=^/web-1$"], true),
            (&["name=^eb"], false),
            (&[r"name=-\d$"], true),
            (&["name=other", "name=web"], true),
            (&["name=web", "status=running"], false),
            (&["status=running", "status=exited"], true),
            (&["label=a"], true),
            (&["label=a=b", "label=c"], true),
            (&["label=a=b", "label=d"], false),
            (&["exited=3", "id=12"], true),
            (&["exited=0"], false),
            (&["ancestor=docker.io/library/busybox:latest"], true),
            (&["ancestor=sha256:77"], true),
        ];
        for (texts, expected) in cases {
            let filters = Filters::new(texts.iter().map(|text| text.parse().unwrap()).collect());
            assert_eq!(filters.match_container(&container), expected, "{texts:?}");
        }
        for text in ["name", "nosuch=x", "status=up", "exited=x", "name=("] {
            assert!(text.parse::<Filter>().is_err(), "{text}");
        }
    }
}
