//! A proxy is asked about wherever one likes: the replica that it is connected to answers.

use convoy_client::proto::{
    ExplainInstanceRequest, GetProxyConfigRequest, RetryProxyRequest, explain_client::ExplainClient,
};
use tonic::Code;

use crate::{
    etcd::Cluster,
    mesh::{Agents, has, mesh},
    support::{
        ads::{Dialect, ENDPOINT, Incremental, Stream},
        within,
    },
};

/// As the tests' streams say they are.
const NODE: &str = "tester";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_of_a_proxy_is_answered_where_it_is_connected() {
    let cluster = Cluster::start(1, &[]);
    let [first, second] = mesh::<2>(&cluster, "").await;
    let agents = Agents::new();
    agents.join("web", 1, &first).await;
    has(&second, "web", 1).await;
    let mut proxy = Stream::<Incremental>::open(second.child.addresses.xds, Incremental::AGGREGATED).await;
    let sent = proxy.ask(Stream::<Incremental>::subscribe(ENDPOINT, &["web"])).await;
    proxy.ack(&sent).await;
    let mut proxies = first.api().proxies.clone();
    let request = GetProxyConfigRequest { node: NODE.into(), ..Default::default() };
    let config = within("its resources", proxies.get_proxy_config(request)).await.expect("answered").into_inner();
    let names: Vec<&str> = config.resources.iter().map(|of| of.name.as_str()).collect();
    assert_eq!(names, ["web"]);
    let retried = within("a retry", proxies.retry_proxy(RetryProxyRequest { node: NODE.into() })).await;
    assert_eq!(retried.expect("answered").into_inner().resources, 0, "it has refused nothing");
    let channel = tonic::transport::Endpoint::from_shared(format!("http://{}", first.child.addresses.grpc));
    let mut explain = ExplainClient::new(channel.expect("an address").connect_lazy());
    let (service, id) = ("web".to_owned(), "web-1".to_owned());
    let request = ExplainInstanceRequest { service, id, proxy: NODE.into(), ..Default::default() };
    let explained = within("why", explain.explain_instance(request)).await.expect("answered").into_inner();
    assert_eq!(explained.proxies.len(), 1, "{explained:?}");
    let nobody = RetryProxyRequest { node: "nobody".into() };
    let refused = within("a refusal", proxies.retry_proxy(nobody)).await.expect_err("nobody has it");
    assert_eq!(refused.code(), Code::NotFound);
}
