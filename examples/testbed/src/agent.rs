//! The node agent's part: capture rules in the pod, and its namespace to the node's proxy.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use meshwright_redirect::{
    Netns,
    capture::{self, Spec},
    zds::{Delivery, PodInfo, Server, ServerConfig},
};
use tokio::runtime::Runtime;

use crate::{Pod, Step, WorldError};

/// The agent of one node: the server of the handover protocol, and the one who writes rules.
#[derive(Debug)]
pub struct Agent {
    socket: PathBuf,
    server: Server,
    runtime: Arc<Runtime>,
    rules: Spec,
}

impl Agent {
    pub(crate) fn start(runtime: &Arc<Runtime>, socket: &Path) -> Result<Self, WorldError> {
        let server = {
            let _inside = runtime.enter();
            Server::bind(socket, ServerConfig::default(), Arc::new(()))
                .step(format!("listen on {}", socket.display()))?
        };
        Ok(Self {
            socket: socket.to_owned(),
            server,
            runtime: Arc::clone(runtime),
            rules: Spec::ambient(),
        })
    }

    /// Returns the path of the handover socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Returns how many proxies have had their snapshot.
    pub fn proxies(&self) -> usize {
        self.server.proxies()
    }

    /// Hands a pod to the node's proxies, then captures its traffic.
    ///
    /// In this order a running pod is never captured by a proxy that does not listen yet. With no
    /// proxy connected, the pod is captured all the same: its traffic fails until one comes.
    ///
    /// # Errors
    ///
    /// Fails when a proxy refuses the pod or the rules cannot be applied.
    pub fn enrol(&self, pod: &Pod) -> Result<(), WorldError> {
        self.hand_over(pod)?;
        self.capture(pod)
    }

    /// Stops the capture, then takes the pod from the node's proxies.
    ///
    /// # Errors
    ///
    /// Fails when the rules cannot be removed or a proxy objects.
    pub fn evict(&self, pod: &Pod) -> Result<(), WorldError> {
        self.release(pod)?;
        self.take_back(pod)
    }

    /// Hands a pod to every connected proxy, and to those that connect later.
    ///
    /// # Errors
    ///
    /// Fails when a proxy refuses the pod or does not answer.
    pub fn hand_over(&self, pod: &Pod) -> Result<(), WorldError> {
        let spec = pod.spec();
        let info = PodInfo::new(spec.name(), spec.namespace(), spec.service_account());
        let uid = spec.uid();
        let delivery = self
            .runtime
            .block_on(self.server.add(&uid, info, netns(pod)?))
            .step(format!("hand {} over", pod.name()))?;
        acknowledged(&delivery, &format!("hand {} over", pod.name()))
    }

    /// Takes a pod from every connected proxy.
    ///
    /// # Errors
    ///
    /// Fails when a proxy objects or does not answer.
    pub fn take_back(&self, pod: &Pod) -> Result<(), WorldError> {
        let delivery = self.runtime.block_on(self.server.del(&pod.spec().uid()));
        acknowledged(&delivery, &format!("take {} back", pod.name()))
    }

    /// Writes the capture rules into a pod.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses a rule.
    pub fn capture(&self, pod: &Pod) -> Result<(), WorldError> {
        capture::apply(&netns(pod)?, &self.rules)
            .map(drop)
            .step(format!("capture the traffic of {}", pod.name()))
    }

    /// Removes the capture rules from a pod.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses.
    pub fn release(&self, pod: &Pod) -> Result<(), WorldError> {
        capture::remove(&netns(pod)?)
            .map(drop)
            .step(format!("stop capturing the traffic of {}", pod.name()))
    }
}

fn netns(pod: &Pod) -> Result<Netns, WorldError> {
    let file = pod.space().file().try_clone().step("share a namespace")?;
    Netns::from_fd(file.into()).step(format!("hold the namespace of {}", pod.name()))
}

fn acknowledged(delivery: &Delivery, step: &str) -> Result<(), WorldError> {
    match delivery.refused.first() {
        Some(reason) => Err(WorldError::caused(step.to_owned(), reason.clone())),
        None if delivery.lost > 0 => Err(WorldError::new(format!("{step} to every proxy"))),
        None => Ok(()),
    }
}
