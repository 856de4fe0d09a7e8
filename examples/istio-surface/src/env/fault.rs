//! What is wrong with a setting.

use std::fmt;

use super::value::shorten;

/// One variable whose value cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InvalidSetting {
    /// Name of the variable, or the path of a field in a configuration file.
    pub name: String,
    /// The value, shortened; `None` if it is secret or was not given.
    pub value: Option<String>,
    /// Why it cannot be used.
    pub reason: InvalidValue,
}

/// Why a value cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum InvalidValue {
    /// Not one of the two words that a switch takes.
    Boolean,
    /// Contradicts another variable; correct one of the two.
    Conflict {
        /// The other variable.
        with: &'static str,
    },
    /// Not a length of time such as `90`, `5m` or `1h30m`, or longer than ten years.
    Duration,
    /// A length of time outside what its use allows.
    DurationRange {
        /// Shortest, in seconds.
        min: u64,
        /// Longest, in seconds.
        max: u64,
    },
    /// Not a header's name or value.
    Header,
    /// Not an IP address.
    IpAddr,
    /// Not JSON.
    Json,
    /// Not a file, and not a PEM certificate either; look at the mount first.
    NoRoots,
    /// Names a file that does not exist.
    NoSuchFile,
    /// Not one of the words it may be.
    NotOneOf {
        /// The words.
        words: &'static [&'static str],
    },
    /// Not text in UTF-8.
    NotUnicode,
    /// Not a whole number in the range.
    Number {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// Not a Kubernetes quantity such as `2`, `1.5` or `500m`.
    Quantity,
    /// Needed and not given.
    Required,
    /// Not the id of a trust domain.
    TrustDomain,
    /// Begins as a setting of this project does and is none.
    Unknown,
    /// Cannot be read, or is not what its format demands.
    Unreadable {
        /// What the reader or parser said.
        cause: String,
    },
    /// Asks for something that is not built.
    Unsupported {
        /// What would happen without it, and what to do.
        advice: &'static str,
    },
    /// Not an `https` address.
    Uri,
    /// Not a number of threads such as `4`, `50%` or `0` for all.
    WorkerThreads,
}

/// All settings that cannot be used, in the order in which they were read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InvalidSettings {
    faults: Vec<InvalidSetting>,
}

impl InvalidSetting {
    /// Names a fault; `value` is shortened and its control characters are escaped.
    #[must_use]
    pub fn new(name: impl Into<String>, value: Option<&str>, reason: InvalidValue) -> Self {
        Self {
            name: name.into(),
            value: value.map(shorten),
            reason,
        }
    }
}

impl InvalidSettings {
    pub(super) fn new(faults: Vec<InvalidSetting>) -> Self {
        Self { faults }
    }

    /// The faults, in the order in which the settings were read.
    #[must_use]
    pub fn faults(&self) -> &[InvalidSetting] {
        &self.faults
    }
}

impl fmt::Display for InvalidSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.len() {
            1 => f.write_str("1 setting is invalid: ")?,
            count => write!(f, "{count} settings are invalid: ")?,
        }
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            fault.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidSettings {}

impl fmt::Display for InvalidSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}=\"{value}\" {}", self.name, self.reason),
            None => write!(f, "{} {}", self.name, self.reason),
        }
    }
}

impl std::error::Error for InvalidSetting {}

impl fmt::Display for InvalidValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean => f.write_str("is neither `true` nor `false`"),
            Self::Conflict { with } => write!(f, "contradicts {with}"),
            Self::Duration => f.write_str(
                "is not a length of time such as `90`, `5m` or `1h30m`, at most ten years",
            ),
            Self::DurationRange { min, max } => {
                write!(f, "is not a length of time from {min} to {max} seconds")
            }
            Self::Header => f.write_str("is not a header"),
            Self::IpAddr => f.write_str("is not an IP address"),
            Self::Json => f.write_str("is not JSON"),
            Self::NoRoots => f.write_str(
                "is neither an existing file nor a PEM certificate nor the word `SYSTEM`",
            ),
            Self::NoSuchFile => f.write_str("names a file that does not exist"),
            Self::NotOneOf { words } => write!(f, "is none of {}", words.join(", ")),
            Self::NotUnicode => f.write_str("is not UTF-8"),
            Self::Number { min, max } => {
                write!(f, "is not a whole number from {min} to {max}")
            }
            Self::Quantity => f.write_str("is not a quantity such as `2`, `1.5` or `500m`"),
            Self::Required => f.write_str("is needed and not set"),
            Self::TrustDomain => f.write_str("is not a trust domain"),
            Self::Unknown => f.write_str("is not a setting of this program"),
            Self::Unreadable { cause } => write!(f, "cannot be used: {}", shorten(cause)),
            Self::Unsupported { advice } => write!(f, "asks for what is not built: {advice}"),
            Self::Uri => f.write_str("is not an `https` address"),
            Self::WorkerThreads => {
                f.write_str("is not a number of threads such as `4`, `50%`, or `0` for all")
            }
        }
    }
}
