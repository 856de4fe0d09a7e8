#![allow(clippy::too_many_lines, reason = "tables of cases")]

use super::{Objects, Problem, from_yaml, translate};
use crate::proto::{Action, Authorization, Match};

const ROOT: &str = "istio-system";

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p, namespace: n}}\nspec: {spec}\n---\n"
    )
}

fn peer(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn read(text: &str) -> Objects {
    from_yaml(text).unwrap()
}

fn resources(text: &str) -> Vec<Authorization> {
    translate(&read(text), ROOT)
        .unwrap()
        .authorizations()
        .to_vec()
}

/// Paths and problems of the faults.
fn faults(text: &str) -> Vec<(String, Problem)> {
    let invalid = translate(&read(text), ROOT).expect_err("must be refused");
    invalid
        .faults()
        .iter()
        .map(|fault| (fault.path.clone(), fault.problem.clone()))
        .collect()
}

fn listed(text: &str, namespace: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let objects = read(text);
    let label = |name: &str| {
        labels
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| *value)
    };
    translate(&objects, ROOT)
        .unwrap()
        .listed_by(namespace, label)
}

/// Whether plaintext to a port is denied by the peer authentications.
fn refuses_plaintext(text: &str, labels: &[(&str, &str)], port: u16) -> bool {
    use crate::{Connection, Mode, PolicySet, Subject, convert};
    use prost::Message;
    let policies = resources(text).into_iter().map(|policy| {
        convert(
            &format!("{}/{}", policy.namespace, policy.name),
            &policy.encode_to_vec(),
        )
        .unwrap()
    });
    let set = PolicySet::new(Mode::IstioCompatible, policies);
    let listed: Vec<std::sync::Arc<str>> = listed(text, "n", labels)
        .into_iter()
        .map(Into::into)
        .collect();
    let destination = (std::net::Ipv4Addr::new(10, 0, 0, 2), port).into();
    let decision = set.decide(&Connection::new(
        None,
        [10, 0, 0, 1].into(),
        destination,
        Subject::new("n", &listed),
    ));
    assert!(
        !matches!(decision, crate::Decision::Unknown { .. }),
        "what is listed is sent"
    );
    !decision.is_allow()
}

#[test]
fn other_documents_are_skipped_and_lines_are_counted() {
    let _trace = meshwright_testkit::trace();
    let text = "# nothing\n---\nkind: Service\napiVersion: v1\n---\n".to_owned() + &policy("{}");
    assert_eq!(read(&text).authorization_policies.len(), 1);
    assert_eq!(read("").authorization_policies.len(), 0);
    let other_group = "apiVersion: example.org/v1\nkind: AuthorizationPolicy\nmetadata: {}\n";
    assert_eq!(
        read(other_group).authorization_policies.len(),
        0,
        "a kind of another group is another kind"
    );
    let typo = policy("{}")
        + "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: q}\nspec:\n  ruels: []\n";
    let invalid = from_yaml(&typo).unwrap_err();
    assert_eq!(invalid.line, 10, "{invalid}");
    meshwright_testkit::assert_chain_says_each_thing_once(&invalid);
}

#[test]
fn every_fault_is_named_with_its_path_at_once() {
    let _trace = meshwright_testkit::trace();
    let spec = "
  action: PERMIT
  selector: {matchLabels: {a: b}}
  targetRefs: [{kind: Service, name: s}]
  rules:
  - from:
    - source: {ipBlocks: [10.0.0.0/8, 10.0.0.0/33, ten, '::ffff:10.0.0.0/8']}
    - source: {principals: ['*a*', 'a*b', spiffe://td/ns/n/sa/x, '']}
    - source: {}
    - source: {serviceAccounts: [a/b/c, '*', n/x], namespaces: [n]}
    to:
    - operation: {ports: ['0', '65536', http, '+80', '80']}
    when:
    - {key: source.ip, values: [1.2.3]}
    - {key: source.colour, values: [red]}
    - {key: source.namespace}
  - to: []
";
    let at = |path: &str, problem| (format!("spec.{path}"), problem);
    let rule = |path: &str, problem| at(&format!("rules[0].{path}"), problem);
    assert_eq!(
        faults(&policy(spec)),
        [
            at("selector", Problem::Exclusive("targetRefs")),
            at("action", Problem::Action("PERMIT".into())),
            rule("to[0].operation.ports[0]", Problem::Port("0".into())),
            rule("to[0].operation.ports[1]", Problem::Port("65536".into())),
            rule("to[0].operation.ports[2]", Problem::Port("http".into())),
            rule("to[0].operation.ports[3]", Problem::Port("+80".into())),
            rule(
                "from[0].source.ipBlocks[1]",
                Problem::Address("10.0.0.0/33".into())
            ),
            rule("from[0].source.ipBlocks[2]", Problem::Address("ten".into())),
            rule(
                "from[0].source.ipBlocks[3]",
                Problem::Address("::ffff:10.0.0.0/8".into())
            ),
            rule(
                "from[1].source.principals[0]",
                Problem::Pattern("*a*".into())
            ),
            rule(
                "from[1].source.principals[1]",
                Problem::Pattern("a*b".into())
            ),
            rule(
                "from[1].source.principals[2]",
                Problem::Scheme("spiffe://td/ns/n/sa/x".into())
            ),
            rule("from[1].source.principals[3]", Problem::Empty),
            rule("from[2].source", Problem::Empty),
            rule(
                "from[3].source.serviceAccounts",
                Problem::Exclusive("principals or namespaces")
            ),
            rule(
                "from[3].source.serviceAccounts[0]",
                Problem::ServiceAccount("a/b/c".into())
            ),
            rule(
                "from[3].source.serviceAccounts[1]",
                Problem::ServiceAccount("*".into())
            ),
            rule("when[0].values[0]", Problem::Address("1.2.3".into())),
            rule("when[1].key", Problem::Attribute("source.colour".into())),
            rule("when[2]", Problem::Empty),
            at("rules[1].to", Problem::Empty),
        ]
    );
}

#[test]
fn faults_print_one_a_line() {
    let _trace = meshwright_testkit::trace();
    let objects = read(&policy("{action: NO, rules: [{from: []}]}"));
    let invalid = translate(&objects, ROOT).unwrap_err();
    assert_eq!(
        invalid.to_string(),
        "policies cannot be translated\n  AuthorizationPolicy n/p: spec.action: unknown action `NO`\n  \
         AuthorizationPolicy n/p: spec.rules[0].from: must not be empty"
    );
}

#[test]
fn names_are_given_once() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        faults(&(policy("{}") + &policy("{}"))),
        [("metadata.name".into(), Problem::Duplicate)]
    );
    assert!(
        !resources(&(policy("{}") + &peer("p", "n", "{}"))).is_empty(),
        "another kind may have the name"
    );
}

#[test]
fn http_conditions_drop_an_allow_rule_and_are_dropped_from_a_deny_rule() {
    let _trace = meshwright_testkit::trace();
    let spec = |action| {
        format!(
            "{{action: {action}, rules: [{{from: [{{source: {{namespaces: [n]}}}}], to: [{{operation: {{methods: [GET], ports: ['80']}}}}]}}, {{when: [{{key: 'request.headers[x]', values: [y]}}]}}]}}"
        )
    };
    let [allow] = &resources(&policy(&spec("ALLOW")))[..] else {
        panic!()
    };
    assert_eq!(allow.rules, [], "so that it refuses all");
    let [deny] = &resources(&policy(&spec("DENY")))[..] else {
        panic!()
    };
    let matches: Vec<_> = deny
        .rules
        .iter()
        .map(|rule| {
            rule.clauses
                .iter()
                .flat_map(|clause| &clause.matches)
                .count()
        })
        .collect();
    assert_eq!(matches, [2, 1]);
    assert_eq!(
        deny.rules[1].clauses[0].matches,
        [Match::default()],
        "nothing is left, but its place"
    );
    let objects = read(&policy(&spec("DENY")));
    let notes: Vec<String> = translate(&objects, ROOT)
        .unwrap()
        .notes()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        notes,
        ["n/p: methods, request.headers[x] are not looked at without a waypoint"]
    );
}

#[test]
fn what_is_nothing_for_a_node_proxy_is_not_sent() {
    let _trace = meshwright_testkit::trace();
    for spec in [
        "{action: AUDIT, rules: [{}]}",
        "{action: CUSTOM, provider: {name: x}, rules: [{}]}",
        "{targetRefs: [{group: '', kind: Service, name: s}], rules: [{}]}",
        "{targetRef: {kind: Gateway, name: w}}",
    ] {
        assert_eq!(resources(&policy(spec)), [], "{spec}");
    }
    let dry = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: n, annotations: {istio.io/dry-run: 'true'}}\nspec: {action: DENY, rules: [{}]}\n";
    assert_eq!(resources(dry), []);
    assert_eq!(resources(&dry.replace("'true'", "'false'")).len(), 1);
    assert_eq!(
        faults(&dry.replace("'true'", "'yes'"))[0].1,
        Problem::Flag("yes".into())
    );
}

#[test]
fn scope_follows_from_selector_and_namespace() {
    let _trace = meshwright_testkit::trace();
    use crate::proto::Scope::{Global, Namespace, WorkloadSelector};
    let selector = "{selector: {matchLabels: {app: a}}}";
    let in_root = |spec| policy(spec).replace("namespace: n", "namespace: istio-system");
    for (text, scope) in [
        (policy("{}"), Namespace),
        (in_root("{}"), Global),
        (policy(selector), WorkloadSelector),
        (in_root(selector), WorkloadSelector),
    ] {
        assert_eq!(resources(&text)[0].scope(), scope, "{text}");
    }
    assert_eq!(
        listed(&policy(selector), "n", &[("app", "a"), ("b", "c")]),
        ["n/p"]
    );
    assert!(listed(&policy(selector), "n", &[("app", "b")]).is_empty());
    assert!(listed(&policy(selector), "m", &[("app", "a")]).is_empty());
    assert_eq!(
        listed(&in_root(selector), "m", &[("app", "a")]),
        ["istio-system/p"]
    );
    assert_eq!(
        listed(&policy("{selector: {}}"), "n", &[]),
        ["n/p"],
        "an empty selector picks the namespace"
    );
}

#[test]
fn strict_is_inherited_from_the_mesh_and_overridden_below() {
    let _trace = meshwright_testkit::trace();
    let strict = ["istio-system/istio_converted_static_strict"];
    let mesh = peer("default", ROOT, "{mtls: {mode: STRICT}}");
    assert_eq!(listed(&mesh, "n", &[]), strict);
    let of_namespace =
        |mode| mesh.clone() + &peer("default", "n", &format!("{{mtls: {{mode: {mode}}}}}"));
    assert_eq!(listed(&of_namespace("UNSET"), "n", &[]), strict);
    assert!(listed(&of_namespace("PERMISSIVE"), "n", &[]).is_empty());
    let workload = |mode: &str| {
        of_namespace("PERMISSIVE")
            + &peer(
                "w",
                "n",
                &format!("{{selector: {{matchLabels: {{app: a}}}}, mtls: {{mode: {mode}}}}}"),
            )
    };
    assert_eq!(listed(&workload("STRICT"), "n", &[("app", "a")]), strict);
    assert!(listed(&workload("STRICT"), "n", &[("app", "b")]).is_empty());
    assert!(listed(&workload("UNSET"), "n", &[("app", "a")]).is_empty());
    let [only] = &resources(&mesh)[..] else {
        panic!()
    };
    assert_eq!(
        (only.name.as_str(), only.action()),
        ("istio_converted_static_strict", Action::Deny)
    );
    assert_eq!(
        resources(&policy("{}")).len(),
        1,
        "without any PeerAuthentication it is not sent"
    );
}

#[test]
fn older_of_two_counts() {
    let _trace = meshwright_testkit::trace();
    let dated = |name, mode, date| {
        peer(name, "n", &format!("{{mtls: {{mode: {mode}}}}}")).replace(
            "namespace: n",
            &format!("namespace: n, creationTimestamp: '{date}'"),
        )
    };
    let text = dated("young", "STRICT", "2026-02-01T00:00:00Z")
        + &dated("old", "PERMISSIVE", "2026-01-01T00:00:00Z");
    assert!(listed(&text, "n", &[]).is_empty());
}

/// Every combination of modes: a port refuses plaintext exactly if its effective mode is STRICT.
#[test]
fn port_level_modes_take_effect_whatever_is_inherited() {
    let _trace = meshwright_testkit::trace();
    let modes = ["UNSET", "PERMISSIVE", "STRICT", "DISABLE"];
    for mesh in modes {
        for namespace in modes {
            for workload in modes {
                for port in modes {
                    let text = peer("default", ROOT, &format!("{{mtls: {{mode: {mesh}}}}}"))
                        + &peer("default", "n", &format!("{{mtls: {{mode: {namespace}}}}}"))
                        + &peer(
                            "w",
                            "n",
                            &format!(
                                "{{selector: {{matchLabels: {{app: a}}}}, mtls: {{mode: {workload}}}, portLevelMtls: {{9090: {{mode: {port}}}}}}}"
                            ),
                        );
                    let effective = |said: &[&str]| {
                        said.iter()
                            .find(|mode| **mode != "UNSET")
                            .is_some_and(|mode| *mode == "STRICT")
                    };
                    let general = effective(&[workload, namespace, mesh]);
                    // istiod keeps an inherited STRICT over a port's DISABLE: the safe side.
                    let exception = port == "DISABLE" && workload == "UNSET" && general;
                    let single = effective(&[port, workload, namespace, mesh]) || exception;
                    let labels = [("app", "a")];
                    let what = format!(
                        "mesh {mesh}, namespace {namespace}, workload {workload}, port {port}"
                    );
                    assert_eq!(
                        refuses_plaintext(&text, &labels, 9090),
                        single,
                        "port 9090: {what}"
                    );
                    assert_eq!(
                        refuses_plaintext(&text, &labels, 80),
                        general,
                        "port 80: {what}"
                    );
                }
            }
        }
    }
}

#[test]
fn peer_faults_are_named() {
    let _trace = meshwright_testkit::trace();
    let text = peer(
        "p",
        "n",
        "{mtls: {mode: MAYBE}, portLevelMtls: {0: {mode: STRICT}, 80: {mode: strict}}}",
    );
    assert_eq!(
        faults(&text),
        [
            ("spec.portLevelMtls".into(), Problem::PortsWithoutSelector),
            ("spec.mtls.mode".into(), Problem::Mode("MAYBE".into())),
            ("spec.portLevelMtls".into(), Problem::Port("0".into())),
            (
                "spec.portLevelMtls[80].mode".into(),
                Problem::Mode("strict".into())
            ),
        ]
    );
}
