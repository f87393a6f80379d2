//! Pull: fetches and unpacks an image.

use berth_proto::berth::v1::{Credentials as WireCredentials, PullProgress, PullRequest};
use berth_proto::containerd::services::images::v1::{Image as Record, ImageCreate};
use berth_registry::Credentials;
use berth_types::{Platform, Reference, Result};
use tokio::sync::mpsc;

use super::Images;
use crate::progress::{self, Listener};

impl Images {
    /// Fetches an image; `client` hears of the progress, and last of the image. It goes on when
    /// the client is gone.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed reference or platform; those of
    /// [`berth_pull::Puller::pull`].
    pub async fn pull(
        &self,
        request: PullRequest,
        client: mpsc::Sender<PullProgress>,
    ) -> Result<()> {
        let platform = match request.platform.as_str() {
            "" => Platform::host(),
            text => text.parse()?,
        };
        let credentials = request.credentials.map(credentials).unwrap_or_default();
        let told = client.clone();
        let listener: Listener = Box::new(move |progress| {
            let client = told.clone();
            // A client that is gone hears nothing; the image comes all the same.
            Box::pin(async move { drop(client.send(progress).await) })
        });
        let name = request.reference.parse::<Reference>()?.canonical().to_string();
        let before = self.named(&name)?.and_then(|record| record.target);
        let fetched =
            self.fetch(&request.reference, platform.clone(), credentials, &listener).await?;
        let changed = before != fetched.target;
        let image = self.describe_for(&fetched, &platform).await?;
        let last = PullProgress { layers: Vec::new(), image: Some(image), changed };
        drop(client.send(last).await);
        Ok(())
    }

    /// The image that a reference names in its registry, or that the daemon carries.
    pub(super) async fn fetch(
        &self,
        text: &str,
        platform: Platform,
        credentials: Credentials,
        listener: &Listener,
    ) -> Result<Record> {
        let parts = self.engine.parts();
        let reference = text.parse::<Reference>()?;
        let name = reference.clone().canonical().to_string();
        if (parts.carried)(name.clone(), self.scope.clone()).await? {
            return self.scope.images().get(&name);
        }
        let request = berth_pull::PullRequest {
            namespace: self.scope.namespace().to_owned(),
            reference,
            name: None,
            platform,
            credentials,
            snapshotter: self.scope.snapshotter()?,
        };
        let pull = |progress| parts.puller.pull(request, progress);
        let record = progress::tell_of(pull, listener).await?;
        let event = ImageCreate { name, labels: record.labels.clone() };
        self.engine.publish(self.scope.namespace(), "/images/create", &event);
        Ok(record)
    }
}

fn credentials(given: WireCredentials) -> Credentials {
    let WireCredentials { username, password } = given;
    Credentials::Password { username, password }
}
