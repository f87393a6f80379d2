//! What is refused, entry by entry: with containerd's code, and with nothing changed.

use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, GetContainerRequest, UpdateContainerRequest,
};
use berth_proto::containerd::services::content::v1::content_client::ContentClient;
use berth_proto::containerd::services::content::v1::{
    DeleteContentRequest, Info as ContentInfo, InfoRequest, ReadContentRequest, UpdateRequest,
};
use berth_proto::containerd::services::images::v1::images_client::ImagesClient;
use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, GetImageRequest, Image, UpdateImageRequest,
};
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, ListResourcesRequest, Resource,
};
use berth_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use berth_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, Namespace,
    UpdateNamespaceRequest,
};
use berth_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use berth_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, Info, PrepareSnapshotRequest, RemoveSnapshotRequest,
    StatSnapshotRequest, UpdateSnapshotRequest,
};
use berth_proto::containerd::services::tasks::v1::ExecProcessRequest;
use berth_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use berth_proto::containerd::types::Descriptor;
use berth_tests::Flavor;
use berth_types::Digest;
use prost_types::Any;
use tonic::{Code, Request};

use super::content::{keep, put};
use super::{Api, code, labels, mask, oversize};

/// Labels that keep a record from garbage collection, and `more`.
fn rooted(more: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
    labels(&[&[("containerd.io/gc.root", "now")], more].concat())
}

pub(super) fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        labels: labels(&[("a", "1")]),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(Any { type_url: "types.containerd.io/any".into(), value: b"{}".to_vec() }),
        ..Default::default()
    }
}

pub(super) fn image(name: &str) -> Image {
    let target = Descriptor {
        media_type: "application/octet-stream".into(),
        digest: Digest::of(b"x").to_string(),
        size: 1,
        ..Default::default()
    };
    let labels = labels(&[("a", "1")]);
    Image { name: name.into(), labels, target: Some(target), ..Default::default() }
}

pub(super) fn overlay() -> String {
    "overlayfs".to_owned()
}

pub(super) fn prepare(key: &str) -> PrepareSnapshotRequest {
    let labels = rooted(&[("a", "1")]);
    PrepareSnapshotRequest { snapshotter: overlay(), key: key.into(), labels, ..Default::default() }
}

#[tokio::test]
async fn invalid_identifiers() {
    let api = Api::start().await;
    let mut containers = api.client(ContainersClient::new);
    let mut namespaces = api.client(NamespacesClient::new);
    let mut tasks = api.client(TasksClient::new);
    let long = "i".repeat(77);
    for bad in ["", "/", "..", "a/b", "-a", "a-", "a..b", "a b", "é", "a\0", "a\n", &long] {
        let create = CreateContainerRequest { container: Some(container(bad)) };
        let refused = containers.create(api.request(create)).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{bad:?}");
        let namespace = Some(Namespace { name: bad.into(), ..Default::default() });
        let refused = namespaces.create(Request::new(CreateNamespaceRequest { namespace })).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{bad:?}");
    }
    let nameless = ExecProcessRequest { container_id: "nobody".into(), ..Default::default() };
    assert_eq!(code(tasks.exec(api.request(nameless)).await), Code::InvalidArgument);

    let mut content = api.client(ContentClient::new);
    let upper = format!("sha256:{}", "A".repeat(64));
    for bad in ["", "x", "sha256:", "sha256:zz", "md5:00000000000000000000000000000000", &upper] {
        let digest = || bad.to_owned();
        let info = content.info(api.request(InfoRequest { digest: digest() })).await;
        let delete = content.delete(api.request(DeleteContentRequest { digest: digest() })).await;
        let info_of = Some(ContentInfo { digest: digest(), ..Default::default() });
        let update = UpdateRequest { info: info_of, update_mask: None };
        let update = content.update(api.request(update)).await;
        let read = ReadContentRequest { digest: digest(), ..Default::default() };
        let read = match content.read(api.request(read)).await {
            Ok(stream) => stream.into_inner().message().await.unwrap_err().code(),
            Err(status) => status.code(),
        };
        for code in [code(info), code(delete), code(update), read] {
            assert_eq!(code, Code::InvalidArgument, "{bad:?}");
        }
    }

    let mut snapshots = api.client(SnapshotsClient::new);
    let nameless = StatSnapshotRequest { snapshotter: String::new(), key: "x".into() };
    assert_eq!(code(snapshots.stat(api.request(nameless)).await), Code::InvalidArgument);
    let keyless = StatSnapshotRequest { snapshotter: overlay(), key: String::new() };
    assert_eq!(code(snapshots.stat(api.request(keyless)).await), Code::NotFound);
    let keyless = snapshots.prepare(api.request(prepare(""))).await;
    api.check(code(keyless), Code::InvalidArgument);
    let mut leases = api.client(LeasesClient::new);
    let create = CreateRequest { id: "l".into(), ..Default::default() };
    leases.create(api.request(create)).await.unwrap();
    for kind in ["content", "ingests", "snapshots/overlayfs"] {
        let resource = Some(Resource { r#type: kind.into(), id: String::new() });
        let add = AddResourceRequest { id: "l".into(), resource };
        api.check(code(leases.add_resource(api.request(add)).await), Code::InvalidArgument);
    }
    let list = ListResourcesRequest { id: "l".into() };
    let kept = leases.list_resources(api.request(list)).await.unwrap().into_inner();
    assert!(kept.resources.is_empty(), "{kept:?}");
    assert_eq!(api.engine.ctr(&["containers", "ls", "-q"]).success().stdout, "");
}

/// One of everything that has labels: `a=1`.
struct Labelled {
    api: Api,
    digest: Digest,
}

impl Labelled {
    async fn new() -> Self {
        let api = Api::start().await;
        keep(&api).await;
        let digest = put(&api, b"content", &[("a", "1")]).await.unwrap();
        let create = CreateContainerRequest { container: Some(container("c")) };
        api.client(ContainersClient::new).create(api.request(create)).await.unwrap();
        let create = CreateImageRequest { image: Some(image("i")), ..Default::default() };
        api.client(ImagesClient::new).create(api.request(create)).await.unwrap();
        api.client(SnapshotsClient::new).prepare(api.request(prepare("s"))).await.unwrap();
        let update = Self::namespace(&api, &[("a", "1")], &["labels.a"]);
        api.client(NamespacesClient::new).update(api.request(update)).await.unwrap();
        Self { api, digest }
    }

    fn namespace(api: &Api, with: &[(&str, &str)], paths: &[&str]) -> UpdateNamespaceRequest {
        let namespace = Namespace { name: api.engine.namespace().into(), labels: labels(with) };
        UpdateNamespaceRequest { namespace: Some(namespace), update_mask: mask(paths) }
    }

    /// The codes of attempts to change all of them.
    async fn change(
        &self,
        labels: std::collections::HashMap<String, String>,
        paths: &[&str],
    ) -> Vec<(&'static str, Code)> {
        let (api, update_mask) = (&self.api, mask(paths));
        let container = Some(Container { labels: labels.clone(), ..container("c") });
        let update = UpdateContainerRequest { container, update_mask: update_mask.clone() };
        let containers = api.client(ContainersClient::new).update(api.request(update)).await;
        let image = Some(Image { labels: labels.clone(), ..image("i") });
        let update =
            UpdateImageRequest { image, update_mask: update_mask.clone(), ..Default::default() };
        let images = api.client(ImagesClient::new).update(api.request(update)).await;
        let digest = self.digest.to_string();
        let info = Some(ContentInfo { digest, labels: labels.clone(), ..Default::default() });
        let update = UpdateRequest { info, update_mask: update_mask.clone() };
        let content = api.client(ContentClient::new).update(api.request(update)).await;
        let info = Some(Info { name: "s".into(), labels: labels.clone(), ..Default::default() });
        let snapshotter = overlay();
        let update = UpdateSnapshotRequest { snapshotter, info, update_mask: update_mask.clone() };
        let snapshots = api.client(SnapshotsClient::new).update(api.request(update)).await;
        let namespace = Some(Namespace { name: api.engine.namespace().into(), labels });
        let update = UpdateNamespaceRequest { namespace, update_mask };
        let namespaces = api.client(NamespacesClient::new).update(api.request(update)).await;
        vec![
            ("container", code(containers)),
            ("image", code(images)),
            ("content", code(content)),
            ("snapshot", code(snapshots)),
            ("namespace", code(namespaces)),
        ]
    }

    /// Checks that nothing was changed.
    async fn is_as_before(&self) {
        let api = &self.api;
        let before = labels(&[("a", "1")]);
        let get = api.request(GetContainerRequest { id: "c".into() });
        let got = api.client(ContainersClient::new).get(get).await.unwrap().into_inner();
        assert_eq!(got.container.unwrap().labels, before);
        let get = api.request(GetImageRequest { name: "i".into() });
        let got = api.client(ImagesClient::new).get(get).await.unwrap().into_inner();
        assert_eq!(got.image.unwrap().labels, before);
        let get = api.request(InfoRequest { digest: self.digest.to_string() });
        let got = api.client(ContentClient::new).info(get).await.unwrap().into_inner();
        assert_eq!(got.info.unwrap().labels, before);
        let stat = StatSnapshotRequest { snapshotter: overlay(), key: "s".into() };
        let got = api.client(SnapshotsClient::new).stat(api.request(stat)).await.unwrap();
        assert_eq!(got.into_inner().info.unwrap().labels, rooted(&[("a", "1")]));
        let get = api.request(GetNamespaceRequest { name: api.engine.namespace().into() });
        let got = api.client(NamespacesClient::new).get(get).await.unwrap().into_inner();
        assert_eq!(got.namespace.unwrap().labels, before);
    }
}

#[tokio::test]
async fn labels_that_are_too_long_or_have_no_key() {
    let set = Labelled::new().await;
    for (_, code) in set.change(oversize(), &["labels.key"]).await {
        set.api.check(code, Code::InvalidArgument);
    }
    let api = &set.api;
    // As many as there may be are fine, none of them too long.
    let long = labels(&[("k", &"v".repeat(4095))]);
    for (index, (with, expected)) in
        [(oversize(), false), (labels(&[("", "v")]), false), (long, true)].into_iter().enumerate()
    {
        let id = format!("new-{index}");
        let container = Some(Container { labels: with.clone(), ..container(&id) });
        let create = api.request(CreateContainerRequest { container });
        let created = api.client(ContainersClient::new).create(create).await;
        let image = Some(Image { labels: with.clone(), ..image(&id) });
        let create = api.request(CreateImageRequest { image, ..Default::default() });
        let tagged = api.client(ImagesClient::new).create(create).await;
        let mut prepare = prepare(&id);
        prepare.labels.extend(with);
        let prepared = api.client(SnapshotsClient::new).prepare(api.request(prepare)).await;
        for code in [code(created), code(tagged), code(prepared)] {
            match expected {
                true => assert_eq!(code, Code::Ok, "{index}"),
                false => api.check(code, Code::InvalidArgument),
            }
        }
    }
    let refused = put(api, b"labelled", &[("key", &"v".repeat(4096))]).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let left = api.engine.ctr(&["containers", "ls", "-q"]).success().stdout;
    assert_eq!(left, "c\nnew-2\n");
    set.is_as_before().await;
}

#[tokio::test]
async fn masks_with_unknown_fields() {
    let set = Labelled::new().await;
    let changed = rooted(&[("a", "2"), ("b", "3")]);
    for paths in [
        &["nothing"][..],
        &["labels.a", "nothing"],
        &["labels.a", "created_at"],
        &["labels.a", "name"],
        &["labels.a", ""],
        &["labels.a", "Labels.b"],
    ] {
        for (what, code) in set.change(changed.clone(), paths).await {
            // containerd changes a namespace's labels one by one.
            let half = what == "namespace" && set.api.engine.flavor() == Flavor::Containerd;
            assert_eq!(code, Code::InvalidArgument, "{what} {paths:?}");
            if half {
                let back = Labelled::namespace(&set.api, &[("a", "1")], &["labels.a"]);
                let mut client = set.api.client(NamespacesClient::new);
                client.update(set.api.request(back)).await.unwrap();
            }
        }
        set.is_as_before().await;
    }
    // Labels of a namespace are named one by one.
    let all = Labelled::namespace(&set.api, &[("z", "1")], &["labels"]);
    let refused = set.api.client(NamespacesClient::new).update(set.api.request(all)).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    set.is_as_before().await;
}

#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let set = Labelled::new().await;
    let api = &set.api;
    let delete = || DeleteNamespaceRequest { name: api.engine.namespace().into() };
    let mut namespaces = api.client(NamespacesClient::new);
    let refused = namespaces.delete(Request::new(delete())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("must be empty"), "{refused}");
    set.is_as_before().await;

    let mut snapshots = api.client(SnapshotsClient::new);
    let commit = CommitSnapshotRequest {
        snapshotter: overlay(),
        name: "base".into(),
        key: "s".into(),
        labels: rooted(&[]),
    };
    snapshots.commit(api.request(commit)).await.unwrap();
    let child = PrepareSnapshotRequest { parent: "base".into(), ..prepare("child") };
    snapshots.prepare(api.request(child)).await.unwrap();
    let remove = |key: &str| RemoveSnapshotRequest { snapshotter: overlay(), key: key.into() };
    let refused = snapshots.remove(api.request(remove("base"))).await;
    assert_eq!(code(refused), Code::FailedPrecondition);
    for key in ["child", "base"] {
        snapshots.remove(api.request(remove(key))).await.unwrap();
    }
}
