//! The command-line clients and what they call things.

/// A client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tool {
    /// berth's own.
    Berth,
    /// containerd's.
    Ctr,
    /// Docker's.
    Docker,
}

impl Tool {
    /// A foreground `run --rm` of `command`; `id` names the container where it must be named.
    pub(crate) fn run<'a>(self, image: &'a str, id: &'a str, command: &[&'a str]) -> Vec<&'a str> {
        let run: &[&str] = match self {
            Self::Ctr => &["run", "--rm", image, id],
            _ => &["run", "--rm", "--network", "none", image],
        };
        [run, command].concat()
    }

    /// Starts a container that goes on.
    pub(crate) fn start<'a>(self, image: &'a str, id: &'a str) -> Vec<&'a str> {
        match self {
            Self::Ctr => vec!["run", "-d", image, id, "sleep", "100000"],
            _ => vec!["run", "-d", "--network", "none", "--name", id, image, "sleep", "100000"],
        }
    }

    /// Runs `true` in the running container `id`.
    pub(crate) fn exec<'a>(self, id: &'a str, exec_id: &'a str) -> Vec<&'a str> {
        match self {
            Self::Ctr => vec!["tasks", "exec", "--exec-id", exec_id, id, "true"],
            _ => vec!["exec", id, "true"],
        }
    }

    /// Ends and removes a container: one command or two.
    pub(crate) fn remove(self, id: &str) -> Vec<Vec<&str>> {
        match self {
            Self::Ctr => vec![vec!["tasks", "rm", "-f", id], vec!["containers", "rm", id]],
            _ => vec![vec!["rm", "-f", id]],
        }
    }

    /// Lists what runs.
    pub(crate) fn list(self) -> Vec<&'static str> {
        match self {
            Self::Ctr => vec!["tasks", "ls"],
            _ => vec!["ps"],
        }
    }

    /// Fetches an image.
    pub(crate) fn pull(self, image: &str) -> Vec<&str> {
        match self {
            Self::Ctr => vec!["images", "pull", "--plain-http", image],
            _ => vec!["pull", image],
        }
    }

    /// Removes an image and gives its space back.
    pub(crate) fn remove_image(self, image: &str) -> Vec<&str> {
        match self {
            Self::Ctr => vec!["images", "rm", "--sync", image],
            _ => vec!["rmi", image],
        }
    }
}
