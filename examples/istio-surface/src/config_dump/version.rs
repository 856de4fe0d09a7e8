//! What a program is.

use std::fmt;

use serde::Serialize;

/// Version and make of a program, as Istio's components print it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct BuildVersion {
    /// Version of this program.
    pub version: String,
    /// Commit that it was built from, or `unknown`.
    pub git_revision: String,
    /// Oldest Rust that builds it.
    pub rust_version: String,
    /// `release` or `debug`.
    pub build_profile: String,
    /// Whether the sources had changes that were not committed, or `unknown`.
    pub build_status: String,
    /// Version of Istio that the deployment says it is of, or `unknown`.
    pub istio_version: String,
    /// Where the cryptography comes from.
    pub crypto_provider: String,
}

impl BuildVersion {
    /// Describes this build. The revision and status come from `MESHWRIGHT_GIT_REVISION` and
    /// `MESHWRIGHT_BUILD_STATUS` at compile time.
    #[must_use]
    pub fn of_this_program(istio_version: Option<&str>) -> Self {
        let known = |text: Option<&str>| text.unwrap_or("unknown").to_owned();
        let profile = if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        };
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            git_revision: known(option_env!("MESHWRIGHT_GIT_REVISION")),
            rust_version: env!("CARGO_PKG_RUST_VERSION").to_owned(),
            build_profile: profile.to_owned(),
            build_status: known(option_env!("MESHWRIGHT_BUILD_STATUS")),
            istio_version: known(istio_version),
            crypto_provider: "tls-aws-lc".to_owned(),
        }
    }
}

impl fmt::Display for BuildVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "version.BuildInfo{{Version:\"{}\", GitRevision:\"{}\", RustVersion:\"{}\", \
             BuildProfile:\"{}\", BuildStatus:\"{}\", IstioVersion:\"{}\", CryptoProvider:\"{}\"}}",
            self.version,
            self.git_revision,
            self.rust_version,
            self.build_profile,
            self.build_status,
            self.istio_version,
            self.crypto_provider
        )
    }
}
