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
            _ if self.left.is_some() => Err(Status::internal("the stream ended in a message")),
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
