//! libcurl uses our server as a proxy over HTTP/2.

use std::path::Path;

use meshwright_testbed::{Step, WorldError};
use serde::Deserialize;

use crate::{
    app::{App, GREETING},
    certificates::Mesh,
    process::Process,
    rig,
    server::{ADMITTED, DENIED, Server},
};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/connect.py");

#[derive(Debug, Deserialize)]
struct Fetched {
    told: String,
    status: u16,
    body: String,
    error: Option<String>,
}

async fn fetch(program: &Path, authority: &str) -> Result<Fetched, WorldError> {
    let mesh = Mesh::new()?;
    let client = mesh.write("libcurl")?;
    let app = App::start().await?;
    let mut server = Server::start(mesh.member("server")?, app.addr()).await?;
    let dir = mesh.dir().to_str();
    let dir = dir.ok_or_else(|| WorldError::new("name a folder"))?;
    let proxy = format!("https://{}", server.addr());
    let arguments = [SCRIPT, &proxy, dir, &format!("http://{authority}/")];
    let mut curl = Process::start(program, arguments, (mesh.dir(), "libcurl"))?;
    let fetched = curl.json::<Fetched>().await.step("fetch with libcurl")?;
    server.sees(&client, authority).await?;
    Ok(fetched)
}

pub(crate) fn libcurl_fetches_through_our_server(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let fetched = fetch(program, ADMITTED).await?;
        assert_eq!(fetched.error, None);
        assert_eq!((fetched.status, &*fetched.body), (200, GREETING));
        let agreed = "TLSv1.3 / TLS_AES_256_GCM_SHA384 / X25519MLKEM768";
        assert!(fetched.told.contains(agreed), "{}", fetched.told);
        Ok(())
    })
}

pub(crate) fn libcurl_is_told_of_a_refusal(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let fetched = fetch(program, DENIED).await?;
        assert!(fetched.error.is_some(), "no tunnel: {fetched:?}");
        assert_eq!((fetched.status, &*fetched.body), (0, ""));
        let status = "CONNECT Response Status 401";
        assert!(fetched.told.contains(status), "{}", fetched.told);
        Ok(())
    })
}
