//! A client on gRPC for Python calls our ADS server.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use meshwright_testbed::WorldError;
use meshwright_xds_client::{
    proto::{ADDRESS, AUTHORIZATION},
    server::ServedResource,
};
use serde::Deserialize;

use crate::{ads::Ads, certificates::Mesh, process::Process, rig};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/delta.py");

/// One response as the script tells it.
#[derive(Debug, Deserialize)]
struct Heard {
    #[serde(rename = "type")]
    type_url: String,
    resources: BTreeMap<String, Resource>,
    removed: BTreeSet<String>,
}

#[derive(Debug, Deserialize)]
struct Resource {
    #[serde(rename = "type")]
    type_url: String,
    version: String,
    aliases: Vec<String>,
    body: String,
}

impl Heard {
    fn names(&self) -> Vec<&str> {
        self.resources.keys().map(String::as_str).collect()
    }
}

/// The client, and the server it talks to.
struct Session {
    ads: Ads,
    python: Process,
    _mesh: Mesh,
}

impl Session {
    /// Hears a response and its answer.
    async fn hears(&mut self, type_url: &str) -> Result<Heard, WorldError> {
        let heard: Heard = self.python.json().await?;
        assert_eq!(heard.type_url, type_url);
        assert_eq!(self.ads.answer(type_url).await?, None, "accepted");
        Ok(heard)
    }

    fn set(&self, type_url: &str, name: &str, body: &'static str) {
        let resource = ServedResource::new(name, body).alias(format!("{name} too"));
        self.ads.resources.set(type_url, resource);
    }
}

pub(crate) fn grpc_client_follows_our_server_and_resumes(program: &Path) -> Result<(), WorldError> {
    rig::run(async {
        let (mesh, ads) = (Mesh::new()?, Ads::start().await?);
        let server = ads.addr().to_string();
        let arguments = [SCRIPT, &server, ADDRESS, AUTHORIZATION];
        let python = Process::start(program, arguments, (mesh.dir(), "grpc"))?;
        let mut session = Session {
            ads,
            python,
            _mesh: mesh,
        };
        for name in ["a", "b", "c"] {
            session.set(ADDRESS, name, "first");
        }
        session.set(AUTHORIZATION, "policy", "allow");
        follows(&mut session).await?;
        resumes(&mut session).await
    })
}

/// Everything first, then only what differs.
async fn follows(session: &mut Session) -> Result<(), WorldError> {
    session.python.tell("open").await?;
    let all = session.hears(ADDRESS).await?;
    assert_eq!(all.names(), ["a", "b", "c"], "a wildcard brings everything");
    assert_eq!(all.removed, BTreeSet::new());
    for resource in all.resources.values() {
        assert_eq!((&*resource.type_url, &*resource.body), (ADDRESS, "first"));
        assert_eq!(resource.aliases, [""; 0], "nobody who has all asks by them");
        assert_ne!(resource.version, "");
    }
    let policies = session.hears(AUTHORIZATION).await?;
    assert_eq!(
        policies.names(),
        ["policy"],
        "so does an empty subscription"
    );

    session.set(ADDRESS, "a", "second");
    let update = session.hears(ADDRESS).await?;
    assert_eq!(update.names(), ["a"], "only what changed");
    assert_eq!(update.resources.get("a").map(|r| &*r.body), Some("second"));

    session.ads.resources.remove(ADDRESS, "b");
    let removal = session.hears(ADDRESS).await?;
    assert_eq!(removal.names(), [""; 0]);
    assert_eq!(removal.removed, BTreeSet::from(["b".to_owned()]));

    session.set(ADDRESS, "refuse this", "bad");
    let refused: Heard = session.python.json().await?;
    assert_eq!(refused.names(), ["refuse this"]);
    let answer = session.ads.answer(ADDRESS).await?;
    assert_eq!(answer.as_deref(), Some("told to refuse this"), "a refusal");
    session.ads.resources.remove(ADDRESS, "refuse this");
    let removal = session.hears(ADDRESS).await?;
    assert_eq!(removal.removed, BTreeSet::from(["refuse this".to_owned()]));
    Ok(())
}

/// A new stream that tells what it has brings what changed meanwhile, and nothing else.
async fn resumes(session: &mut Session) -> Result<(), WorldError> {
    session.python.tell("close").await?;
    assert_eq!(session.python.line().await?, "closed");
    session.set(ADDRESS, "d", "while away");
    session.ads.resources.remove(ADDRESS, "c");
    session.python.tell("open").await?;
    let mut seen = BTreeSet::new();
    // Ends with what is changed only once the differences were told.
    while !seen.contains("+e") {
        let heard: Heard = session.python.json().await?;
        assert_eq!(session.ads.answer(&heard.type_url).await?, None, "accepted");
        seen.extend(heard.resources.keys().map(|name| format!("+{name}")));
        seen.extend(heard.removed.iter().map(|name| format!("-{name}")));
        if seen.contains("+d") {
            session.set(ADDRESS, "e", "at last");
        }
    }
    assert_eq!(
        Vec::from_iter(&seen),
        ["+d", "+e", "-c"],
        "neither `a` nor the policy, which did not change"
    );
    Ok(())
}
