//! What is wrong with an object.

use std::{error::Error, fmt};

use meshwright_identity::Fault;

/// Objects that cannot be translated: every fault, each with its field.
///
/// `Display` lists them, one a line.
#[derive(Clone, Debug)]
pub struct InvalidObjects {
    faults: Vec<InvalidObject>,
}

/// One field that cannot be translated without changing what it means.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct InvalidObject {
    /// The object's kind.
    pub kind: &'static str,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The field, such as `spec.rules[0].from[1].source.ipBlocks[2]`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// Not one of `ALLOW`, `DENY`, `AUDIT` and `CUSTOM`.
    #[error("unknown action `{0}`")]
    Action(String),
    /// Neither an address nor a range of addresses.
    #[error("`{0}` is neither an address nor a range of addresses")]
    Address(String),
    /// A condition on an attribute that does not exist.
    #[error("unknown attribute `{0}`")]
    Attribute(String),
    /// Two objects of one kind have this name.
    #[error("there is another object with this name")]
    Duplicate,
    /// A part or value that would say nothing.
    #[error("must not be empty")]
    Empty,
    /// Service accounts beside principals or namespaces, or a selector beside a target.
    #[error("cannot be given together with {0}")]
    Exclusive(&'static str),
    /// A flag that is neither true nor false.
    #[error("`{0}` is neither true nor false")]
    Flag(String),
    /// Not one of `UNSET`, `DISABLE`, `PERMISSIVE` and `STRICT`.
    #[error("unknown mode `{0}`")]
    Mode(String),
    /// A star in the middle, or at both ends.
    #[error("`{0}`: a star may stand at the beginning or at the end, or alone")]
    Pattern(String),
    /// Not a number from 1 to 65535.
    #[error("`{0}` is no port")]
    Port(String),
    /// Modes of single ports without a selector.
    #[error("needs a selector")]
    PortsWithoutSelector,
    /// A principal with its scheme: it would match nobody.
    #[error("`{0}`: principals are written without `spiffe://`")]
    Scheme(String),
    /// Not `NAME` and not `NAMESPACE/NAME`.
    #[error("`{0}` is no service account")]
    ServiceAccount(String),
    /// Longer than a node proxy accepts.
    #[error("longer than {0} bytes")]
    TooLong(usize),
}

/// A YAML text that is not what it should be.
#[derive(Debug)]
#[non_exhaustive]
pub struct InvalidYaml {
    /// Line of the text, counted from one; the first line of the document if nothing more is known.
    pub line: u64,
    /// What the reader says.
    source: Box<serde_saphyr::Error>,
}

impl InvalidObjects {
    pub(super) const fn new(faults: Vec<InvalidObject>) -> Self {
        Self { faults }
    }

    /// Every fault, in the order of the objects.
    #[must_use]
    pub fn faults(&self) -> &[InvalidObject] {
        &self.faults
    }

    /// Whether translating the same again may succeed: never.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Whose fault it is: of whoever wrote the objects.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}

impl fmt::Display for InvalidObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("policies cannot be translated")?;
        self.faults
            .iter()
            .try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Error for InvalidObjects {}

impl fmt::Display for InvalidObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
            path,
            problem,
        } = self;
        write!(f, "{kind} {namespace}/{name}: {path}: {problem}")
    }
}

impl Error for InvalidObject {}

impl InvalidYaml {
    pub(super) fn new(line: u64, source: serde_saphyr::Error) -> Self {
        Self {
            line,
            source: Box::new(source),
        }
    }

    /// Whether reading the same again may succeed: never.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        false
    }

    /// Whose fault it is: of whoever wrote the text.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        Fault::Caller
    }
}

impl fmt::Display for InvalidYaml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the document around line {} cannot be read", self.line)
    }
}

impl Error for InvalidYaml {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
