//! Messages as values, and their bytes.

use super::generated::istio_workload_zds as proto;
use crate::netns::{Netns, NetnsError};
use prost::Message as _;
use proto::workload_request::Payload;
use proto::workload_response::Payload as ResponsePayload;

/// Longest message that Istio's ends can read.
pub(super) const LONGEST: usize = 1024;

/// Who a pod is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct PodInfo {
    /// Name of the pod.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
}

impl PodInfo {
    /// Makes a record of its three parts.
    pub fn new(
        name: impl Into<String>,
        namespace: impl Into<String>,
        service_account: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        }
    }
}

/// What the agent wants from the proxy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Order {
    /// Serve this pod. It may come again with the same namespace, which changes nothing.
    Add {
        /// The pod's UID.
        uid: String,
        /// Who it is.
        info: PodInfo,
        /// Its network namespace.
        netns: Netns,
    },
    /// Stop serving this pod.
    Del {
        /// The pod's UID.
        uid: String,
    },
    /// The agent knows the pod but not its namespace: go on if it is served.
    Keep {
        /// The pod's UID.
        uid: String,
    },
    /// Every pod of the node was named since the connection began: stop serving all others.
    SnapshotSent,
}

/// A message that breaks the protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadMessage {
    /// An add or keep without a UID, or a del without one.
    #[error("the message has no uid")]
    MissingUid,
    /// An add without the pod's name, namespace and account.
    #[error("add has no workload info")]
    MissingInfo,
    /// A keep after the snapshot was sent.
    #[error("keep came after the snapshot")]
    KeepAfterSnapshot,
    /// The descriptor is not a pod's network namespace.
    #[error("the descriptor cannot be used")]
    Namespace {
        /// Why not.
        source: NetnsError,
    },
    /// The namespace is the proxy's own or the node's: serving it would capture the node.
    #[error("the namespace is not a pod's")]
    OwnNamespace,
    /// The snapshot was sent twice.
    #[error("the snapshot was sent before")]
    SecondSnapshot,
    /// The packet was longer than any message.
    #[error("the packet was truncated")]
    Truncated,
    /// The number of descriptors is wrong: one with add, none otherwise.
    #[error("expected {expected} descriptors and got {got}")]
    WrongDescriptors {
        /// How many belong to the message.
        expected: usize,
        /// How many came.
        got: usize,
    },
    /// The bytes are no message of the protocol.
    #[error("the message cannot be read")]
    Unreadable {
        /// What the decoder says.
        source: prost::DecodeError,
    },
    /// A payload of a newer version.
    #[error("the message has an unknown payload")]
    UnknownPayload,
}

impl BadMessage {
    /// Whether the two ends may no longer agree on what was said, so that the connection must end.
    #[must_use]
    pub const fn ends_connection(&self) -> bool {
        matches!(self, Self::Truncated | Self::Unreadable { .. })
    }

    /// Returns whether the same message may be sent again; it would be refused again.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Returns whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> crate::Fault {
        crate::Fault::Peer
    }
}

/// A request before its descriptor was looked at.
#[derive(Debug)]
pub(super) enum RawOrder {
    Add { uid: String, info: PodInfo },
    Del { uid: String },
    Keep { uid: String },
    SnapshotSent,
}

/// Reads a request.
pub(super) fn read_request(bytes: &[u8]) -> Result<RawOrder, BadMessage> {
    let request = proto::WorkloadRequest::decode(bytes)
        .map_err(|source| BadMessage::Unreadable { source })?;
    let named = |uid: String| {
        (!uid.is_empty())
            .then_some(uid)
            .ok_or(BadMessage::MissingUid)
    };
    Ok(match request.payload.ok_or(BadMessage::UnknownPayload)? {
        Payload::Add(add) => {
            let info = add.workload_info.ok_or(BadMessage::MissingInfo)?;
            RawOrder::Add {
                uid: named(add.uid)?,
                info: PodInfo::new(info.name, info.namespace, info.service_account),
            }
        }
        Payload::Del(del) => RawOrder::Del {
            uid: named(del.uid)?,
        },
        Payload::Keep(keep) => RawOrder::Keep {
            uid: named(keep.uid)?,
        },
        Payload::SnapshotSent(_) => RawOrder::SnapshotSent,
    })
}

/// Writes a request; the namespace goes beside it.
pub(super) fn write_request(order: &Order) -> Vec<u8> {
    let payload = match order {
        Order::Add { uid, info, .. } => Payload::Add(proto::AddWorkload {
            uid: uid.clone(),
            workload_info: Some(proto::WorkloadInfo {
                name: info.name.clone(),
                namespace: info.namespace.clone(),
                service_account: info.service_account.clone(),
            }),
        }),
        Order::Del { uid } => Payload::Del(proto::DelWorkload { uid: uid.clone() }),
        Order::Keep { uid } => Payload::Keep(proto::KeepWorkload { uid: uid.clone() }),
        Order::SnapshotSent => Payload::SnapshotSent(proto::SnapshotSent {}),
    };
    let request = proto::WorkloadRequest {
        payload: Some(payload),
    };
    request.encode_to_vec()
}

/// Writes the proxy's first message.
pub(super) fn write_hello() -> Vec<u8> {
    let hello = proto::ZdsHello {
        version: proto::Version::V1.into(),
    };
    hello.encode_to_vec()
}

/// Reads the proxy's first message. Any version is accepted, as Istio's agent does: newer ones
/// understand version 1.
pub(super) fn read_hello(bytes: &[u8]) -> Result<(), BadMessage> {
    proto::ZdsHello::decode(bytes)
        .map(drop)
        .map_err(|source| BadMessage::Unreadable { source })
}

/// Writes an acknowledgement; an empty text means done.
pub(super) fn write_ack(error: &str) -> Vec<u8> {
    // Istio's agent reads 1024 bytes: longer texts are cut at a character.
    let end = error.floor_char_boundary(error.len().min(LONGEST - 16));
    let error = error.get(..end).unwrap_or_default().to_owned();
    let response = proto::WorkloadResponse {
        payload: Some(ResponsePayload::Ack(proto::Ack { error })),
    };
    response.encode_to_vec()
}

/// Reads an acknowledgement: nothing, or the proxy's text.
pub(super) fn read_ack(bytes: &[u8]) -> Result<Result<(), String>, BadMessage> {
    let response = proto::WorkloadResponse::decode(bytes)
        .map_err(|source| BadMessage::Unreadable { source })?;
    match response.payload {
        Some(ResponsePayload::Ack(ack)) if ack.error.is_empty() => Ok(Ok(())),
        Some(ResponsePayload::Ack(ack)) => Ok(Err(ack.error)),
        None => Err(BadMessage::UnknownPayload),
    }
}
