//! A stand-in for kube-proxy: a service address at the switch that leads to a backend.
//!
//! Pods outside the mesh call services through it, as they would on a cluster. A pod inside the
//! mesh must never get here: its node proxy resolves the service itself.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use super::End;
use crate::Space;

/// Connects to the backend from the given namespace and copies until both sides have finished.
pub(super) fn forward(client: &TcpStream, space: &Space, backend: SocketAddr) -> io::Result<End> {
    let server = space
        .connect(backend, Duration::from_secs(5))
        .map_err(io::Error::other)?;
    server.set_read_timeout(None)?;
    server.set_write_timeout(None)?;
    thread::scope(|scope| {
        let up = scope.spawn(|| copy(client, &server));
        let down = copy(&server, client);
        match up.join() {
            Ok(up) => up.and(down).map(|()| End::Fin),
            Err(_panic) => Err(io::Error::other("a copying thread panicked")),
        }
    })
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) -> io::Result<()> {
    match io::copy(&mut from, &mut to) {
        Ok(_bytes) => to.shutdown(Shutdown::Write),
        Err(error) => {
            // The other direction must not wait for a peer that is gone.
            to.shutdown(Shutdown::Both)?;
            Err(error)
        }
    }
}
