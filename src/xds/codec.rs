//! The gRPC messages of xDS streams: requests are decoded, responses are bytes already and are written as they are.

use std::{
    collections::VecDeque,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use envoy_types::pb::envoy::config::core::v3::Node;
use futures_util::Stream;
use http_body::Frame;
use prost::Message;
use tonic::{
    Status,
    codec::{DecodeBuf, Decoder},
    codegen::http::HeaderMap,
};

use super::{
    protocol::Response,
    request::{Incremental, StateOfTheWorld},
};

/// From here on shared bytes are handed on as they are; smaller ones are copied together, which is cheaper.
const SHARED_BYTES: usize = 8 * 1024;

/// A request of either dialect.
#[derive(Debug)]
pub enum Incoming {
    StateOfTheWorld(StateOfTheWorld),
    Incremental(Incremental),
}

impl Incoming {
    pub fn node(&self) -> Option<&Node> {
        match self {
            Self::StateOfTheWorld(request) => request.node.as_ref(),
            Self::Incremental(request) => request.node.as_ref(),
        }
    }
}

impl From<StateOfTheWorld> for Incoming {
    fn from(request: StateOfTheWorld) -> Self {
        Self::StateOfTheWorld(request)
    }
}

impl From<Incremental> for Incoming {
    fn from(request: Incremental) -> Self {
        Self::Incremental(request)
    }
}

#[derive(Debug)]
pub struct Requests<T>(PhantomData<fn() -> T>);

impl<T> Default for Requests<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + Default + Into<Incoming>> Decoder for Requests<T> {
    type Item = Incoming;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Incoming>, Status> {
        let request = T::decode(from).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Some(request.into()))
    }
}

/// The body of a call's answer: each response as one gRPC message, and its status at the end.
#[derive(Debug)]
pub struct Responses<S> {
    responses: Option<S>,
    /// What is still to be written of the present one.
    rest: VecDeque<Bytes>,
}

impl<S> Responses<S> {
    pub fn new(responses: S) -> Self {
        Self { responses: Some(responses), rest: VecDeque::new() }
    }
}

impl<S: Stream<Item = Result<Response, Status>> + Unpin> http_body::Body for Responses<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(bytes) = self.rest.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        let Some(responses) = &mut self.responses else { return Poll::Ready(None) };
        let status = match ready!(Pin::new(responses).poll_next(context)) {
            Some(Ok(response)) => {
                let first = lay_out(&response.chunks, &mut self.rest);
                return Poll::Ready(Some(Ok(Frame::data(first))));
            }
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.responses = None;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }
}

/// A gRPC message of these chunks: its first bytes, and then the rest.
fn lay_out(chunks: &[Bytes], rest: &mut VecDeque<Bytes>) -> Bytes {
    let length: usize = chunks.iter().map(Bytes::len).sum();
    let small = chunks.iter().filter(|chunk| chunk.len() < SHARED_BYTES).map(Bytes::len).sum::<usize>();
    let mut gathered = BytesMut::with_capacity(small + 5);
    gathered.put_u8(0);
    // A response is split long before this; one resource that is larger could not be sent by anybody.
    gathered.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for chunk in chunks {
        if chunk.len() < SHARED_BYTES {
            gathered.extend_from_slice(chunk);
        } else {
            rest.push_back(gathered.split().freeze());
            rest.push_back(chunk.clone());
        }
    }
    rest.push_back(gathered.freeze());
    rest.retain(|bytes| !bytes.is_empty());
    rest.pop_front().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_length_and_its_chunks() {
        let large = Bytes::from(vec![7; SHARED_BYTES]);
        for chunks in [
            vec![],
            vec![Bytes::from_static(b"head")],
            vec![Bytes::from_static(b"head"), large.clone(), Bytes::from_static(b"tail"), large.clone()],
            vec![large.clone(), large],
        ] {
            let mut rest = VecDeque::new();
            let first = lay_out(&chunks, &mut rest);
            let whole = [first].into_iter().chain(rest).collect::<Vec<_>>().concat();
            let content = chunks.concat();
            assert_eq!(whole[..5], [&[0][..], &u32::try_from(content.len()).expect("short").to_be_bytes()].concat());
            assert_eq!(whole[5..], content);
        }
    }
}
