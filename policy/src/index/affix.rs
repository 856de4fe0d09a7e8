//! All listed texts with which a text begins, without trying each of them.

/// A list of beginnings (or, reversed, of endings).
///
/// Sorted, each with a link to the longest other one that it begins with. The beginnings of a text
/// are then found from the text's predecessor in the list: either it, or one reached by its links.
#[derive(Clone, Debug, Default)]
pub(super) struct Affixes {
    texts: Vec<Box<[u8]>>,
    shorter: Box<[Option<u32>]>,
}

impl Affixes {
    pub(super) fn add(&mut self, text: &[u8]) {
        self.texts.push(text.into());
    }

    pub(super) fn arrange(&mut self) {
        self.texts.sort_unstable();
        self.texts.dedup();
        self.texts.shrink_to_fit();
        let mut shorter = Vec::with_capacity(self.texts.len());
        // Texts that the current one may begin with, the longest last.
        let mut open: Vec<u32> = Vec::new();
        for (position, text) in (0_u32..).zip(&self.texts) {
            while let Some(&last) = open.last() {
                if self
                    .texts
                    .get(last as usize)
                    .is_some_and(|last| text.starts_with(last))
                {
                    break;
                }
                open.pop();
            }
            shorter.push(open.last().copied());
            open.push(position);
        }
        self.shorter = shorter.into();
    }

    /// Visits each listed text that `text` begins with, the longest first, until `visit` is false.
    pub(super) fn each_of(
        &self,
        text: impl ExactSizeIterator<Item = u8> + Clone,
        visit: &mut impl FnMut(&[u8]) -> bool,
    ) -> bool {
        let after = self
            .texts
            .partition_point(|listed| listed.iter().copied().cmp(text.clone()).is_le());
        let mut next = after.checked_sub(1);
        while let Some(position) = next {
            let Some(listed) = self.texts.get(position) else {
                return true;
            };
            let begins = listed.len() <= text.len()
                && listed.iter().copied().eq(text.clone().take(listed.len()));
            if begins && !visit(listed) {
                return false;
            }
            next = self
                .shorter
                .get(position)
                .copied()
                .flatten()
                .map(|shorter| shorter as usize);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::Affixes;

    fn found(list: &[&str], text: &str) -> Vec<String> {
        let mut affixes = Affixes::default();
        list.iter()
            .for_each(|listed| affixes.add(listed.as_bytes()));
        affixes.arrange();
        let mut found = Vec::new();
        affixes.each_of(text.bytes(), &mut |listed| {
            found.push(String::from_utf8(listed.to_vec()).unwrap());
            true
        });
        found
    }

    #[test]
    fn every_beginning_is_found_the_longest_first() {
        let _trace = meshwright_testkit::trace();
        let list = ["a", "ab", "abc", "abd", "abdz", "b", "aa"];
        assert_eq!(found(&list, "abd9"), ["abd", "ab", "a"]);
        assert_eq!(
            found(&list, "abe"),
            ["ab", "a"],
            "behind a longer neighbour"
        );
        assert_eq!(found(&list, "c"), [""; 0]);
        assert_eq!(found(&list, "a"), ["a"]);
        assert_eq!(found(&[], "a"), [""; 0]);
    }
}
