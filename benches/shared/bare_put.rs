//! A put to etcd with nothing behind it: the floor of what goes through etcd. Of its messages as much as that needs.

use anyhow::Context;
use tonic::{client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

/// As large as an instance that is registered, in etcd.
const VALUE_BYTES: usize = 200;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

pub async fn put(channel: Channel, key: Vec<u8>) -> anyhow::Result<()> {
    let mut client = Grpc::new(channel);
    client.ready().await?;
    let put = PutRequest { key, value: vec![7; VALUE_BYTES] };
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    let codec: ProstCodec<PutRequest, ()> = ProstCodec::default();
    client.unary(tonic::Request::new(put), path, codec).await.context("a put")?;
    Ok(())
}
