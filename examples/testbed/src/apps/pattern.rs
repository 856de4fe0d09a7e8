//! Bytes whose order and number can be checked at any offset without keeping them.
//!
//! The pattern is a block of noise, repeated. Its length is odd, so a lost, doubled or swapped
//! buffer of any usual size shows at once; a loss of whole blocks shows in the count.

use std::{
    io::{self, Read, Write},
    sync::LazyLock,
};

/// Length of the repeated block.
const BLOCK: usize = (1 << 20) + 7;

static NOISE: LazyLock<Box<[u8]>> = LazyLock::new(|| {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..BLOCK)
        .map(|_| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
});

/// A place in the pattern.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Position {
    offset: u64,
}

impl Position {
    /// Returns the number of bytes before this place.
    pub const fn offset(self) -> u64 {
        self.offset
    }

    /// Returns the bytes that come next: at least one, up to the end of the block.
    fn next(self) -> &'static [u8] {
        let within = usize::try_from(self.offset % BLOCK as u64).unwrap_or_default();
        NOISE.get(within..).unwrap_or_default()
    }

    /// Checks bytes that should be here and moves behind them.
    ///
    /// # Errors
    ///
    /// Fails with the offset of the first byte that is not the expected one.
    pub fn check(&mut self, mut bytes: &[u8]) -> Result<(), u64> {
        while !bytes.is_empty() {
            let expected = self.next();
            let length = bytes.len().min(expected.len());
            let (now, later) = bytes.split_at(length);
            if Some(now) != expected.get(..length) {
                let same = now.iter().zip(expected).take_while(|(a, b)| a == b).count();
                return Err(self.offset + same as u64);
            }
            self.offset += length as u64;
            bytes = later;
        }
        Ok(())
    }
}

/// Writes the first `bytes` bytes of the pattern.
///
/// # Errors
///
/// Fails when the writer does.
pub fn write(mut to: impl Write, bytes: u64) -> io::Result<()> {
    let mut place = Position::default();
    while place.offset < bytes {
        let chunk = place.next();
        let left = usize::try_from(bytes - place.offset).unwrap_or(usize::MAX);
        let chunk = chunk.get(..left.min(chunk.len())).unwrap_or(chunk);
        to.write_all(chunk)?;
        place.offset += chunk.len() as u64;
    }
    Ok(())
}

/// Reads to the end and checks every byte. Returns how many arrived.
///
/// # Errors
///
/// Fails when the reader does, and with [`io::ErrorKind::InvalidData`] at the first wrong byte.
pub fn read(mut from: impl Read) -> io::Result<u64> {
    let mut place = Position::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(place.offset);
        }
        let bytes = buffer.get(..length).unwrap_or_default();
        place.check(bytes).map_err(|offset| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("wrong byte at {offset}"),
            )
        })?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_pattern_is_read_back_whole() {
        let _trace = meshwright_testkit::trace();
        let mut bytes = Vec::new();
        write(&mut bytes, 3_000_000).unwrap();
        assert_eq!(read(bytes.as_slice()).unwrap(), 3_000_000);
    }

    #[test]
    fn lost_buffer_is_seen_where_it_is_missing() {
        let _trace = meshwright_testkit::trace();
        let mut bytes = Vec::new();
        write(&mut bytes, 200_000).unwrap();
        bytes.drain(65_536..131_072);
        let mut place = Position::default();
        let offset = place.check(&bytes).unwrap_err();
        assert!((65_536..65_600).contains(&offset), "{offset}");
    }
}
