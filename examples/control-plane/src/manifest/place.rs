//! Where in which file something is, and what is wrong there.

use std::{fmt, sync::Arc};

/// A position in a file. `Display` is `file:line:column`, which editors and terminals make a link.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct Place {
    /// Path of the file below the folder.
    pub file: Arc<str>,
    /// From 1; 0 when the fault is the file itself.
    pub line: u64,
    /// From 1; 0 when the fault is the file itself.
    pub column: u64,
}

impl Place {
    pub(crate) fn new(file: &Arc<str>, line: u64, column: u64) -> Self {
        Self {
            file: Arc::clone(file),
            line,
            column,
        }
    }

    pub(crate) fn file(file: &Arc<str>) -> Self {
        Self::new(file, 0, 0)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            f.write_str(&self.file)
        } else {
            write!(f, "{}:{}:{}", self.file, self.line, self.column)
        }
    }
}

/// Something wrong at a place.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Fault {
    /// Where.
    pub place: Place,
    /// What.
    pub reason: Reason,
}

impl Fault {
    pub(crate) const fn new(place: Place, reason: Reason) -> Self {
        Self { place, reason }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

/// What is wrong with a file or a document.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The same object is written twice; which one counts would depend on the order of files.
    #[error("{object} is already at {first}")]
    Duplicate {
        /// Kind, namespace and name.
        object: String,
        /// Where it was first.
        first: Place,
    },
    /// The document is YAML, but not an object of its kind.
    #[error("{message}")]
    Invalid {
        /// What the parser expected and found.
        message: String,
    },
    /// A bound of this program is exceeded.
    #[error("{what} is more than {limit}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// A document without `kind` or `apiVersion`, most likely a misspelt one, or without
    /// `metadata`, most likely half of one.
    #[error("no `{field}`: not a Kubernetes object")]
    NoKind {
        /// Which of them.
        field: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot be read: {message}")]
    Unreadable {
        /// The operating system's answer.
        message: String,
    },
    /// A kind of a group that decides about security, which this program does not know: dropping
    /// it could open what it should close.
    #[error("unknown kind {kind} of the security API")]
    UnknownSecurity {
        /// `apiVersion` and `kind`.
        kind: String,
    },
    /// A known kind in a version that this program does not know.
    #[error("{kind} is not served in version {version}")]
    Version {
        /// The kind.
        kind: String,
        /// The version found.
        version: String,
    },
}

/// A value and where its document begins.
#[derive(Clone, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) place: Place,
}
