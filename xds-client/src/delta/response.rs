//! A response whose resources are read one by one.

use std::{collections::VecDeque, vec};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};

use crate::proto::discovery::{DeltaDiscoveryResponse, Resource};

/// Number of the field with the resources.
const RESOURCES: u32 = 2;

/// A response on its way into a [`Session`](super::Session).
///
/// Made from a message, or by [`decode`](Self::decode) from its bytes. The resources of a first
/// response are as large as the state that is made of them: the bytes are then let go piece by
/// piece while the state grows.
#[derive(Debug)]
pub struct Response {
    /// All fields but the resources.
    pub(crate) head: DeltaDiscoveryResponse,
    pub(crate) resources: Resources,
    bytes: usize,
    count: usize,
}

/// The resources that have not been read yet.
#[derive(Debug)]
pub(crate) enum Resources {
    Decoded(vec::IntoIter<Resource>),
    Encoded(Rope),
}

impl Response {
    /// Takes the bytes of a message, in any number of parts.
    ///
    /// Reads all fields but the resources. A resource that turns out to be malformed is refused by
    /// the session, as others are that cannot be used.
    ///
    /// # Errors
    ///
    /// Returns why the outermost message is malformed.
    pub fn decode(parts: impl IntoIterator<Item = Bytes>) -> Result<Self, DecodeError> {
        let rope: Rope = parts.into_iter().collect();
        let (mut rest, mut count) = (rope.clone(), 0);
        let mut head = DeltaDiscoveryResponse::default();
        while rest.has_remaining() {
            let (tag, wire) = decode_key(&mut rest)?;
            if (tag, wire) == (RESOURCES, WireType::LengthDelimited) {
                skip_field(wire, tag, &mut rest, DecodeContext::default())?;
                count += 1;
            } else {
                head.merge_field(tag, wire, &mut rest, DecodeContext::default())?;
            }
        }
        Ok(Self {
            head,
            bytes: rope.left,
            count,
            resources: Resources::Encoded(rope),
        })
    }

    /// The type of its resources.
    #[must_use]
    pub fn type_url(&self) -> &str {
        &self.head.type_url
    }

    /// Its size on the wire.
    #[must_use]
    pub const fn byte_count(&self) -> usize {
        self.bytes
    }

    /// How many resources it carries.
    #[must_use]
    pub const fn resource_count(&self) -> usize {
        self.count
    }

    /// How many it removes.
    #[must_use]
    pub const fn removed_count(&self) -> usize {
        self.head.removed_resources.len()
    }
}

impl From<DeltaDiscoveryResponse> for Response {
    fn from(mut message: DeltaDiscoveryResponse) -> Self {
        let bytes = message.encoded_len();
        let resources = std::mem::take(&mut message.resources);
        Self {
            head: message,
            bytes,
            count: resources.len(),
            resources: Resources::Decoded(resources.into_iter()),
        }
    }
}

impl Iterator for Resources {
    type Item = Result<Resource, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Decoded(resources) => resources.next().map(Ok),
            Self::Encoded(rope) => rope.next_resource().transpose(),
        }
    }
}

/// Bytes in parts; a part is let go when it has been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rope {
    parts: VecDeque<Bytes>,
    left: usize,
}

impl Rope {
    fn next_resource(&mut self) -> Result<Option<Resource>, DecodeError> {
        while self.has_remaining() {
            let (tag, wire) = decode_key(self)?;
            if (tag, wire) == (RESOURCES, WireType::LengthDelimited) {
                let length = usize::try_from(decode_varint(self)?).unwrap_or(usize::MAX);
                return Resource::decode(self.copy_to_bytes(length)).map(Some);
            }
            skip_field(wire, tag, self, DecodeContext::default())?;
        }
        Ok(None)
    }
}

impl FromIterator<Bytes> for Rope {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        let parts: VecDeque<Bytes> = parts.collect();
        Self {
            left: parts.iter().map(Bytes::len).sum(),
            parts,
        }
    }
}

impl Buf for Rope {
    fn remaining(&self) -> usize {
        self.left
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0
            && let Some(part) = self.parts.front_mut()
        {
            let step = count.min(part.len());
            part.advance(step);
            self.left -= step;
            count -= step;
            if part.is_empty() {
                self.parts.pop_front();
            }
        }
    }

    /// Shares what lies in one part. Shorter than `length` if no more is left.
    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        let length = length.min(self.left);
        if let Some(part) = self.parts.front().filter(|part| part.len() >= length) {
            let shared = part.slice(..length);
            self.advance(length);
            return shared;
        }
        let mut copy = BytesMut::with_capacity(length);
        copy.put(self.take(length));
        copy.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::Response;
    use crate::proto::discovery::{Any, DeltaDiscoveryResponse, Resource};
    use bytes::Bytes;
    use prost::Message;

    fn message() -> DeltaDiscoveryResponse {
        let resource = |n: usize| Resource {
            name: format!("name-{n}"),
            resource: Some(Any {
                value: vec![7; n * 10].into(),
                ..Any::default()
            }),
            ..Resource::default()
        };
        DeltaDiscoveryResponse {
            resources: (0..5).map(resource).collect(),
            type_url: "type".to_owned(),
            nonce: "n1".to_owned(),
            removed_resources: vec!["gone".to_owned()],
            ..DeltaDiscoveryResponse::default()
        }
    }

    #[test]
    fn message_in_parts_of_any_size_reads_as_the_message() {
        let _trace = meshwright_testkit::trace();
        let whole = message();
        let bytes = Bytes::from(whole.encode_to_vec());
        for size in 1..=bytes.len() {
            let starts = (0..bytes.len()).step_by(size);
            let parts = starts.map(|at| bytes.slice(at..bytes.len().min(at + size)));
            let response = Response::decode(parts).unwrap();
            assert_eq!(response.byte_count(), bytes.len());
            assert_eq!(
                (response.resource_count(), response.removed_count()),
                (5, 1)
            );
            let mut head = response.head;
            let resources: Result<Vec<_>, _> = response.resources.collect();
            head.resources = resources.unwrap();
            assert_eq!(head, whole, "in parts of {size} bytes");
        }
    }

    #[test]
    fn malformed_resource_leaves_the_others_readable() {
        let _trace = meshwright_testkit::trace();
        let mut bytes = vec![0x12, 1, 0xff];
        bytes.extend(message().encode_to_vec());
        let response = Response::decode([Bytes::from(bytes)]).unwrap();
        let read: Vec<bool> = response
            .resources
            .map(|resource| resource.is_ok())
            .collect();
        assert_eq!(read, [false, true, true, true, true, true]);
    }

    #[test]
    fn truncated_message_is_malformed() {
        let _trace = meshwright_testkit::trace();
        let bytes = Bytes::from(message().encode_to_vec());
        // Every cut but those between two fields.
        let cuts = (0..bytes.len()).filter(|end| Response::decode([bytes.slice(..*end)]).is_err());
        assert!(cuts.count() > bytes.len() / 2);
    }
}
