//! What somebody asks of a new container or of a further process in it, over what its image says.

use crate::image::ContainerConfig;
use crate::signal::{self, SIGTERM};
use crate::{Error, Result};

use super::{ConsoleSize, Cpu, Memory, Mount, Pids, Process, Spec};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The quota's period in microseconds.
const CPU_PERIOD: u64 = 100_000;
/// A hundredth of a processor: the kernel's least quota is a millisecond.
const LEAST_NANO_CPUS: i64 = 10_000_000;
/// What a runtime needs to start a process at all.
const LEAST_MEMORY: i64 = 6 << 20;

/// The annotation of a container whose program runs under an init of the runtime's, which hands on
/// signals and waits for orphans. Its value doesn't matter.
pub const INIT: &str = "berth.io/init";

/// The longest name that `sethostname(2)` takes, in bytes.
const LONGEST_HOSTNAME: usize = 64;

/// How a container departs from its image's configuration and from the defaults. Empty and zero
/// values leave things as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The container's id, of which the hostname is made.
    pub id: String,
    /// Its cgroup, an absolute path in each hierarchy.
    pub cgroups_path: String,
    /// Replaces the image's command.
    pub command: Vec<String>,
    /// Replaces the image's entrypoint, also by nothing, and drops the image's command.
    pub entrypoint: Option<Vec<String>>,
    /// `KEY=VALUE` over the image's; `KEY` alone takes it away.
    pub env: Vec<String>,
    /// An absolute path.
    pub working_directory: String,
    /// `user`, `uid`, `user:group` or `uid:gid`.
    pub user: String,
    /// The name of the machine that the container sees.
    pub hostname: String,
    /// A terminal for its first process.
    pub tty: bool,
    /// That terminal's first size: columns and rows.
    pub console_size: Option<(u16, u16)>,
    /// The program runs under an init.
    pub init: bool,
    /// A root file system that can't be written to.
    pub read_only: bool,
    /// Directories and files of the host.
    pub binds: Vec<Bind>,
    /// Its network.
    pub network: Network,
    /// Memory in bytes; as much again of swap.
    pub memory: i64,
    /// Processor time in billionths of a processor.
    pub nano_cpus: i64,
    /// How many tasks.
    pub pids: i64,
}

/// A directory or file of the host in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bind {
    /// An absolute path on the host.
    pub source: String,
    /// An absolute path in the container.
    pub destination: String,
    /// Without writing to it.
    pub read_only: bool,
}

/// The network of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// A netns with the loopback interface only.
    #[default]
    None,
    /// The host's netns.
    Host,
}

/// What somebody asks of a further process in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOptions {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// `KEY=VALUE` over the container's; `KEY` alone takes it away.
    pub env: Vec<String>,
    /// An absolute path; empty is the container's.
    pub working_directory: String,
    /// As in [`Options::user`]; empty is the container's.
    pub user: String,
    /// A terminal.
    pub tty: bool,
    /// Its first size: columns and rows.
    pub console_size: Option<(u16, u16)>,
}

impl Spec {
    /// The specification of a container from an image.
    ///
    /// The user stands as text in `process.user.username`: who it is can only be looked up in the
    /// container's files, which the runtime does with [`crate::user::resolve`].
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when there is no command, a path is
    /// not absolute, or a limit is below what a container can live with.
    pub fn from_image(image: &ContainerConfig, options: &Options) -> Result<Self> {
        let mut spec = Self::container(&options.cgroups_path);
        let hostname = hostname(options)?;
        if let Some(process) = &mut spec.process {
            process.args = args(image, options)?;
            process.cwd = working_directory(&options.working_directory, &image.working_dir)?;
            process.env = environment(image, options, &hostname)?;
            process.user.username =
                Some(first(&options.user, &image.user)).filter(|u| !u.is_empty());
            terminal(process, options.tty, options.console_size);
        }
        spec.hostname = Some(hostname);
        if options.init {
            spec.annotations.insert(INIT.to_owned(), String::new());
        }
        if let Some(root) = &mut spec.root {
            root.readonly = options.read_only;
        }
        bind(&mut spec.mounts, &options.binds)?;
        if let Some(linux) = &mut spec.linux {
            if options.network == Network::Host {
                linux.namespaces.retain(|namespace| namespace.kind != "network");
            }
            let resources = linux.resources.get_or_insert_default();
            resources.memory = memory(options.memory)?;
            resources.cpu = cpu(options.nano_cpus)?;
            resources.pids = (options.pids > 0).then_some(Pids { limit: Some(options.pids) });
        }
        Ok(spec)
    }
}

impl Process {
    /// A further process beside this one, with the same rights.
    ///
    /// # Errors
    /// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when there is no command or the
    /// directory is not absolute.
    pub fn exec(&self, options: &ExecOptions) -> Result<Self> {
        if options.command.is_empty() {
            return Err(Error::invalid_argument("no command: name a program to run"));
        }
        let mut process = self.clone();
        process.args = options.command.clone();
        process.cwd = working_directory(&options.working_directory, &self.cwd)?;
        terminal(&mut process, options.tty, options.console_size);
        if options.tty && !has(&process.env, "TERM") {
            process.env.push("TERM=xterm".to_owned());
        }
        override_env(&mut process.env, &options.env)?;
        if !options.user.is_empty() {
            process.user = super::User::default();
            process.user.username = Some(options.user.clone());
        }
        Ok(process)
    }
}

/// The signal that asks a container of the image to end, SIGTERM unless the image says otherwise.
///
/// # Errors
/// [`Kind::InvalidArgument`](crate::Kind::InvalidArgument) when the image names no signal.
pub fn stop_signal(image: &ContainerConfig) -> Result<i32> {
    match image.stop_signal.as_str() {
        "" => Ok(SIGTERM),
        name => signal::parse(name),
    }
}

fn first(ours: &str, theirs: &str) -> String {
    if ours.is_empty() { theirs } else { ours }.to_owned()
}

/// As Docker: the short id, where nobody chose. One that was chosen is also written to files of
/// the container, so it can't have blanks.
fn hostname(options: &Options) -> Result<String> {
    let hostname = &options.hostname;
    if hostname.len() > LONGEST_HOSTNAME
        || hostname.contains(|c: char| c.is_whitespace() || c.is_control())
    {
        return Err(Error::invalid_argument(format!(
            "invalid hostname {hostname:?}: it has at most {LONGEST_HOSTNAME} bytes, no blanks and \
             no control characters"
        )));
    }
    Ok(first(hostname, &options.id.chars().take(12).collect::<String>()))
}

/// As Docker: a new entrypoint doesn't get the command that was meant for the old one.
fn args(image: &ContainerConfig, options: &Options) -> Result<Vec<String>> {
    let (entrypoint, default) = match &options.entrypoint {
        Some(entrypoint) => (entrypoint.as_slice(), [].as_slice()),
        None => (image.entrypoint.as_slice(), image.cmd.as_slice()),
    };
    let command = if options.command.is_empty() { default } else { &options.command };
    let entrypoint = if entrypoint == [""] { &[] } else { entrypoint };
    let args: Vec<_> = entrypoint.iter().chain(command).cloned().collect();
    match args.is_empty() {
        true => Err(Error::invalid_argument(
            "no command specified: the image names none, so give one after the image",
        )),
        false => Ok(args),
    }
}

fn working_directory(ours: &str, theirs: &str) -> Result<String> {
    match first(ours, theirs) {
        path if path.is_empty() => Ok("/".to_owned()),
        path if path.starts_with('/') => Ok(path),
        path => Err(Error::invalid_argument(format!(
            "the working directory {path:?} is invalid: it needs to be an absolute path"
        ))),
    }
}

fn environment(image: &ContainerConfig, options: &Options, hostname: &str) -> Result<Vec<String>> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if options.tty {
        env.push("TERM=xterm".to_owned());
    }
    override_env(&mut env, &image.env)?;
    override_env(&mut env, &options.env)?;
    Ok(env)
}

/// Lets each of `over` replace the variable of its name, or be added.
fn override_env(env: &mut Vec<String>, over: &[String]) -> Result<()> {
    for variable in over {
        let (name, value) =
            variable.split_once('=').map_or((variable.as_str(), None), |(n, v)| (n, Some(v)));
        if name.is_empty() || variable.contains('\0') {
            return Err(Error::invalid_argument(format!(
                "environment variable {variable:?} has no name: write NAME=VALUE"
            )));
        }
        let present = env.iter_mut().find(|one| is_named(one, name));
        match (value, present) {
            (Some(_), Some(present)) => present.clone_from(variable),
            (Some(_), None) => env.push(variable.clone()),
            (None, _) => drop_variable(env, name),
        }
    }
    Ok(())
}

fn has(env: &[String], name: &str) -> bool {
    env.iter().any(|one| is_named(one, name))
}

fn drop_variable(env: &mut Vec<String>, name: &str) {
    env.retain(|one| !is_named(one, name));
}

fn is_named(variable: &str, name: &str) -> bool {
    variable.strip_prefix(name).is_some_and(|rest| rest.starts_with('='))
}

fn terminal(process: &mut Process, tty: bool, size: Option<(u16, u16)>) {
    process.terminal = tty;
    process.console_size =
        size.filter(|_| tty).map(|(width, height)| ConsoleSize { height, width });
}

/// Adds the binds, those nearer to the root first, in place of default mounts on the same spot.
fn bind(mounts: &mut Vec<Mount>, binds: &[Bind]) -> Result<()> {
    let mut binds: Vec<_> = binds.iter().collect();
    binds.sort_by_key(|bind| parts(&bind.destination).count());
    for bind in binds {
        for path in [&bind.source, &bind.destination] {
            if !path.starts_with('/') || path.contains('\0') || parts(path).any(|part| part == "..")
            {
                return Err(Error::invalid_argument(format!(
                    "invalid mount path {path:?}: it must be absolute and without \"..\""
                )));
            }
        }
        if parts(&bind.destination).next().is_none() {
            return Err(Error::invalid_argument("invalid mount: the destination can't be \"/\""));
        }
        mounts.retain(|mount| !parts(&mount.destination).eq(parts(&bind.destination)));
        let access = if bind.read_only { "ro" } else { "rw" };
        mounts.push(Mount {
            destination: bind.destination.clone(),
            kind: Some("bind".to_owned()),
            source: Some(bind.source.clone()),
            options: ["rbind", "rprivate", access].map(str::to_owned).to_vec(),
            ..Mount::default()
        });
    }
    Ok(())
}

fn parts(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|part| !part.is_empty() && *part != ".")
}

fn memory(bytes: i64) -> Result<Option<Memory>> {
    match bytes {
        ..=0 => Ok(None),
        1..LEAST_MEMORY => Err(Error::invalid_argument(format!(
            "the memory limit {bytes} is too low: the minimum is 6 MiB"
        ))),
        _ => Ok(Some(Memory {
            limit: Some(bytes),
            swap: Some(bytes.saturating_mul(2)),
            ..Memory::default()
        })),
    }
}

fn cpu(nano_cpus: i64) -> Result<Option<Cpu>> {
    match nano_cpus {
        ..=0 => Ok(None),
        1..LEAST_NANO_CPUS => {
            Err(Error::invalid_argument("the CPU limit is too low: the minimum is 0.01"))
        }
        // A whole processor is a quota of one period: 10^9 / 10^5.
        _ => Ok(Some(Cpu {
            quota: Some(nano_cpus / 10_000),
            period: Some(CPU_PERIOD),
            ..Cpu::default()
        })),
    }
}
