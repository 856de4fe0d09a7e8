//! Messages out of the body of an answer, as gRPC frames them.
//!
//! tonic would gather a message in one buffer and decode it whole. A first message is as large as
//! the state that is made of it; here it arrives in blocks, which are let go one by one while it is
//! applied.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as HttpBody;
use tonic::{Code, Status, codegen::StdError};

use crate::delta::Response;

/// Large enough that the allocator gives it back to the system.
const BLOCK: usize = 256 * 1024;

/// A flag and a length stand before each message.
const PREFIX: usize = 5;

/// The messages of one stream.
#[derive(Debug)]
pub(super) struct Messages<B> {
    body: Pin<Box<B>>,
    status: StatusCode,
    limit: usize,
    /// Received and not looked at.
    data: Bytes,
    prefix: Vec<u8>,
    /// The message that is arriving, and how much of it is missing.
    blocks: Vec<BytesMut>,
    left: Option<usize>,
}

impl<B> Messages<B>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    /// The messages of an answer, none longer than `limit`.
    ///
    /// # Errors
    ///
    /// Returns the status if the answer has one in its head.
    pub(super) fn new(answer: http::Response<B>, limit: usize) -> Result<Self, Status> {
        let status = Status::from_header_map(answer.headers());
        if let Some(status) = status.filter(|status| status.code() != Code::Ok) {
            return Err(status);
        }
        Ok(Self {
            status: answer.status(),
            body: Box::pin(answer.into_body()),
            limit,
            data: Bytes::new(),
            prefix: Vec::with_capacity(PREFIX),
            blocks: Vec::new(),
            left: None,
        })
    }

    /// The next message, or `None` when the server has ended the stream in order. Cancel safe.
    ///
    /// # Errors
    ///
    /// Returns the status with which the stream ended, the server's or one made here.
    pub(super) async fn next(&mut self) -> Result<Option<Response>, Status> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Response>, Status>> {
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            match ready!(self.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.data = data,
                    Err(frame) => return Poll::Ready(self.end(frame.into_trailers().ok())),
                },
                Some(Err(error)) => return Poll::Ready(Err(Status::from_error(error.into()))),
                None => return Poll::Ready(self.end(None)),
            }
        }
    }

    /// A whole message, if there is one; otherwise all that has been received is looked at.
    fn take(&mut self) -> Result<Option<Response>, Status> {
        loop {
            let left = match self.left {
                Some(left) => left,
                None => match self.length()? {
                    Some(length) => *self.left.insert(length),
                    None => return Ok(None),
                },
            };
            if left == 0 {
                self.left = None;
                let blocks = std::mem::take(&mut self.blocks).into_iter();
                let message = Response::decode(blocks.map(BytesMut::freeze));
                let malformed = |error| Status::internal(format!("malformed message: {error}"));
                return message.map(Some).map_err(malformed);
            }
            if self.data.is_empty() {
                return Ok(None);
            }
            let added = self.add(left);
            self.left = Some(left.saturating_sub(added));
        }
    }

    /// Adds to the last block, or to a new one; `left` bytes of the message are missing.
    fn add(&mut self, left: usize) -> usize {
        let is_full = |block: &BytesMut| block.len() == block.capacity();
        if self.blocks.last().is_none_or(is_full) {
            self.blocks.push(BytesMut::with_capacity(left.min(BLOCK)));
        }
        let Some(block) = self.blocks.last_mut() else {
            return 0;
        };
        let room = block.capacity() - block.len();
        let part = self.data.split_to(room.min(left).min(self.data.len()));
        block.extend_from_slice(&part);
        part.len()
    }

    /// The length of the message that begins, once all of its prefix is there.
    fn length(&mut self) -> Result<Option<usize>, Status> {
        let missing = PREFIX.saturating_sub(self.prefix.len());
        let part = self.data.split_to(missing.min(self.data.len()));
        self.prefix.extend_from_slice(&part);
        if self.prefix.len() < PREFIX {
            return Ok(None);
        }
        let mut prefix = &*std::mem::replace(&mut self.prefix, Vec::with_capacity(PREFIX));
        if prefix.get_u8() != 0 {
            return Err(Status::unimplemented(
                "a compressed message was not asked for",
            ));
        }
        let length = usize::try_from(prefix.get_u32()).unwrap_or(usize::MAX);
        if length > self.limit {
            let limit = self.limit;
            let text = format!("a message of {length} bytes is longer than the limit of {limit}");
            return Err(Status::out_of_range(text));
        }
        Ok(Some(length))
    }

    fn end(&self, trailers: Option<HeaderMap>) -> Result<Option<Response>, Status> {
        let status = trailers.as_ref().and_then(Status::from_header_map);
        match status.unwrap_or_else(|| without_status(self.status)) {
            status if status.code() != Code::Ok => Err(status),
            _ if self.left.is_some() || !self.prefix.is_empty() => {
                Err(Status::internal("the stream ended in a message"))
            }
            _ => Ok(None),
        }
    }
}

/// What gRPC makes of an HTTP status when there is none of its own.
fn without_status(status: StatusCode) -> Status {
    let code = match status.as_u16() {
        200 => Code::Ok,
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, format!("the answer has HTTP status {status}"))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        convert::Infallible,
        pin::Pin,
        task::{Context, Poll},
    };

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use prost::Message;
    use tonic::{Code, Status};

    use super::{BLOCK, Messages};
    use crate::proto::discovery::{Any, DeltaDiscoveryResponse, Resource};

    const LIMIT: usize = 10 * BLOCK;

    /// A body that is there at once, in the given frames.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn message(size: usize) -> DeltaDiscoveryResponse {
        DeltaDiscoveryResponse {
            nonce: format!("of {size}"),
            resources: vec![Resource {
                resource: Some(Any {
                    value: vec![b'x'; size].into(),
                    ..Any::default()
                }),
                ..Resource::default()
            }],
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[flag][..], &length, message].concat()
    }

    fn trailers(status: &Status) -> Frame<Bytes> {
        let mut trailers = http::HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        Frame::trailers(trailers)
    }

    /// What is read: nonces and sizes, and how the stream ended.
    fn read(bytes: Vec<u8>, step: usize, end: Option<Frame<Bytes>>) -> (Vec<String>, Code) {
        let bytes = Bytes::from(bytes);
        let starts = (0..bytes.len()).step_by(step);
        let data = starts.map(|at| bytes.slice(at..bytes.len().min(at + step)));
        let frames = Frames(data.map(Frame::data).chain(end).collect());
        let mut messages = Messages::new(http::Response::new(frames), LIMIT).unwrap();
        let mut nonces = Vec::new();
        loop {
            let next = at_once(messages.next());
            match next {
                Ok(Some(response)) => {
                    let nonce = response.head.nonce.clone();
                    let body = response
                        .resources
                        .map(|r| r.unwrap().resource.unwrap().value);
                    let size: usize = body.map(|body| body.len()).sum();
                    assert_eq!(nonce, format!("of {size}"));
                    nonces.push(nonce);
                }
                Ok(None) => return (nonces, Code::Ok),
                Err(status) => return (nonces, status.code()),
            }
        }
    }

    fn at_once<T>(future: impl Future<Output = T>) -> T {
        let mut future = std::pin::pin!(future);
        match future
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()))
        {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("the body is there"),
        }
    }

    #[test]
    fn messages_are_whole_however_the_body_is_cut() {
        let _trace = meshwright_testkit::trace();
        let sizes = [0, 1, 300, BLOCK, 2 * BLOCK + 7];
        let all = sizes.map(|size| framed(0, &message(size).encode_to_vec()));
        for step in [1, 4, 5, 6, 16_384, BLOCK + 1, 8 * BLOCK] {
            let (nonces, code) = read(all.concat(), step, None);
            assert_eq!(
                nonces,
                sizes.map(|size| format!("of {size}")),
                "in frames of {step}"
            );
            assert_eq!(code, Code::Ok);
        }
        let (none, code) = read(Vec::new(), 1, Some(trailers(&Status::ok(""))));
        assert_eq!((none.len(), code), (0, Code::Ok));
    }

    #[test]
    fn what_cannot_be_a_message_ends_the_stream_after_the_good_ones() {
        let _trace = meshwright_testkit::trace();
        let good = framed(0, &message(3).encode_to_vec());
        let huge = [&[0][..], &u32::MAX.to_be_bytes()].concat();
        for (bad, end, expected) in [
            (framed(1, b"x"), None, Code::Unimplemented),
            (framed(0, &[0xff]), None, Code::Internal),
            (huge, None, Code::OutOfRange),
            (good[..9].to_vec(), None, Code::Internal),
            (vec![0, 0], None, Code::Internal),
            (
                Vec::new(),
                Some(trailers(&Status::unavailable("later"))),
                Code::Unavailable,
            ),
        ] {
            let (nonces, code) = read([good.clone(), bad].concat(), 7, end);
            assert_eq!((nonces.len(), code), (1, expected));
        }
    }

    #[test]
    fn answer_without_a_status_of_grpc_takes_that_of_http() {
        let _trace = meshwright_testkit::trace();
        for (http, expected) in [(401, Code::Unauthenticated), (503, Code::Unavailable)] {
            let frames = Frames(VecDeque::new());
            let answer = http::Response::builder().status(http).body(frames).unwrap();
            let mut messages = Messages::new(answer, LIMIT).unwrap();
            let status = at_once(messages.next()).unwrap_err();
            assert_eq!(status.code(), expected);
        }
    }
}
