//! Versions of resources, without an allocation for the usual short ones.

const INLINE: usize = 22;

/// A server's version of one resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Version {
    Short { len: u8, bytes: [u8; INLINE] },
    Long(Box<str>),
}

impl Version {
    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Long(text) => text,
            Self::Short { len, bytes } => bytes
                .get(..usize::from(*len))
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .unwrap_or_default(),
        }
    }
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        let mut bytes = [0; INLINE];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(len)) => {
                start.copy_from_slice(text.as_bytes());
                Self::Short { len, bytes }
            }
            _ => Self::Long(text.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{INLINE, Version};

    #[test]
    fn version_of_any_length_reads_as_it_was_written() {
        let _trace = meshwright_testkit::trace();
        for len in [0, 1, INLINE, INLINE + 1, 300] {
            let text = "é".repeat(len / 2) + &"x".repeat(len % 2);
            assert_eq!(Version::from(&*text).as_str(), text);
        }
        assert_eq!(size_of::<Version>(), 24);
    }
}
