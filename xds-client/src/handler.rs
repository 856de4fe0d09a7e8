//! What the delta protocol hands to whoever keeps the resources of one type.

use std::{fmt, sync::Arc};

use bytes::Bytes;

/// Keeps the resources of one type.
///
/// One handler serves one type URL. It runs on the client's task: it must not block on I/O.
pub trait Handler: Send {
    /// The type of the resources, such as [`ADDRESS`](crate::proto::ADDRESS).
    fn type_url(&self) -> &str;

    /// Applies one message and publishes the result before it returns: the acknowledgement goes
    /// out right after.
    ///
    /// Resources first, in order (of two with one name the last wins), then removals. Good
    /// resources are applied even if others are rejected; a rejected one leaves the version that
    /// was applied before in force. Names that are not known are removed without complaint.
    ///
    /// Returns what was rejected and why; each is named in the refusal that goes to the server.
    fn apply(&mut self, update: Update<'_>) -> Vec<Rejected>;
}

/// One message for a [`Handler`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Update<'a> {
    /// New or changed resources.
    pub resources: Resources<'a>,
    /// Names of resources that are gone.
    pub removed: &'a [Arc<str>],
}

/// The resources of an [`Update`], in order.
///
/// They are decoded one by one: whoever keeps none of them never has the whole message in memory
/// twice.
pub struct Resources<'a>(Source<'a>);

enum Source<'a> {
    Arriving(&'a mut dyn Iterator<Item = Resource>),
    Given(std::slice::Iter<'a, Resource>),
}

impl<'a> Update<'a> {
    /// An update made by hand: of a local source or a test.
    pub fn new(resources: &'a [Resource], removed: &'a [Arc<str>]) -> Self {
        Self {
            resources: Resources(Source::Given(resources.iter())),
            removed,
        }
    }

    pub(crate) fn arriving(
        resources: &'a mut dyn Iterator<Item = Resource>,
        removed: &'a [Arc<str>],
    ) -> Self {
        Self {
            resources: Resources(Source::Arriving(resources)),
            removed,
        }
    }
}

impl Iterator for Resources<'_> {
    type Item = Resource;

    fn next(&mut self) -> Option<Resource> {
        match &mut self.0 {
            Source::Arriving(resources) => resources.next(),
            Source::Given(resources) => resources.next().cloned(),
        }
    }
}

impl fmt::Debug for Resources<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resources").finish_non_exhaustive()
    }
}

/// One resource as it arrived.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Resource {
    /// The primary name.
    pub name: Arc<str>,
    /// The server's version; may be empty.
    pub version: String,
    /// Other names by which it can be asked for.
    pub aliases: Vec<String>,
    /// The encoded message.
    pub body: Bytes,
}

impl Resource {
    /// A resource without version and aliases.
    pub fn new(name: impl Into<Arc<str>>, body: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            version: String::new(),
            aliases: Vec::new(),
            body: body.into(),
        }
    }
}

/// A resource that a [`Handler`] did not take.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rejected {
    /// Its name.
    pub name: Arc<str>,
    /// Why, in words for the server's operator.
    pub reason: String,
    /// What is in force without it is safe to use: see [`covered`](Self::covered).
    pub is_covered: bool,
}

impl Rejected {
    /// Names a resource and what is wrong with it.
    ///
    /// A first state of which it was a part does not count as complete.
    pub fn new(name: impl Into<Arc<str>>, reason: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            reason: reason.into(),
            is_covered: false,
        }
    }

    /// Says that an earlier version is in force, or something that fails closed for whomever the
    /// resource concerns. Then one bad resource does not keep a first state from being complete.
    #[must_use]
    pub fn covered(mut self) -> Self {
        self.is_covered = true;
        self
    }
}

/// `name: reason`.
impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.reason)
    }
}
