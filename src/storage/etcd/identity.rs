//! Which store it is: an id that its first replica gave it, and the cluster's own.
//!
//! An etcd that is made anew begins without an id. One that is restored to an older state keeps it, and often the
//! cluster's as well: a replica that finds its revision gone back gives it another.

use bytes::Bytes;

use super::{
    NotOpen,
    client::{Client, Repeat},
    failure::Failure,
    keys::Keys,
    rpc::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
};

/// Of everything under the prefix. A store of a newer one is not opened.
const FORMAT: &str = "1";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: u64,
    pub store: Bytes,
}

/// Finds out which store it is, or makes it.
pub async fn identify(client: &Client, keys: &Keys, new_store_id: &str) -> Result<Identity, NotOpen> {
    let look = |key| operation(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() }));
    let request = TxnRequest {
        compare: vec![compare(keys, CompareTarget::Mod, TargetUnion::ModRevision(0))],
        success: vec![put(keys.format(), FORMAT.into()), put(keys.store_id(), new_store_id.to_owned().into())],
        failure: vec![look(keys.format()), look(keys.store_id())],
    };
    let answer = client.txn(&request, Repeat::Always).await?;
    let cluster = answer.header.unwrap_or_default().cluster_id;
    if answer.succeeded {
        return Ok(Identity { cluster, store: new_store_id.to_owned().into() });
    }
    let mut values = answer.responses.into_iter().map(|response| match response.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next().map(|kv| kv.value).unwrap_or_default(),
        _ => Bytes::default(),
    });
    let (format, store) = (values.next().unwrap_or_default(), values.next().unwrap_or_default());
    if format != FORMAT {
        let format = String::from_utf8_lossy(&format).into_owned();
        let reason = format!("it is of format {format:?}, and this Convoy reads {FORMAT:?}: use a newer one");
        return Err(NotOpen::Ever(reason));
    }
    Ok(Identity { cluster, store })
}

/// Gives a store another id, unless somebody has.
pub async fn rename(client: &Client, keys: &Keys, old: &Identity, new_store_id: String) -> Result<(), Failure> {
    let request = TxnRequest {
        compare: vec![compare(keys, CompareTarget::Value, TargetUnion::Value(old.store.clone()))],
        success: vec![put(keys.store_id(), new_store_id.into())],
        failure: Vec::new(),
    };
    client.txn(&request, Repeat::Always).await.map(drop)
}

fn compare(keys: &Keys, target: CompareTarget, is: TargetUnion) -> Compare {
    let (result, target) = (CompareResult::Equal.into(), target.into());
    Compare { result, target, key: keys.store_id(), target_union: Some(is), ..Compare::default() }
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    operation(Request::RequestPut(PutRequest { key, value, lease: 0 }))
}

fn operation(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}
