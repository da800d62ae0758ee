//! The gRPC codec of xDS streams: requests are decoded, responses are bytes already and are written as they are.

use std::marker::PhantomData;

use bytes::BufMut;
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message;
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use super::protocol::Response;

/// A request of either dialect.
#[derive(Debug)]
pub enum Incoming {
    StateOfTheWorld(DiscoveryRequest),
    Incremental(DeltaDiscoveryRequest),
}

impl Incoming {
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::StateOfTheWorld(request) => request.node.as_ref(),
            Self::Incremental(request) => request.node.as_ref(),
        }
    }
}

impl From<DiscoveryRequest> for Incoming {
    fn from(request: DiscoveryRequest) -> Self {
        Self::StateOfTheWorld(request)
    }
}

impl From<DeltaDiscoveryRequest> for Incoming {
    fn from(request: DeltaDiscoveryRequest) -> Self {
        Self::Incremental(request)
    }
}

#[derive(Debug)]
pub struct XdsCodec<T>(PhantomData<fn() -> T>);

impl<T> Default for XdsCodec<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + Into<Incoming> + 'static> Codec for XdsCodec<T> {
    type Encode = Response;
    type Decode = Incoming;
    type Encoder = Chunks;
    type Decoder = Self;

    fn encoder(&mut self) -> Chunks {
        Chunks
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

#[derive(Debug)]
pub struct Chunks;

impl Encoder for Chunks {
    type Item = Response;
    type Error = Status;

    fn encode(&mut self, response: Response, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.reserve(response.chunks.iter().map(bytes::Bytes::len).sum());
        for chunk in response.chunks {
            into.put(chunk);
        }
        Ok(())
    }
}

impl<T: Message + Default + Into<Incoming>> Decoder for XdsCodec<T> {
    type Item = Incoming;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Incoming>, Status> {
        let request = T::decode(from).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Some(request.into()))
    }
}
