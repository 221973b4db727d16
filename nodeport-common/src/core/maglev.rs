//! Maglev tables (Eisenbud et al., NSDI 2016, section 3.4): which backend a slot names.
//!
//! A table depends on nothing but the backends' addresses and ports, the seed and the length, so
//! all nodes that see the same backends make the same table, and one that takes over another's
//! connections finds the same backends for them. The length follows the number of backends in
//! steps of two, so that most changes of that number leave it, and with it most slots, as it was.
//! It does not follow their weights: another weight moves the slots that it must, and few others.

use super::hash::{finish, index, mix};

/// Lengths of tables: the largest primes below powers of two, so that regions of them pack well.
const LENGTHS: [u32; 9] = [251, 509, 1021, 2039, 4093, 8191, 16381, 32749, LONGEST];

/// The longest table. With more than 655 backends there are fewer than a hundred slots for each.
pub const LONGEST: u32 = 65521;

/// Slots for each backend, at least, as long as the table is not the longest: then the shares
/// of two backends differ by one percent at most.
pub const SLOTS_PER_BACKEND: u32 = 100;

/// Says that a slot names no backend. Only a table for no backends holds it.
pub const NOBODY: u32 = u32::MAX;

/// Length of the table for that many backends; 0 for none.
pub const fn table_len(backends: usize) -> u32 {
    if backends == 0 {
        return 0;
    }
    let mut step = 0;
    while step < LENGTHS.len() - 1 {
        if LENGTHS[step] as usize >= backends.saturating_mul(SLOTS_PER_BACKEND as usize) {
            return LENGTHS[step];
        }
        step += 1;
    }
    LONGEST
}

/// The order in which a backend asks for slots: from `next` on in steps of `skip`, round and
/// round. Since the length is prime, it visits every slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    next: u32,
    skip: u32,
    /// How many slots it gets, beside the others' weights.
    weight: u32,
    /// What is left of the way to its next slot, in parts of the heaviest one's weight.
    wait: u32,
}

impl Preference {
    /// The order of the backend at this address (as on the wire, 4 or 16 bytes) and port, in a
    /// table of length `len`, which is one that [`table_len`] gives.
    pub fn new(address: &[u8], port: u16, seed: u32, len: u32) -> Self {
        let hash = identity(address, port, seed);
        // Two independent numbers from one identity: the second is hashed again.
        let again = finish(mix(hash, seed ^ 0x9e37_79b9));
        let skip = 1 + index(again, len.saturating_sub(1));
        Self { next: index(hash, len), skip, weight: 1, wait: 0 }
    }

    /// The same of a backend with that weight; the others' is 1, if they say nothing.
    #[must_use]
    pub const fn weighing(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    /// Whether it takes a slot in this round: of `heaviest` rounds in as many as its weight is, at
    /// even distances, and in the first one.
    fn is_due(&mut self, heaviest: u32) -> bool {
        let is_due = self.wait < self.weight;
        if is_due {
            self.wait += heaviest;
        }
        self.wait -= self.weight;
        is_due
    }

    fn advance(&mut self, len: u32) {
        self.next += self.skip;
        if self.next >= len {
            self.next -= len;
        }
    }
}

fn identity(address: &[u8], port: u16, seed: u32) -> u32 {
    let mut hash = mix(seed, u32::from(port));
    for bytes in address.chunks(4) {
        hash = mix(hash, bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    }
    finish(hash)
}

/// Fills the table with positions in `backends`: each in turn takes the first slot of its order
/// that is still free. The backends must be in an order that all nodes agree on, and the table
/// as long as the one their preferences were made for; the preferences are used up.
///
/// The heaviest take a slot in every round, the others in part of them: all get what their weight
/// is of the sum of all weights, but for two slots more, or one and one in a hundred less; and at
/// least one slot. One that weighs nothing gets none.
///
/// A table with fewer slots than there are backends leaves the last ones out.
pub fn fill(backends: &mut [Preference], table: &mut [u32]) {
    table.fill(NOBODY);
    let heaviest = backends.iter().map(|backend| backend.weight).max().unwrap_or(0);
    if heaviest == 0 {
        return;
    }
    let mut left = table.len();
    loop {
        for (position, backend) in backends.iter_mut().enumerate() {
            if left == 0 {
                return;
            }
            if !backend.is_due(heaviest) {
                continue;
            }
            claim(backend, position as u32, table);
            left -= 1;
        }
    }
}

/// Takes the first free slot; there is one.
fn claim(backend: &mut Preference, position: u32, table: &mut [u32]) {
    let len = table.len() as u32;
    for _ in 0..len {
        let slot = backend.next as usize;
        backend.advance(len);
        if let Some(free) = table.get_mut(slot).filter(|slot| **slot == NOBODY) {
            *free = position;
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::vec;
    use std::vec::Vec;

    use super::*;

    type Identity = ([u8; 4], u16);

    fn table_of(backends: &[Identity], seed: u32, len: u32) -> Vec<u32> {
        let mut preferences: Vec<_> = backends
            .iter()
            .map(|(address, port)| Preference::new(address, *port, seed, len))
            .collect();
        let mut table = vec![0; len as usize];
        fill(&mut preferences, &mut table);
        table
    }

    /// The table with backends in place of their positions.
    fn named(backends: &[Identity], seed: u32, len: u32) -> Vec<Identity> {
        table_of(backends, seed, len).into_iter().map(|slot| backends[slot as usize]).collect()
    }

    fn backends(most: usize) -> impl Strategy<Value = Vec<Identity>> {
        prop::collection::btree_set((any::<[u8; 4]>(), 1u16..), 1..most)
            .prop_map(|set: BTreeSet<_>| set.into_iter().collect())
    }

    #[test]
    fn lengths_are_primes_and_enough() {
        for len in LENGTHS {
            assert!((2..len).take_while(|d| d * d <= len).all(|d| len % d != 0), "{len}");
        }
        for count in 1..=655 {
            assert!(table_len(count) >= count as u32 * SLOTS_PER_BACKEND, "{count}");
        }
        assert_eq!(table_len(0), 0);
        assert_eq!(table_len(1), 251);
        assert_eq!(table_len(2), 251);
        assert_eq!(table_len(3), 509);
        assert_eq!(table_len(10), 1021);
        assert_eq!(table_len(10_000), LONGEST);
        assert_eq!(table_len(usize::MAX), LONGEST);
    }

    #[test]
    fn no_backends_fill_nothing() {
        let mut table = [7; 5];
        fill(&mut [], &mut table);
        assert_eq!(table, [NOBODY; 5]);
    }

    #[test]
    fn ten_thousand_backends_all_have_their_share() {
        let all: Vec<Identity> =
            (0..10_000u32).map(|n| ((0x0a00_0000 + n).to_be_bytes(), 80)).collect();
        let table = table_of(&all, 7, table_len(all.len()));
        let mut counts = vec![0; all.len()];
        table.iter().for_each(|slot| counts[*slot as usize] += 1);
        assert!(counts.iter().all(|count| (6..=7).contains(count)));
    }

    #[test]
    fn the_table_of_a_few_backends_stays_what_it_is() {
        // Nodes of different versions must agree: a change of this value breaks fail-over while
        // a cluster is being upgraded.
        let three = [([10, 0, 0, 1], 80), ([10, 0, 0, 2], 80), ([10, 0, 0, 3], 8080)];
        let sum = table_of(&three, 42, 509).iter().fold(0, |hash, slot| mix(hash, *slot));
        assert_eq!(finish(sum), 1_007_866_994);
    }

    #[test]
    fn another_seed_makes_another_table() {
        let two = [([10, 0, 0, 1], 80), ([10, 0, 0, 2], 80)];
        assert_ne!(table_of(&two, 1, 251), table_of(&two, 2, 251));
    }

    /// The table of backends with weights.
    fn weighted(backends: &[(Identity, u32)], seed: u32, len: u32) -> Vec<u32> {
        let preference = |((address, port), weight): &(Identity, u32)| {
            Preference::new(address, *port, seed, len).weighing(*weight)
        };
        let mut preferences: Vec<_> = backends.iter().map(preference).collect();
        let mut table = vec![0; len as usize];
        fill(&mut preferences, &mut table);
        table
    }

    fn counts(table: &[u32], backends: usize) -> Vec<u32> {
        let mut counts = vec![0; backends];
        table.iter().for_each(|slot| counts[*slot as usize] += 1);
        counts
    }

    fn weights(most: usize) -> impl Strategy<Value = Vec<(Identity, u32)>> {
        backends(most).prop_flat_map(|all| {
            let len = all.len();
            prop::collection::vec(1..=100u32, len)
                .prop_map(move |weights| all.iter().copied().zip(weights).collect())
        })
    }

    #[test]
    fn nobody_weighs_anything_and_nobody_gets_a_slot() {
        let two = [(([10, 0, 0, 1], 80), 0), (([10, 0, 0, 2], 80), 0)];
        assert!(weighted(&two, 7, 251).iter().all(|slot| *slot == NOBODY));
        let one = [(([10, 0, 0, 1], 80), 0), (([10, 0, 0, 2], 80), 5)];
        assert_eq!(counts(&weighted(&one, 7, 251), 2), [0, 251]);
    }

    #[test]
    fn three_to_one_is_three_to_one() {
        let two = [(([10, 0, 0, 1], 80), 3), (([10, 0, 0, 2], 80), 1)];
        assert_eq!(counts(&weighted(&two, 7, 251), 2), [188, 63]);
    }

    #[test]
    fn the_table_of_a_few_weights_stays_what_it_is() {
        // As `the_table_of_a_few_backends_stays_what_it_is`.
        let backends =
            [(([10, 0, 0, 1], 80), 1), (([10, 0, 0, 2], 80), 7), (([10, 0, 0, 3], 8080), 3)];
        let sum = weighted(&backends, 42, 509).iter().fold(0, |hash, slot| mix(hash, *slot));
        assert_eq!(finish(sum), 3_093_808_651);
    }

    #[test]
    fn a_weight_that_changes_disturbs_few_of_the_others_in_the_mean() {
        let all: Vec<_> = (0..10u8).map(|host| (([10, 0, 0, host], 80), 10)).collect();
        let len = table_len(10);
        for (weight, most) in [(9, 0.02), (20, 0.04), (1, 0.03), (0, 0.03)] {
            let mut changed = all.clone();
            changed[4].1 = weight;
            let moved = |seed| {
                let (before, after) = (weighted(&all, seed, len), weighted(&changed, seed, len));
                // A slot that it gains or loses is what was asked for.
                let is_lost = |(b, a): &(&u32, &u32)| a != b && **b != 4 && **a != 4;
                before.iter().zip(&after).filter(is_lost).count()
            };
            let total: usize = (0..100).map(moved).sum();
            let mean = total as f64 / 100.0 / f64::from(len);
            assert!(mean < most, "weight {weight}: {mean} of the slots moved in the mean");
        }
    }

    proptest! {
        #[test]
        fn shares_are_as_the_weights(backends in weights(60), seed: u32) {
            let len = table_len(backends.len());
            let sum: u32 = backends.iter().map(|(_, weight)| weight).sum();
            let counts = counts(&weighted(&backends, seed, len), backends.len());
            for ((_, weight), count) in backends.iter().zip(counts) {
                let fair = f64::from(len) * f64::from(*weight) / f64::from(sum);
                let (least, most) = ((fair * 0.99 - 1.0).max(1.0), fair + 2.0);
                let count = f64::from(count);
                prop_assert!((least..=most).contains(&count), "{count}, fair were {fair}");
            }
        }

        #[test]
        fn equal_weights_are_none(backends in backends(40), weight in 1..=100u32, seed: u32) {
            let len = table_len(backends.len());
            let all: Vec<_> = backends.iter().map(|one| (*one, weight)).collect();
            prop_assert_eq!(weighted(&all, seed, len), table_of(&backends, seed, len));
        }

        #[test]
        fn one_that_weighs_nothing_might_as_well_not_be_there(
            backends in backends(40), seed: u32, which: prop::sample::Index,
        ) {
            let len = table_len(backends.len());
            let which = which.index(backends.len());
            let of = |(position, one)| (one, u32::from(position != which));
            let all: Vec<_> = backends.iter().copied().enumerate().map(of).collect();
            let rest: Vec<_> = backends.iter().copied().filter(|b| *b != all[which].0).collect();
            prop_assume!(!rest.is_empty());
            let names: Vec<_> =
                weighted(&all, seed, len).iter().map(|slot| backends[*slot as usize]).collect();
            prop_assert_eq!(names, named(&rest, seed, len));
        }

        #[test]
        fn shares_differ_by_one_slot_at_most(backends in backends(60), seed: u32) {
            let table = table_of(&backends, seed, table_len(backends.len()));
            let mut counts = vec![0u32; backends.len()];
            for slot in table {
                counts[slot as usize] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{least} to {most}");
        }

        #[test]
        fn each_preference_visits_every_slot(address: [u8; 16], port: u16, seed: u32) {
            let mut preference = Preference::new(&address, port, seed, 251);
            let mut seen = BTreeSet::new();
            for _ in 0..251 {
                seen.insert(preference.next);
                preference.advance(251);
            }
            prop_assert_eq!(seen.len(), 251);
        }

        #[test]
        fn one_that_goes_disturbs_few_of_the_others(
            backends in backends(60), seed: u32, which: prop::sample::Index,
        ) {
            prop_assume!(backends.len() > 2);
            let len = table_len(backends.len());
            let before = named(&backends, seed, len);
            let gone = backends[which.index(backends.len())];
            let rest: Vec<_> = backends.iter().copied().filter(|one| *one != gone).collect();
            let after = named(&rest, seed, len);
            let moved = before.iter().zip(&after).filter(|(b, a)| **b != gone && a != b).count();
            // Its own slots must go to others; what else moves is the price of even shares. With few
            // backends a single table can be unlucky; the mean is held below.
            let limit = len as usize / 4;
            prop_assert!(moved <= limit, "{moved} of {len} moved, {} backends", backends.len());
        }
    }

    #[test]
    fn one_that_goes_disturbs_three_percent_of_the_others_in_the_mean() {
        let backends: Vec<_> = (0..10).map(|host| ([10, 0, 0, host], 80)).collect();
        let (rest, len) = (&backends[..9], table_len(10));
        let moved = |seed| {
            let (before, after) = (named(&backends, seed, len), named(rest, seed, len));
            before.iter().zip(&after).filter(|(b, a)| **b != backends[9] && a != b).count()
        };
        let total: usize = (0..100).map(moved).sum();
        let mean = total as f64 / 100.0 / f64::from(len);
        assert!(mean < 0.03, "{mean} of the slots moved in the mean of 100 seeds");
    }
}
