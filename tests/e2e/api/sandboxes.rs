//! The store of sandboxes, which containerd has since 1.7: Debian's does not.

use berth_proto::containerd::services::sandbox::v1::store_client::StoreClient;
use berth_proto::containerd::services::sandbox::v1::{
    StoreCreateRequest, StoreDeleteRequest, StoreGetRequest, StoreListRequest, StoreUpdateRequest,
};
use berth_proto::containerd::types::{Sandbox, sandbox};
use berth_tests::Engine;
use tonic::Code;

use super::{Api, code, labels};

#[tokio::test]
async fn sandboxes_are_stored() {
    let Some(engine) = Engine::berth() else { return };
    let api = Api::of(engine).await;
    let mut client = api.client(StoreClient::new);
    let sandbox = |id: &str| Sandbox {
        sandbox_id: id.into(),
        runtime: Some(sandbox::Runtime { name: "io.containerd.runc.v2".into(), options: None }),
        labels: labels(&[("a", "1")]),
        sandboxer: "shim".into(),
        ..Default::default()
    };
    let create = |id: &str| StoreCreateRequest { sandbox: Some(sandbox(id)) };
    client.create(api.request(create("one"))).await.unwrap();
    assert_eq!(code(client.create(api.request(create("one"))).await), Code::AlreadyExists);
    assert_eq!(code(client.create(api.request(create("a/b"))).await), Code::InvalidArgument);
    let update = StoreUpdateRequest { sandbox: Some(sandbox("one")), fields: vec!["id".into()] };
    assert_eq!(code(client.update(api.request(update)).await), Code::InvalidArgument);
    let list = StoreListRequest { filters: vec!["labels.a==1".into()] };
    let list = client.list(api.request(list)).await.unwrap().into_inner().list;
    assert_eq!(list.len(), 1);
    let delete = StoreDeleteRequest { sandbox_id: "one".into() };
    client.delete(api.request(delete.clone())).await.unwrap();
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
    let get = StoreGetRequest { sandbox_id: "one".into() };
    assert_eq!(code(client.get(api.request(get)).await), Code::NotFound);
}
