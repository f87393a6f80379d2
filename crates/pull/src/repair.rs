//! What is damaged in the stores, brought anew: a blob from where it came, a layer out of its blob.

use berth_metadata::ContentWriter;
use berth_proto::containerd::services::content::v1::Info;
use berth_registry::{Credentials, Repository};
use berth_types::image::{Descriptor, media_type};
use berth_types::labels::DISTRIBUTION_SOURCE;
use berth_types::{Digest, Error, Kind, Platform, Reference, Result, ResultExt};

use crate::blocking;
use crate::chain::UNFINISHED;
use crate::progress::Progress;
use crate::puller::Puller;
use crate::record;
use crate::resolved::Layer;
use crate::session::{Policy, Session};
use crate::settle::Ready;

/// A layer that is to be made again.
#[derive(Clone, Debug)]
pub struct LayerRepair {
    /// Whose it is.
    pub namespace: String,
    /// The snapshotter that has it.
    pub snapshotter: String,
    /// It, after all those below it.
    pub chain: Vec<Layer>,
    /// Where its blob can be had if that is gone.
    pub sources: Vec<Reference>,
}

/// Where a blob can be had: what the labels of its row say, with the port that labels leave out if
/// the name of one of `images` tells it.
pub fn sources(info: &Info, images: &[String]) -> Vec<Reference> {
    let images: Vec<Reference> = images.iter().filter_map(|name| name.parse().ok()).collect();
    let mut found = Vec::new();
    for (label, paths) in &info.labels {
        let Some(host) = label.strip_prefix(DISTRIBUTION_SOURCE) else { continue };
        let host = host.trim_start_matches('.');
        for path in paths.split(',').filter(|path| !path.is_empty()) {
            let known = images.iter().find(|image| {
                let (key, of) = record::source(image.domain(), image.path());
                key == *label && of == path
            });
            let named = || format!("{host}/{path}").parse().ok();
            found.extend(known.cloned().or_else(named));
        }
    }
    found
}

impl Puller {
    /// Fetches a blob of which the namespace has a record from the first of `sources` that has it,
    /// and puts it in the place of what the stores have under its name. Goes on when the caller
    /// gives up. Returns where it came from.
    ///
    /// # Errors
    /// [`Kind::NotFound`] without a source; that of the last source; those of the disk.
    pub async fn refetch(
        &self,
        namespace: &str,
        blob: &Descriptor,
        sources: Vec<Reference>,
    ) -> Result<Reference> {
        let (this, namespace, blob) = (self.clone(), namespace.to_owned(), blob.clone());
        let work = async move {
            let (leases, metadata) = (this.leases(), this.metadata());
            let purpose = format!("repair {}", blob.digest);
            leases
                .with(metadata, &namespace, &purpose, async |scope| {
                    let mut failed = no_source(&blob.digest);
                    for source in sources {
                        let repository = this.client().repository(&source, Credentials::Anonymous);
                        let (silent, nowhere) = (Progress::silent(), String::new());
                        let session =
                            this.session(&scope, Some(repository), nowhere, silent, Policy::Keep);
                        match session.replace(&blob).await {
                            Ok(()) => return Ok(source),
                            Err(error) => failed = error,
                        }
                    }
                    Err(failed)
                })
                .await
        };
        self.run(work).await
    }

    /// Fetches and unpacks what a namespace lacks of the image at `target`, records included, from
    /// the first of `sources` that has it; blobs that were discarded stay away. Goes on when the
    /// caller gives up. Returns where it came from.
    ///
    /// # Errors
    /// As for [`refetch`](Self::refetch).
    pub async fn complete(
        &self,
        namespace: &str,
        target: &Descriptor,
        platform: &Platform,
        snapshotter: &str,
        sources: Vec<Reference>,
    ) -> Result<Reference> {
        let (this, namespace, target) = (self.clone(), namespace.to_owned(), target.clone());
        let (platform, snapshotter) = (platform.clone(), snapshotter.to_owned());
        let work = async move {
            let (leases, metadata) = (this.leases(), this.metadata());
            let purpose = format!("repair {} for {platform}", target.digest);
            let completed = leases
                .with(metadata, &namespace, &purpose, async |scope| {
                    let mut failed = no_source(&target.digest);
                    for source in sources {
                        let repository = this.client().repository(&source, Credentials::Anonymous);
                        let (snapshotter, silent) = (snapshotter.clone(), Progress::silent());
                        let mut session = this.session(
                            &scope,
                            Some(repository),
                            snapshotter,
                            silent,
                            Policy::Restore,
                        );
                        match session.realize(&target, &platform).await {
                            Ok(_) => return Ok(source),
                            Err(error) => failed = error,
                        }
                    }
                    Err(failed)
                })
                .await?;
            this.give_space_back().await;
            Ok(completed)
        };
        self.run(work).await
    }

    /// Makes a layer again out of its blob, which is fetched if it is gone, and puts it in the place
    /// of the one that is there; see [`berth_snapshotter::Snapshotter::replace`]. Goes on when the
    /// caller gives up.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when the blob is gone and no source has it; those of the stores.
    pub async fn rebuild(&self, repair: LayerRepair) -> Result<()> {
        let this = self.clone();
        let work = async move {
            let (leases, metadata) = (this.leases(), this.metadata());
            let namespace = repair.namespace.clone();
            leases
                .with(metadata, &namespace, "repair a layer", async |scope| {
                    let LayerRepair { snapshotter, chain, sources, .. } = repair;
                    let repository = sources
                        .first()
                        .map(|source| this.client().repository(source, Credentials::Anonymous));
                    let silent = Progress::silent();
                    let session =
                        this.session(&scope, repository, snapshotter, silent, Policy::Keep);
                    session.remake(&chain).await
                })
                .await?;
            // The blob, if nothing else keeps it.
            this.give_space_back().await;
            Ok(())
        };
        self.run(work).await
    }
}

impl Session {
    /// Fetches a blob over what there is of it.
    async fn replace(&self, blob: &Descriptor) -> Result<()> {
        let _alone = self.puller.blobs().lock(blob.digest.clone()).await;
        let repository = self.repository_for(&blob.digest)?;
        let ingest = format!("repair-{}", blob.digest);
        let content = self.scope.content();
        let writer = content.replacement(&ingest, blob.size, &blob.digest).await?;
        let replaced = match self.fill(writer, repository, blob).await {
            Ok(writer) => writer.replace(blob.size, &blob.digest).await,
            Err(error) => Err(error),
        };
        if replaced.is_err() {
            match content.abort(&ingest).await {
                Err(error) if error.kind() != Kind::NotFound => {
                    tracing::warn!(%error, %ingest, "what was fetched of a blob is left behind");
                }
                _ => {}
            }
        }
        replaced
    }

    /// Writes all of a blob.
    async fn fill(
        &self,
        writer: ContentWriter,
        repository: &Repository,
        blob: &Descriptor,
    ) -> Result<ContentWriter> {
        let mut writer = blocking(move || {
            let mut writer = writer;
            writer.truncate(0)?;
            Ok(writer)
        })
        .await?;
        let kind = &blob.media_type;
        if media_type::is_manifest(kind) || media_type::is_index(kind) {
            let bytes = self.puller.unless_stopped(repository.manifest(blob)).await?;
            return blocking(move || writer.write(&bytes).map(|()| writer)).await;
        }
        let mut stream = repository.blob(blob, 0);
        while let Some(bytes) = self.puller.unless_stopped(stream.next()).await? {
            writer = blocking(move || writer.write(&bytes).map(|()| writer)).await?;
        }
        Ok(writer)
    }

    /// Makes the last layer of `chain` on those below it, and puts it in its place.
    async fn remake(&self, chain: &[Layer]) -> Result<()> {
        let Some((layer, there)) = chain.split_last() else { return Ok(()) };
        let lock = self.puller.chains().lock(self.chain_key(&layer.chain_id)).await;
        self.fetch(layer).await?;
        let random = getrandom::u64()
            .map_err(|e| Error::internal(format!("no random numbers for a snapshot: {e}")))?;
        // Until it is in its place it has a name that no layer has.
        let name = Digest::of(format!("{random:016x} {}", layer.chain_id).as_bytes());
        let made = Layer { chain_id: name.clone(), ..layer.clone() };
        let key = format!("{UNFINISHED}{random:016x} {name}");
        let snapshots = self.snapshots()?;
        let done = match self.make_on(there, &made, &key).await {
            Ok(()) => snapshots.replace(layer.chain_id.as_str(), name.as_str()).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            self.remove(&[key, name.to_string()]).await;
        }
        drop(lock);
        done.context(|| format!("make the layer of {} again", layer.blob.digest))
    }

    async fn make_on(&self, there: &[Layer], layer: &Layer, key: &str) -> Result<()> {
        if self.snapshots()?.rebases() {
            let made = self.extract(layer, key).await?;
            return self.settle(there, std::iter::once(made)).await;
        }
        let parent = there.last().map(|layer| layer.chain_id.to_string()).unwrap_or_default();
        let extract = self.extract_onto(layer, key, &parent).await?;
        self.commit_all(&parent, vec![Ready::files(extract)]).await
    }
}

fn no_source(digest: &Digest) -> Error {
    Error::not_found(format!("content {digest} came from no registry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_labels_and_their_ports_those_of_images() {
        let labels = [
            (format!("{DISTRIBUTION_SOURCE}.127.0.0.1"), "a,b/c".to_owned()),
            ("other".to_owned(), "d".to_owned()),
        ];
        let info = Info { labels: labels.into(), ..Info::default() };
        let images = ["127.0.0.1:5000/b/c:tag".to_owned(), "docker.io/library/d:latest".to_owned()];
        let found: Vec<_> = sources(&info, &images)
            .into_iter()
            .map(|source| format!("{}/{}", source.domain(), source.path()))
            .collect();
        assert_eq!(found, ["127.0.0.1/a", "127.0.0.1:5000/b/c"]);
        assert_eq!(sources(&Info::default(), &images), []);
    }
}
