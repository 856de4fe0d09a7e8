//! The client's end of a connection.

use super::{
    LOCAL_ERROR_RESETS, PENDING_ACCEPT_RESETS, REMEMBERED_RESETS, RESETS_REMEMBERED_FOR, Settings,
    credit::{Credit, Payload},
    frames::{FrameWatch, Seen},
    io::Io,
    io_error, is_unprocessed, reset_of, shared_io_error,
    stream::Stream,
    windows::Tuner,
};
use crate::{authority::Authority, error::Reset, tls::TlsStream};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use rustls::CommonState;
use std::{
    future::{Future, poll_fn},
    io as stdio,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Informational responses before the real one; RFC 9110 §15.2 asks to expect them.
const MAX_INFORMATIONAL: usize = 8;

/// Why no stream was opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// The connection had ended before the request was sent.
    Closed,
    /// The peer said that it has not looked at the request.
    Unprocessed,
    /// The peer answered with this status.
    Refused(StatusCode),
    /// The stream ended without an answer.
    Reset(Reset),
    /// The caller's deadline passed without an answer.
    Late,
}

/// Opens streams on a connection; clones share it. When the last one and the last stream are
/// gone, the connection closes.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    requests: h2::client::SendRequest<Payload>,
    credit: Arc<Credit>,
}

/// Moves the connection's bytes; must be polled until it is done.
#[derive(Debug)]
pub(crate) struct Driver {
    connection: h2::client::Connection<Io, Payload>,
    pings: Option<h2::PingPong>,
    io: Io,
    credit: Arc<Credit>,
    tuner: Tuner,
}

/// Starts HTTP/2. The caller waits for the peer's SETTINGS by polling the driver.
pub(crate) async fn start(
    tls: TlsStream,
    settings: &Settings,
) -> Result<(Opener, Driver), Arc<stdio::Error>> {
    let io = Io::new(tls, FrameWatch::new(0, settings.budgets));
    let mut builder = h2::client::Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(settings.windows.stream)
        .initial_connection_window_size(settings.windows.connection)
        .max_frame_size(settings.max_frame)
        .max_header_list_size(settings.max_header_list)
        .initial_max_send_streams(usize::try_from(settings.max_streams).unwrap_or(usize::MAX))
        .max_send_buffer_size(settings.send_buffer)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESETS_REMEMBERED_FOR)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .data_frame_budget(settings.windows.small_frames());
    let mut handshake = pin!(builder.handshake(io.clone()));
    let (requests, mut connection) = poll_fn(|cx| {
        let started = handshake.as_mut().poll(cx);
        // A failure to write shows at the next read.
        let _flushed = io.poll_flush_all(cx);
        started
    })
    .await
    .map_err(shared_io_error)?;
    let credit = Credit::new(settings.connection_send_buffer);
    let opener = Opener {
        requests,
        credit: Arc::clone(&credit),
    };
    let pings = connection.ping_pong();
    Ok((
        opener,
        Driver {
            connection,
            pings,
            io,
            credit,
            tuner: Tuner::new(settings.windows),
        },
    ))
}

impl Driver {
    /// Moves bytes; resolves when the connection is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), stdio::Error>> {
        self.io.begin_turn();
        let mut over = Pin::new(&mut self.connection).poll(cx);
        if over.is_pending() && self.tune() {
            over = Pin::new(&mut self.connection).poll(cx);
        }
        let over = over.map_err(io_error);
        let flushed = self.io.poll_flush_all(cx);
        match (over, flushed) {
            (Poll::Ready(over), _) => Poll::Ready(over),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (Poll::Pending, _) => Poll::Pending,
        }
    }

    /// Changes the window of streams if their number or their use asks for it.
    fn tune(&mut self) -> bool {
        let received = self.io.seen().bulk;
        let Some(window) = self.tuner.wanted(self.credit.streams(), received) else {
            return false;
        };
        // While the last change is not acknowledged, the next one waits.
        let changed = self.connection.set_initial_window_size(window).is_ok();
        if changed {
            self.tuner.changed(received);
        }
        changed
    }

    /// Shows what the TLS handshake agreed on.
    pub(crate) fn tls<R>(&self, look: impl FnOnce(&CommonState) -> R) -> R {
        self.io.tls(look)
    }

    /// What the peer has sent so far.
    pub(crate) fn seen(&self) -> Seen {
        self.io.seen()
    }

    /// Whether a tunnel is open.
    pub(crate) fn has_tunnels(&self) -> bool {
        self.credit.streams() > 0
    }

    /// How many streams the peer takes at a time.
    pub(crate) fn max_streams(&self) -> usize {
        self.connection.max_concurrent_send_streams()
    }

    /// Sends a PING, unless one is on its way.
    pub(crate) fn ping(&mut self) {
        if let Some(pings) = &mut self.pings {
            let _on_its_way = pings.send_ping(h2::Ping::opaque());
        }
    }

    /// Resolves when the last PING was answered.
    pub(crate) fn poll_pong(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.pings {
            Some(pings) => match ready!(pings.poll_pong(cx)) {
                Ok(_pong) => Poll::Ready(()),
                Err(_closed) => Poll::Pending,
            },
            None => Poll::Pending,
        }
    }
}

impl Opener {
    /// Sends a CONNECT request and waits for the answer. The caller sets the deadline.
    pub(crate) async fn open(
        mut self,
        authority: &Authority,
        headers: HeaderMap,
    ) -> Result<(Stream, HeaderMap), OpenError> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.version_mut() = Version::HTTP_2;
        // Every authority is a valid URI in authority form.
        *request.uri_mut() =
            Uri::try_from(authority.to_string()).or(Err(OpenError::Reset(Reset::Local)))?;
        *request.headers_mut() = headers;
        // Nothing was sent if this fails.
        let sent = self.requests.send_request(request, false);
        let (response, send) = sent.map_err(|_closed| OpenError::Closed)?;
        let mut opening = Opening {
            response,
            informational: 0,
        };
        // Until the answer, dropping `send` resets the stream.
        let answer = poll_fn(|cx| opening.poll(cx)).await?;
        let (head, recv) = answer.into_parts();
        if head.status != StatusCode::OK {
            return Err(OpenError::Refused(head.status));
        }
        Ok((Stream::new(send, recv, self.credit), head.headers))
    }
}

struct Opening {
    response: h2::client::ResponseFuture,
    informational: usize,
}

impl Opening {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<h2::RecvStream>, OpenError>> {
        while let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            interim.map_err(|error| failed(&error))?;
            self.informational += 1;
            if self.informational > MAX_INFORMATIONAL {
                return Poll::Ready(Err(OpenError::Reset(Reset::Local)));
            }
        }
        Pin::new(&mut self.response)
            .poll(cx)
            .map_err(|error| failed(&error))
    }
}

fn failed(error: &h2::Error) -> OpenError {
    if is_unprocessed(error) {
        OpenError::Unprocessed
    } else {
        OpenError::Reset(reset_of(error))
    }
}
