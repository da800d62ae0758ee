//! gRPC frames and protobuf messages that are none, on the API's port and on the xDS port.

use std::future::poll_fn;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use prost::Message;
use rand::RngExt;
use tonic::{
    Code, Status,
    codegen::{Service, http},
    transport::Channel,
};

use super::Witness;
use crate::support::{ads::connect, api::refused, sample::instances, seeded, within};

const REGISTER: &str = "/convoy.v1.Registry/Register";
const BEATS: &str = "/convoy.v1.Registry/StreamHeartbeats";
const WATCH: &str = "/convoy.v1.Registry/Watch";
const ADS: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// One message's frame, with a head that may lie.
fn frame(compressed: u8, length: u32, message: &[u8]) -> Vec<u8> {
    [&[compressed][..], &length.to_be_bytes(), message].concat()
}

fn honest(message: &[u8]) -> Vec<u8> {
    frame(0, u32::try_from(message.len()).expect("a short one"), message)
}

/// A request's bytes as they are, and the status that they get; none if it is no gRPC status.
async fn send(channel: &Channel, path: &str, kind: &str, bytes: Vec<u8>) -> Option<Status> {
    let mut channel = channel.clone();
    within("an answer", async {
        poll_fn(|cx| channel.poll_ready(cx)).await.expect("a channel");
        let request =
            http::Request::builder().method("POST").uri(path).header("content-type", kind).header("te", "trailers");
        let body = tonic::body::Body::new(Full::new(Bytes::from(bytes)));
        let response = channel.call(request.body(body).expect("a request")).await.expect("an answer");
        let (head, body) = response.into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Some(status);
        }
        if path == WATCH {
            // It was understood, and has no end.
            return None;
        }
        let collected = body.collect().await.ok()?;
        Status::from_header_map(collected.trailers()?)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_messages_that_are_none_are_the_callers_mistake() {
    let mut witness = Witness::start().await;
    let good = instances("web", 1..3).encode_to_vec();
    let not_utf8 = {
        let mut registration = instances("wab", 1..2).encode_to_vec();
        let position = registration.windows(3).position(|part| part == b"wab").expect("its name");
        registration[position] = 0xff;
        registration
    };
    let (api, xds) = (connect(witness.child.addresses.grpc).await, connect(witness.child.addresses.xds).await);
    for (what, bytes) in [
        ("no frame", vec![]),
        ("half a head", vec![0, 0, 0]),
        ("a frame cut off", frame(0, 1_000, &good)),
        ("the longest frame there is", frame(0, u32::MAX, &good)),
        ("a frame compressed with nothing", frame(1, good.len() as u32, &good)),
        ("a frame of no kind", frame(255, good.len() as u32, &good)),
        ("a message cut off", honest(&good[..good.len() - 3])),
        ("a field that is longer than its message", honest(&[0x22, 0xff, 0xff, 0xff, 0x7f])),
        ("a number without end", honest(&[0x18; 32].map(|_| 0xff))),
        ("a wire type that is none", honest(&[0x0f])),
        ("a field of number 0", honest(&[0x00])),
        ("a string where a message should be", honest(&[0x22, 0x03, b'a', b'b', b'c'])),
        ("text that is not UTF-8", honest(&not_utf8)),
    ] {
        for path in [REGISTER, BEATS, WATCH] {
            let status = send(&api, path, "application/grpc", bytes.clone()).await;
            let Some(status) = status.filter(|status| status.code() != Code::Ok) else {
                // A stream may be empty, and a field that a message has not is skipped.
                assert!(path != REGISTER, "{path} {what}");
                continue;
            };
            let typed = [Code::InvalidArgument, Code::ResourceExhausted];
            assert!(typed.contains(&status.code()) || what.contains("compressed"), "{path} {what}: {status:?}");
            if typed.contains(&status.code()) {
                refused(&status);
            }
        }
        for path in [ADS, DELTA] {
            send(&xds, path, "application/grpc", bytes.clone()).await;
        }
        witness.child.assert_running();
    }
    witness.check("frames that are none").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_messages_change_nothing() {
    let mut random = seeded("random_messages_change_nothing");
    let mut witness = Witness::start().await;
    let good = instances("web", 1..3).encode_to_vec();
    for (address, paths) in
        [(witness.child.addresses.grpc, [REGISTER, BEATS, WATCH]), (witness.child.addresses.xds, [ADS, DELTA, ADS])]
    {
        let channel = connect(address).await;
        for path in paths {
            for _ in 0..40 {
                let mut bytes = good.clone();
                for _ in 0..random.random_range(1..8) {
                    let position = random.random_range(0..bytes.len());
                    bytes[position] = random.random();
                }
                send(&channel, path, "application/grpc", honest(&bytes)).await;
            }
        }
    }
    witness.check("random messages").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_content_type_and_another_service_are_answered() {
    let mut witness = Witness::start().await;
    let good = honest(&instances("web", 1..3).encode_to_vec());
    for address in [witness.child.addresses.grpc, witness.child.addresses.xds] {
        let channel = connect(address).await;
        for kind in ["application/json", "text/plain", "application/grpc-web", ""] {
            for path in
                [REGISTER, ADS, "/", "/no.such.Service/Call", "/convoy.v1.Registry/", "/convoy.v1.Proxies/ListProxies"]
            {
                send(&channel, path, kind, good.clone()).await;
            }
        }
    }
    witness.check("other content types").await;
}

/// A structure in a structure in a structure: whoever decodes it has to stop somewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_nested_without_end_are_refused() {
    let mut witness = Witness::start().await;
    let wrapped = |field: u8, message: &[u8]| {
        let mut bytes = vec![field << 3 | 2];
        prost::encoding::encode_varint(message.len() as u64, &mut bytes);
        [bytes, message.to_vec()].concat()
    };
    // google.protobuf.Value: a list (6) of values (1) of lists; node (2) metadata (3) fields (1) value (2).
    let mut value = Vec::new();
    for _ in 0..4_000 {
        value = wrapped(6, &wrapped(1, &value));
    }
    let entry = [wrapped(1, b"namespace"), wrapped(2, &value)].concat();
    let node = [wrapped(1, b"tester"), wrapped(3, &wrapped(1, &entry))].concat();
    let xds = connect(witness.child.addresses.xds).await;
    // The node is field 1 of both requests.
    for path in [ADS, DELTA] {
        let status = send(&xds, path, "application/grpc", honest(&wrapped(1, &node))).await.expect("a status");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }
    witness.check("nested messages").await;
}
