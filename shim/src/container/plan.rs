//! The checked `config.json`: whatever can be wrong with it is found before anything is made.

use std::os::fd::OwnedFd;
use std::path::{Component, PathBuf};

use berth_sys::mount::Propagation;
use berth_sys::namespace::Namespaces;
use berth_types::spec::{self, INIT, Resources, Spec};
use berth_types::{Error, Result};

use super::CreateRequest;
use super::about::About;
use super::clocks::Clocks;
use super::devices::{self, Node};
use super::filter::Filter;
use super::id_maps::IdMaps;
use super::mount_options::{self, MountOptions};
use super::mounts::MountPlan;
use super::namespaces::NamespacePlan;
use super::net_devices::{self, Move};
use super::program::Program;
use super::root_owners;
use super::scheduling::Nodes;
use super::sysctl::{self, Sysctl};

/// Everything that a container's first process needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) about: About,
    pub(super) namespaces: NamespacePlan,
    pub(super) id_maps: IdMaps,
    pub(super) clocks: Clocks,
    pub(super) root: RootPlan,
    pub(super) mounts: Vec<MountPlan>,
    pub(super) devices: Vec<Node>,
    pub(super) net_devices: Vec<Move>,
    pub(super) masked_paths: Vec<PathBuf>,
    pub(super) readonly_paths: Vec<PathBuf>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    pub(super) sysctls: Vec<Sysctl>,
    pub(super) persona: Option<u32>,
    pub(super) nodes: Option<Nodes>,
    pub(super) program: Program,
    pub(super) filter: Option<Filter>,
    pub(super) cgroup: PathBuf,
    pub(super) resources: Resources,
    pub(super) new_keyring: bool,
}

/// The root filesystem.
#[derive(Debug)]
pub(super) struct RootPlan {
    /// Where it is mounted, or lies already.
    pub(super) path: PathBuf,
    /// What is mounted there, one on the other; when there is none, what lies there is the root.
    pub(super) mounts: Vec<RootMount>,
    pub(super) readonly: bool,
    /// It can't be pivoted to, as where the host's root is the kernel's first filesystem.
    pub(super) no_pivot: bool,
    /// `linux.rootfsPropagation`, and whether of the mounts below too.
    pub(super) propagation: Option<(Propagation, bool)>,
}

/// One filesystem of the root's.
#[derive(Debug)]
pub(super) struct RootMount {
    pub(super) mount: spec::Mount,
    pub(super) options: MountOptions,
    /// The owners of its files are mapped by these.
    pub(super) owners: Option<IdMaps>,
    /// The mount, when it is made before the first process.
    pub(super) tree: Option<OwnedFd>,
}

impl RootMount {
    fn check(mount: &spec::Mount) -> Result<Self> {
        let mut options = mount.options.clone();
        let owners = root_owners::take_maps(&mut options)?;
        let options = MountOptions::parse(&options);
        Ok(Self { mount: mount.clone(), options, owners, tree: None })
    }

    pub(super) fn is_overlay(&self) -> bool {
        self.mount.kind.as_deref() == Some("overlay")
    }
}

impl Plan {
    /// Checks what `request` asks for.
    ///
    /// # Errors
    /// InvalidArgument, naming the field; Unimplemented for what is not offered.
    pub(super) fn check(request: &CreateRequest) -> Result<Self> {
        let spec = &request.spec;
        refuse_zero_bytes(spec)?;
        let about = About::check(&request.id, &request.bundle, spec)?;
        let linux = spec.linux.clone().unwrap_or_default();
        refuse_unoffered(&linux)?;
        let process = spec.process.as_ref().ok_or_else(|| missing("process"))?;
        let namespaces = NamespacePlan::check(&linux.namespaces)?;
        let private = namespaces.private();
        let label = linux.mount_label.as_deref();
        let id_maps = IdMaps::check(&linux, namespaces.new)?;
        Ok(Self {
            about,
            mounts: MountPlan::check_all(&spec.mounts, &request.bundle, &id_maps, label)?,
            id_maps,
            clocks: Clocks::check(&linux.time_offsets, namespaces.new)?,
            root: RootPlan::check(request)?,
            devices: devices::check(&linux.devices)?,
            net_devices: net_devices::check(&linux.net_devices, private)?,
            masked_paths: absolute("linux.maskedPaths", &linux.masked_paths)?,
            readonly_paths: absolute("linux.readonlyPaths", &linux.readonly_paths)?,
            hostname: name("hostname", &spec.hostname, private)?,
            domainname: name("domainname", &spec.domainname, private)?,
            sysctls: sysctl::check(&linux.sysctl, private)?,
            persona: persona(&linux)?,
            nodes: linux.memory_policy.as_ref().map(Nodes::check).transpose()?,
            program: Program::check(process, request.preserved_fds)?
                .under_init(spec.annotations.contains_key(INIT)),
            filter: linux.seccomp.as_ref().map(Filter::check).transpose()?,
            cgroup: check_cgroup(cgroup_path(spec, &request.id))?,
            resources: linux.resources.unwrap_or_default(),
            new_keyring: !request.no_new_keyring,
            namespaces,
        })
    }
}

/// The kernel would take what comes before for all of it.
fn refuse_zero_bytes(spec: &Spec) -> Result<()> {
    let linux = spec.linux.as_ref();
    let paths = |list: fn(&spec::Linux) -> &Vec<String>| linux.map(list).into_iter().flatten();
    let root = spec.root.iter().map(|root| ("root.path", &root.path));
    let names = spec.hostname.iter().map(|name| ("hostname", name));
    let domains = spec.domainname.iter().map(|name| ("domainname", name));
    let cgroup = linux.and_then(|linux| linux.cgroups_path.as_ref());
    let mounts = spec.mounts.iter().map(|mount| ("mounts", &mount.destination));
    let sources = spec.mounts.iter().filter_map(|mount| Some(("mounts", mount.source.as_ref()?)));
    let mut all = root
        .chain(names)
        .chain(domains)
        .chain(cgroup.map(|path| ("linux.cgroupsPath", path)))
        .chain(paths(|linux| &linux.masked_paths).map(|path| ("linux.maskedPaths", path)))
        .chain(paths(|linux| &linux.readonly_paths).map(|path| ("linux.readonlyPaths", path)))
        .chain(mounts)
        .chain(sources)
        .chain(spec.process.iter().map(|process| ("process.cwd", &process.cwd)));
    match all.find(|(_, text)| text.contains('\0')) {
        Some((field, text)) => {
            Err(Error::invalid_argument(format!("{field}: {text:?} has a zero byte")))
        }
        None => Ok(()),
    }
}

fn refuse_unoffered(linux: &spec::Linux) -> Result<()> {
    if linux.intel_rdt.is_some() {
        return Err(Error::unimplemented(
            "linux.intelRdt: caches and memory bandwidth are not divided: leave it out",
        ));
    }
    Ok(())
}

impl RootPlan {
    fn check(request: &CreateRequest) -> Result<Self> {
        let CreateRequest { spec, rootfs: mounts, bundle, .. } = request;
        let root = spec.root.as_ref().ok_or_else(|| missing("root"))?;
        if root.path.is_empty() {
            return Err(missing("root.path"));
        }
        let path = bundle.join(&root.path);
        let propagation = spec.linux.as_ref().and_then(|linux| linux.rootfs_propagation.as_deref());
        Ok(Self {
            path,
            mounts: mounts.iter().map(RootMount::check).collect::<Result<_>>()?,
            readonly: root.readonly,
            no_pivot: request.no_pivot,
            propagation: propagation
                .filter(|name| !name.is_empty())
                .map(root_propagation)
                .transpose()?,
        })
    }
}

fn root_propagation(name: &str) -> Result<(Propagation, bool)> {
    mount_options::propagation(name).ok_or_else(|| {
        Error::invalid_argument(format!("linux.rootfsPropagation {name:?} is no propagation"))
    })
}

/// Where the control group of container `id` with this spec is.
pub fn cgroup_path(spec: &Spec, id: &str) -> PathBuf {
    let named = spec.linux.as_ref().and_then(|linux| linux.cgroups_path.as_deref());
    match named.filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        // Without a parent of its own, which would be made and removed with most containers.
        None => PathBuf::from(format!("/berth-{id}")),
    }
}

/// Checks `linux.cgroupsPath`.
fn check_cgroup(path: PathBuf) -> Result<PathBuf> {
    let invalid = |why| Error::invalid_argument(format!("linux.cgroupsPath {path:?} {why}"));
    let text = path.to_str().unwrap_or_default();
    if !text.starts_with('/') && text.split(':').count() == 3 {
        return Err(invalid("is one of systemd's, which has no driver here: give a path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(invalid("has .. in it: name the control group directly"));
    }
    if !path.components().any(|part| matches!(part, Component::Normal(_))) {
        return Err(invalid("names no control group: give it at least one name"));
    }
    Ok(path)
}

fn missing(field: &str) -> Error {
    Error::invalid_argument(format!("the spec has no {field}"))
}

/// The checked paths of `field`, which must be absolute.
fn absolute(field: &str, paths: &[String]) -> Result<Vec<PathBuf>> {
    let check = |path: &String| match path.starts_with('/') {
        true => Ok(PathBuf::from(path)),
        false => Err(Error::invalid_argument(format!("{field}: {path:?} is not an absolute path"))),
    };
    paths.iter().map(check).collect()
}

/// The checked name of a host or domain, which only a UTS namespace of its own may have.
fn name(field: &str, value: &Option<String>, private: Namespaces) -> Result<Option<String>> {
    let Some(value) = value.as_ref().filter(|value| !value.is_empty()) else { return Ok(None) };
    if !private.contains(Namespaces::UTS) {
        let message = format!("{field} needs a uts namespace in linux.namespaces");
        return Err(Error::invalid_argument(message));
    }
    if value.len() > 64 {
        return Err(Error::invalid_argument(format!("{field} has more than 64 bytes")));
    }
    Ok(Some(value.clone()))
}

fn persona(linux: &spec::Linux) -> Result<Option<u32>> {
    /// `PER_LINUX32` of `personality(2)`.
    const PER_LINUX32: u32 = 8;
    let Some(personality) = &linux.personality else { return Ok(None) };
    match (personality.domain.as_str(), personality.flags.is_empty()) {
        ("LINUX", true) => Ok(Some(0)),
        ("LINUX32", true) => Ok(Some(PER_LINUX32)),
        _ => Err(Error::invalid_argument(
            "linux.personality: the domain must be LINUX or LINUX32, without flags",
        )),
    }
}
