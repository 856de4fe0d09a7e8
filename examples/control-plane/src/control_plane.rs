//! A running control plane, as a value.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use meshwright_identity::{
    Fault,
    ca::{CaError, CertificateAuthority},
    tls::TlsEngine,
};
use meshwright_xds_client::server::{AdsService, Resources};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket},
    sync::{Notify, watch},
    task::{self, JoinSet},
    time,
};

use crate::{
    Config,
    args::split_names,
    ca_dir::{self, CaDirError, write_whole},
    callers::TokensError,
    manifest::InvalidManifests,
    reload::{Sources, Watcher, log_set},
    serve::{Certificates, Services, serve},
    state::{Publisher, State},
    status::{self, Nodes, Status},
};

/// Names that proxies know a control plane by.
const NAMES: [&str; 3] = [
    "istiod.istio-system.svc",
    "istiod.istio-system.svc.cluster.local",
    "localhost",
];

/// Nodes that connect at once after a restart.
const BACKLOG: u32 = 1024;

/// A running control plane. Dropping it stops it at once; [`shutdown`](Self::shutdown) is gentler.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    status: SocketAddr,
    root_pem: String,
    grace: Duration,
    nudge: Arc<Notify>,
    stop: watch::Sender<bool>,
    cut: watch::Sender<bool>,
    server: JoinSet<()>,
    _others: JoinSet<()>,
}

impl ControlPlane {
    /// Reads the manifests, opens the ports and serves, on the current runtime.
    ///
    /// When it returns, clients can connect.
    ///
    /// # Errors
    ///
    /// Returns what keeps it from starting, all faults of the manifests at once; nothing is left
    /// running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        // Who signs: a root that lives as long as this process, or in a folder if asked for.
        let authority = ca_dir::open(config.ca_dir.as_deref(), &config.trust_domain)?;

        // What exists and who may call: files, read now and whenever they change.
        let sources = Arc::new(Sources::new(&config));
        let (watcher, resources, state) = load(sources, &config).await?;
        let nudge = Arc::new(Notify::new());

        // Who sees it: node proxies over one TLS port, an operator over the status page.
        // Whoever can connect finds the root written: the ports are bound first, opened last.
        let (port, address) = bind("the server", config.listen)?;
        let (page, status) = bind("the status page", config.status)?;
        let tls = server_tls(&authority, &config, address)?;
        let nodes = Arc::new(Nodes::default());
        let certificates = Certificates::new(authority.clone(), config.max_cert_ttl, state.clone());
        let page_of = Status {
            state: state.clone(),
            nodes: Arc::clone(&nodes),
            counts: certificates.counts(),
            trust_domain: config.trust_domain.to_string(),
        };
        let services = Services {
            ads: AdsService::new(resources).observer(nodes),
            state,
            certificates,
        };

        write_root(&authority, config.write_root.as_ref())?;
        let listener = open("the server", port, address)?;
        let page = open("the status page", page, status)?;
        let (stop, cut) = (watch::Sender::new(false), watch::Sender::new(false));
        let mut server = JoinSet::new();
        server.spawn(serve(
            listener,
            tls,
            services,
            stop.subscribe(),
            cut.subscribe(),
        ));
        let mut others = JoinSet::new();
        others.spawn(watcher.run(config.poll, Arc::clone(&nudge)));
        others.spawn(status::serve(page, page_of));

        if config.development && !address.ip().is_loopback() {
            tracing::warn!(%address, "anyone who reaches this address can be any workload of the mesh");
        }
        tracing::info!(%address, %status, development = config.development, "serving");
        Ok(Self {
            address,
            status,
            root_pem: authority.root_pem().to_owned(),
            grace: config.grace,
            nudge,
            stop,
            cut,
            server,
            _others: others,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where the status page is.
    #[must_use]
    pub const fn status_address(&self) -> SocketAddr {
        self.status
    }

    /// The root certificate (PEM) that verifies this server and every certificate it signs.
    #[must_use]
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Looks at the files now instead of at the next poll. Does not wait for the outcome.
    pub fn reload(&self) {
        self.nudge.notify_one();
    }

    /// Ends streams, lets running calls finish within the grace period, then closes everything.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if time::timeout(self.grace, self.server.join_next())
            .await
            .is_err()
        {
            tracing::warn!("calls were still running at the end of the grace period");
        }
        self.cut.send_replace(true);
    }
}

/// Reads everything once and puts it into force.
async fn load(
    sources: Arc<Sources>,
    config: &Config,
) -> Result<(Watcher, Resources, watch::Receiver<State>), StartError> {
    let reader = Arc::clone(&sources);
    let reading = task::spawn_blocking(move || reader.read(None)).await;
    let mut first = reading.or(Err(StartError::CutOff))?;
    let callers = first.callers.map_err(|source| StartError::Tokens {
        path: config.tokens.clone().unwrap_or_default(),
        source,
    })?;
    let publisher = Publisher::new(callers);
    if let Some(manifests) = first.manifests.take() {
        let (compiled, summary) = manifests?;
        log_set(&summary);
        publisher.publish(compiled, summary);
    }
    let (resources, state) = (publisher.resources(), publisher.state());
    Ok((
        Watcher::new(sources, publisher, first.mark),
        resources,
        state,
    ))
}

fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpSocket, SocketAddr), StartError> {
    let error = |source| StartError::Listen {
        what,
        address,
        source,
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(error)?;
    // Connections of an instance before this one may still be closing.
    socket.set_reuseaddr(true).map_err(error)?;
    socket.bind(address).map_err(error)?;
    let address = socket.local_addr().map_err(error)?;
    Ok((socket, address))
}

fn open(
    what: &'static str,
    socket: TcpSocket,
    address: SocketAddr,
) -> Result<TcpListener, StartError> {
    socket.listen(BACKLOG).map_err(|source| StartError::Listen {
        what,
        address,
        source,
    })
}

fn server_tls(
    authority: &CertificateAuthority,
    config: &Config,
    address: SocketAddr,
) -> Result<Arc<ServerConfig>, StartError> {
    let (dns, mut addresses) = split_names(&config.server_names);
    let names: Vec<&str> = NAMES
        .into_iter()
        .chain(dns.iter().map(String::as_str))
        .collect();
    addresses.extend([
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ]);
    if !address.ip().is_unspecified() {
        addresses.push(address.ip());
    }
    addresses.sort();
    addresses.dedup();
    authority
        .server_certificate(&names, &addresses)
        .and_then(|credentials| credentials.server_config(&TlsEngine::aws_lc_rs()))
        .map_err(|source| StartError::Certificate { source })
}

fn write_root(authority: &CertificateAuthority, path: Option<&PathBuf>) -> Result<(), StartError> {
    let Some(path) = path else {
        return Ok(());
    };
    write_whole(path, authority.root_pem().as_bytes(), 0o644).map_err(|source| {
        StartError::WriteRoot {
            path: path.clone(),
            source,
        }
    })
}

/// A control plane did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The certificate authority cannot be made or taken up; look at `--ca-dir`.
    #[error("there is no certificate authority")]
    Authority {
        /// Why not.
        #[from]
        source: CaDirError,
    },
    /// The server's certificate cannot be made; look at `--server-name`.
    #[error("the server has no certificate")]
    Certificate {
        /// Why not.
        source: CaError,
    },
    /// The process is ending.
    #[error("the reading of the manifests was cut off")]
    CutOff,
    /// A port cannot be opened; most likely another instance runs.
    #[error("{what} cannot listen on {address}")]
    Listen {
        /// Which port.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The manifests have faults; at start there is no last good set to go on with.
    #[error("there is nothing to serve")]
    Manifests {
        /// All faults.
        #[from]
        source: InvalidManifests,
    },
    /// The tokens cannot be used; without them nobody could call.
    #[error("the tokens in {path} cannot be used")]
    Tokens {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: TokensError,
    },
    /// The root certificate cannot be written; look at `--write-root`.
    #[error("the root certificate cannot be written to {path}")]
    WriteRoot {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
}

impl StartError {
    /// Whether starting again may succeed without a change of the configuration.
    #[must_use]
    pub const fn is_safe_to_retry(&self) -> bool {
        matches!(self, Self::CutOff | Self::Listen { .. })
    }

    /// Who has to act.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            Self::Manifests { .. } | Self::Tokens { .. } => Fault::Caller,
            _ => Fault::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::StartError;
    use crate::{CaDirError, Manifests, TokensError};
    use meshwright_identity::ca::CaError;
    use meshwright_testkit::assert_chain_says_each_thing_once;
    use std::io;

    #[test]
    fn chain_of_every_start_error_says_each_thing_once() {
        let _trace = meshwright_testkit::trace();
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let path = std::path::PathBuf::from("some/where");
        let errors = [
            StartError::from(CaDirError::Io {
                path: path.clone(),
                source: gone(),
            }),
            StartError::from(CaDirError::Fresh {
                source: CaError::NoTime,
            }),
            StartError::Certificate {
                source: CaError::Name,
            },
            StartError::CutOff,
            StartError::Listen {
                what: "the server",
                address: ([127, 0, 0, 1], 1).into(),
                source: gone(),
            },
            StartError::from(Manifests::parse("m.yaml", "a: 1").unwrap_err()),
            StartError::Tokens {
                path: path.clone(),
                source: TokensError::Read { source: gone() },
            },
            StartError::WriteRoot {
                path,
                source: gone(),
            },
        ];
        for error in errors {
            assert_chain_says_each_thing_once(&error);
        }
    }
}
