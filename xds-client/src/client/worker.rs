//! The loop: open a stream, move messages, wait, again.

use std::{
    collections::{HashMap, VecDeque},
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body::Body as HttpBody;
use rand::{SeedableRng, rngs::SmallRng};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{
    Status,
    body::Body,
    client::GrpcService,
    codec::{Codec, EncodeBody},
};
use tonic_prost::ProstCodec;

use super::{
    Client, ClientConfig,
    backoff::Backoff,
    demand::Ask,
    ending::{Progress, classify},
    events::{
        ConnectionEnd, ConnectionEnded, Events, MessageReceived, Overdue, ResourcesRejected,
        UnknownType,
    },
    messages::Messages,
};
use crate::{
    chain::chain,
    delta::{Notice, Response, Session, Verdict, Want},
    handler::{Handler, Rejected, Update},
    proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse},
};

const METHOD: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// Requests on their way to the transport.
const OUTBOX: usize = 16;

/// Requests that wait for the transport; with more, no further message is read.
const MAX_PENDING: usize = 64;

/// Without anything due, look again after this long.
const IDLE: Duration = Duration::from_secs(3600);

type Requests = mpsc::Sender<DeltaDiscoveryRequest>;
type Waiters = HashMap<(Arc<str>, Arc<str>), Vec<oneshot::Sender<Option<bool>>>>;

/// Everything but the transport.
pub(super) struct Worker {
    session: Session,
    handlers: Vec<Box<dyn Handler>>,
    config: ClientConfig,
    events: Arc<dyn Events>,
    ready: watch::Sender<bool>,
    asks: mpsc::Receiver<Ask>,
    waiters: Waiters,
    pending: VecDeque<DeltaDiscoveryRequest>,
    started: Instant,
    was_useful: bool,
}

impl Worker {
    pub(super) fn new<T>(client: Client<T>) -> (T, Self) {
        let (_, asks) = client.asks;
        let worker = Self {
            session: client.session,
            handlers: client.handlers,
            config: client.config,
            events: client.events,
            ready: client.ready,
            asks,
            waiters: HashMap::new(),
            pending: VecDeque::new(),
            started: Instant::now(),
            was_useful: false,
        };
        (client.transport, worker)
    }

    pub(super) async fn run<T>(mut self, mut transport: T)
    where
        T: GrpcService<Body> + Send,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<tonic::codegen::StdError> + Send,
        T::Future: Send,
    {
        let mut backoff = Backoff::new(self.config.first_backoff, self.config.max_backoff);
        let mut rng = SmallRng::from_os_rng();
        loop {
            let began = Instant::now();
            self.was_useful = false;
            let (reason, message) = self.stream(&mut transport).await;
            self.session.close();
            self.pending.clear();
            let lived = began.elapsed();
            let backoff = backoff.after(self.was_useful, lived, &mut rng);
            self.events.connection_ended(&ConnectionEnded {
                reason,
                message: &message,
                backoff,
            });
            tracing::debug!(?reason, message, ?backoff, "the stream ended");
            self.meanwhile(pin!(sleep(backoff))).await;
        }
    }

    /// One stream, from its first request to its end.
    async fn stream<T>(&mut self, transport: &mut T) -> (ConnectionEnd, String)
    where
        T: GrpcService<Body> + Send,
        T::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
        <T::ResponseBody as HttpBody>::Error: Into<tonic::codegen::StdError> + Send,
        T::Future: Send,
    {
        let ready = std::future::poll_fn(|cx| transport.poll_ready(cx));
        if let Err(error) = self.meanwhile(pin!(ready)).await {
            let error: tonic::codegen::StdError = error.into();
            return (ConnectionEnd::ConnectionError, chain(&*error));
        }
        let (requests, outbox) = mpsc::channel(OUTBOX);
        self.pending.extend(self.session.open(self.now()));
        self.push(&requests);
        let call = transport.call(request(outbox));
        let answer = match self.meanwhile(pin!(call)).await {
            Ok(answer) => Messages::new(answer, self.config.max_message),
            Err(error) => Err(Status::from_error(error.into())),
        };
        let mut messages = match answer {
            Ok(messages) => messages,
            Err(status) => return ended(&status, Progress::Opening),
        };
        self.events.connected();
        loop {
            let due = self.due();
            tokio::select! {
                message = messages.next(), if self.pending.len() < MAX_PENDING => match message {
                    Ok(Some(message)) => self.on_message(message),
                    Ok(None) => return (ConnectionEnd::Complete, String::new()),
                    Err(status) => return ended(&status, Progress::Answered),
                },
                permit = requests.reserve(), if !self.pending.is_empty() => match permit {
                    Ok(permit) => self.hand_over(permit),
                    // The transport has dropped the request's body: the response says why.
                    Err(_closed) => self.pending.clear(),
                },
                Some(ask) = self.asks.recv() => self.on_ask(ask),
                () = sleep_until(due) => self.on_time(),
            }
        }
    }

    /// Waits for something; the watchdog runs and questions are taken meanwhile.
    async fn meanwhile<R>(&mut self, mut something: Pin<&mut impl Future<Output = R>>) -> R {
        loop {
            let due = self.due();
            tokio::select! {
                result = &mut something => return result,
                Some(ask) = self.asks.recv() => self.on_ask(ask),
                () = sleep_until(due) => self.on_time(),
            }
        }
    }

    /// Hands over as many requests as the transport takes without waiting.
    fn push(&mut self, requests: &Requests) {
        while !self.pending.is_empty()
            && let Ok(permit) = requests.try_reserve()
        {
            self.hand_over(permit);
        }
    }

    fn hand_over(&mut self, permit: mpsc::Permit<'_, DeltaDiscoveryRequest>) {
        if let Some(request) = self.pending.pop_front() {
            permit.send(request);
        }
    }

    fn on_message(&mut self, message: Response) {
        let type_url = message.type_url().to_owned();
        let (bytes, resources) = (message.byte_count(), message.resource_count());
        let removed = message.removed_count();
        let now = self.now();
        let handlers = &mut self.handlers;
        let mut apply = |type_url: &str, update: Update<'_>| to_handler(handlers, type_url, update);
        let received = self.session.receive(message, now, &mut apply);
        if received.verdict == Verdict::UnknownType {
            return self.on_unknown_type(&type_url);
        }
        let type_url = &*type_url;
        self.events.message_received(&MessageReceived {
            type_url,
            bytes,
            resources,
            removed,
        });
        if let Verdict::Refused(rejected) = &received.verdict {
            let first = rejected.first().map(ToString::to_string);
            tracing::warn!(
                type_url,
                count = rejected.len(),
                first,
                "resources were refused"
            );
            self.events
                .rejected(&ResourcesRejected { type_url, rejected });
        }
        self.was_useful |= received.verdict == Verdict::Accepted;
        self.pending.extend(received.reply);
        for (name, exists) in received.answered {
            let waiters = self.waiters.remove(&(type_url.into(), name));
            answer(waiters.unwrap_or_default(), Some(exists));
        }
        if self.session.is_complete() && !*self.ready.borrow() {
            self.ready.send_replace(true);
        }
    }

    /// The name comes from the server and is of any length.
    fn on_unknown_type(&self, type_url: &str) {
        let end = (0..=128).rev().find(|end| type_url.is_char_boundary(*end));
        let type_url = type_url.get(..end.unwrap_or(0)).unwrap_or(type_url);
        tracing::warn!(type_url, "a message of a type that was not asked for");
        self.events.unknown_type(&UnknownType { type_url });
    }

    fn on_ask(&mut self, ask: Ask) {
        match self.session.want(&ask.type_url, &ask.name) {
            Want::Ask(request) => {
                self.pending.extend(request.map(|request| *request));
                self.wait(ask);
            }
            Want::Known(exists) => answer(vec![ask.answer], Some(exists)),
            Want::Refused => answer(vec![ask.answer], None),
            Want::Waiting => self.wait(ask),
        }
    }

    fn wait(&mut self, ask: Ask) {
        let waiters = self.waiters.entry((ask.type_url, ask.name)).or_default();
        // Callers that gave up make room: the list is as long as those who still wait.
        waiters.retain(|waiter| !waiter.is_closed());
        waiters.push(ask.answer);
    }

    fn on_time(&mut self) {
        let now = self.now();
        let handlers = &mut self.handlers;
        let mut apply = |type_url: &str, update: Update<'_>| to_handler(handlers, type_url, update);
        for notice in self.session.tick(now, &mut apply) {
            match notice {
                Notice::Overdue { type_url, waited } => {
                    tracing::warn!(%type_url, ?waited, "the control plane has not answered");
                    let type_url = &*type_url;
                    self.events.overdue(&Overdue { type_url, waited });
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn due(&self) -> Instant {
        let deadline = self.session.deadline();
        deadline.map_or_else(|| Instant::now() + IDLE, |at| self.started + at)
    }
}

/// The request of a stream: what comes through `outbox`.
fn request(outbox: mpsc::Receiver<DeltaDiscoveryRequest>) -> http::Request<Body> {
    let mut codec = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default();
    let messages = ReceiverStream::new(outbox).map(Ok);
    let body = EncodeBody::new_client(codec.encoder(), messages, None, None);
    let mut request = http::Request::new(Body::new(body));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = Uri::from_static(METHOD);
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

fn to_handler(
    handlers: &mut [Box<dyn Handler>],
    type_url: &str,
    update: Update<'_>,
) -> Vec<Rejected> {
    let mut handlers = handlers.iter_mut();
    let handler = handlers.find(|handler| handler.type_url() == type_url);
    handler.map_or_else(Vec::new, |handler| handler.apply(update))
}

fn ended(status: &Status, progress: Progress) -> (ConnectionEnd, String) {
    (classify(status, progress), chain(status))
}

/// Whoever has stopped waiting needs no answer.
fn answer(waiters: Vec<oneshot::Sender<Option<bool>>>, exists: Option<bool>) {
    for waiter in waiters {
        waiter.send(exists).ok();
    }
}
