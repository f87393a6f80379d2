//! From what was asked of a new container to its specification.

use std::collections::BTreeSet;
use std::path::Path;

use berth_proto::berth::v1::{ContainerOptions, Log, Network as WireNetwork, WindowSize};
use berth_sys::rlimit;
use berth_types::image::ContainerConfig;
use berth_types::spec::{Bind, Network, Options, Spec};
use berth_types::{Error, Result, ResultExt};
use rustix::process::Resource;

use crate::files::Files;

/// The size of a terminal that no client has told.
const TERMINAL: (u16, u16) = (80, 24);

/// The specification of the container `id`.
///
/// # Errors
/// `InvalidArgument` when the options can't be right.
pub(super) fn spec(
    namespace: &str,
    id: &str,
    options: &ContainerOptions,
    image: &ContainerConfig,
    files: &Files,
) -> Result<Spec> {
    let resources = options.resources.unwrap_or_default();
    check_cpus(resources.nano_cpus)?;
    check_log(options.log.as_ref())?;
    let host = is_on_host_network(options);
    let hostname = match &*options.hostname {
        "" if host => nodename(),
        given => given.to_owned(),
    };
    let mut binds = files.binds(options.read_only);
    binds.extend(asked_binds(options)?);
    let mut spec = Spec::from_image(
        image,
        &Options {
            id: id.to_owned(),
            cgroups_path: format!("/{namespace}/{id}"),
            command: options.command.clone(),
            entrypoint: options.entrypoint.clone().map(|list| list.values),
            env: options.env.clone(),
            working_directory: options.working_directory.clone(),
            user: options.user.clone(),
            hostname,
            tty: options.tty,
            console_size: options.tty.then(|| console_size(options.window_size)),
            init: options.init,
            read_only: options.read_only,
            binds,
            network: if host { Network::Host } else { Network::None },
            memory: resources.memory,
            nano_cpus: resources.nano_cpus,
            pids: resources.pids,
        },
    )?;
    lower_limits(&mut spec);
    Ok(spec)
}

/// Asks for no more open files than the daemon may give, which it has said at its start.
fn lower_limits(spec: &mut Spec) {
    let ceiling = rlimit::hard(Resource::Nofile);
    for limit in spec.process.iter_mut().flat_map(|process| &mut process.rlimits) {
        if rlimit::parse(&limit.kind) == Some(Resource::Nofile) {
            (limit.soft, limit.hard) = (limit.soft.min(ceiling), limit.hard.min(ceiling));
        }
    }
}

/// Refuses more processors than there are, as Docker does: what was meant can't be had.
fn check_cpus(nano_cpus: i64) -> Result<()> {
    let mine = rustix::thread::sched_getaffinity(None).map_err(std::io::Error::from);
    let available = mine.context(|| "count the processors")?.count();
    if nano_cpus > i64::from(available) * 1_000_000_000 {
        return Err(Error::invalid_argument(format!(
            "range of CPUs is from 0.01 to {available}.00, as there are only {available} CPUs \
             available"
        )));
    }
    Ok(())
}

/// Only what berth itself writes: what a program would be given is none of a user's of the daemon.
fn check_log(log: Option<&Log>) -> Result<()> {
    match log.map_or("", |log| log.driver.as_str()) {
        "" | "json-file" | "none" => Ok(()),
        other => Err(Error::invalid_argument(format!(
            "no log driver named {other:?} was found: there are json-file and none"
        ))),
    }
}

pub(super) fn is_on_host_network(options: &ContainerOptions) -> bool {
    options.network() == WireNetwork::Host
}

/// A terminal's size as specifications have it.
pub(super) fn console_size(size: Option<WindowSize>) -> (u16, u16) {
    let size = size.map(|WindowSize { width, height }| (width.try_into(), height.try_into()));
    match size {
        Some((Ok(width), Ok(height))) if (width, height) != (0, 0) => (width, height),
        _ => TERMINAL,
    }
}

/// The binds that were asked for, each place once.
fn asked_binds(options: &ContainerOptions) -> Result<Vec<Bind>> {
    let mut places = BTreeSet::new();
    for bind in &options.binds {
        if !places.insert(bind.destination.trim_end_matches('/')) {
            return Err(Error::invalid_argument(format!(
                "Duplicate mount point: {}",
                bind.destination
            )));
        }
    }
    let binds = options.binds.iter().map(|bind| Bind {
        source: bind.source.clone(),
        destination: bind.destination.clone(),
        read_only: bind.read_only,
    });
    Ok(binds.collect())
}

/// Makes the directories of the host that are to be bound and are not there, as Docker does.
///
/// # Errors
/// Those of the disk.
pub(super) fn make_bound_directories(options: &ContainerOptions) -> Result<()> {
    for bind in &options.binds {
        let path = Path::new(&bind.source);
        if std::fs::symlink_metadata(path).is_err() {
            std::fs::create_dir_all(path).context(|| {
                format!("error while creating mount source path '{}'", path.display())
            })?;
        }
    }
    Ok(())
}

fn nodename() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use berth_proto::berth::v1;

    use super::*;

    fn bind(source: &str, destination: &str) -> v1::Bind {
        v1::Bind { source: source.into(), destination: destination.into(), read_only: false }
    }

    #[test]
    fn a_place_is_bound_once() {
        let mut options = ContainerOptions {
            binds: vec![bind("/a", "/x"), bind("/b", "/y")],
            ..Default::default()
        };
        assert_eq!(asked_binds(&options).unwrap().len(), 2);
        options.binds.push(bind("/c", "/x/"));
        assert!(asked_binds(&options).is_err());
    }

    #[test]
    fn there_are_no_more_processors_than_there_are() {
        check_cpus(10_000_000).unwrap();
        let message = check_cpus(1_000_000_000_000_000).unwrap_err().to_string();
        assert!(message.contains("CPUs available"), "{message}");
    }

    #[test]
    fn logs_are_written_by_nobody_else() {
        let log = |driver: &str| Log { driver: driver.to_owned(), ..Log::default() };
        check_log(None).unwrap();
        check_log(Some(&log("none"))).unwrap();
        assert!(check_log(Some(&log("binary:///bin/sh"))).is_err());
    }

    #[test]
    fn terminals_have_a_size() {
        assert_eq!(console_size(None), TERMINAL);
        assert_eq!(console_size(Some(WindowSize { width: 0, height: 0 })), TERMINAL);
        assert_eq!(console_size(Some(WindowSize { width: 1 << 20, height: 1 })), TERMINAL);
        assert_eq!(console_size(Some(WindowSize { width: 100, height: 30 })), (100, 30));
    }

    #[test]
    fn missing_directories_are_made_and_files_left() {
        let directory = tempfile::tempdir().unwrap();
        let (file, new) = (directory.path().join("file"), directory.path().join("a/b"));
        std::fs::write(&file, "content").unwrap();
        let binds = [&file, &new].map(|path| bind(path.to_str().unwrap(), "/x")).to_vec();
        make_bound_directories(&ContainerOptions { binds, ..Default::default() }).unwrap();
        assert!(new.is_dir());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "content");
    }
}
