//! Bodies of answers: whole, or written piece by piece on another thread.

use std::convert::Infallible;
use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Frame;
use tokio::sync::mpsc;

/// Pieces that wait for a slow client; the writer waits beyond that.
const PIECES: usize = 4;
/// Size of a piece.
const PIECE: usize = 64 << 10;

/// The body of an answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Body {
    /// Everything at once.
    Full(Bytes),
    /// Piece by piece, until the writer is done.
    Pieces(mpsc::Receiver<Bytes>),
}

/// Writes into a [`Body::Pieces`]; blocks its thread while the client is slow.
#[derive(Debug)]
pub(super) struct PieceWriter {
    pieces: mpsc::Sender<Bytes>,
    buffer: BytesMut,
}

impl Body {
    /// A body and the end to write it with, on a thread that may block.
    pub(super) fn pieces() -> (PieceWriter, Self) {
        let (sender, receiver) = mpsc::channel(PIECES);
        let writer = PieceWriter {
            pieces: sender,
            buffer: BytesMut::new(),
        };
        (writer, Self::Pieces(receiver))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self::Full(text.into())
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self::Full(Bytes::from_static(text.as_bytes()))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Full(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Full(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Pieces(pieces) => {
                let piece = pieces.poll_recv(cx);
                piece.map(|piece| piece.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        match self {
            Self::Full(bytes) => hyper::body::SizeHint::with_exact(bytes.len() as u64),
            Self::Pieces(_) => hyper::body::SizeHint::default(),
        }
    }
}

impl PieceWriter {
    fn send(&mut self) -> io::Result<()> {
        let piece = self.buffer.split().freeze();
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.pieces.blocking_send(piece).map_err(gone)
    }
}

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.send()
    }
}

/// An answer with a body.
pub(super) fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// An answer of plain text.
pub(super) fn text(status: StatusCode, body: impl Into<Body>) -> Response<Body> {
    answer(status, "text/plain; charset=utf-8", body)
}

/// The answer to a method that a path does not take.
pub(super) fn wrong_method(allow: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    let headers = response.headers_mut();
    headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
