//! The flags that say how a container is to be made, shared by `run` and `create`.

use berth_proto::berth::v1::{Bind, ContainerOptions, Network, Resources, StringList};
use clap::{Args, ValueEnum};

use crate::environment::{Environment, parse_named};
use crate::failure::Outcome;
use crate::parse::Words;
use crate::{human, logging, terminal};

/// When to fetch the image.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum PullPolicy {
    /// Always ask the registry
    Always,
    /// Only if it is not here
    #[default]
    Missing,
    /// Never
    Never,
}

/// The networks there are.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum NetworkName {
    /// A network namespace of its own with only the loopback interface
    #[default]
    None,
    /// The host's network
    Host,
}

/// How a container is to be made.
#[derive(Args, Debug)]
pub(crate) struct MakeOptions {
    /// Assign a name to the container
    #[arg(long)]
    name: Option<String>,
    /// Keep standard input open
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    #[command(flatten)]
    environment: Environment,
    /// Working directory inside the container
    #[arg(short, long)]
    workdir: Option<String>,
    /// User name or id, and optionally group: <name|uid>[:<group|gid>]
    #[arg(short, long)]
    user: Option<String>,
    /// Container host name
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Memory limit, in bytes or with a unit: b, k, m or g
    #[arg(short, long, value_parser = human::parse_size)]
    memory: Option<i64>,
    /// Number of processors, such as 1.5
    #[arg(long, value_parser = parse_cpus)]
    cpus: Option<i64>,
    /// Limit of processes; -1 for none
    #[arg(long, allow_negative_numbers = true)]
    pids_limit: Option<i64>,
    /// Bind mount a host path, read-only with ro
    #[arg(short, long, value_name = "HOST:CONTAINER[:ro]", value_parser = parse_bind)]
    volume: Vec<Bind>,
    /// Mount the container's root filesystem read-only
    #[arg(long)]
    read_only: bool,
    /// The container's network. There is no bridge network yet: without this flag a container
    /// has a loopback interface and nothing else
    #[arg(long = "network", visible_alias = "net", value_enum, default_value_t)]
    network: NetworkName,
    /// Overwrite the image's entrypoint; an empty one removes it
    #[arg(long)]
    entrypoint: Option<String>,
    /// Set labels on the container
    #[arg(short, long, value_name = "KEY[=VALUE]", value_parser = parse_named)]
    label: Vec<String>,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// Where the output is kept
    #[arg(long, value_enum, default_value_t)]
    log_driver: logging::Driver,
    /// Options of json-file: max-size (bytes, or with a unit: k, m or g) and max-file
    #[arg(long, value_name = "KEY=VALUE", value_parser = logging::parse_option)]
    log_opt: Vec<logging::Opt>,
    /// When to fetch the image
    #[arg(long, value_enum, default_value_t)]
    pull: PullPolicy,
    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command that replaces the image's own
    #[command(subcommand)]
    words: Words,
}

impl MakeOptions {
    /// The options as the daemon takes them.
    pub(crate) fn into_message(self) -> Outcome<ContainerOptions> {
        let (image, command) = self.words.split();
        let values = |entrypoint: String| match entrypoint.as_str() {
            "" => Vec::new(),
            _ => vec![entrypoint],
        };
        Ok(ContainerOptions {
            name: self.name.unwrap_or_default(),
            image,
            command,
            entrypoint: self.entrypoint.map(|text| StringList { values: values(text) }),
            env: self.environment.variables()?,
            working_directory: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            hostname: self.hostname.unwrap_or_default(),
            tty: self.tty,
            stdin: self.interactive,
            remove: self.rm,
            read_only: self.read_only,
            binds: self.volume,
            network: match self.network {
                NetworkName::None => Network::None,
                NetworkName::Host => Network::Host,
            }
            .into(),
            resources: Some(Resources {
                memory: self.memory.unwrap_or_default(),
                nano_cpus: self.cpus.unwrap_or_default(),
                pids: self.pids_limit.unwrap_or_default().max(0),
            }),
            window_size: if self.tty { terminal::window_size() } else { None },
            labels: self.label.iter().map(|label| key_value(label)).collect(),
            pull: match self.pull {
                PullPolicy::Always => "always",
                PullPolicy::Missing => "missing",
                PullPolicy::Never => "never",
            }
            .to_owned(),
            init: self.init,
            log: Some(logging::log(self.log_driver, &self.log_opt)?),
        })
    }
}

fn key_value(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

/// `HOST:CONTAINER[:ro|rw]`, both absolute.
fn parse_bind(text: &str) -> Result<Bind, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, read_only) = match parts[..] {
        [source, destination] | [source, destination, "rw"] => (source, destination, false),
        [source, destination, "ro"] => (source, destination, true),
        [place] if place.starts_with('/') => {
            return Err("anonymous volumes are not there yet: give HOST:CONTAINER".to_owned());
        }
        _ => return Err("give HOST:CONTAINER, and ro or rw after a further colon".to_owned()),
    };
    if !source.starts_with('/') {
        return Err(format!("{source:?} is not an absolute path; named volumes are not there yet"));
    }
    if !destination.starts_with('/') {
        return Err(format!("invalid mount path: {destination:?} must be absolute"));
    }
    Ok(Bind { source: source.to_owned(), destination: destination.to_owned(), read_only })
}

/// Processors with up to nine decimals, in billionths.
fn parse_cpus(text: &str) -> Result<i64, String> {
    let invalid = || format!("{text:?} is not a number of processors such as 1.5");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let fits = fraction.len() <= 9 && whole.len() <= 6;
    if !digits(whole) || !digits(fraction) || !fits || text.len() <= text.matches('.').count() {
        return Err(invalid());
    }
    format!("{whole}{fraction:0<9}").parse().map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors() {
        let cases = [("1.5", 1_500_000_000), ("2", 2_000_000_000), (".25", 250_000_000)];
        for (text, nanos) in cases {
            assert_eq!(parse_cpus(text), Ok(nanos));
        }
        for text in ["", ".", "-1", "1.0000000001", "x", "1.5.5"] {
            assert!(parse_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn binds() {
        let bind = parse_bind("/a:/b:ro").expect("a bind");
        assert_eq!((bind.source.as_str(), bind.destination.as_str()), ("/a", "/b"));
        assert!(bind.read_only);
        for text in ["/a", "a:/b", "/a:b", "/a:/b:x", "/a:/b:ro:rw"] {
            assert!(parse_bind(text).is_err(), "{text}");
        }
    }
}
