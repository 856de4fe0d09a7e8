//! Connections out of a pod.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use meshwright_hbone::Dial;
use meshwright_redirect::Netns;
use meshwright_redirect::socket::{DialConfig, DialError, Liveness, dial};
use tokio::net::TcpStream;

use crate::config::Sockets;
use crate::pod::Pod;

/// Connects from inside a pod's network namespace, with the mark that the capture rules exempt.
#[derive(Clone, Debug)]
pub(crate) struct PodDialer {
    netns: Netns,
    config: DialConfig,
}

impl PodDialer {
    /// A dialer for the pod's own connections.
    pub(crate) fn new(pod: &Pod) -> Self {
        let sockets = &pod.mesh.config.sockets;
        let mut config = DialConfig::new().liveness(liveness(sockets));
        if let Some(mark) = sockets.mark {
            config = config.mark(mark.get());
        }
        Self {
            netns: pod.netns.clone(),
            config,
        }
    }

    /// Connects with the pod's own address as source.
    pub(crate) async fn dial(&self, to: SocketAddr) -> Result<TcpStream, DialError> {
        dial(&self.netns, &self.config, to).await
    }

    /// Connects with a client's address as source, so that the application sees its client.
    pub(crate) async fn dial_as(
        &self,
        source: IpAddr,
        to: SocketAddr,
    ) -> Result<TcpStream, DialError> {
        let config = self.config.clone().source(source);
        dial(&self.netns, &config, to).await
    }
}

impl Dial for PodDialer {
    async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        Ok(Self::dial(self, to).await?)
    }
}

/// Keepalive and user timeout as the settings ask for.
pub(crate) fn liveness(sockets: &Sockets) -> Liveness {
    let mut liveness = Liveness::default();
    match &sockets.keepalive {
        Some(keepalive) => {
            liveness.idle = keepalive.time;
            liveness.interval = keepalive.interval;
            liveness.probes = keepalive.retries;
        }
        None => liveness.idle = Duration::ZERO,
    }
    liveness.user_timeout = sockets.user_timeout.unwrap_or_default();
    liveness
}
