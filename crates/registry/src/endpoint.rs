//! Where the repositories of a registry are served: by itself, or by mirrors, as files say that
//! containerd reads too (<https://github.com/containerd/containerd/blob/main/docs/hosts.md>).
//!
//! ```text
//! DIRECTORY/HOST_PORT_/  or  DIRECTORY/HOST:PORT/  or  DIRECTORY/_default/
//!     hosts.toml                      mirrors in their order, and the registry itself
//!     *.crt   *.cert with *.key       without hosts.toml: authorities and client certificates
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use berth_types::{Error, Result, ResultExt};
use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use crate::client::{DOCKER_HUB_HOST, domain_of};

/// Where some registry's repositories are served.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// What paths begin with: `https://HOST/v2`.
    pub(crate) url: Url,
    /// Sent with each request, so that one mirror can serve several registries.
    pub(crate) registry: Option<String>,
    /// Sent with each request.
    pub(crate) headers: HeaderMap,
    /// What it is asked for.
    pub(crate) tasks: Vec<Task>,
    /// Files with certificates of authorities to trust besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Files with certificates and keys that show who asks: of these, the first that will do.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    /// Whether any certificate will do.
    pub(crate) skip_verify: bool,
}

/// What a registry can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Task {
    /// Manifests and blobs by digest.
    Pull,
    /// What a tag points at.
    Resolve,
    /// To take what is sent.
    Push,
}

/// `hosts.toml`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Hosts {
    server: String,
    #[serde(flatten)]
    of_server: Settings,
    host: BTreeMap<String, Spanned<Settings>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    capabilities: Vec<Task>,
    ca: Option<Texts>,
    client: Option<Shown>,
    skip_verify: bool,
    header: BTreeMap<String, Texts>,
    override_path: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn all(self) -> Vec<String> {
        match self {
            Texts::One(text) => vec![text],
            Texts::Many(texts) => texts,
        }
    }
}

/// Files with both parts, or pairs of files.
#[derive(Deserialize)]
#[serde(untagged)]
enum Shown {
    Both(String),
    Listed(Vec<String>),
    Apart(Vec<(String, String)>),
}

/// The endpoints of the registry `domain` in the order in which they are asked. The registry
/// itself, as references name it, comes after them unless the second value is false.
///
/// # Errors
/// `FailedPrecondition` for what can't be understood; those of reading.
pub(crate) fn of(directories: &[PathBuf], domain: &str) -> Result<(Vec<Endpoint>, bool)> {
    let names = [domain.replace(':', "_") + "_", domain.to_owned(), "_default".to_owned()];
    let names = &names[usize::from(!domain.contains(':'))..];
    let mut places =
        directories.iter().flat_map(|directory| names.iter().map(|name| directory.join(name)));
    let Some(place) = places.find(|place| place.is_dir()) else {
        return Ok((Vec::new(), true));
    };
    let file = place.join("hosts.toml");
    match fs::read_to_string(&file) {
        Ok(text) => parse(&text, &place, domain).context(|| file.display().to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => beside(&place, domain),
        Err(error) => Err(Error::io(format!("read {}", file.display()), &error)),
    }
}

fn parse(text: &str, place: &Path, domain: &str) -> Result<(Vec<Endpoint>, bool)> {
    let malformed = |error: toml::de::Error| Error::failed_precondition(error.to_string());
    let hosts: Hosts = toml::from_str(text).map_err(malformed)?;
    let mut mirrors: Vec<_> = hosts.host.into_iter().collect();
    mirrors.sort_by_key(|(_, settings)| settings.span().start);
    let mut endpoints = Vec::new();
    for (url, settings) in mirrors {
        endpoints.push(endpoint(&url, settings.into_inner(), place, domain)?);
    }
    let is_itself = hosts.server.is_empty();
    if !is_itself {
        endpoints.push(endpoint(&hosts.server, hosts.of_server, place, domain)?);
    }
    Ok((endpoints, is_itself))
}

/// Certificates in a directory without `hosts.toml`, as Docker has them.
fn beside(place: &Path, domain: &str) -> Result<(Vec<Endpoint>, bool)> {
    let with = |end: &str| -> Result<Vec<PathBuf>> {
        let what = || format!("read {}", place.display());
        let mut found = Vec::new();
        for entry in fs::read_dir(place).context(what)? {
            let path = entry.context(what)?.path();
            if path.extension().is_some_and(|extension| extension == end) {
                found.push(path);
            }
        }
        found.sort();
        Ok(found)
    };
    let (ca, certificates) = (with("crt")?, with("cert")?);
    if ca.is_empty() && certificates.is_empty() {
        return Ok((Vec::new(), true));
    }
    let with_key = |path: PathBuf| (path.clone(), path.with_extension("key"));
    let client = certificates.into_iter().map(with_key).collect();
    let itself = endpoint(&address(domain), Settings::default(), place, domain)?;
    Ok((vec![Endpoint { ca, client, ..itself }], false))
}

fn endpoint(text: &str, settings: Settings, place: &Path, domain: &str) -> Result<Endpoint> {
    let what = || format!("host {text:?}");
    let with_scheme =
        if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let mut url = Url::parse(&with_scheme)
        .map_err(|error| Error::failed_precondition(format!("{}: {error}", what())))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(Error::failed_precondition(format!("{}: http:// or https:// it is", what())));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !settings.override_path && !path.ends_with("/v2") {
        url.set_path(&format!("{path}/v2"));
    }
    let is_itself = domain_of(&url) == domain;
    let inside = |file: String| place.join(file);
    let mut tasks = settings.capabilities;
    if tasks.is_empty() {
        tasks = vec![Task::Pull, Task::Resolve, Task::Push];
    }
    Ok(Endpoint {
        url,
        registry: (!is_itself).then(|| domain.to_owned()),
        headers: headers(settings.header).context(what)?,
        tasks,
        ca: settings.ca.map(Texts::all).unwrap_or_default().into_iter().map(inside).collect(),
        client: settings.client.map(|client| pairs(client, place)).unwrap_or_default(),
        skip_verify: settings.skip_verify,
    })
}

fn address(domain: &str) -> String {
    format!("https://{}", if domain == "docker.io" { DOCKER_HUB_HOST } else { domain })
}

fn pairs(client: Shown, place: &Path) -> Vec<(PathBuf, PathBuf)> {
    let both = |file: String| (place.join(&file), place.join(file));
    match client {
        Shown::Both(file) => vec![both(file)],
        Shown::Listed(files) => files.into_iter().map(both).collect(),
        Shown::Apart(pairs) => {
            let inside =
                |(certificate, key)| (place.join::<String>(certificate), place.join::<String>(key));
            pairs.into_iter().map(inside).collect()
        }
    }
}

fn headers(given: BTreeMap<String, Texts>) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let no_header = || Error::failed_precondition(format!("{name:?} is no header"));
        let key = HeaderName::try_from(&name).map_err(|_| no_header())?;
        for value in values.all() {
            let value = HeaderValue::try_from(value).map_err(|_| no_header())?;
            headers.append(key.clone(), value);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<(Vec<Endpoint>, bool)> {
        parse(text, Path::new("/certs.d/r.example.com"), "r.example.com")
    }

    #[test]
    fn mirrors_keep_their_order_and_the_server_comes_last() {
        let text = r#"
            server = "https://r.example.com"
            ca = "own.crt"
            [host."https://z.example.com"]
            capabilities = ["pull", "resolve"]
            client = [["a.cert", "a.key"]]
            header = { X-One = "1", x-many = ["2", "3"] }
            [host."http://a.example.com:5000/prefix"]
            skip_verify = true
            [host."m.example.com/whole"]
            override_path = true
        "#;
        let (endpoints, itself) = parsed(text).unwrap();
        assert!(!itself);
        let urls: Vec<_> = endpoints.iter().map(|endpoint| endpoint.url.as_str()).collect();
        let expected = [
            "https://z.example.com/v2",
            "http://a.example.com:5000/prefix/v2",
            "https://m.example.com/whole",
            "https://r.example.com/v2",
        ];
        assert_eq!(urls, expected);
        let first = &endpoints[0];
        assert_eq!(first.tasks, [Task::Pull, Task::Resolve]);
        let inside = |file: &str| Path::new("/certs.d/r.example.com").join(file);
        assert_eq!(first.client, [(inside("a.cert"), inside("a.key"))]);
        let client = |text: &str| {
            let text = format!("[host.\"https://x\"]\nclient = {text}\n");
            parsed(&text).unwrap().0.remove(0).client
        };
        assert_eq!(client(r#""a""#), [(inside("a"), inside("a"))]);
        let two = [(inside("a"), inside("a")), (inside("b"), inside("b"))];
        assert_eq!(client(r#"["a", "b"]"#), two);
        let two = [(inside("a"), inside("b")), (inside("c"), inside("d"))];
        assert_eq!(client(r#"[["a", "b"], ["c", "d"]]"#), two);
        assert_eq!(first.headers.get_all("x-many").iter().count(), 2);
        assert_eq!(first.registry.as_deref(), Some("r.example.com"));
        let server = &endpoints[3];
        assert_eq!(server.ca, [Path::new("/certs.d/r.example.com/own.crt")]);
        assert_eq!((server.registry.as_deref(), server.tasks.len()), (None, 3));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for text in [
            "[host.\"ftp://x\"]",
            "[host.\"https://\"]",
            "[host.\"https://x\"]\ncapabilities = [\"fly\"]",
            "[host.\"https://x\"]\nclient = [[\"a\", \"b\", \"c\"]]",
            "[host.\"https://x\"]\nheader = { \"a b\" = \"c\" }",
            "server",
        ] {
            assert!(parsed(text).is_err(), "{text}");
        }
        assert!(parsed("").unwrap().1);
    }

    #[test]
    fn the_nearest_directory_counts() {
        let directory = tempfile::tempdir().unwrap();
        let nearer = directory.path().join("nearer");
        let directories = [nearer.clone(), directory.path().to_owned()];
        let found = |domain: &str| {
            let (endpoints, _) = of(&directories, domain).unwrap();
            endpoints.first().map(|endpoint| endpoint.url.host_str().unwrap().to_owned())
        };
        assert_eq!(found("r:5000"), None);
        for name in ["_default", "r:5000", "r_5000_"] {
            let place = directory.path().join(name);
            fs::create_dir(&place).unwrap();
            let mirror = name.replace([':', '_'], "-x");
            fs::write(place.join("hosts.toml"), format!("[host.\"https://{mirror}\"]\n")).unwrap();
            assert_eq!(found("r:5000"), Some(mirror));
        }
        assert_eq!(found("other"), Some("-xdefault".into()));
        let place = directory.path().join("certs");
        fs::create_dir(&place).unwrap();
        for name in ["a.crt", "b.cert", "b.key"] {
            fs::write(place.join(name), "").unwrap();
        }
        let (endpoints, itself) = of(&directories, "certs").unwrap();
        assert!(!itself);
        assert_eq!(endpoints[0].ca, [place.join("a.crt")]);
        assert_eq!(endpoints[0].client, [(place.join("b.cert"), place.join("b.key"))]);
        fs::create_dir_all(nearer.join("_default")).unwrap();
        fs::write(nearer.join("_default/hosts.toml"), "[host.\"https://near\"]\n").unwrap();
        assert_eq!(found("r:5000").as_deref(), Some("near"));
    }
}
