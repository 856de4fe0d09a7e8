//! The certificate authority: fresh in memory, or kept in a folder if that is asked for.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use meshwright_identity::{
    TrustDomain,
    ca::{CaError, CertificateAuthority},
};

/// Root certificate and private key, mode 0600.
const FILE: &str = "root-and-key.pem";
const MAX_FILE: u64 = 64 * 1024;

/// The certificate authority cannot be made or taken up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaDirError {
    /// The root cannot be made, or what is kept is not a root of this trust domain.
    #[error("the root in {path} cannot be used")]
    Authority {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: CaError,
    },
    /// No root could be made in memory.
    #[error("no root could be made")]
    Fresh {
        /// Why not.
        source: CaError,
    },
    /// A folder or file cannot be read or written.
    #[error("{path} cannot be used")]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Others on this machine could read or replace the key; `chmod` it.
    #[error("{path} is open to others (mode {mode:o}); the key of the whole mesh is in it")]
    Open {
        /// The path.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Takes up the root in `folder`, or makes one and keeps it there; without a folder, makes one
/// in memory.
pub(crate) fn open(
    folder: Option<&Path>,
    trust_domain: &TrustDomain,
) -> Result<CertificateAuthority, CaDirError> {
    let fresh = || {
        CertificateAuthority::new(trust_domain.clone())
            .map_err(|source| CaDirError::Fresh { source })
    };
    let Some(folder) = folder else {
        return fresh();
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| io_error(folder, source))?;
    refuse_if_open(folder, 0o022)?;
    let path = folder.join(FILE);
    match fs::metadata(&path) {
        Ok(_) => take_up(&path, trust_domain),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let authority = fresh()?;
            let pem = authority.to_pem();
            write_whole(&path, pem.as_bytes(), 0o600).map_err(|source| io_error(&path, source))?;
            Ok(authority)
        }
        Err(source) => Err(io_error(&path, source)),
    }
}

fn take_up(path: &Path, trust_domain: &TrustDomain) -> Result<CertificateAuthority, CaDirError> {
    refuse_if_open(path, 0o077)?;
    let mut pem = String::new();
    let file = fs::File::open(path).map_err(|source| io_error(path, source))?;
    io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE), &mut pem)
        .map_err(|source| io_error(path, source))?;
    CertificateAuthority::from_pem(trust_domain.clone(), &pem).map_err(|source| {
        CaDirError::Authority {
            path: path.to_owned(),
            source,
        }
    })
}

fn refuse_if_open(path: &Path, forbidden: u32) -> Result<(), CaDirError> {
    let mode = fs::metadata(path)
        .map_err(|source| io_error(path, source))?
        .mode()
        & 0o7777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(CaDirError::Open {
        path: path.to_owned(),
        mode,
    })
}

/// Writes a file so that a reader sees all of it or the one before.
pub(crate) fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}.draft", std::process::id()));
    let draft = PathBuf::from(draft);
    // Left by a process of the same number that was killed: in a container it is always 1.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&draft)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    let moved = written.and_then(|()| fs::rename(&draft, path));
    if moved.is_err() {
        // The first error is the one to tell; the draft is in nobody's way.
        drop(fs::remove_file(&draft));
    }
    moved
}

fn io_error(path: &Path, source: io::Error) -> CaDirError {
    CaDirError::Io {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::{CaDirError, FILE, open, write_whole};
    use meshwright_identity::TrustDomain;
    use meshwright_testkit::assert_chain_says_each_thing_once;
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    fn domain() -> TrustDomain {
        TrustDomain::parse("cluster.local").unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn kept_root_is_the_same_after_a_restart_and_nobody_else_can_read_it() {
        let _trace = meshwright_testkit::trace();
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("ca");
        let first = open(Some(&folder), &domain()).unwrap();
        let second = open(Some(&folder), &domain()).unwrap();
        assert_eq!(first.root_pem(), second.root_pem());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder.join(FILE)), 0o600);
        assert_eq!(mode(&folder), 0o700);
        assert_ne!(open(None, &domain()).unwrap().root_pem(), first.root_pem());
    }

    #[test]
    fn draft_of_a_process_that_was_killed_is_in_nobodys_way() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root.pem");
        let draft = format!("root.pem.{}.draft", std::process::id());
        fs::write(folder.path().join(draft), "half").unwrap();
        write_whole(&path, b"whole", 0o644).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn key_that_others_could_read_or_replace_is_refused() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        drop(open(Some(folder.path()), &domain()).unwrap());
        chmod(&folder.path().join(FILE), 0o640);
        let error = open(Some(folder.path()), &domain()).unwrap_err();
        assert!(
            matches!(error, CaDirError::Open { mode: 0o640, .. }),
            "{error}"
        );
        chmod(&folder.path().join(FILE), 0o600);
        chmod(folder.path(), 0o777);
        let error = open(Some(folder.path()), &domain()).unwrap_err();
        assert!(
            matches!(error, CaDirError::Open { mode: 0o777, .. }),
            "{error}"
        );
    }

    #[test]
    fn file_that_is_no_root_is_refused_and_left_alone() {
        let _trace = meshwright_testkit::trace();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(&path, "nonsense").unwrap();
        chmod(&path, 0o600);
        let error = open(Some(folder.path()), &domain()).unwrap_err();
        assert!(matches!(error, CaDirError::Authority { .. }), "{error}");
        assert_chain_says_each_thing_once(&error);
        assert_eq!(fs::read_to_string(&path).unwrap(), "nonsense");
    }
}
