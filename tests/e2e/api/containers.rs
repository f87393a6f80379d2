use berth_proto::containerd::services::containers::v1::container::Runtime;
use berth_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use berth_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, GetContainerRequest,
    ListContainersRequest, UpdateContainerRequest,
};
use prost_types::Any;
use tonic::{Code, Request};

use super::{Api, code, labels, mask, oversize};

fn container(id: &str) -> Container {
    Container {
        id: id.into(),
        labels: labels(&[("tier", "front")]),
        image: "example.com/image:1".into(),
        runtime: Some(Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        spec: Some(Any { type_url: "types.containerd.io/any".into(), value: b"{}".to_vec() }),
        snapshotter: "overlayfs".into(),
        snapshot_key: id.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn containers() {
    let api = Api::start().await;
    let mut client = api.client(ContainersClient::new);
    let create = |container: Container| CreateContainerRequest { container: Some(container) };
    let unnamed = client.create(Request::new(create(container("one")))).await;
    assert_eq!(code(unnamed), Code::FailedPrecondition);
    let badly_named = client.create(api.request_in("a/b", create(container("one")))).await;
    assert_eq!(code(badly_named), Code::InvalidArgument);

    let made = client.create(api.request(create(container("one")))).await.unwrap().into_inner();
    let made = made.container.unwrap();
    assert!(made.created_at.is_some() && made.updated_at.is_some());
    let again = client.create(api.request(create(container("one")))).await;
    assert_eq!(code(again), Code::AlreadyExists);
    let bad = [
        container("a/b"),
        container(""),
        Container { runtime: None, ..container("x") },
        Container { spec: None, ..container("x") },
        Container { snapshotter: String::new(), ..container("x") },
        Container { labels: oversize(), ..container("x") },
    ];
    for bad in bad {
        let refused = client.create(api.request(create(bad.clone()))).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{bad:?}");
    }

    let large = Some(Any { type_url: "x".into(), value: vec![0; 17 << 20] });
    let refused = client.create(api.request(create(Container { spec: large, ..container("x") })));
    assert_eq!(code(refused.await), Code::ResourceExhausted);

    let update = |container: Container, paths: &[&str]| UpdateContainerRequest {
        container: Some(container),
        update_mask: mask(paths),
    };
    let other = Container { labels: labels(&[("tier", "back")]), ..container("one") };
    client.update(api.request(update(other, &["labels.tier"]))).await.unwrap();
    for path in ["id", "runtime", "snapshotter", "nothing"] {
        let refused = client.update(api.request(update(container("one"), &[path]))).await;
        assert_eq!(code(refused), Code::InvalidArgument, "{path}");
    }
    let missing = client.update(api.request(update(container("two"), &["labels"]))).await;
    assert_eq!(code(missing), Code::NotFound);

    client.create(api.request(create(container("two")))).await.unwrap();
    for (filter, expected) in [
        ("", &["one", "two"][..]),
        ("id==one", &["one"]),
        ("labels.tier==back", &["one"]),
        ("image~=example", &["one", "two"]),
        ("runtime.name==io.containerd.runc.v2,id==two", &["two"]),
        ("id==three", &[]),
    ] {
        let list = ListContainersRequest { filters: vec![filter.into()] };
        let list = client.list(api.request(list)).await.unwrap().into_inner();
        let ids: Vec<_> = list.containers.iter().map(|container| &container.id).collect();
        assert_eq!(ids, expected, "{filter}");
    }
    let list = ListContainersRequest { filters: vec!["id=".into()] };
    assert_eq!(code(client.list(api.request(list)).await), Code::InvalidArgument);
    let list = ListContainersRequest::default();
    let mut stream = client.list_stream(api.request(list)).await.unwrap().into_inner();
    let mut ids = Vec::new();
    while let Some(message) = stream.message().await.unwrap() {
        ids.push(message.container.unwrap().id);
    }
    assert_eq!(ids, ["one", "two"]);

    let elsewhere = GetContainerRequest { id: "one".into() };
    assert_eq!(code(client.get(api.request_in("other", elsewhere)).await), Code::NotFound);
    for id in ["one", "two"] {
        let delete = DeleteContainerRequest { id: id.into() };
        client.delete(api.request(delete.clone())).await.unwrap();
        assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
    }
    let get = GetContainerRequest { id: "one".into() };
    assert_eq!(code(client.get(api.request(get)).await), Code::NotFound);
}
