//! From the hash of a key to the rules filed under it.

/// An open-addressing table over one sorted list; two keys of one hash share their rules.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    /// A power of two of slots, at most half of them used; none if the table is empty.
    slots: Box<[Slot]>,
    ordinals: Box<[u32]>,
}

/// Where the ordinals of one hash are; free if `length` is 0.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    hash: u64,
    start: u32,
    length: u32,
}

impl Table {
    /// Takes pairs of hash and ordinal.
    pub(super) fn new(mut entries: Vec<(u64, u32)>) -> Self {
        entries.sort_unstable();
        entries.dedup();
        let groups = entries.chunk_by(|(one, _), (other, _)| one == other);
        let count = groups.clone().count();
        if count == 0 {
            return Self::default();
        }
        let mut slots = vec![Slot::default(); (count * 2).next_power_of_two()];
        let mut start = 0;
        for group in groups {
            let length = group.len() as u32;
            if let Some(&(hash, _)) = group.first()
                && let Some(slot) = free_slot(&mut slots, hash)
            {
                *slot = Slot {
                    hash,
                    start,
                    length,
                };
            }
            start += length;
        }
        Self {
            slots: slots.into(),
            ordinals: entries.iter().map(|&(_, ordinal)| ordinal).collect(),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Ordinals in ascending order.
    pub(super) fn get(&self, hash: u64) -> &[u32] {
        for position in sequence(hash, self.slots.len()) {
            match self.slots.get(position) {
                Some(slot) if slot.length > 0 && slot.hash != hash => {}
                Some(slot) => {
                    let start = slot.start as usize;
                    let end = start + slot.length as usize;
                    return self.ordinals.get(start..end).unwrap_or_default();
                }
                None => break,
            }
        }
        &[]
    }
}

fn free_slot(slots: &mut [Slot], hash: u64) -> Option<&mut Slot> {
    let free = sequence(hash, slots.len())
        .find(|&position| slots.get(position).is_some_and(|slot| slot.length == 0))?;
    slots.get_mut(free)
}

/// The places where a hash may be, one after the other.
fn sequence(hash: u64, slots: usize) -> impl Iterator<Item = usize> {
    let mask = slots.wrapping_sub(1);
    (0..slots).map(move |step| (hash as usize).wrapping_add(step) & mask)
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn each_hash_finds_its_ordinals_in_order_and_no_others() {
        let _trace = meshwright_testkit::trace();
        let entries = (0..1000_u32)
            .flat_map(|n| [(u64::from(n % 100) << 60 | u64::from(n % 100), n), (7, 7)]);
        let table = Table::new(entries.collect());
        for key in 0..100_u64 {
            let mut expected: Vec<u32> = (0..10).map(|n| n * 100 + key as u32).collect();
            if key == 7 {
                expected.dedup();
            }
            assert_eq!(table.get(key << 60 | key), expected, "key {key}");
        }
        assert_eq!(table.get(12345), [0; 0]);
        assert_eq!(Table::default().get(1), [0; 0]);
    }
}
