//! What an operator can set: flags, and the same as `MESHWRIGHT_CP_*` variables.

use std::{
    ffi::{OsStr, OsString},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use clap::Parser;
use meshwright_identity::TrustDomain;

/// The prefix of the variables this program reads.
const PREFIX: &str = "MESHWRIGHT_CP_";

/// Variables this program reads, without [`PREFIX`].
const KNOWN: [&str; 17] = [
    "CA_DIR",
    "CLUSTER_DOMAIN",
    "CLUSTER_ID",
    "DEVELOPMENT",
    "GRACE",
    "LISTEN",
    "LOG",
    "MANIFESTS",
    "MAX_CERT_TTL",
    "NETWORK",
    "POLL",
    "ROOT_NAMESPACE",
    "SERVER_NAMES",
    "STATUS",
    "TOKENS",
    "TRUST_DOMAIN",
    "WRITE_ROOT",
];

/// Settings of a control plane.
///
/// Every flag has a variable of the same name with the prefix `MESHWRIGHT_CP_`; the flag wins. A
/// variable with this prefix that is not in the list is refused, because it is most likely a
/// misspelt one.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "control-plane",
    version,
    about = "Serves Istio ambient's workload API and certificates from a folder of manifests"
)]
#[non_exhaustive]
pub struct Config {
    /// Folder of manifests (*.yaml, *.yml), read recursively and again whenever it changes.
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_CP_MANIFESTS")]
    pub manifests: PathBuf,

    /// Address for delta ADS and certificates, both over TLS. Port 0 takes any free port.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15012",
        env = "MESHWRIGHT_CP_LISTEN"
    )]
    pub listen: SocketAddr,

    /// Address of the status page; loopback only.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:15014",
        value_parser = loopback,
        env = "MESHWRIGHT_CP_STATUS"
    )]
    pub status: SocketAddr,

    /// Trust domain of every identity.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "cluster.local",
        value_parser = trust_domain,
        env = "MESHWRIGHT_CP_TRUST_DOMAIN"
    )]
    pub trust_domain: TrustDomain,

    /// DNS suffix of services.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "cluster.local",
        env = "MESHWRIGHT_CP_CLUSTER_DOMAIN"
    )]
    pub cluster_domain: String,

    /// Cluster id, the first part of every workload's UID.
    #[arg(
        long,
        value_name = "ID",
        default_value = "Kubernetes",
        env = "MESHWRIGHT_CP_CLUSTER_ID"
    )]
    pub cluster_id: String,

    /// Network of all addresses, unless the root namespace is labelled with one.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        env = "MESHWRIGHT_CP_NETWORK"
    )]
    pub network: String,

    /// Namespace whose policies apply to the whole mesh.
    #[arg(
        long,
        value_name = "NAMESPACE",
        default_value = "istio-system",
        env = "MESHWRIGHT_CP_ROOT_NAMESPACE"
    )]
    pub root_namespace: String,

    /// Further names and addresses in the server's certificate, besides
    /// istiod.istio-system.svc, localhost, the loopback addresses and the listening address.
    #[arg(
        long = "server-name",
        value_name = "NAME",
        value_delimiter = ',',
        env = "MESHWRIGHT_CP_SERVER_NAMES"
    )]
    pub server_names: Vec<String>,

    /// File that says which bearer token is which node or workload (README: Tokens).
    #[arg(
        long,
        value_name = "FILE",
        env = "MESHWRIGHT_CP_TOKENS",
        required_unless_present = "development"
    )]
    pub tokens: Option<PathBuf>,

    /// Accept any caller, with any token or none, and sign any identity of the trust domain.
    #[arg(long, conflicts_with = "tokens", env = "MESHWRIGHT_CP_DEVELOPMENT")]
    pub development: bool,

    /// Keep the certificate authority's key in this folder (mode 0600), so that a restart keeps
    /// the root. Without it the key never leaves memory and every start has a new root.
    #[arg(long, value_name = "DIR", env = "MESHWRIGHT_CP_CA_DIR")]
    pub ca_dir: Option<PathBuf>,

    /// Write the root certificate (PEM) here; it is there before the port is open.
    #[arg(long, value_name = "FILE", env = "MESHWRIGHT_CP_WRITE_ROOT")]
    pub write_root: Option<PathBuf>,

    /// Longest validity of a workload certificate; longer wishes are cut to it.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "24h",
        value_parser = certificate_ttl,
        env = "MESHWRIGHT_CP_MAX_CERT_TTL"
    )]
    pub max_cert_ttl: Duration,

    /// How often the folder is looked at.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "500ms",
        value_parser = interval,
        env = "MESHWRIGHT_CP_POLL"
    )]
    pub poll: Duration,

    /// How long a shutdown waits for running calls.
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "5s",
        value_parser = interval,
        env = "MESHWRIGHT_CP_GRACE"
    )]
    pub grace: Duration,

    /// What is logged, as in `RUST_LOG`.
    #[arg(
        long,
        value_name = "FILTER",
        default_value = "info",
        env = "MESHWRIGHT_CP_LOG"
    )]
    pub log: String,
}

impl Config {
    /// Reads arguments (the first is the program's name) and variables of the process.
    ///
    /// # Errors
    ///
    /// Returns what cannot be parsed, conflicts or is unknown, ready to be printed.
    pub fn parse_args<I>(args: I) -> Result<Self, clap::Error>
    where
        I: IntoIterator<Item = OsString>,
    {
        let config = Self::try_parse_from(args)?;
        let unknown = unknown_variables(std::env::vars_os().map(|(name, _)| name));
        if unknown.is_empty() {
            return Ok(config);
        }
        Err(clap::Error::raw(
            clap::error::ErrorKind::UnknownArgument,
            format!("unknown variable: {}\n", unknown.join(", ")),
        ))
    }
}

/// Names with our prefix that mean nothing to us.
fn unknown_variables(names: impl Iterator<Item = OsString>) -> Vec<String> {
    let mut unknown: Vec<String> = names
        .filter_map(|name| {
            let name = OsStr::to_string_lossy(&name).into_owned();
            let rest = name.strip_prefix(PREFIX)?;
            (!KNOWN.contains(&rest)).then_some(name)
        })
        .collect();
    unknown.sort();
    unknown
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    text.parse::<TrustDomain>()
        .map_err(|error| error.to_string())
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_loopback() => Ok(address),
        Ok(_) => {
            Err("the status page is for this machine only: give a loopback address".to_owned())
        }
        Err(_) => Err("not an address with a port".to_owned()),
    }
}

/// A validity must be long enough to be rotated at all, and bounded.
fn certificate_ttl(text: &str) -> Result<Duration, String> {
    between(
        text,
        Duration::from_secs(1),
        Duration::from_secs(366 * 86_400),
    )
}

fn interval(text: &str) -> Result<Duration, String> {
    between(text, Duration::from_millis(10), Duration::from_secs(3_600))
}

fn between(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let value = duration(text).ok_or("not a duration such as 500ms, 20s, 10m or 24h")?;
    if (least..=most).contains(&value) {
        Ok(value)
    } else {
        Err(format!("not between {least:?} and {most:?}"))
    }
}

fn duration(text: &str) -> Option<Duration> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at_checked(split)?;
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(millis)?))
}

/// A name or address for the server's certificate.
pub(crate) fn split_names(names: &[String]) -> (Vec<String>, Vec<IpAddr>) {
    let mut dns = Vec::new();
    let mut addresses = Vec::new();
    for name in names {
        match name.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => dns.push(name.clone()),
        }
    }
    (dns, addresses)
}

#[cfg(test)]
mod tests {
    use super::{Config, duration, split_names, unknown_variables};
    use std::{ffi::OsString, time::Duration};

    fn parse(args: &[&str]) -> Result<Config, String> {
        Config::parse_args(
            ["control-plane"]
                .iter()
                .chain(args)
                .map(|text| OsString::from(*text)),
        )
        .map_err(|error| error.to_string())
    }

    #[test]
    fn callers_are_checked_unless_development_is_asked_for_by_name() {
        let _trace = meshwright_testkit::trace();
        let error = parse(&["--manifests", "m"]).unwrap_err();
        assert!(error.contains("--tokens"), "{error}");
        assert!(
            parse(&["--manifests", "m", "--development"])
                .unwrap()
                .development
        );
        let error = parse(&["--manifests", "m", "--development", "--tokens", "t"]).unwrap_err();
        assert!(error.contains("cannot be used with"), "{error}");
    }

    #[test]
    fn status_page_is_refused_on_an_address_that_others_can_reach() {
        let _trace = meshwright_testkit::trace();
        let error =
            parse(&["--manifests", "m", "--development", "--status", "0.0.0.0:1"]).unwrap_err();
        assert!(error.contains("loopback"), "{error}");
    }

    #[test]
    fn unknown_variables_are_named_and_others_are_ignored() {
        let _trace = meshwright_testkit::trace();
        let names = [
            "MESHWRIGHT_CP_LISTEN",
            "MESHWRIGHT_CP_LISTNE",
            "PATH",
            "MESHWRIGHT_REQUIRE",
        ];
        assert_eq!(
            unknown_variables(names.iter().map(OsString::from)),
            ["MESHWRIGHT_CP_LISTNE"]
        );
    }

    #[test]
    fn durations_need_a_unit_and_do_not_overflow() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(duration("20s"), Some(Duration::from_secs(20)));
        assert_eq!(duration("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        for bad in [
            "",
            "20",
            "s",
            "-1s",
            "1 s",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert_eq!(duration(bad), None, "`{bad}`");
        }
    }

    #[test]
    fn server_names_are_told_from_addresses() {
        let _trace = meshwright_testkit::trace();
        let (dns, addresses) = split_names(&["istiod.example".into(), "10.0.0.1".into()]);
        assert_eq!(dns, ["istiod.example"]);
        assert_eq!(addresses.len(), 1);
    }
}
