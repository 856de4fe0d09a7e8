//! Ordinary Kubernetes and Istio manifests, read from a folder.
//!
//! Reading is strict where a mistake would change who may talk to whom, and lenient where a real
//! cluster's objects hold more than is needed here: unknown fields of known kinds are skipped, as
//! an API server with an older schema does; kinds that mean nothing here are listed as ignored;
//! everything else that is wrong is a [`Fault`] with file, line and column. All faults of all
//! files are found in one go, and a set with a fault gives no [`Manifests`] at all, so nothing is
//! ever half-applied.

mod document;
mod entry;
mod folder;
mod gateway;
mod instance;
mod kind;
mod metadata;
pub(crate) mod names;
mod objects;
mod place;
mod service;
mod slice;

pub(crate) use entry::{Endpoint, EntryPort, Resolution, ServiceEntry, WorkloadEntry};
pub(crate) use folder::{Fingerprint, Texts, fingerprint};
pub(crate) use gateway::{FromNamespaces, Gateway, Listener, Selector};
pub(crate) use instance::Instance;
pub(crate) use metadata::{Labels, Metadata};
pub(crate) use objects::Objects;
pub(crate) use place::Located;
pub use place::{Fault, Place, Reason};
pub(crate) use service::{InternalTrafficPolicy, IpFamily, Service, ServicePort, TargetPort};
pub(crate) use slice::{AddressType, EndpointSlice, SliceEndpoint};

use std::{error::Error, fmt, path::Path, sync::Arc};

/// A set of manifests without faults.
#[derive(Debug, Default)]
pub struct Manifests {
    pub(crate) objects: Objects,
    ignored: Vec<Ignored>,
    files: usize,
}

/// A document whose kind means nothing to this control plane.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ignored {
    /// Where it is.
    pub place: Place,
    /// Its `apiVersion` and `kind`.
    pub kind: String,
}

impl Manifests {
    /// Reads every `*.yaml` and `*.yml` below a folder, in the order of their paths.
    ///
    /// Hidden files and folders are left out, as editors and Kubernetes' mounted volumes keep
    /// copies there. Limits: 10 000 files in as many folders, 64 MiB each, 512 MiB together.
    ///
    /// # Errors
    ///
    /// Returns every fault of every file.
    pub fn load(folder: &Path) -> Result<Self, InvalidManifests> {
        Self::from_texts(Texts::read(folder))
    }

    pub(crate) fn from_texts(texts: Texts) -> Result<Self, InvalidManifests> {
        let mut manifests = Self::default();
        let mut faults = texts.faults;
        for (name, text) in &texts.files {
            manifests.add(name, text, &mut faults);
        }
        manifests.finish(faults)
    }

    /// Reads one text of any number of documents, named `file` in faults.
    ///
    /// # Errors
    ///
    /// Returns every fault.
    pub fn parse(file: &str, text: &str) -> Result<Self, InvalidManifests> {
        Self::parse_all(&[(file, text)])
    }

    /// Reads several texts as one set.
    ///
    /// # Errors
    ///
    /// Returns every fault of every text.
    pub fn parse_all(texts: &[(&str, &str)]) -> Result<Self, InvalidManifests> {
        let mut manifests = Self::default();
        let mut faults = Vec::new();
        for (file, text) in texts {
            manifests.add(&Arc::from(*file), text, &mut faults);
        }
        manifests.finish(faults)
    }

    /// Documents that were left out because of their kind.
    #[must_use]
    pub fn ignored(&self) -> &[Ignored] {
        &self.ignored
    }

    /// How many files were read.
    #[must_use]
    pub const fn files(&self) -> usize {
        self.files
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn add(&mut self, file: &Arc<str>, text: &str, faults: &mut Vec<Fault>) {
        self.files += 1;
        let parsed = document::parse(file, text);
        faults.extend(parsed.faults);
        self.ignored.extend(parsed.ignored);
        for object in parsed.objects {
            if let Err(fault) = self.objects.add(object) {
                faults.push(fault);
            }
        }
    }

    fn finish(self, mut faults: Vec<Fault>) -> Result<Self, InvalidManifests> {
        // Only for its faults: the compiler translates again, for the mesh's root namespace.
        if let Err(found) = self.objects.translate("istio-system") {
            faults.extend(found);
        }
        if faults.is_empty() {
            Ok(self)
        } else {
            Err(InvalidManifests { faults })
        }
    }
}

/// A folder or text holds manifests that cannot be used.
///
/// `Display` lists every fault, one a line: that list is what an operator needs, and there is no
/// single cause behind it.
#[derive(Clone, Debug)]
pub struct InvalidManifests {
    faults: Vec<Fault>,
}

impl InvalidManifests {
    pub(crate) const fn new(faults: Vec<Fault>) -> Self {
        Self { faults }
    }

    /// Every fault, in the order of files and lines.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Whether reading the same again may succeed. Only a changed folder helps.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        true
    }

    /// Whose mistake this is: always the one who wrote the manifests.
    #[must_use]
    pub const fn fault(&self) -> meshwright_identity::Fault {
        meshwright_identity::Fault::Caller
    }
}

impl fmt::Display for InvalidManifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, s) = match self.faults.len() {
            1 => ("one".to_owned(), ""),
            n => (n.to_string(), "s"),
        };
        write!(f, "{count} fault{s} in the manifests")?;
        for fault in &self.faults {
            write!(f, "\n  {fault}")?;
        }
        Ok(())
    }
}

impl Error for InvalidManifests {}
