//! Which kinds are read, and as what.

use meshwright_policy::kubernetes::{AuthorizationPolicy, PeerAuthentication};
use serde::{Deserialize, Deserializer, de::DeserializeSeed};

use super::{
    entry::{ServiceEntry, WorkloadEntry},
    gateway::{Gateway, GatewayClass},
    instance::{Instance, UserWorkload},
    metadata::Named,
    place::Reason,
    service::Service,
    slice::EndpointSlice,
};

/// A kind that means something here.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Kind {
    AuthorizationPolicy,
    EndpointSlice,
    Gateway,
    GatewayClass,
    Namespace,
    Node,
    PeerAuthentication,
    Pod,
    Service,
    ServiceAccount,
    ServiceEntry,
    UserWorkload,
    WorkloadEntry,
}

/// What to do with a document, judged by its `apiVersion` and `kind`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Ignore,
    Read(Kind),
    Refuse(Reason),
}

const SECURITY: &str = "security.istio.io";

/// Group, kind, versions that are read, and what they are.
const KINDS: [(&str, &str, &[&str], Kind); 13] = [
    ("", "Namespace", &["v1"], Kind::Namespace),
    ("", "Node", &["v1"], Kind::Node),
    ("", "Pod", &["v1"], Kind::Pod),
    ("", "Service", &["v1"], Kind::Service),
    ("", "ServiceAccount", &["v1"], Kind::ServiceAccount),
    (
        "discovery.k8s.io",
        "EndpointSlice",
        &["v1"],
        Kind::EndpointSlice,
    ),
    (
        "gateway.networking.k8s.io",
        "Gateway",
        &["v1", "v1beta1"],
        Kind::Gateway,
    ),
    (
        "gateway.networking.k8s.io",
        "GatewayClass",
        &["v1", "v1beta1"],
        Kind::GatewayClass,
    ),
    (
        "meshwright.dev",
        "Workload",
        &["v1alpha1"],
        Kind::UserWorkload,
    ),
    (
        "networking.istio.io",
        "ServiceEntry",
        &["v1", "v1beta1", "v1alpha3"],
        Kind::ServiceEntry,
    ),
    (
        "networking.istio.io",
        "WorkloadEntry",
        &["v1", "v1beta1", "v1alpha3"],
        Kind::WorkloadEntry,
    ),
    (
        SECURITY,
        "AuthorizationPolicy",
        &["v1", "v1beta1"],
        Kind::AuthorizationPolicy,
    ),
    (
        SECURITY,
        "PeerAuthentication",
        &["v1", "v1beta1"],
        Kind::PeerAuthentication,
    ),
];

/// Kinds of the security API that only an L7 proxy evaluates.
const SECURITY_ELSEWHERE: [&str; 1] = ["RequestAuthentication"];

/// Whether some kind of this API group is read.
pub(crate) fn is_group_read(api_version: &str) -> bool {
    KINDS
        .iter()
        .any(|known| known.0 == group_and_version(api_version).0)
}

fn group_and_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

impl Kind {
    pub(crate) fn judge(api_version: &str, kind: &str) -> Verdict {
        let (group, version) = group_and_version(api_version);
        match KINDS
            .iter()
            .find(|known| known.0 == group && known.1 == kind)
        {
            Some((_, _, versions, known)) if versions.contains(&version) => Verdict::Read(*known),
            Some(_) => Verdict::Refuse(Reason::Version {
                kind: kind.to_owned(),
                version: version.to_owned(),
            }),
            None if group == SECURITY && !SECURITY_ELSEWHERE.contains(&kind) => {
                Verdict::Refuse(Reason::UnknownSecurity {
                    kind: format!("{api_version} {kind}"),
                })
            }
            None => Verdict::Ignore,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::EndpointSlice => "EndpointSlice",
            Self::Gateway => "Gateway",
            Self::GatewayClass => "GatewayClass",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::ServiceEntry => "ServiceEntry",
            Self::UserWorkload => "Workload",
            Self::WorkloadEntry => "WorkloadEntry",
        }
    }

    /// Whether its name is unique in the cluster, not only in a namespace.
    pub(crate) const fn is_cluster_wide(self) -> bool {
        matches!(self, Self::GatewayClass | Self::Namespace | Self::Node)
    }
}

/// One object as read.
#[derive(Debug)]
pub(crate) enum Object {
    AuthorizationPolicy(Box<AuthorizationPolicy>),
    EndpointSlice(Box<EndpointSlice>),
    Gateway(Gateway),
    GatewayClass(GatewayClass),
    Instance(Box<Instance>),
    Namespace(Named),
    Node(Named),
    PeerAuthentication(Box<PeerAuthentication>),
    Service(Box<Service>),
    ServiceAccount(Named),
    ServiceEntry(Box<ServiceEntry>),
    WorkloadEntry(Box<WorkloadEntry>),
}

impl<'de> DeserializeSeed<'de> for Kind {
    type Value = Object;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Object, D::Error> {
        Ok(match self {
            Self::AuthorizationPolicy => {
                Object::AuthorizationPolicy(Deserialize::deserialize(from)?)
            }
            Self::EndpointSlice => Object::EndpointSlice(Deserialize::deserialize(from)?),
            Self::PeerAuthentication => Object::PeerAuthentication(Deserialize::deserialize(from)?),
            Self::Gateway => Object::Gateway(Deserialize::deserialize(from)?),
            Self::GatewayClass => Object::GatewayClass(Deserialize::deserialize(from)?),
            Self::Namespace => Object::Namespace(Deserialize::deserialize(from)?),
            Self::Node => Object::Node(Deserialize::deserialize(from)?),
            Self::Pod => Object::Instance(Deserialize::deserialize(from)?),
            Self::Service => Object::Service(Deserialize::deserialize(from)?),
            Self::ServiceAccount => Object::ServiceAccount(Deserialize::deserialize(from)?),
            Self::ServiceEntry => Object::ServiceEntry(Deserialize::deserialize(from)?),
            Self::UserWorkload => {
                Object::Instance(Box::new(UserWorkload::deserialize(from)?.into()))
            }
            Self::WorkloadEntry => Object::WorkloadEntry(Deserialize::deserialize(from)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Verdict};
    use crate::manifest::Reason;

    #[test]
    fn same_kind_of_another_group_is_ignored() {
        let _trace = meshwright_testkit::trace();
        assert_eq!(Kind::judge("v1", "Service"), Verdict::Read(Kind::Service));
        assert_eq!(
            Kind::judge("serving.knative.dev/v1", "Service"),
            Verdict::Ignore
        );
        assert_eq!(
            Kind::judge("networking.istio.io/v1", "Gateway"),
            Verdict::Ignore
        );
    }

    #[test]
    fn misspelt_policy_is_refused_not_ignored() {
        let _trace = meshwright_testkit::trace();
        for kind in [
            "AuthorisationPolicy",
            "authorizationpolicy",
            "PeerAuthentications",
        ] {
            assert!(
                matches!(
                    Kind::judge("security.istio.io/v1", kind),
                    Verdict::Refuse(Reason::UnknownSecurity { .. })
                ),
                "dropping {kind} could open what it should close"
            );
        }
        assert_eq!(
            Kind::judge("security.istio.io/v1", "RequestAuthentication"),
            Verdict::Ignore
        );
        assert!(matches!(
            Kind::judge("security.istio.io/v2", "AuthorizationPolicy"),
            Verdict::Refuse(Reason::Version { .. })
        ));
    }
}
