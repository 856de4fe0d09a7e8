//! The server's end of a connection.

use super::{
    LOCAL_ERROR_RESETS, PENDING_ACCEPT_RESETS, REMEMBERED_RESETS, RESETS_REMEMBERED_FOR, Settings,
    credit::{Credit, Payload},
    frames::{FrameWatch, Seen},
    io::Io,
    io_error,
    stream::Stream,
    windows::Tuner,
};
use crate::{error::Reset, tls::TlsStream};
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use rustls::CommonState;
use std::{
    future::{Future, poll_fn},
    io as stdio,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

/// Length of the client's connection preface (RFC 9113 §3.4).
const PREFACE_LEN: usize = 24;

/// Moves the connection's bytes and yields requests; must be polled until it is done.
#[derive(Debug)]
pub(crate) struct Driver {
    connection: h2::server::Connection<Io, Payload>,
    pings: Option<h2::PingPong>,
    io: Io,
    credit: Arc<Credit>,
    tuner: Tuner,
}

/// A request that waits for its answer. Dropped without one, the stream is reset.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) head: Parts,
    recv: h2::RecvStream,
    respond: h2::server::SendResponse<Payload>,
    credit: Arc<Credit>,
    io: Io,
}

/// Waits for the client's preface. The caller sets the deadline.
pub(crate) async fn start(tls: TlsStream, settings: &Settings) -> Result<Driver, stdio::Error> {
    let io = Io::new(tls, FrameWatch::new(PREFACE_LEN, settings.budgets));
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(settings.windows.stream)
        .initial_connection_window_size(settings.windows.connection)
        .max_frame_size(settings.max_frame)
        .max_header_list_size(settings.max_header_list)
        .max_concurrent_streams(settings.max_streams)
        .max_send_buffer_size(settings.send_buffer)
        .max_concurrent_reset_streams(REMEMBERED_RESETS)
        .reset_stream_duration(RESETS_REMEMBERED_FOR)
        .max_pending_accept_reset_streams(PENDING_ACCEPT_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
        .data_frame_budget(settings.windows.small_frames());
    let mut handshake = pin!(builder.handshake(io.clone()));
    let mut connection = poll_fn(|cx| {
        let started = handshake.as_mut().poll(cx);
        // A failure to write shows at the next read.
        let _flushed = io.poll_flush_all(cx);
        started
    })
    .await
    .map_err(io_error)?;
    let pings = connection.ping_pong();
    let credit = Credit::new(settings.connection_send_buffer);
    Ok(Driver {
        connection,
        pings,
        io,
        credit,
        tuner: Tuner::new(settings.windows),
    })
}

impl Driver {
    /// Moves bytes and yields the next request; `None` when the connection is over.
    pub(crate) fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Incoming, stdio::Error>>> {
        self.io.begin_turn();
        let mut accepted = self.connection.poll_accept(cx);
        if accepted.is_pending() && self.tune() {
            accepted = self.connection.poll_accept(cx);
        }
        let flushed = self.io.poll_flush_all(cx);
        match (accepted, flushed) {
            (Poll::Ready(Some(Ok((request, respond)))), _) => {
                let (head, recv) = Request::into_parts(request);
                Poll::Ready(Some(Ok(Incoming {
                    head,
                    recv,
                    respond,
                    credit: Arc::clone(&self.credit),
                    io: self.io.clone(),
                })))
            }
            (Poll::Ready(Some(Err(error))), _) => Poll::Ready(Some(Err(io_error(error)))),
            (Poll::Ready(None), _) => Poll::Ready(None),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Some(Err(error))),
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

    /// Whether a stream is open.
    pub(crate) fn has_streams(&self) -> bool {
        self.connection.has_streams()
    }

    /// Asks the peer to open no more streams; running ones go on.
    pub(crate) fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Ends the connection and all its streams after a GOAWAY; must still be polled.
    pub(crate) fn close(&mut self, calm: bool) {
        self.connection.abrupt_shutdown(if calm {
            h2::Reason::ENHANCE_YOUR_CALM
        } else {
            h2::Reason::NO_ERROR
        });
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

impl Incoming {
    /// Answers 200 and opens the stream.
    pub(crate) fn accept(mut self, headers: HeaderMap) -> Result<Stream, Reset> {
        let mut response = Response::new(());
        *response.headers_mut() = headers;
        let answered = self.respond.send_response(response, false);
        let send = answered.map_err(|error| super::reset_of(&error))?;
        self.io.answered();
        Ok(Stream::new(send, self.recv, self.credit))
    }

    /// Answers with a status and ends the stream.
    pub(crate) fn refuse(mut self, status: StatusCode) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        // An error means that the peer has given up already.
        if self.respond.send_response(response, true).is_ok() {
            self.io.answered();
        }
    }

    /// Says that the request was not looked at (RFC 9113 §8.7).
    pub(crate) fn reject(mut self) {
        self.respond.send_reset(h2::Reason::REFUSED_STREAM);
    }

    /// Resolves when the peer has given up.
    pub(crate) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reset> {
        match ready!(self.respond.poll_reset(cx)) {
            Ok(reason) => Poll::Ready(Reset::Stream(reason.into())),
            Err(error) => Poll::Ready(super::reset_of(&error)),
        }
    }
}
