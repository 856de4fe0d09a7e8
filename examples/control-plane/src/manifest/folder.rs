//! The files of a folder, and whether they have changed.

use std::{
    collections::HashSet,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::place::{Fault, Place, Reason};

const MAX_FILES: usize = 10_000;
const MAX_FOLDERS: usize = 10_000;
const MAX_FILE: u64 = 64 * 1024 * 1024;
const MAX_ALL: u64 = 512 * 1024 * 1024;

/// What can be seen of a folder without reading its files.
///
/// Two equal ones mean that nothing has changed: a file that is written in place gets another
/// size or time of change, one that is replaced gets another inode. The time of change follows
/// permissions too, so a file that could not be read is read once it can be.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fingerprint {
    files: Vec<(PathBuf, u64, u64, i64, i64)>,
}

impl Fingerprint {
    /// Looks at one file.
    pub(crate) fn of_file(path: &Path) -> Self {
        let mut one = Self::default();
        one.add(path.to_owned());
        one
    }

    fn add(&mut self, path: PathBuf) {
        if let Ok(meta) = fs::metadata(&path) {
            let seen = (meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec());
            self.files.push((path, seen.0, seen.1, seen.2, seen.3));
        }
    }
}

/// Looks at a folder. What cannot be looked at counts as absent; reading it says why.
pub(crate) fn fingerprint(folder: &Path) -> Fingerprint {
    let mut all = Fingerprint::default();
    for path in files_of(folder).unwrap_or_default() {
        all.add(path);
    }
    all
}

/// The texts of a folder at one moment.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(super) files: Vec<(Arc<str>, String)>,
    pub(super) faults: Vec<Fault>,
}

impl Texts {
    /// Reads every manifest below a folder; what cannot be read is a fault.
    pub(crate) fn read(folder: &Path) -> Self {
        let mut texts = Self::default();
        let place = Place::file(&Arc::from(folder.to_string_lossy()));
        let files = match files_of(folder) {
            Ok(files) => files,
            Err(error) => {
                texts.faults.push(Fault::new(place, unreadable(&error)));
                return texts;
            }
        };
        let mut size = 0;
        for file in files {
            match read(folder, &file) {
                Ok((name, text)) => {
                    size += text.len() as u64;
                    texts.files.push((name, text));
                }
                Err(fault) => texts.faults.push(fault),
            }
            let over = [
                (
                    "the number of files",
                    texts.files.len() as u64,
                    MAX_FILES as u64,
                ),
                ("the size of all files in bytes", size, MAX_ALL),
            ];
            for (what, found, limit) in over {
                if found > limit {
                    texts
                        .faults
                        .push(Fault::new(place, Reason::Limit { what, limit }));
                    return texts;
                }
            }
        }
        texts
    }

    /// Equal for equal names and texts: a file that was only touched changes nothing.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.files.hash(&mut hasher);
        for fault in &self.faults {
            fault.to_string().hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Every manifest below a folder; one more than is allowed, if there are more.
///
/// A folder that is reached twice, by symbolic links, is looked at once.
fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut seen = HashSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let meta = fs::metadata(&folder)?;
        if !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        if seen.len() > MAX_FOLDERS {
            return Err(io::Error::other(format!("more than {MAX_FOLDERS} folders")));
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if is_hidden(&path) {
                continue;
            }
            // Follows symbolic links: that is how Kubernetes mounts a ConfigMap.
            match fs::metadata(&path) {
                Ok(meta) if meta.is_dir() => folders.push(path),
                Ok(meta) if !meta.is_file() => {}
                // A link that leads nowhere is a manifest that is missing: reading it says so.
                Err(_) if fs::symlink_metadata(&path).is_err() => {}
                _ if is_manifest(&path) => files.push(path),
                _ => {}
            }
            if files.len() > MAX_FILES {
                return Ok(files);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads one file; returns its path below the folder and its text.
fn read(folder: &Path, path: &Path) -> Result<(Arc<str>, String), Fault> {
    let name: Arc<str> = Arc::from(path.strip_prefix(folder).unwrap_or(path).to_string_lossy());
    let fault = |reason| Fault::new(Place::file(&name), reason);
    let mut text = String::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| fault(unreadable(&error)))?;
    if text.len() as u64 > MAX_FILE {
        return Err(fault(Reason::Limit {
            what: "the size in bytes",
            limit: MAX_FILE,
        }));
    }
    Ok((name, text))
}

fn unreadable(error: &io::Error) -> Reason {
    Reason::Unreadable {
        message: error.to_string(),
    }
}

fn is_hidden(path: &Path) -> bool {
    path.file_name()
        .is_none_or(|name| name.as_encoded_bytes().starts_with(b"."))
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "yaml" || e == "yml")
}

#[cfg(test)]
mod tests {
    use super::{Texts, fingerprint};
    use crate::manifest::{Manifests, Reason};
    use std::{
        fs,
        os::unix::fs::{PermissionsExt as _, symlink},
    };

    #[test]
    fn yaml_files_of_all_folders_are_found_and_hidden_ones_are_not() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/.git")).unwrap();
        for name in [
            "z.yaml",
            "b/a.yml",
            "b/.hidden.yaml",
            "b/.git/x.yaml",
            "readme.md",
        ] {
            fs::write(root.join(name), "").unwrap();
        }
        let texts = Texts::read(root);
        let found: Vec<_> = texts.files.iter().map(|(name, _)| &**name).collect();
        assert_eq!(found, ["b/a.yml", "z.yaml"]);
    }

    #[test]
    fn every_kind_of_change_changes_the_fingerprint() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "a").unwrap();
        let first = fingerprint(folder.path());
        assert_eq!(first, fingerprint(folder.path()));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let changed = fingerprint(folder.path());
        assert_ne!(first, changed, "it may be readable now");
        let first = changed;
        let other = folder.path().join("other");
        fs::write(&other, "b").unwrap();
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::File::options()
            .write(true)
            .open(&other)
            .unwrap()
            .set_modified(time)
            .unwrap();
        fs::rename(&other, &file).unwrap();
        let second = fingerprint(folder.path());
        assert_ne!(
            first, second,
            "a replaced file of the same size and time has another inode"
        );
        fs::write(&file, "longer").unwrap();
        assert_ne!(second, fingerprint(folder.path()));
        fs::remove_file(&file).unwrap();
        assert_eq!(fingerprint(folder.path()).files.len(), 0);
    }

    #[test]
    fn digest_follows_the_text_and_not_the_time() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        fs::write(&file, "a: 1").unwrap();
        let first = Texts::read(folder.path()).digest();
        fs::write(&file, "a: 1").unwrap();
        assert_eq!(first, Texts::read(folder.path()).digest());
        fs::write(&file, "a: 2").unwrap();
        assert_ne!(first, Texts::read(folder.path()).digest());
    }

    #[test]
    fn file_that_is_not_text_is_a_fault_with_its_name() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), [0xff, 0xfe, 0x00]).unwrap();
        let error = Manifests::load(folder.path()).unwrap_err();
        assert_eq!(&*error.faults()[0].place.file, "a.yaml");
        assert!(matches!(
            error.faults()[0].reason,
            Reason::Unreadable { .. }
        ));
        let error = Manifests::load(&folder.path().join("absent")).unwrap_err();
        assert!(
            error.to_string().contains("absent: cannot be read"),
            "{error}"
        );
    }
    #[test]
    fn link_that_leads_nowhere_is_a_fault_and_not_an_absent_policy() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        symlink("absent", folder.path().join("deny.yaml")).unwrap();
        let error = Manifests::load(folder.path()).unwrap_err();
        assert_eq!(&*error.faults()[0].place.file, "deny.yaml");
    }

    #[test]
    fn folders_that_lead_to_each_other_are_read_once() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("a.yaml"), "").unwrap();
        fs::write(inner.join("b.yaml"), "").unwrap();
        for name in ["self", "other"] {
            symlink(folder.path(), inner.join(name)).unwrap();
        }
        let texts = Texts::read(folder.path());
        assert_eq!((texts.files.len(), texts.faults.len()), (2, 0));
    }

    #[test]
    fn manifest_is_found_however_deep_it_is() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join(["d"; 100].join("/"));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join("deny.yaml"), "").unwrap();
        assert_eq!(Texts::read(folder.path()).files.len(), 1);
    }
}
