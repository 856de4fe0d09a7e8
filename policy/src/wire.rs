//! A reader of the protobuf wire format that loses nothing.
//!
//! Generated decoders skip fields they do not know and cut numbers to the width of the field. In a
//! security message both can widen access without a word, so policies are read here: every field
//! with its number, every integer in 64 bits.

use crate::invalid::Flaw;

/// One field as it stands on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// A fixed-width number: no message here has one.
    Fixed,
}

impl<'a> Value<'a> {
    /// The bytes of a string, message or packed list.
    pub(crate) fn bytes(self) -> Result<&'a [u8], Flaw> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Varint(_) | Self::Fixed => Err(Flaw::Malformed),
        }
    }

    /// The text of a string field.
    pub(crate) fn text(self) -> Result<&'a str, Flaw> {
        std::str::from_utf8(self.bytes()?).map_err(|_invalid| Flaw::NotText)
    }

    /// An integer in its full width.
    pub(crate) fn varint(self) -> Result<u64, Flaw> {
        match self {
            Self::Varint(value) => Ok(value),
            Self::Bytes(_) | Self::Fixed => Err(Flaw::Malformed),
        }
    }
}

/// Walks the fields of one message.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field, or `None` at the end of the message.
    pub(crate) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Flaw> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = u32::try_from(read_varint(&mut self.rest)?).map_err(|_wide| Flaw::Malformed)?;
        let number = tag >> 3;
        let value = match (number, tag & 7) {
            (0, _) => return Err(Flaw::Malformed),
            (_, 0) => Value::Varint(read_varint(&mut self.rest)?),
            (_, 1) => self.take(8).map(|_fixed| Value::Fixed)?,
            (_, 2) => {
                let length = read_varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_huge| Flaw::Malformed)?;
                Value::Bytes(self.take(length)?)
            }
            (_, 5) => self.take(4).map(|_fixed| Value::Fixed)?,
            // Groups are deprecated and no message here ever had one.
            _ => return Err(Flaw::Malformed),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Flaw> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Flaw::Malformed)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Reads one base-128 integer and moves past it.
pub(crate) fn read_varint(rest: &mut &[u8]) -> Result<u64, Flaw> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, tail) = rest.split_first().ok_or(Flaw::Malformed)?;
        *rest = tail;
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit only.
        if shift == 63 && bits > 1 {
            return Err(Flaw::Malformed);
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Flaw::Malformed)
}

#[cfg(test)]
mod tests {
    use super::{Fields, Value, read_varint};
    use crate::invalid::Flaw;

    #[test]
    fn integers_keep_all_their_bits() {
        let _trace = meshwright_testkit::trace();
        let mut wire: &[u8] = &[0x81, 0x80, 0x80, 0x80, 0x10];
        assert_eq!(
            read_varint(&mut wire).unwrap(),
            (1 << 32) + 1,
            "a 33-bit number must not be cut to 32 bits"
        );
        assert!(wire.is_empty(), "the number ends where it ends");
    }

    #[test]
    fn truncated_and_overlong_integers_are_refused() {
        let _trace = meshwright_testkit::trace();
        for bad in [&[][..], &[0x80], &[0xff; 9], &[0xff; 11]] {
            assert!(
                matches!(read_varint(&mut &*bad), Err(Flaw::Malformed)),
                "{bad:x?} is no number"
            );
        }
        let mut wire: &[u8] = &[0xff; 9];
        assert!(
            read_varint(&mut wire).is_err(),
            "nine bytes that all continue"
        );
        let largest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(read_varint(&mut &largest[..]).unwrap(), u64::MAX);
    }

    #[test]
    fn fields_come_with_number_and_value() {
        let _trace = meshwright_testkit::trace();
        let mut fields = Fields::new(&[0x08, 0x07, 0x12, 0x01, b'x', 0x1d, 0, 0, 0, 0]);
        assert_eq!(fields.next().unwrap(), Some((1, Value::Varint(7))));
        assert_eq!(fields.next().unwrap(), Some((2, Value::Bytes(b"x"))));
        assert_eq!(fields.next().unwrap(), Some((3, Value::Fixed)));
        assert_eq!(fields.next().unwrap(), None);
    }

    #[test]
    fn groups_field_zero_and_lengths_past_the_end_are_refused() {
        let _trace = meshwright_testkit::trace();
        for bad in [
            &[0x0b][..],
            &[0x0c],
            &[0x00, 0x00],
            &[0x0a, 0x02, b'x'],
            &[0x09, 1],
        ] {
            assert!(Fields::new(bad).next().is_err(), "{bad:x?} is no field");
        }
    }
}
