//! One file's text: split into documents, lists unpacked, each object read as its kind.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize,
    de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_saphyr::Spanned;

use super::{
    Ignored,
    kind::{self, Kind, Object, Verdict},
    place::{Fault, Located, Place, Reason},
};

/// More faults than this in one list are not looked for: the first ones show what is wrong.
const MAX_LIST_FAULTS: usize = 16;

/// What a file holds.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) objects: Vec<Located<(Kind, Object)>>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) faults: Vec<Fault>,
}

/// Reads a file's text.
pub(super) fn parse(file: &Arc<str>, text: &str) -> Parsed {
    let mut parsed = Parsed::default();
    for (line, text) in split(text).filter(|(_, text)| !says_nothing(text)) {
        Document { file, line, text }.read(&mut parsed);
    }
    parsed
}

/// Splits at document markers; each part comes with the number of lines before it.
///
/// YAML 1.2 §9.1.2: a line that begins with `---` and white space is a marker wherever it stands,
/// in block scalars too, so the split needs no parser and a broken document cannot hide the next.
fn split(text: &str) -> impl Iterator<Item = (u64, &str)> {
    let mut start = 0;
    let mut first = 0;
    let mut offset = 0;
    let mut parts = Vec::new();
    for (number, line) in (0_u64..).zip(text.split_inclusive('\n')) {
        let marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.chars().next().is_none_or(char::is_whitespace));
        if marker {
            parts.push((first, text.get(start..offset).unwrap_or_default()));
            (start, first) = (offset, number);
        }
        offset += line.len();
    }
    parts.push((first, text.get(start..).unwrap_or_default()));
    parts.into_iter()
}

/// Nothing but comments and, before a marker, directives such as `%YAML 1.2`.
fn says_nothing(text: &str) -> bool {
    let marker = |line: &str| {
        line.strip_prefix("---")
            .is_some_and(|rest| rest.trim_start().starts_with('#'))
    };
    text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line == "---" || line.starts_with(['#', '%']) || marker(line)
    })
}

struct Document<'a> {
    file: &'a Arc<str>,
    /// Lines before this document.
    line: u64,
    text: &'a str,
}

/// The part of a document that says what it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Header {
    api_version: Option<String>,
    kind: Option<String>,
    metadata: Option<IgnoredAny>,
    items: Option<Vec<Spanned<Self>>>,
}

impl Document<'_> {
    fn read(&self, parsed: &mut Parsed) {
        let header = match serde_saphyr::from_str::<Option<Spanned<Header>>>(self.text) {
            Ok(Some(header)) => header,
            Ok(None) => return,
            Err(error) => return parsed.faults.push(self.fault(&error)),
        };
        let place = self.place(header.referenced.line(), header.referenced.column());
        let header = header.value;
        match header.list_of() {
            Some(item) => self.read_list(&header, item, parsed),
            None => {
                if let Some(kind) = judge(&header, None, place.clone(), parsed) {
                    self.read_object(kind, place, parsed);
                }
            }
        }
    }

    fn read_object(&self, kind: Kind, place: Place, parsed: &mut Parsed) {
        let object =
            serde_saphyr::with_deserializer_from_str(self.text, |from| kind.deserialize(from));
        match object {
            Ok(object) => parsed.objects.push(Located {
                value: (kind, object),
                place,
            }),
            Err(error) => parsed.faults.push(self.fault(&error)),
        }
    }

    /// A list is read once more for each item that is wrong, leaving that one out, so that the
    /// faults of the others are found too.
    fn read_list(&self, header: &Header, item: Option<&str>, parsed: &mut Parsed) {
        let mut places = Vec::new();
        let mut kinds = Vec::new();
        for part in header.items.iter().flatten() {
            let place = self.place(part.referenced.line(), part.referenced.column());
            kinds.push(judge(
                &part.value,
                item.zip(header.api_version.as_deref()),
                place.clone(),
                parsed,
            ));
            places.push(place);
        }
        for _ in 0..MAX_LIST_FAULTS {
            let mut at = 0;
            let list = List {
                kinds: &kinds,
                at: &mut at,
            };
            match serde_saphyr::with_deserializer_from_str(self.text, |from| {
                from.deserialize_map(list)
            }) {
                Ok(objects) => {
                    let read = objects.into_iter().zip(&kinds).zip(places);
                    parsed
                        .objects
                        .extend(read.filter_map(|((object, kind), place)| {
                            Some(Located {
                                value: ((*kind)?, object?),
                                place,
                            })
                        }));
                    return;
                }
                Err(error) => {
                    parsed.faults.push(self.fault(&error));
                    match kinds.get_mut(at) {
                        Some(kind) => *kind = None,
                        None => return,
                    }
                }
            }
        }
    }

    fn place(&self, line: u64, column: u64) -> Place {
        Place::new(self.file, self.line + line, column)
    }

    fn fault(&self, error: &serde_saphyr::Error) -> Fault {
        let (line, column) = error
            .location()
            .map_or((1, 1), |at| (at.line(), at.column()));
        let message = error.without_snippet().to_string();
        let suffix = format!(" at line {line}, column {column}");
        let message = message.strip_suffix(&suffix).unwrap_or(&message);
        Fault::new(
            self.place(line, column),
            Reason::Invalid {
                message: message.to_owned(),
            },
        )
    }
}

impl Header {
    /// `Some(item kind)` if this is a list; the item kind is known for a typed one.
    fn list_of(&self) -> Option<Option<&str>> {
        let item = self.kind.as_deref()?.strip_suffix("List")?;
        self.items.as_ref()?;
        Some((!item.is_empty()).then_some(item))
    }
}

/// Decides about one object; `default` is the kind and version that items of a typed list have.
fn judge(
    header: &Header,
    default: Option<(&str, &str)>,
    place: Place,
    parsed: &mut Parsed,
) -> Option<Kind> {
    let kind = header.kind.as_deref().or_else(|| default.map(|d| d.0));
    let version = header
        .api_version
        .as_deref()
        .or_else(|| default.map(|d| d.1));
    let reason = match (version, kind) {
        (Some(version), Some(kind)) => match Kind::judge(version, kind) {
            Verdict::Read(kind) => return Some(kind),
            Verdict::Refuse(reason) => reason,
            // Most likely a file that is half written, `kind: Names`: what else it holds is missing.
            Verdict::Ignore if header.metadata.is_none() && kind::is_group_read(version) => {
                Reason::NoKind { field: "metadata" }
            }
            Verdict::Ignore => {
                parsed.ignored.push(Ignored {
                    place,
                    kind: format!("{version} {kind}"),
                });
                return None;
            }
        },
        (None, _) => Reason::NoKind {
            field: "apiVersion",
        },
        (_, None) => Reason::NoKind { field: "kind" },
    };
    parsed.faults.push(Fault::new(place, reason));
    None
}

/// Reads `items`, each as its own kind; items without one are skipped.
struct List<'a> {
    kinds: &'a [Option<Kind>],
    /// The item being read, for whoever gets the error.
    at: &'a mut usize,
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = Vec<Option<Object>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        let at = self.at;
        while let Some(key) = map.next_key::<String>()? {
            if key == "items" {
                objects = map.next_value_seed(List {
                    kinds: self.kinds,
                    at: &mut *at,
                })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(objects)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        for (index, kind) in self.kinds.iter().enumerate() {
            *self.at = index;
            let Some(object) = items.next_element_seed(Item(*kind))? else {
                break;
            };
            objects.push(object);
        }
        Ok(objects)
    }
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = Vec<Option<Object>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_seq(self)
    }
}

struct Item(Option<Kind>);

impl<'de> DeserializeSeed<'de> for Item {
    type Value = Option<Object>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match self.0 {
            Some(kind) => kind.deserialize(from).map(Some),
            None => IgnoredAny::deserialize(from).map(|_| None),
        }
    }
}

#[cfg(test)]
mod tests;
