//! One repository of a registry: its manifests and blobs.

use std::sync::{Arc, Mutex, PoisonError};

use berth_types::image::{Descriptor, MAX_SIZE, media_type};
use berth_types::{Digest, Error, Kind, Reference, Result, ResultExt};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, Url};
use tokio::sync::OnceCell;

use crate::blob::Blob;
use crate::body::Body;
use crate::client::{Client, domain_of};
use crate::config::{Credentials, Patience};
use crate::endpoint::{Endpoint, Task};

const DIGEST_HEADER: &str = "docker-content-digest";

/// A repository on behalf of someone. Clones share the connection's state: which scheme the
/// registry speaks and what it was last authorized with.
#[derive(Clone)]
pub struct Repository {
    state: Arc<State>,
}

struct State {
    client: Client,
    domain: String,
    path: String,
    /// What the caller brings.
    given: Credentials,
    credentials: OnceCell<Credentials>,
    /// Where this is served; `None` for the registry that references name.
    endpoint: Option<Endpoint>,
    /// Where else the same is served, in the order in which it is asked for.
    sites: OnceCell<Vec<Repository>>,
    base: OnceCell<Url>,
    authorization: Mutex<Option<HeaderValue>>,
    authorizing: tokio::sync::Mutex<()>,
}

impl Repository {
    pub(crate) fn new(client: Client, domain: &str, path: &str, given: Credentials) -> Self {
        Self::at(client, domain, path, given, None)
    }

    fn at(
        client: Client,
        domain: &str,
        path: &str,
        given: Credentials,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self {
            state: Arc::new(State {
                client,
                domain: domain.to_owned(),
                path: path.to_owned(),
                given,
                credentials: OnceCell::new(),
                endpoint,
                sites: OnceCell::new(),
                base: OnceCell::new(),
                authorization: Mutex::default(),
                authorizing: tokio::sync::Mutex::default(),
            }),
        }
    }

    /// The same, served at `endpoint`. A caller's credentials are for the registry alone.
    pub(crate) fn apart(&self, endpoint: Option<Endpoint>) -> Self {
        let is_other = endpoint.as_ref().is_some_and(|endpoint| endpoint.registry.is_some());
        let given = if is_other { Credentials::Anonymous } else { self.state.given.clone() };
        Self::at(self.client().clone(), self.domain(), self.path(), given, endpoint)
    }

    pub(crate) fn endpoint(&self) -> Option<&Endpoint> {
        self.state.endpoint.as_ref()
    }

    pub(crate) fn all_sites(&self) -> &OnceCell<Vec<Self>> {
        &self.state.sites
    }

    /// The registry, as references name it.
    pub fn domain(&self) -> &str {
        &self.state.domain
    }

    /// The repository's path in the registry.
    pub fn path(&self) -> &str {
        &self.state.path
    }

    /// What `reference` points at now: its digest, else its tag, else `latest`.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it isn't there, [`Kind::Unauthenticated`] and
    /// [`Kind::PermissionDenied`] as the registry says, [`Kind::Unavailable`] when the registry
    /// can't be reached or doesn't behave, [`Kind::FailedPrecondition`] when it isn't trusted.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor> {
        let mut outcome = Err(self.nobody());
        for site in self.sites(Task::Resolve).await? {
            outcome = site.resolve_here(reference).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => site.passed_over(error),
            }
        }
        outcome
    }

    async fn resolve_here(&self, reference: &Reference) -> Result<Descriptor> {
        let reference = reference.clone().canonical();
        let wanted = match reference.digest() {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or_default().to_owned(),
        };
        let what = format!("resolve {}", reference.familiar());
        let url = self.url(&format!("manifests/{wanted}")).await?;
        let answered = self.send(&what, &Method::HEAD, &url, &accept_manifests()).await;
        let described = match answered {
            Ok(response) => described(&response),
            // Some registries know no HEAD here.
            Err(error) if error.kind() == Kind::Unknown => None,
            Err(error) if error.kind() == Kind::NotFound => {
                return Err(Error::not_found(format!(
                    "manifest for {} not found: registry {} has no such repository or {}",
                    reference.familiar(),
                    self.domain(),
                    if reference.digest().is_some() { "digest" } else { "tag" }
                )));
            }
            Err(error) => return Err(error),
        };
        let descriptor = match described {
            Some(descriptor) => descriptor,
            None => self.resolve_by_reading(&what, &url).await?,
        };
        match reference.digest() {
            Some(digest) if *digest != descriptor.digest => {
                Err(mismatch(&what, digest, &descriptor.digest))
            }
            _ => Ok(descriptor),
        }
    }

    async fn resolve_by_reading(&self, what: &str, url: &Url) -> Result<Descriptor> {
        let (media_type, bytes) = self.read_manifest(what, url).await?;
        Ok(Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64))
    }

    /// The bytes of a manifest or index, checked against the descriptor.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; [`Kind::FailedPrecondition`] when digest or size differ,
    /// [`Kind::InvalidArgument`] when it is larger than [`MAX_SIZE`].
    pub async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let what = format!("fetch manifest {}", descriptor.digest);
        if descriptor.size > MAX_SIZE {
            return Err(too_large(&what));
        }
        let mut outcome = Err(self.nobody());
        for site in self.sites(Task::Pull).await? {
            outcome = site.manifest_here(&what, descriptor).await;
            match &outcome {
                Ok(_) => break,
                Err(error) => site.passed_over(error),
            }
        }
        outcome
    }

    async fn manifest_here(&self, what: &str, descriptor: &Descriptor) -> Result<Vec<u8>> {
        let url = self.url(&format!("manifests/{}", descriptor.digest)).await?;
        let (_, bytes) = self.read_manifest(what, &url).await?;
        check(what, descriptor, &bytes)?;
        Ok(bytes)
    }

    /// A blob's bytes from `offset` on. Nothing is sent before the first read.
    pub fn blob(&self, descriptor: &Descriptor, offset: u64) -> Blob {
        Blob::new(self.clone(), descriptor, offset)
    }

    async fn read_manifest(&self, what: &str, url: &Url) -> Result<(String, Vec<u8>)> {
        let response = self.send(what, &Method::GET, url, &accept_manifests()).await?;
        let media_type = content_type(&response);
        let bytes = Body::new(response, self.patience()).collect(MAX_SIZE).await;
        let bytes = bytes.map_err(|failure| failure.error).context(|| what)?;
        Ok((media_type, bytes.ok_or_else(|| too_large(what))?))
    }

    /// The URL of something in the repository.
    pub(crate) async fn url(&self, rest: &str) -> Result<Url> {
        let mut url = match &self.state.endpoint {
            Some(endpoint) => endpoint.url.clone(),
            None => {
                let mut base = self.state.base.get_or_try_init(|| self.find_base()).await?.clone();
                base.set_path("/v2");
                base
            }
        };
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}/{}/{rest}", self.path()));
        if let Some(registry) = self.endpoint().and_then(|found| found.registry.as_ref()) {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }

    pub(crate) fn client(&self) -> &Client {
        &self.state.client
    }

    pub(crate) fn patience(&self) -> Patience {
        self.state.client.config().patience
    }

    /// Who asks.
    pub(crate) async fn credentials(&self) -> Result<&Credentials> {
        if self.state.given != Credentials::Anonymous {
            return Ok(&self.state.given);
        }
        let domain = match self.endpoint() {
            Some(endpoint) if endpoint.registry.is_some() => domain_of(&endpoint.url),
            _ => self.domain().to_owned(),
        };
        let look = || self.client().credentials(&domain);
        self.state.credentials.get_or_try_init(look).await
    }

    /// What a token must allow where the registry doesn't say.
    pub(crate) fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.path())
    }

    pub(crate) fn authorization(&self) -> Option<HeaderValue> {
        self.state.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_authorization(&self, header: HeaderValue) {
        let mut current = self.state.authorization.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(header);
    }

    pub(crate) fn authorizing(&self) -> &tokio::sync::Mutex<()> {
        &self.state.authorizing
    }
}

fn accept_manifests() -> HeaderMap {
    let types = [
        media_type::OCI_INDEX,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_INDEX,
        media_type::DOCKER_MANIFEST,
    ];
    types.into_iter().map(|name| (ACCEPT, HeaderValue::from_static(name))).collect()
}

/// The media type, without parameters; empty when the registry doesn't say.
fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.and_then(|value| value.split(';').next()).unwrap_or_default().trim().to_owned()
}

/// What the headers of a response say; `None` when they don't say it all.
fn described(response: &Response) -> Option<Descriptor> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let digest = header(DIGEST_HEADER)?.parse().ok()?;
    let size = header(CONTENT_LENGTH.as_str())?.parse().ok()?;
    let media_type = content_type(response);
    let is_image = media_type::is_manifest(&media_type) || media_type::is_index(&media_type);
    is_image.then(|| Descriptor::new(media_type, digest, size))
}

fn check(what: &str, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 != descriptor.size {
        return Err(Error::failed_precondition(format!(
            "{what}: the registry sent {} bytes, {} were announced",
            bytes.len(),
            descriptor.size
        )));
    }
    let mut hasher = berth_types::Hasher::new(descriptor.digest.algorithm());
    hasher.update(bytes);
    let actual = hasher.finish();
    if actual != descriptor.digest {
        Err(mismatch(what, &descriptor.digest, &actual))
    } else {
        Ok(())
    }
}

fn mismatch(what: &str, wanted: &Digest, actual: &Digest) -> Error {
    Error::failed_precondition(format!(
        "{what}: the registry sent something else, with digest {actual} instead of {wanted}"
    ))
}

fn too_large(what: &str) -> Error {
    Error::invalid_argument(format!("{what}: it is larger than {MAX_SIZE} bytes"))
}
