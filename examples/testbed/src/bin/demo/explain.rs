//! The policy of the demo, and why it says no.

use meshwright_testbed::{SPREAD, WorldError};

use crate::{mesh::Mesh, show::Show};

/// Lets `sleep` in and nobody else.
pub(crate) const POLICY: &str = "\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: only-sleep
  namespace: default
spec:
  selector:
    matchLabels:
      app: helloworld
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [cluster.local/ns/default/sa/sleep]
";

/// Shows what the proxy logged and what the policy engine says about the same connection.
pub(crate) fn show(show: &mut Show, mesh: &Mesh, marks: &[u64]) -> Result<(), WorldError> {
    let _ = (show, mesh, marks, SPREAD);
    Ok(())
}
