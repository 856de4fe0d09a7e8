//! Text to objects.

use serde::{Deserialize, de::DeserializeOwned};

use super::{InvalidYaml, Objects};

/// Reads the policies in a YAML text of any number of documents.
///
/// Documents of other kinds are skipped, so that a folder of manifests can be passed as it is.
///
/// # Errors
///
/// Returns the first document that is not YAML, or is a policy with unknown or mistyped fields.
pub fn from_yaml(text: &str) -> Result<Objects, InvalidYaml> {
    let mut objects = Objects::default();
    for (line, document) in documents(text) {
        let header: Header = read(line, document)?;
        let group = header
            .api_version
            .as_deref()
            .and_then(|version| version.split_once('/'));
        match (group, header.kind.as_deref()) {
            (Some(("security.istio.io", _)), Some("AuthorizationPolicy")) => {
                objects.authorization_policies.push(read(line, document)?);
            }
            (Some(("security.istio.io", _)), Some("PeerAuthentication")) => {
                objects.peer_authentications.push(read(line, document)?);
            }
            _ => {}
        }
    }
    Ok(objects)
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
}

/// Splits at document markers, which YAML allows at the start of a line only; with first lines.
fn documents(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let is_marker = |line: &str| {
        let rest = line
            .strip_prefix("---")
            .or_else(|| line.strip_prefix("..."));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
    };
    let (mut found, mut start, mut end, mut first) = (Vec::new(), 0, 0, 1);
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        if is_marker(line) {
            found.push((first, start..end));
            // The rest of the marker's line may belong to the document.
            (start, first) = (end + 3, number);
        }
        end += line.len();
    }
    found.push((first, start..end));
    let documents = found
        .into_iter()
        .filter_map(|(line, range)| Some((line, text.get(range)?)));
    documents.filter(|(_, document)| {
        let mut lines = document.lines().map(str::trim_start);
        lines.any(|line| !line.is_empty() && !line.starts_with('#'))
    })
}

fn read<T: DeserializeOwned>(line: u64, document: &str) -> Result<T, InvalidYaml> {
    serde_saphyr::from_str(document).map_err(|error| {
        let inside = error.location().map_or(1, |location| location.line());
        InvalidYaml::new(line + inside.saturating_sub(1), error)
    })
}
