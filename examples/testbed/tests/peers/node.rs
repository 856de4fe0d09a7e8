//! Node's `http2` module opens tunnels to our server.

use std::path::Path;

use meshwright_testbed::WorldError;
use serde::Deserialize;

use crate::{
    app::{App, GREETING},
    certificates::Mesh,
    process::Process,
    rig,
    server::{ADMITTED, DENIED, Server},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/connect.mjs");

#[derive(Debug, Deserialize)]
struct Heard {
    status: u16,
    body: String,
}

pub(crate) fn node_half_closes_both_ways_through_our_server(
    program: &Path,
) -> Result<(), WorldError> {
    rig::run(async {
        let mesh = Mesh::new()?;
        let client = mesh.write("node")?;
        let mut app = App::start().await?;
        let mut server = Server::start(mesh.member("server")?, app.addr()).await?;
        let dir = mesh.dir().to_str();
        let dir = dir.ok_or_else(|| WorldError::new("name a folder"))?;
        let url = format!("https://{}", server.addr());
        let arguments = [SCRIPT, &url, dir, ADMITTED, DENIED];
        let mut node = Process::start(program, arguments, (mesh.dir(), "node"))?;

        let echoed: Heard = node.json().await?;
        server.sees(&client, ADMITTED).await?;
        assert_eq!((echoed.status, &*echoed.body), (200, "said by node"));
        assert_eq!(
            app.ended().await?,
            12,
            "the end of the stream is the end of TCP"
        );
        server.finishes().await?;

        let early: Heard = node.json().await?;
        server.sees(&client, ADMITTED).await?;
        assert_eq!((early.status, &*early.body), (200, GREETING));
        assert_eq!(
            app.ended().await?,
            0,
            "what finished first waited for the rest"
        );
        server.finishes().await?;

        let refused: Heard = node.json().await?;
        server.sees(&client, DENIED).await?;
        assert_eq!((refused.status, &*refused.body), (401, ""));
        Ok(())
    })
}
