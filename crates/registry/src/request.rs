//! One request to a registry, with all that may come in between: redirects, authentication,
//! failures that pass.

use berth_types::{Error, Result};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Request, Response, StatusCode, Url};
use tokio::time::timeout;

use crate::auth::{self, Challenge, Token, TokenKey};
use crate::body::Body;
use crate::client::domain_of;
use crate::config::Credentials;
use crate::failure::{Failure, LOG_IN};
use crate::repository::Repository;
use crate::retry::Backoff;

const MAX_REDIRECTS: usize = 10;
/// How much of a failed response is read for its message, in bytes.
const MAX_MESSAGE: usize = 4096;

impl Repository {
    /// Sends a request and returns the successful response. `what` begins the error's message.
    ///
    /// # Errors
    /// As the status says, see [`Failure::status`]; passing failures after some tries.
    pub(crate) async fn send(
        &self,
        what: &str,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response> {
        let mut backoff = Backoff::new(self.patience());
        loop {
            match self.try_send(what, method, url, headers).await {
                Ok(response) => return Ok(response),
                Err(failure) => backoff.pause(failure).await?,
            }
        }
    }

    /// The same, once: authentication is answered, other failures are returned.
    pub(crate) async fn try_send(
        &self,
        what: &str,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
    ) -> Result<Response, Failure> {
        let mut authorization = self.authorization();
        let mut response = self.follow(method, url, headers, authorization.as_ref()).await?;
        if response.status() == StatusCode::UNAUTHORIZED
            && response.url().origin() == url.origin()
            && let Some(challenge) = Challenge::choose(response.headers(), &self.pull_scope())
        {
            authorization = self.authorize(&challenge, authorization).await?;
            response = self.follow(method, url, headers, authorization.as_ref()).await?;
        }
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let host = domain_of(response.url());
        let body = Body::new(response, self.patience()).beginning(MAX_MESSAGE).await;
        Err(Failure::status(&host, what, status, &headers, &body))
    }

    /// Sends a request and follows redirects. `authorization` goes only to where `url` points.
    async fn follow(
        &self,
        method: &Method,
        url: &Url,
        headers: &HeaderMap,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, Failure> {
        let mut target = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::new(method.clone(), target.clone());
            *request.headers_mut() = headers.clone();
            request.headers_mut().extend(self.extra_headers(&target));
            if let Some(authorization) = authorization
                && target.origin() == url.origin()
            {
                request.headers_mut().insert(AUTHORIZATION, authorization.clone());
            }
            let response = self.exchange(request).await?;
            match redirect(&response)? {
                Some(next) => target = next,
                None => return Ok(response),
            }
        }
        Err(Error::unavailable(format!(
            "registry {} redirected more than {MAX_REDIRECTS} times",
            domain_of(url)
        ))
        .into())
    }

    /// Sends one request and waits for the response to begin.
    pub(crate) async fn exchange(&self, request: Request) -> Result<Response, Failure> {
        let domain = domain_of(request.url());
        let transport = self.transport(request.url())?;
        let patience = self.patience().connect + self.patience().progress;
        timeout(patience, transport.execute(request))
            .await
            .map_err(|_| Failure::no_answer(&domain, patience))?
            .map_err(|error| Failure::transport(&domain, &error))
    }

    /// Answers a challenge. `refused` is what the registry did not accept; when another request
    /// has replaced it meanwhile, that is the answer.
    async fn authorize(
        &self,
        challenge: &Challenge,
        refused: Option<HeaderValue>,
    ) -> Result<Option<HeaderValue>, Failure> {
        let _one_at_a_time = self.authorizing().lock().await;
        let current = self.authorization();
        if current != refused {
            return Ok(current);
        }
        let header = match challenge {
            Challenge::Basic => match self.credentials().await? {
                Credentials::Password { username, password } => auth::basic(username, password)?,
                _ => {
                    return Err(Error::unauthenticated(format!(
                        "registry {} asks for a name and a password{LOG_IN}",
                        self.domain()
                    ))
                    .into());
                }
            },
            Challenge::Bearer { realm, service, scope } => {
                self.token(realm, service, scope, refused.as_ref()).await?
            }
        };
        self.set_authorization(header.clone());
        Ok(Some(header))
    }

    /// A token that is not the refused one: from the cache, or from its server.
    async fn token(
        &self,
        realm: &Url,
        service: &str,
        scope: &str,
        refused: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Failure> {
        let credentials = self.credentials().await?;
        let key = TokenKey {
            realm: realm.to_string(),
            service: service.to_owned(),
            scope: scope.to_owned(),
            credentials: credentials.clone(),
        };
        let tokens = self.client().tokens();
        if let Some(header) = tokens.get(&key).filter(|header| Some(header) != refused) {
            return Ok(header);
        }
        let token = self.fetch_token(realm, service, scope, credentials).await?;
        let header = token.header.clone();
        tokens.put(key, token);
        Ok(header)
    }

    async fn fetch_token(
        &self,
        realm: &Url,
        service: &str,
        scope: &str,
        credentials: &Credentials,
    ) -> Result<Token, Failure> {
        let server = domain_of(realm);
        let is_private = realm.scheme() == "https"
            || *credentials == Credentials::Anonymous
            || self.client().may_be_plain(&server);
        if !is_private {
            return Err(Error::permission_denied(format!(
                "registry {} wants its password sent in clear to {server}: refused",
                self.domain()
            ))
            .into());
        }
        let request = auth::token_request(realm, service, scope, credentials)?;
        let response = self.exchange(request).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = Body::new(response, self.patience());
        if !status.is_success() {
            let what = format!("get a token for {}", self.domain());
            let body = body.beginning(MAX_MESSAGE).await;
            return Err(Failure::status(&server, &what, status, &headers, &body));
        }
        let body = body.collect(auth::MAX_TOKEN_RESPONSE).await?.ok_or_else(|| {
            Error::unauthenticated(format!("token server {server} sent far too much"))
        })?;
        Ok(Token::parse(&server, &body)?)
    }
}

/// Where a response redirects to; `None` when it doesn't.
fn redirect(response: &Response) -> Result<Option<Url>, Failure> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let from = response.url();
    let refused = |why: &str| {
        Error::unavailable(format!("registry {} redirected {why}: refused", domain_of(from)))
    };
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let next = location
        .and_then(|location| from.join(location).ok())
        .ok_or_else(|| refused("to nowhere"))?;
    match (from.scheme(), next.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(next)),
        ("https", "http") => Err(refused("from HTTPS to plain HTTP").into()),
        _ => Err(refused("to something that is not HTTP").into()),
    }
}
