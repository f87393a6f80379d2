//! Whom a request is for: the namespace and the lease in its metadata.

use tonic::metadata::MetadataMap;

use berth_types::{Error, Result, id};

/// Metadata key of the namespace.
const NAMESPACE: &str = "containerd-namespace";
/// Metadata key of the lease that what the request makes is added to.
const LEASE: &str = "containerd-lease";

/// The namespace that the request is in.
///
/// # Errors
/// [`Kind::FailedPrecondition`](berth_types::Kind::FailedPrecondition) when it names none, as
/// containerd answers; InvalidArgument when the name is not well formed.
pub(crate) fn namespace(metadata: &MetadataMap) -> Result<String> {
    let name = metadata.get(NAMESPACE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return Err(Error::failed_precondition("namespace is required: failed precondition"));
    }
    id::validate("namespace", name)?;
    Ok(name.to_owned())
}

/// The lease that the request works under, if any.
pub(crate) fn lease(metadata: &MetadataMap) -> Option<String> {
    let name = metadata.get(LEASE)?.to_str().ok()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_types::Kind;

    #[test]
    fn the_namespace_is_required_and_checked() {
        let mut metadata = MetadataMap::new();
        assert_eq!(namespace(&metadata).unwrap_err().kind(), Kind::FailedPrecondition);
        metadata.insert(NAMESPACE, "a/b".parse().unwrap());
        assert_eq!(namespace(&metadata).unwrap_err().kind(), Kind::InvalidArgument);
        metadata.insert(NAMESPACE, "k8s.io".parse().unwrap());
        assert_eq!(namespace(&metadata).unwrap(), "k8s.io");
        assert_eq!(lease(&metadata), None);
        metadata.insert(LEASE, "l1".parse().unwrap());
        assert_eq!(lease(&metadata).as_deref(), Some("l1"));
    }
}
