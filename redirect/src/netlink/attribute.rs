//! Netlink attributes: a length, a kind, bytes, padding to four.

/// Flag of attributes that hold attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// Mask that leaves the kind without its flags (`NLA_TYPE_MASK`).
const KIND: u16 = 0x3fff;

/// Appends attributes to a message.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Starts an empty list.
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Appends raw bytes. Data that the format cannot hold (64 KiB) is left out.
    pub(crate) fn bytes(mut self, kind: u16, data: &[u8]) -> Self {
        let Ok(length) = u16::try_from(data.len() + 4) else {
            return self;
        };
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// Appends a number in network order, as nfnetlink wants its own.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Appends a number in the machine's order, as rtnetlink wants it.
    pub(crate) fn ne32(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Appends text with its final zero byte.
    pub(crate) fn text(self, kind: u16, text: &str) -> Self {
        let mut data = text.as_bytes().to_vec();
        data.push(0);
        self.bytes(kind, &data)
    }

    /// Appends attributes inside an attribute.
    pub(crate) fn nest(self, kind: u16, inner: &Self) -> Self {
        self.bytes(kind | NESTED, &inner.0)
    }

    /// Returns the encoded list.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

/// Walks over encoded attributes; stops at the first that does not fit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AttributeIter<'a>(&'a [u8]);

impl<'a> AttributeIter<'a> {
    /// Reads attributes from `bytes`.
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the data of the first attribute of this kind.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(k, data)| (k == kind).then_some(data))
    }

    /// Returns the attributes inside the first attribute of this kind.
    pub(crate) fn inside(self, kind: u16) -> Option<Self> {
        self.find(kind).map(Self::new)
    }

    /// Returns a number in network order.
    pub(crate) fn be32(self, kind: u16) -> Option<u32> {
        Some(u32::from_be_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// Returns a number in the machine's order.
    pub(crate) fn ne32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(self.find(kind)?.try_into().ok()?))
    }

    /// Returns text up to its final zero byte, without what would move a terminal or end a line:
    /// names are chosen by whoever has privileges in the namespace, and end up in logs.
    pub(crate) fn text(self, kind: u16) -> Option<String> {
        let data = self.find(kind)?;
        let end = data.iter().position(|byte| *byte == 0);
        let text = data.get(..end.unwrap_or(data.len()))?;
        let text = String::from_utf8_lossy(text);
        Some(text.replace(char::is_control, "\u{fffd}"))
    }
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = u16::from_ne_bytes(self.0.get(..2)?.try_into().ok()?);
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?);
        let length = usize::from(length);
        let data = self.0.get(4..length)?;
        self.0 = self.0.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind & KIND, data))
    }
}

#[cfg(test)]
mod tests {
    use super::{AttributeIter, Attributes};
    use proptest::prelude::{any, prop, proptest};

    #[test]
    fn attributes_are_read_back_as_written() {
        let _trace = meshwright_testkit::trace();
        let inner = Attributes::new().text(1, "lo").be32(2, 7);
        let list = Attributes::new().ne32(9, 5).nest(4, &inner);
        let read = AttributeIter::new(list.as_slice());
        assert_eq!(read.ne32(9), Some(5));
        let inside = read.inside(4).unwrap();
        assert_eq!(
            (inside.text(1).as_deref(), inside.be32(2)),
            (Some("lo"), Some(7))
        );
    }

    #[test]
    fn text_of_strangers_cannot_end_a_line() {
        let _trace = meshwright_testkit::trace();
        let list = Attributes::new().text(1, "a\nb\u{1b}[2J");
        let read = AttributeIter::new(list.as_slice()).text(1).unwrap();
        assert_eq!(read, "a\u{fffd}b\u{fffd}[2J");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_or_run_for_ever(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let count = AttributeIter::new(&bytes).count();
            assert!(count <= bytes.len() / 4 + 1);
        }
    }
}
