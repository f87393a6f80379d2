//! Where below a container's cgroup a process is put.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use berth_types::{Error, Result};

use super::Controller;

/// Paths below a container's cgroup: one for all controllers, and on v1 others for some of them.
/// Without any it is the container's cgroup itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Below {
    everywhere: Option<PathBuf>,
    of: BTreeMap<Controller, PathBuf>,
}

impl Below {
    /// Reads what each `--cgroup` of runc-exec(8) says: `PATH` or `CONTROLLER[,CONTROLLER…]:PATH`,
    /// where `/` is the container's cgroup.
    ///
    /// # Errors
    /// InvalidArgument for a path that leads out, an unknown controller, and a second path for
    /// one controller.
    pub fn parse(texts: &[String]) -> Result<Self> {
        let mut below = Self::default();
        for text in texts {
            let twice = match text.split_once(':') {
                None => below.everywhere.replace(names(text)?).is_some(),
                Some((controllers, path)) => below.note(controllers, &names(path)?)?,
            };
            if twice {
                return Err(refused(text, "it gives a second path for one controller"));
            }
        }
        Ok(below)
    }

    /// Whether a controller has had a path before.
    fn note(&mut self, controllers: &str, path: &Path) -> Result<bool> {
        let mut twice = false;
        for name in controllers.split(',') {
            let controller = Controller::from_v1(name)
                .ok_or_else(|| refused(controllers, &format!("there is no controller {name:?}")))?;
            twice |= self.of.insert(controller, path.to_owned()).is_some();
        }
        Ok(twice)
    }

    /// Whether nothing was said.
    pub fn is_unsaid(&self) -> bool {
        *self == Self::default()
    }

    /// The path on v2.
    ///
    /// # Errors
    /// InvalidArgument when a controller has one of its own, which is v1's.
    pub(super) fn unified(&self) -> Result<&Path> {
        match self.of.keys().next() {
            None => Ok(self.everywhere.as_deref().unwrap_or(Path::new(""))),
            Some(controller) => Err(Error::invalid_argument(format!(
                "a control group for {controller} alone: cgroup v2 has one for all controllers"
            ))),
        }
    }

    /// The path in the v1 hierarchy of these controllers.
    pub(super) fn of(&self, controllers: &[Controller]) -> &Path {
        let own = controllers.iter().find_map(|controller| self.of.get(controller));
        own.or(self.everywhere.as_ref()).map_or(Path::new(""), PathBuf::as_path)
    }
}

fn names(text: &str) -> Result<PathBuf> {
    let mut names = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(text, "it leads out of the container's"));
            }
        }
    }
    Ok(names)
}

fn refused(text: &str, why: &str) -> Error {
    Error::invalid_argument(format!("control group {text:?}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    fn parse(texts: &[&str]) -> Result<Below> {
        Below::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn controllers_have_paths_of_their_own() {
        let below = parse(&["cpu,memory:/a/b", "c"]).unwrap();
        assert_eq!(below.of(&[Controller::Cpuacct, Controller::Cpu]), Path::new("a/b"));
        assert_eq!(below.of(&[Controller::Devices]), Path::new("c"));
        assert_eq!(below.unified().unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(parse(&["/"]).unwrap().unified().unwrap(), Path::new(""));
        assert!(!parse(&["/"]).unwrap().is_unsaid());
        assert!(parse(&[]).unwrap().is_unsaid());
    }

    #[test]
    fn what_leads_out_or_says_two_things_is_refused() {
        for bad in [&["../x"][..], &["a/../../b"], &["disk:a"], &["a", "b"], &["cpu:a", "cpu:b"]] {
            assert_eq!(parse(bad).unwrap_err().kind(), Kind::InvalidArgument, "{bad:?}");
        }
    }
}
