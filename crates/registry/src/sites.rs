//! Asking mirrors of a registry before the registry itself.

use berth_types::{Error, Result};
use reqwest::header::HeaderMap;
use reqwest::{Method, Request, Url};
use tokio::time::timeout;

use crate::client::DOCKER_HUB_HOST;
use crate::endpoint::{self, Task};
use crate::repository::Repository;

impl Repository {
    /// Where this may be asked for `task`, in order. There is one at least.
    ///
    /// # Errors
    /// Those of reading what is configured; `FailedPrecondition` when nothing may be asked.
    pub(crate) async fn sites(&self, task: Task) -> Result<Vec<&Self>> {
        let all = self.all_sites().get_or_try_init(|| async { self.find_sites() }).await?;
        let may = |site: &&Self| site.endpoint().is_none_or(|found| found.tasks.contains(&task));
        let sites: Vec<_> = all.iter().filter(may).collect();
        if sites.is_empty() {
            return Err(self.nobody());
        }
        Ok(sites)
    }

    /// The failure of what no site may be asked for.
    pub(crate) fn nobody(&self) -> Error {
        Error::failed_precondition(format!(
            "registry {}: no host in its hosts.toml has the capability for this",
            self.domain()
        ))
    }

    fn find_sites(&self) -> Result<Vec<Self>> {
        let directories = &self.client().config().directories;
        let (endpoints, and_itself) = endpoint::of(directories, self.domain())?;
        let mut sites: Vec<_> =
            endpoints.into_iter().map(|found| self.apart(Some(found))).collect();
        if and_itself {
            sites.push(self.apart(None));
        }
        Ok(sites)
    }

    /// Says why the next site is asked.
    pub(crate) fn passed_over(&self, error: &Error) {
        if let Some(endpoint) = self.endpoint() {
            let (url, registry) = (endpoint.url.as_str(), self.domain());
            tracing::info!(url, registry, %error, "a mirror does not answer for its registry");
        }
    }

    /// Where pushes go.
    pub(crate) async fn pushing(&self) -> Result<&Self> {
        Ok(self.sites(Task::Push).await?.first().copied().unwrap_or(self))
    }

    /// Finds out by which scheme the registry is reached.
    pub(crate) async fn find_base(&self) -> Result<Url> {
        let host = match self.domain() {
            "docker.io" => DOCKER_HUB_HOST,
            other => other,
        };
        let base = |scheme: &str| {
            Url::parse(&format!("{scheme}://{host}/"))
                .map_err(|e| Error::invalid_argument(format!("registry host {host:?}: {e}")))
        };
        if self.client().host(self.domain()).is_some_and(|host| host.plain_http) {
            return base("http");
        }
        let secure = base("https")?;
        if self.client().may_be_plain(self.domain()) && !self.speaks_tls(&secure).await? {
            return base("http");
        }
        Ok(secure)
    }

    async fn speaks_tls(&self, base: &Url) -> Result<bool> {
        let mut url = base.clone();
        url.set_path("/v2/");
        let transport = self.client().transport(&url)?;
        let probe = transport.execute(Request::new(Method::GET, url));
        Ok(matches!(timeout(self.patience().connect, probe).await, Ok(Ok(_))))
    }

    /// What is sent along with each request to `url`.
    pub(crate) fn extra_headers(&self, url: &Url) -> HeaderMap {
        let endpoint = self.endpoint().filter(|endpoint| endpoint.url.origin() == url.origin());
        endpoint.map(|endpoint| endpoint.headers.clone()).unwrap_or_default()
    }

    /// The connections for `url`.
    pub(crate) fn transport(&self, url: &Url) -> Result<reqwest::Client> {
        match self.endpoint().filter(|endpoint| endpoint.url.origin() == url.origin()) {
            Some(endpoint) => self.client().transport_to(endpoint),
            None => self.client().transport(url),
        }
    }
}
