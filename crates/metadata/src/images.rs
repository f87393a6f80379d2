//! Images: names that point at descriptors.

use berth_proto::containerd::services::images::v1::Image;
use berth_proto::containerd::types::Descriptor;
use berth_store::redb::WriteTransaction;
use berth_types::filter::{Fields, Filter};
use berth_types::labels::GC_EXPIRE;
use berth_types::{Digest, Error, Result};

use crate::leases::{self, Resource};
use crate::rows::IMAGES;
use crate::{Scope, labels, namespaces};

/// The images of a namespace.
pub struct Images<'a>(pub(crate) &'a Scope);

impl Images<'_> {
    /// The image called `name`.
    ///
    /// # Errors
    /// `NotFound`.
    pub fn get(&self, name: &str) -> Result<Image> {
        self.0.read(|transaction| IMAGES.get(transaction, self.0.namespace(), name))
    }

    /// The images that pass `filters`, which know `name`, `target.digest`, `target.mediatype`,
    /// `labels.*` and `annotations.*`.
    ///
    /// # Errors
    /// `InvalidArgument` for a malformed filter.
    pub fn list(&self, filters: &[String]) -> Result<Vec<Image>> {
        let filter = Filter::parse(filters)?;
        let passes = |image: &Image| filter.matches(&View(image));
        self.0.read(|transaction| IMAGES.list(transaction, self.0.namespace(), passes))
    }

    /// Makes an image; its times are set here.
    ///
    /// # Errors
    /// `InvalidArgument` when name, labels or target are not acceptable; `AlreadyExists`.
    pub async fn create(&self, mut image: Image) -> Result<Image> {
        check(&mut image)?;
        let scope = self.0.clone();
        self.0
            .write(move |transaction| {
                let ns = scope.namespace();
                if IMAGES.find(transaction, ns, &image.name)?.is_some() {
                    return Err(IMAGES.exists(&image.name));
                }
                image.created_at = labels::now();
                image.updated_at = image.created_at;
                put(transaction, &scope, &image)?;
                Ok(image)
            })
            .await
    }

    /// Changes an image by the field mask `paths`: `labels`, `labels.KEY`, `target`,
    /// `annotations`, `annotations.KEY`; none replaces all of these. Nothing is changed on an
    /// error.
    ///
    /// # Errors
    /// `NotFound`; `InvalidArgument` for any other path and as for [`create`](Self::create).
    pub async fn update(&self, image: Image, paths: Vec<String>) -> Result<Image> {
        if image.name.is_empty() {
            return Err(Error::invalid_argument("image name is required for update"));
        }
        let scope = self.0.clone();
        self.0
            .write(move |transaction| {
                let mut updated = IMAGES.get(transaction, scope.namespace(), &image.name)?;
                apply(&mut updated, &image, &paths)?;
                check(&mut updated)?;
                updated.updated_at = labels::now();
                put(transaction, &scope, &updated)?;
                Ok(updated)
            })
            .await
    }

    /// Deletes the image called `name`, if `target` is given only while it points there.
    ///
    /// # Errors
    /// `NotFound`, also when it points elsewhere.
    pub async fn delete(&self, name: &str, target: Option<Digest>) -> Result<()> {
        let (scope, name) = (self.0.clone(), name.to_owned());
        self.0
            .write_from_reserve(move |transaction| {
                let image = IMAGES.get(transaction, scope.namespace(), &name)?;
                let found = image.target.unwrap_or_default().digest;
                if let Some(target) = target
                    && target.as_str() != found
                {
                    return Err(Error::not_found(format!(
                        "image {name:?} has target {found}, not {target}"
                    )));
                }
                leases::release(transaction, &scope, &Resource::image(&name))?;
                IMAGES.delete(transaction, scope.namespace(), &name)
            })
            .await?;
        self.0.metadata().trigger();
        Ok(())
    }
}

fn put(transaction: &WriteTransaction, scope: &Scope, image: &Image) -> Result<()> {
    // An image without an expiry needs no lease: it is a root by itself.
    if image.labels.contains_key(GC_EXPIRE) {
        leases::keep(transaction, scope, &Resource::image(&image.name))?;
    }
    namespaces::ensure(transaction, scope.namespace())?;
    IMAGES.put(transaction, scope.namespace(), &image.name, image)
}

fn apply(to: &mut Image, from: &Image, paths: &[String]) -> Result<()> {
    let nothing = Descriptor::default();
    let source = from.target.as_ref().unwrap_or(&nothing);
    if paths.is_empty() {
        to.labels.clone_from(&from.labels);
        to.target.clone_from(&from.target);
    }
    for path in paths {
        if path == "target" {
            to.target.clone_from(&from.target);
            continue;
        }
        let annotations = &mut to.target.get_or_insert_default().annotations;
        let known = labels::apply(path, "labels", &mut to.labels, &from.labels)
            || labels::apply(path, "annotations", annotations, &source.annotations);
        if !known {
            return Err(labels::immutable(&format!("image {:?}", to.name), path));
        }
    }
    Ok(())
}

fn check(image: &mut Image) -> Result<()> {
    if image.name.is_empty() {
        return Err(Error::invalid_argument("image name must not be empty"));
    }
    labels::check(&mut image.labels)?;
    let Some(target) = &mut image.target else {
        return Err(Error::invalid_argument("image target must be set"));
    };
    target.digest.parse::<Digest>().map_err(|error| error.context("image target"))?;
    if target.size <= 0 {
        return Err(Error::invalid_argument("image target size must be greater than zero"));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid_argument("image target media type must be set"));
    }
    target.annotations.retain(|_, value| !value.is_empty());
    Ok(())
}

/// An image as filters see it.
struct View<'a>(&'a Image);

impl Fields for View<'_> {
    fn field(&self, path: &[String]) -> Option<&str> {
        let target = self.0.target.as_ref();
        match path.first()?.as_str() {
            "name" => labels::present(&self.0.name),
            "target" => match path.get(1)?.as_str() {
                "digest" => labels::present(&target?.digest),
                "mediatype" => labels::present(&target?.media_type),
                _ => None,
            },
            "labels" => labels::field(&path[1..], &self.0.labels),
            "annotations" => labels::field(&path[1..], &target?.annotations),
            _ => None,
        }
    }
}
