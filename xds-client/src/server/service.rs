//! The gRPC service.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio_stream::{Stream, wrappers::WatchStream};
use tonic::{Request, Response, Status, Streaming};

use super::{
    answers::{Answer, Observer, Sent},
    resources::Resources,
    subscriber::Subscriber,
};
use crate::proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    aggregated_discovery_service_server::{
        AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
    },
};

/// How large a request may be: one that tells the versions of some 500 000 resources.
const MAX_REQUEST_BYTES: usize = 64 * 1024 * 1024;

/// Serves [`Resources`] over gRPC: delta ADS. Cheap to clone.
///
/// Each stream is driven by its connection: there are no tasks of its own. A response is built
/// when the one before it was handed to the connection; changes in between are coalesced.
#[derive(Clone, Debug)]
pub struct AdsService {
    resources: Resources,
    observer: Arc<dyn Observer>,
}

/// The tonic service that carries an [`AdsService`]; give it to a tonic router.
pub type AdsServer = AggregatedDiscoveryServiceServer<AdsService>;

impl AdsService {
    /// A service over `resources`.
    #[must_use]
    pub fn new(resources: Resources) -> Self {
        Self {
            resources,
            observer: Arc::new(()),
        }
    }

    /// Reports what goes to clients and what they answer.
    #[must_use]
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = observer;
        self
    }

    /// The service in tonic's form, with a limit for requests that fits large meshes.
    #[must_use]
    pub fn into_server(self) -> AdsServer {
        AdsServer::new(self).max_decoding_message_size(MAX_REQUEST_BYTES)
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for AdsService {
    type DeltaAggregatedResourcesStream = DeltaStream;
    type StreamAggregatedResourcesStream = tokio_stream::Empty<Result<DiscoveryResponse, Status>>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<DeltaStream>, Status> {
        let changes = self.resources.changes();
        Ok(Response::new(DeltaStream {
            requests: request.into_inner(),
            changes: WatchStream::from_changes(changes),
            resources: self.resources.clone(),
            subscriber: Subscriber::default(),
            queue: VecDeque::new(),
            observer: Arc::clone(&self.observer),
            node: None,
        }))
    }

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("only the delta protocol is served"))
    }
}

/// The responses of one stream.
pub struct DeltaStream {
    requests: Streaming<DeltaDiscoveryRequest>,
    changes: WatchStream<u64>,
    resources: Resources,
    subscriber: Subscriber,
    queue: VecDeque<DeltaDiscoveryResponse>,
    observer: Arc<dyn Observer>,
    node: Option<String>,
}

impl DeltaStream {
    fn node(&self) -> &str {
        self.node.as_deref().unwrap_or_default()
    }

    fn on_request(&mut self, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        if let (None, Some(node)) = (&self.node, &request.node) {
            self.observer.opened(&node.id);
            self.node = Some(node.id.clone());
        }
        if !request.response_nonce.is_empty() {
            let error = request.error_detail.as_ref();
            self.observer.answered(&Answer {
                node: self.node(),
                type_url: &request.type_url,
                nonce: &request.response_nonce,
                error: error.map(|status| &*status.message),
            });
        }
        let response = self
            .subscriber
            .on_request(&self.resources.lock(), request)
            .or(Err(Status::resource_exhausted("too many types or names")))?;
        self.queue.extend(response);
        Ok(())
    }

    fn next_queued(&mut self) -> Option<DeltaDiscoveryResponse> {
        let response = self.queue.pop_front()?;
        self.observer.sent(&Sent {
            node: self.node(),
            type_url: &response.type_url,
            nonce: &response.nonce,
            resources: response.resources.len(),
            removed: response.removed_resources.len(),
        });
        Some(response)
    }
}

impl Stream for DeltaStream {
    type Item = Result<DeltaDiscoveryResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            // What is queued goes first: a client that does not read is not asked what it wants.
            if let Some(response) = this.next_queued() {
                return Poll::Ready(Some(Ok(response)));
            }
            match Pin::new(&mut this.requests).poll_next(cx) {
                Poll::Ready(Some(Ok(request))) => {
                    if let Err(status) = this.on_request(request) {
                        return Poll::Ready(Some(Err(status)));
                    }
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            match Pin::new(&mut this.changes).poll_next(cx) {
                Poll::Ready(Some(_)) => {
                    let responses = this.subscriber.on_change(&this.resources.lock());
                    this.queue.extend(responses);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Drop for DeltaStream {
    fn drop(&mut self) {
        self.observer.closed(self.node());
    }
}

impl fmt::Debug for DeltaStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeltaStream")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}
