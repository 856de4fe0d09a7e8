//! The thin shell: reads a namespace and does a plan's steps, over sockets that live in it.

use super::CaptureError;
use super::model::{LAST_PRIORITY, TABLES};
use super::plan::{Action, Drift, Observed, Routing, Step};
use super::spec::Spec;
use crate::netlink::{Conversation, OpenFault};
use crate::netns::Netns;
use crate::nft::{self, CommitFault};
use crate::route::{self, Family};
use std::fs;
use std::io;

/// Open conversations with one namespace's kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    nft: Conversation,
    route: Conversation,
    /// `disable_ipv6` of loopback; nothing where the kernel has no IPv6.
    ipv6_disabled: Option<bool>,
}

impl Kernel {
    /// Opens both conversations; refuses the namespaces of this process and of process 1.
    pub(crate) fn open(netns: &Netns) -> Result<Self, CaptureError> {
        let own =
            Netns::open("/proc/self/ns/net").map_err(|source| CaptureError::Inspect { source })?;
        // Process 1 may be out of sight; what cannot be seen is not compared.
        let first = Netns::open("/proc/1/ns/net").ok();
        if own.id() == netns.id() || first.is_some_and(|first| first.id() == netns.id()) {
            return Err(CaptureError::OwnNamespace);
        }
        let opened = |fault| match fault {
            OpenFault::Enter(source) => CaptureError::Enter { source },
            OpenFault::Socket(source) => CaptureError::Observe {
                what: "a netlink socket",
                source,
            },
        };
        let nft = Conversation::open(netns, nft::PROTOCOL).map_err(opened)?;
        let route = Conversation::open(netns, route::PROTOCOL).map_err(opened)?;
        let disabled = netns
            .run(|| fs::read_to_string("/proc/sys/net/ipv6/conf/lo/disable_ipv6"))
            .map_err(|source| CaptureError::Enter { source })?;
        let ipv6_disabled = match disabled {
            Ok(text) => Some(text.trim() != "0"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => {
                let what = "disable_ipv6 of loopback";
                return Err(CaptureError::Observe { what, source });
            }
        };
        Ok(Self {
            nft,
            route,
            ipv6_disabled,
        })
    }

    /// Reads what the namespace holds.
    pub(crate) fn observe(&mut self) -> Result<Observed, CaptureError> {
        let v4 = self.routing(Family::V4)?;
        let v6 = self.routing(Family::V6)?;
        let nft = nft::snapshot(&mut self.nft).map_err(|source| CaptureError::Observe {
            what: "nf_tables",
            source,
        })?;
        Ok(Observed { v4, v6, nft })
    }

    fn routing(&mut self, family: Family) -> Result<Routing, CaptureError> {
        let (exists, routable) = match (family, self.ipv6_disabled) {
            (Family::V4, _) => (true, true),
            (Family::V6, None) => (false, false),
            (Family::V6, Some(disabled)) => (true, !disabled),
        };
        if !exists {
            return Ok(Routing::default());
        }
        let failed = |what| move |source| CaptureError::Observe { what, source };
        Ok(Routing {
            exists,
            routable,
            has_rule: route::has_rule(&mut self.route, family).map_err(failed("policy rules"))?,
            has_route: route::has_route(&mut self.route, family).map_err(failed("routes"))?,
        })
    }

    /// Does one step.
    pub(crate) fn do_step(&mut self, step: &Step, generation: u32) -> Result<(), CaptureError> {
        let route = &mut self.route;
        let result = match &step.0 {
            Action::AddRoute(family) => route::add_route(route, *family),
            Action::AddRule(family) => route::add_rule(route, *family),
            Action::DeleteRoute(family) => route::delete_route(route, *family),
            Action::DeleteRule(family) => route::delete_rule(route, *family),
            Action::Commit(changes) => {
                return nft::commit(&mut self.nft, generation, changes).map_err(
                    |fault| match fault {
                        CommitFault::Overtaken => CaptureError::Overtaken,
                        CommitFault::Refused { step, source } => CaptureError::Step {
                            step: Step(Action::Commit(
                                changes.get(step).cloned().into_iter().collect(),
                            )),
                            source,
                        },
                    },
                );
            }
        };
        result.map_err(|source| CaptureError::Step {
            step: step.clone(),
            source,
        })
    }

    /// Lists the chains of others that see packets before ours do, or beside them.
    pub(crate) fn ahead(&mut self) -> Result<Vec<Drift>, CaptureError> {
        let is_ours = |table: &str| {
            let name = table.strip_prefix("inet ");
            name.is_some_and(|name| TABLES.contains(&name))
        };
        let chains = nft::chains_ahead(&mut self.nft, LAST_PRIORITY, is_ours);
        let chains = chains.map_err(|source| CaptureError::Observe {
            what: "the chains of others",
            source,
        })?;
        let drift = |(table, chain)| Drift::Ahead { table, chain };
        Ok(chains.into_iter().map(drift).collect())
    }

    /// Lists the families whose marked packets do not come back although they should.
    pub(crate) fn diverted(
        &mut self,
        spec: &Spec,
        observed: &Observed,
    ) -> Result<Vec<Family>, CaptureError> {
        let mut out = Vec::new();
        for (family, now) in [(Family::V4, observed.v4), (Family::V6, observed.v6)] {
            let wanted = family == Family::V4 || spec.ipv6;
            if wanted && now.has_rule && now.has_route {
                let stays = route::marked_packets_stay(&mut self.route, family);
                let failed = |source: io::Error| CaptureError::Observe {
                    what: "the way of marked packets",
                    source,
                };
                if !stays.map_err(failed)? {
                    out.push(family);
                }
            }
        }
        Ok(out)
    }
}
