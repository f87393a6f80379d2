//! Tag: gives an image a further name.

use berth_proto::berth::v1::{TagImageRequest, TagImageResponse};
use berth_proto::containerd::services::images::v1::{Image as Record, ImageCreate};
use berth_types::{Error, Kind, Reference, Result};

use super::{Images, no_such_image};

impl Images {
    /// Names what `source` stands for `target`, which may have stood for something else.
    ///
    /// # Errors
    /// `NotFound` without such a source, `InvalidArgument` for a name that can't be given.
    pub async fn tag(&self, request: TagImageRequest) -> Result<TagImageResponse> {
        let TagImageRequest { source, target } = request;
        let reference: Reference = target.parse()?;
        if reference.digest().is_some() {
            return Err(Error::invalid_argument(
                "refusing to create a tag with a digest reference",
            ));
        }
        let found = self.find(&source).await?.ok_or_else(|| no_such_image(&source))?;
        let name = reference.canonical().to_string();
        let record = Record { name, target: found.target, ..Record::default() };
        let images = self.scope.images();
        let named = match images.create(record.clone()).await {
            Err(error) if error.kind() == Kind::AlreadyExists => {
                images.update(record, vec!["target".to_owned()]).await?
            }
            named => named?,
        };
        let event = ImageCreate { name: named.name, labels: named.labels };
        self.engine.publish(self.scope.namespace(), "/images/create", &event);
        Ok(TagImageResponse {})
    }
}
