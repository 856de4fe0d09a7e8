use crate::manifest::{InvalidManifests, Manifests, Reason};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: b}\n";

fn faults(text: &str) -> Vec<String> {
    let error: InvalidManifests = Manifests::parse("m.yaml", text).unwrap_err();
    error.faults().iter().map(ToString::to_string).collect()
}

#[test]
fn documents_lists_and_empty_parts_of_one_file_are_all_read() {
    let _trace = meshwright_testkit::trace();
    let text = format!(
        "%YAML 1.2\n---\n{POD}---\n\n---   # nothing\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: \
         Node\n  metadata: {{name: n}}\n- apiVersion: apps/v1\n  kind: Deployment\n  spec: {{x: [1, 2]}}\n- kind: \
         ServiceAccount\n  apiVersion: v1\n  metadata: {{name: s}}\n---\napiVersion: v1\nkind: PodList\nitems:\n- metadata: {{name: c}}\n"
    );
    let manifests = Manifests::parse("m.yaml", &text).unwrap();
    assert_eq!(
        manifests.len(),
        4,
        "pod a, node n, service account s, pod c"
    );
    let ignored = &manifests.ignored()[0];
    assert_eq!(ignored.kind, "apps/v1 Deployment");
    assert_eq!(
        ignored.place.to_string(),
        "m.yaml:16:3",
        "where the item begins"
    );
}

#[test]
fn every_fault_of_every_document_is_found_at_once() {
    let _trace = meshwright_testkit::trace();
    let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nstatus:\n  podIP: 10.0.0\n---\nkind: Pod\n---\n: [\n---\napiVersion: v1\nkind: \
                Service\nmetadata: {name: s}\nspec:\n  ports:\n  - port: 70000\n---\napiVersion: v1\nmetadata: {}\n";
    let faults = faults(text);
    assert_eq!(faults.len(), 5, "{faults:#?}");
    assert!(
        faults[0].starts_with("m.yaml:6:10: "),
        "an address of three parts: {}",
        faults[0]
    );
    assert_eq!(
        faults[1],
        "m.yaml:8:1: no `apiVersion`: not a Kubernetes object"
    );
    assert!(
        faults[2].starts_with("m.yaml:1"),
        "broken YAML does not hide the rest: {}",
        faults[2]
    );
    assert!(
        faults[3].starts_with("m.yaml:17:11: "),
        "a port above 65535: {}",
        faults[3]
    );
    assert_eq!(faults[4], "m.yaml:19:1: no `kind`: not a Kubernetes object");
}

#[test]
fn faults_of_several_items_of_a_list_are_found_and_placed() {
    let _trace = meshwright_testkit::trace();
    let text = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: A}\n- apiVersion: v1\n  kind: Node\n  \
                metadata: {name: ok}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: ../b}\n";
    let faults = faults(text);
    assert_eq!(faults.len(), 2, "{faults:#?}");
    assert!(
        faults[0].starts_with("m.yaml:6:20: `A` is not a lowercase DNS name"),
        "{}",
        faults[0]
    );
    assert!(
        faults[1].starts_with("m.yaml:12:20: `../b`"),
        "{}",
        faults[1]
    );
}

#[test]
fn object_written_twice_is_a_fault_that_names_both_places() {
    let _trace = meshwright_testkit::trace();
    let error = Manifests::parse_all(&[("a.yaml", POD), ("b.yaml", POD)]).unwrap_err();
    assert_eq!(
        error.faults()[0].to_string(),
        "b.yaml:1:1: Pod b/a is already at a.yaml:1:1"
    );
    let stand_in = "apiVersion: meshwright.dev/v1alpha1\nkind: Workload\nmetadata: {name: a, namespace: b}\nspec: {addresses: [10.0.0.1]}\n";
    let error = Manifests::parse_all(&[("a.yaml", POD), ("b.yaml", stand_in)]).unwrap_err();
    assert!(
        matches!(error.faults()[0].reason, Reason::Duplicate { .. }),
        "a Workload shares the names of Pods"
    );
}

#[test]
fn unknown_field_of_our_own_kind_is_a_fault_and_of_others_is_not() {
    let _trace = meshwright_testkit::trace();
    let text = "apiVersion: meshwright.dev/v1alpha1\nkind: Workload\nmetadata: {name: a}\nspec:\n  addresses: [10.0.0.1]\n  nodeName: x\n";
    assert!(faults(text)[0].contains("nodeName"), "{:?}", faults(text));
    assert!(Manifests::parse("m", &format!("{POD}spec: {{unheardOf: 1}}\n")).is_ok());
}

#[test]
fn alias_bombs_and_deep_nesting_are_faults() {
    let _trace = meshwright_testkit::trace();
    let mut bomb = String::from("a: &a [x,x,x,x,x,x,x,x,x]\n");
    for (from, to) in "abcdefghi".chars().zip("bcdefghij".chars()) {
        bomb.push_str(&format!(
            "{to}: &{to} [{}]\n",
            vec![format!("*{from}"); 9].join(",")
        ));
    }
    assert_eq!(faults(&format!("{POD}{bomb}")).len(), 1);
    assert_eq!(
        faults(&format!(
            "{POD}x: {}{}\n",
            "[".repeat(100_000),
            "]".repeat(100_000)
        ))
        .len(),
        1
    );
}

#[test]
fn missing_namespace_is_default_and_null_fields_are_absent() {
    let _trace = meshwright_testkit::trace();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: null, annotations: , creationTimestamp: null}\nspec: null\nstatus: {podIP: null, podIPs: null}\n";
    let manifests = Manifests::parse("m", text).unwrap();
    let pod = &manifests.objects.instances[0].value;
    assert_eq!(&*pod.metadata.namespace, "default");
    assert_eq!(&*pod.service_account, "default");
    assert!(pod.addresses.is_empty());
}

#[test]
fn half_of_a_kind_is_a_fault_and_not_a_kind_to_ignore() {
    let _trace = meshwright_testkit::trace();
    assert_eq!(
        faults("apiVersion: v1\nkind: Names"),
        ["m.yaml:1:1: no `metadata`: not a Kubernetes object"]
    );
    let elsewhere = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";
    let manifests = Manifests::parse("m", elsewhere).unwrap();
    assert_eq!(manifests.ignored().len(), 1);
}
