use berth_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use berth_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, DeleteResourceRequest, ListRequest,
    ListResourcesRequest, Resource,
};
use berth_types::Digest;
use tonic::Code;

use super::{Api, code, labels};

#[tokio::test]
async fn leases() {
    let api = Api::start().await;
    let mut client = api.client(LeasesClient::new);
    let create = CreateRequest { id: "one".into(), labels: labels(&[("a", "1")]) };
    let made = client.create(api.request(create.clone())).await.unwrap().into_inner();
    assert!(made.lease.unwrap().created_at.is_some());
    assert_eq!(code(client.create(api.request(create)).await), Code::AlreadyExists);
    let nameless = CreateRequest::default();
    let made = client.create(api.request(nameless.clone())).await.unwrap().into_inner();
    let other = client.create(api.request(nameless)).await.unwrap().into_inner();
    let (made, other) = (made.lease.unwrap().id, other.lease.unwrap().id);
    assert!(!made.is_empty() && made != other, "{made:?} and {other:?}");
    for id in [made, other] {
        client.delete(api.request(DeleteRequest { id, sync: false })).await.unwrap();
    }
    let list = |filter: &str| ListRequest { filters: vec![filter.into()] };
    for (filter, found) in [("id==one", 1), ("labels.a==1", 1), ("id==two", 0)] {
        let listed = client.list(api.request(list(filter))).await.unwrap().into_inner();
        assert_eq!(listed.leases.len(), found, "{filter}");
    }

    let resource = |kind: &str, id: &str| Some(Resource { r#type: kind.into(), id: id.into() });
    let add = |lease: &str, resource| AddResourceRequest { id: lease.into(), resource };
    let digest = Digest::of(b"x").to_string();
    for (kind, id) in [("content", digest.as_str()), ("snapshots/overlayfs", "s"), ("ingests", "i")]
    {
        client.add_resource(api.request(add("one", resource(kind, id)))).await.unwrap();
    }
    let refused = client.add_resource(api.request(add("one", resource("content", "short")))).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let refused = client.add_resource(api.request(add("one", resource("snapshots", "s")))).await;
    assert_eq!(code(refused), Code::InvalidArgument);
    let unknown = client.add_resource(api.request(add("one", resource("dreams", "d")))).await;
    assert_eq!(code(unknown), Code::Unimplemented);
    let missing = client.add_resource(api.request(add("two", resource("ingests", "i")))).await;
    assert_eq!(code(missing), Code::NotFound);
    let remove = DeleteResourceRequest { id: "one".into(), resource: resource("ingests", "i") };
    client.delete_resource(api.request(remove)).await.unwrap();
    let listed = ListResourcesRequest { id: "one".into() };
    let listed = client.list_resources(api.request(listed)).await.unwrap().into_inner();
    let mut kinds: Vec<_> = listed.resources.iter().map(|kept| kept.r#type.as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["content", "snapshots/overlayfs"]);
    let missing = ListResourcesRequest { id: "two".into() };
    assert_eq!(code(client.list_resources(api.request(missing)).await), Code::NotFound);

    let delete = DeleteRequest { id: "one".into(), sync: true };
    client.delete(api.request(delete.clone())).await.unwrap();
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
}
