use berth_proto::containerd::services::images::v1::images_client::ImagesClient;
use berth_proto::containerd::services::images::v1::{
    CreateImageRequest, DeleteImageRequest, Image,
};
use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{AddResourceRequest, CreateRequest, Resource};
use berth_proto::containerd::types::Descriptor;
use berth_types::Digest;

use super::content::{has, keep, let_go, put};
use super::{Api, labels};

const ROOT: &str = "containerd.io/gc.root";
const REF: &str = "containerd.io/gc.ref.content";
const FLAT: &str = "containerd.io/gc.flat";

async fn lease(api: &Api, id: &str, with: &[(&str, &str)], kept: &[&Digest]) {
    let mut client = api.client(LeasesClient::new);
    let create = CreateRequest { id: id.into(), labels: labels(with) };
    client.create(api.request(create)).await.unwrap();
    for digest in kept {
        let resource = Some(Resource { r#type: "content".into(), id: digest.to_string() });
        let add = AddResourceRequest { id: id.into(), resource };
        client.add_resource(api.request(add)).await.unwrap();
    }
}

fn reference(name: &str) -> String {
    format!("{REF}.{name}")
}

#[tokio::test]
async fn what_something_refers_to_stays() {
    let api = Api::start().await;
    keep(&api).await;
    let leaf = put(&api, b"leaf", &[]).await.unwrap();
    let to_leaf = [(reference("l.0"), leaf.to_string())];
    let to_leaf = [(to_leaf[0].0.as_str(), to_leaf[0].1.as_str())];
    let branch = put(&api, b"branch", &to_leaf).await.unwrap();
    let to_branch = [(ROOT, "now"), ("containerd.io/gc.ref.content.m.1", branch.as_str())];
    let rooted = put(&api, b"rooted", &to_branch).await.unwrap();
    let loose = put(&api, b"loose", &[]).await.unwrap();
    let_go(&api).await;
    for kept in [&leaf, &branch, &rooted] {
        assert!(has(&api, kept).await, "{kept}");
    }
    assert!(!has(&api, &loose).await);
}

#[tokio::test]
async fn a_flat_lease_keeps_only_what_it_names() {
    let api = Api::start().await;
    keep(&api).await;
    let leaf = put(&api, b"leaf", &[]).await.unwrap();
    let to_leaf = ("containerd.io/gc.ref.content.0", leaf.as_str());
    let branch = put(&api, b"branch", &[to_leaf]).await.unwrap();
    lease(&api, "flat", &[(FLAT, "now")], &[&branch]).await;
    let_go(&api).await;
    assert!(has(&api, &branch).await && !has(&api, &leaf).await);
}

#[tokio::test]
async fn a_lease_ends_when_it_expires() {
    let api = Api::start().await;
    keep(&api).await;
    let past = put(&api, b"past", &[]).await.unwrap();
    let future = put(&api, b"future", &[]).await.unwrap();
    let expire = "containerd.io/gc.expire";
    lease(&api, "past", &[(expire, "2001-02-03T04:05:06Z")], &[&past]).await;
    lease(&api, "future", &[(expire, "2999-02-03T04:05:06Z")], &[&future]).await;
    let_go(&api).await;
    assert!(!has(&api, &past).await && has(&api, &future).await);
    let leases = api.engine.ctr(&["leases", "ls", "-q"]).success();
    assert_eq!(leases.line(), "future");
}

#[tokio::test]
async fn circles_are_kept_and_collected_as_a_whole() {
    let api = Api::start().await;
    keep(&api).await;
    // A digest that refers to itself can't be made beforehand, so labels come afterwards.
    let (one, two) = (put(&api, b"one", &[]).await.unwrap(), put(&api, b"two", &[]).await.unwrap());
    for (from, to) in [(&one, &two), (&two, &one)] {
        let label = format!("{}={to}", reference("next"));
        api.engine.ctr(&["content", "label", from.as_str(), &label]).success();
    }
    let mut images = api.client(ImagesClient::new);
    let target = Descriptor {
        media_type: "application/octet-stream".into(),
        digest: one.to_string(),
        size: 3,
        ..Default::default()
    };
    let image = Image { name: "circle".into(), target: Some(target), ..Default::default() };
    let create = CreateImageRequest { image: Some(image), ..Default::default() };
    images.create(api.request(create)).await.unwrap();
    let_go(&api).await;
    assert!(has(&api, &one).await && has(&api, &two).await);
    let delete = DeleteImageRequest { name: "circle".into(), sync: true, target: None };
    images.delete(api.request(delete)).await.unwrap();
    assert!(!has(&api, &one).await && !has(&api, &two).await);
}
