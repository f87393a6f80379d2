use berth_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use berth_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, GetNamespaceRequest, ListNamespacesRequest,
    Namespace, UpdateNamespaceRequest,
};
use tonic::Code;

use super::{Api, code, labels, mask, oversize};

#[tokio::test]
async fn namespaces() {
    let api = Api::start().await;
    let mut client = api.client(NamespacesClient::new);
    let name = format!("{}-x", api.engine.namespace());
    let namespace =
        |entries: &[(&str, &str)]| Some(Namespace { name: name.clone(), labels: labels(entries) });
    let create = CreateNamespaceRequest { namespace: namespace(&[("a", "1"), ("b", "2")]) };
    client.create(api.request(create.clone())).await.unwrap();
    assert_eq!(code(client.create(api.request(create)).await), Code::AlreadyExists);
    for bad in ["", "a/b", "-a", "a..b", &"n".repeat(77)] {
        let namespace = Some(Namespace { name: bad.into(), ..Default::default() });
        let create = CreateNamespaceRequest { namespace };
        assert_eq!(
            code(client.create(api.request(create)).await),
            Code::InvalidArgument,
            "{bad:?}"
        );
    }
    let long = Some(Namespace { name: format!("{name}-y"), labels: oversize() });
    let create = CreateNamespaceRequest { namespace: long };
    assert_eq!(code(client.create(api.request(create)).await), Code::InvalidArgument);

    let update = |entries: &[(&str, &str)], paths: &[&str]| UpdateNamespaceRequest {
        namespace: namespace(entries),
        update_mask: mask(paths),
    };
    let change = update(&[("c", "3")], &["labels.c", "labels.a"]);
    client.update(api.request(change)).await.unwrap();
    let refused = client.update(api.request(update(&[], &["name"]))).await;
    assert_eq!(code(refused), Code::InvalidArgument);

    let get = GetNamespaceRequest { name: name.clone() };
    let got = client.get(api.request(get)).await.unwrap().into_inner().namespace.unwrap();
    assert_eq!(got.labels, labels(&[("b", "2"), ("c", "3")]));
    let list =
        client.list(api.request(ListNamespacesRequest::default())).await.unwrap().into_inner();
    assert!(list.namespaces.iter().any(|namespace| namespace.name == name));
    let delete = DeleteNamespaceRequest { name: name.clone() };
    client.delete(api.request(delete.clone())).await.unwrap();
    assert_eq!(code(client.delete(api.request(delete)).await), Code::NotFound);
}
