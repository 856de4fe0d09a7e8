//! Our ADS server over plain HTTP/2, and a record of what its clients answer.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use meshwright_testbed::{Step, WorldError};
use meshwright_xds_client::server::{AdsService, Answer, Observer, Resources};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::transport::{Server, server::TcpIncoming};

use crate::rig::until;

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Ads {
    addr: SocketAddr,
    pub(crate) resources: Resources,
    record: Arc<Record>,
    _tasks: JoinSet<()>,
}

/// What clients answered: the type, and the text of a refusal.
#[derive(Debug, Default)]
struct Record(Mutex<Vec<(String, Option<String>)>>);

impl Observer for Record {
    fn answered(&self, answer: &Answer<'_>) {
        let answer = (answer.type_url.to_owned(), answer.error.map(str::to_owned));
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(answer);
    }
}

impl Ads {
    pub(crate) async fn start() -> Result<Self, WorldError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.step("listen")?;
        let addr = listener.local_addr().step("read an address")?;
        let (resources, record) = (Resources::new(), Arc::<Record>::default());
        let observer = Arc::clone(&record) as Arc<dyn Observer>;
        let service = AdsService::new(resources.clone()).observer(observer);
        let serving = Server::builder()
            .add_service(service.into_server())
            .serve_with_incoming(TcpIncoming::from(listener));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serving.await.unwrap_or_default() });
        Ok(Self {
            addr,
            resources,
            record,
            _tasks: tasks,
        })
    }

    pub(crate) const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Waits for the next answer to what was sent of a type: `None` if it was accepted.
    pub(crate) async fn answer(&self, type_url: &str) -> Result<Option<String>, WorldError> {
        until(&format!("an answer about {type_url}"), async || {
            let mut answers = self.record.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = answers.iter().position(|(found, _)| found == type_url)?;
            Some(answers.remove(at).1)
        })
        .await
    }
}
