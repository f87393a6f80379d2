//! Sending: blobs that a repository lacks, and the manifests that name them
//! (`spec.md#push` of the distribution specification).

use berth_types::image::Descriptor;
use berth_types::{Error, Kind, Result};
use bytes::Bytes;
use reqwest::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION,
};
use reqwest::{Body, Method, Request, Response, Url};
use tokio::sync::mpsc;

use crate::body::Body as Received;
use crate::client::domain_of;
use crate::failure::Failure;
use crate::repository::Repository;

/// How much of a failed response is read for its message, in bytes.
const MAX_MESSAGE: usize = 4096;

impl Repository {
    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// As [`Repository::resolve`], but for `NotFound`.
    pub async fn has_blob(&self, blob: &Descriptor) -> Result<bool> {
        let what = format!("look for {}", blob.digest);
        let site = self.pushing().await?;
        let url = site.url(&format!("blobs/{}", blob.digest)).await?;
        match site.send(&what, &Method::HEAD, &url, &HeaderMap::new()).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == Kind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends a blob: the bytes that come through `chunks`, to their end. The registry checks them
    /// against the digest.
    ///
    /// # Errors
    /// As [`Repository::resolve`]. It is not tried again once bytes are taken from `chunks`.
    pub async fn push_blob(
        &self,
        blob: &Descriptor,
        chunks: mpsc::Receiver<std::io::Result<Bytes>>,
    ) -> Result<()> {
        let what = format!("send {}", blob.digest);
        let site = self.pushing().await?;
        let url = site.url("blobs/uploads/").await?;
        let mut nothing = HeaderMap::new();
        nothing.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let begun = site.send(&what, &Method::POST, &url, &nothing).await?;
        let mut place = location(&begun, &what)?;
        place.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        let body = Body::wrap_stream(Chunks(chunks));
        site.put(&what, &url, place, headers, body).await.map_err(|failure| failure.error)
    }

    /// Sends a manifest or index, known as `name` from then on: a tag, or its own digest.
    ///
    /// # Errors
    /// As [`Repository::resolve`]; the registry refuses one that names what it lacks.
    pub async fn push_manifest(&self, name: &str, media_type: &str, bytes: Vec<u8>) -> Result<()> {
        let what = format!("send manifest {name}");
        let site = self.pushing().await?;
        let url = site.url(&format!("manifests/{name}")).await?;
        let mut headers = HeaderMap::new();
        let media_type = HeaderValue::from_str(media_type)
            .map_err(|_| Error::invalid_argument(format!("media type {media_type:?}")))?;
        headers.insert(CONTENT_TYPE, media_type);
        let sent = site.put(&what, &url, url.clone(), headers, Body::from(bytes)).await;
        sent.map_err(|failure| failure.error)
    }

    /// Sends a body once. Authorization goes along to the registry at `home`, and nowhere else.
    async fn put(
        &self,
        what: &str,
        home: &Url,
        place: Url,
        headers: HeaderMap,
        body: Body,
    ) -> Result<(), Failure> {
        let mut request = Request::new(Method::PUT, place);
        *request.headers_mut() = headers;
        let extra = self.extra_headers(request.url());
        request.headers_mut().extend(extra);
        if request.url().origin() == home.origin()
            && let Some(authorization) = self.authorization()
        {
            request.headers_mut().insert(AUTHORIZATION, authorization);
        }
        *request.body_mut() = Some(body);
        let host = domain_of(request.url());
        let transport = self.transport(request.url())?;
        let response = transport.execute(request).await;
        let response = response.map_err(|error| Failure::transport(&host, &error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        if status.is_success() {
            return Ok(());
        }
        let body = Received::new(response, self.patience()).beginning(MAX_MESSAGE).await;
        Err(Failure::status(&host, what, status, &headers, &body))
    }
}

/// Where an upload goes on.
fn location(response: &Response, what: &str) -> Result<Url> {
    let header = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let place = header.and_then(|header| response.url().join(header).ok());
    place.ok_or_else(|| {
        let host = domain_of(response.url());
        Error::unavailable(format!("{what}: registry {host} does not say where to"))
    })
}

/// Chunks as reqwest takes them.
struct Chunks(mpsc::Receiver<std::io::Result<Bytes>>);

impl futures_util::Stream for Chunks {
    type Item = std::io::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}
