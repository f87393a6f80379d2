//! The rule for topics.

use berth_types::{Error, Result, id};

/// Checks a topic by containerd's rule: `/` before each of its one or more components, which are
/// identifiers.
pub(crate) fn validate(topic: &str) -> Result<()> {
    let Some(components) = topic.strip_prefix('/').filter(|rest| !rest.is_empty()) else {
        return Err(Error::invalid_argument(format!(
            "topic {topic:?} must be '/' and a name, as in \"/tasks/exit\""
        )));
    };
    components.split('/').try_for_each(|component| id::validate("component of a topic", component))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_slash_and_identifier() {
        for topic in ["/a", "/tasks/exit", "/my.org/thing-1"] {
            assert!(validate(topic).is_ok(), "{topic}");
        }
        for topic in ["", "/", "a", "tasks/exit", "//a", "/a/", "/a//b", "/a b"] {
            assert!(validate(topic).is_err(), "{topic}");
        }
    }
}
