//! Which experts lie in the places of a cache, and which one gives way to another.

use std::cmp::Reverse;
use std::collections::HashMap;

/// Which expert gives way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// The one whose last use is longest ago.
    #[default]
    Lru,
    /// The one that was used least often; among those, the one whose last use is longest ago.
    Lfu,
}

impl Eviction {
    /// `lru`, `lfu`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lru => "lru",
            Self::Lfu => "lfu",
        }
    }
}

/// Uses of an expert.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// Tokens that have chosen it.
    pub count: u64,
    /// The step of the last one, from 1 on; 0: none.
    pub last: u64,
}

impl Eviction {
    /// The larger, the longer an expert stays.
    pub fn rank(self, uses: Uses) -> [u64; 2] {
        match self {
            Self::Lru => [uses.last, 0],
            Self::Lfu => [uses.count, uses.last],
        }
    }
}

/// An expert of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Index of the mixture.
    pub mixture: usize,
    /// Index of the expert.
    pub expert: u32,
}

/// What a run of a layer's products takes: experts and their places.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Those that are there.
    pub here: Vec<(Key, u32)>,
    /// Those that have to be brought to a place first.
    pub bring: Vec<(Key, u32)>,
}

/// The places of a cache.
#[derive(Clone, Debug)]
pub struct Residency {
    eviction: Eviction,
    places: Vec<Option<Key>>,
    place_of: HashMap<Key, u32>,
    uses: HashMap<Key, Uses>,
    step: u64,
}

impl Residency {
    /// So many empty places.
    pub fn new(eviction: Eviction, places: u32) -> Self {
        let places = vec![None; places as usize];
        Self { eviction, places, place_of: HashMap::new(), uses: HashMap::new(), step: 0 }
    }

    /// The place of an expert that is there.
    pub fn place(&self, key: Key) -> Option<u32> {
        self.place_of.get(&key).copied()
    }

    /// A step uses these experts, each for so many tokens.
    pub fn use_all(&mut self, needed: impl IntoIterator<Item = (Key, u64)>) {
        self.step += 1;
        for (key, tokens) in needed {
            let uses = self.uses.entry(key).or_default();
            uses.count += tokens;
            uses.last = self.step;
        }
    }

    /// What one round can take of the experts that a step still needs: all that are there, and of the others as many as find a
    /// place that is empty or whose expert is not of this round, the one first that [`Eviction`] says.
    pub fn round(&self, needed: &[Key]) -> Round {
        let mut round = Round::default();
        for &key in needed {
            if let Some(place) = self.place(key) {
                round.here.push((key, place));
            }
        }
        let mut free = self.victims(|key| round.here.iter().any(|&(here, _)| here == key)).into_iter();
        for &key in needed {
            if self.place(key).is_none() {
                let Some(place) = free.next() else { break };
                round.bring.push((key, place));
            }
        }
        round
    }

    /// Places whose experts may go, in the order in which they are taken.
    fn victims(&self, is_kept: impl Fn(Key) -> bool) -> Vec<u32> {
        let free = (0..).zip(&self.places).filter(|(_, held)| !held.is_some_and(&is_kept));
        let mut places: Vec<u32> = free.map(|(place, _)| place).collect();
        // Empty ones first; among experts of one rank, the one behind the other.
        places.sort_by_key(|&place| {
            let held = self.places.get(place as usize).copied().flatten();
            (held.map(|key| (self.rank(key), Reverse(key))), place)
        });
        places
    }

    fn rank(&self, key: Key) -> [u64; 2] {
        self.eviction.rank(self.uses.get(&key).copied().unwrap_or_default())
    }

    /// Nobody has this place any more: until [`Residency::put`], nothing is read from it.
    pub fn empty(&mut self, place: u32) {
        if let Some(held) = self.places.get_mut(place as usize)
            && let Some(key) = held.take()
        {
            self.place_of.remove(&key);
        }
    }

    /// An expert is in this place now.
    pub fn put(&mut self, place: u32, key: Key) {
        self.empty(place);
        if let Some(other) = self.place(key) {
            self.empty(other);
        }
        if let Some(held) = self.places.get_mut(place as usize) {
            *held = Some(key);
            self.place_of.insert(key, place);
        }
    }

    /// Where an expert that may be used soon can go: an empty place, or that of one that is not kept, the one first that
    /// [`Eviction`] says.
    pub fn spare(&self, is_kept: impl Fn(Key) -> bool) -> Option<u32> {
        self.victims(is_kept).first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(expert: u32) -> Key {
        Key { mixture: 0, expert }
    }

    /// Runs a step as the cache does; the experts that were there, and the rounds that it took.
    fn step(cache: &mut Residency, experts: &[u32]) -> (usize, usize) {
        let mut left: Vec<Key> = experts.iter().map(|&e| key(e)).collect();
        let hits = left.iter().filter(|&&key| cache.place(key).is_some()).count();
        cache.use_all(left.iter().map(|&key| (key, 1)));
        let mut rounds = 0;
        while !left.is_empty() {
            let round = cache.round(&left);
            assert!(!round.here.is_empty() || !round.bring.is_empty(), "a round that does nothing");
            for &(key, place) in &round.bring {
                cache.put(place, key);
            }
            let done = |key: &Key| round.here.iter().chain(&round.bring).any(|(other, _)| other == key);
            left.retain(|key| !done(key));
            rounds += 1;
        }
        (hits, rounds)
    }

    fn there(cache: &Residency) -> Vec<u32> {
        let mut experts: Vec<u32> = cache.places.iter().flatten().map(|key| key.expert).collect();
        experts.sort_unstable();
        experts
    }

    #[test]
    fn the_longest_unused_expert_gives_way() {
        let mut cache = Residency::new(Eviction::Lru, 3);
        assert_eq!(step(&mut cache, &[0, 1]), (0, 1));
        assert_eq!(step(&mut cache, &[0, 2]), (1, 1)); // an empty place is taken
        assert_eq!(there(&cache), [0, 1, 2]);
        assert_eq!(step(&mut cache, &[3]), (0, 1)); // 1 was used before 0 and 2
        assert_eq!(there(&cache), [0, 2, 3]);
        assert_eq!(step(&mut cache, &[0, 3]), (2, 1));
        assert_eq!(step(&mut cache, &[4, 5]), (0, 1)); // 2, then 3 (as old as 0, and behind it)
        assert_eq!(there(&cache), [0, 4, 5]);
    }

    #[test]
    fn the_least_used_expert_gives_way() {
        let mut cache = Residency::new(Eviction::Lfu, 2);
        for _ in 0..3 {
            step(&mut cache, &[0]);
        }
        step(&mut cache, &[1]);
        step(&mut cache, &[2]); // 1 has one use, 0 has three
        assert_eq!(there(&cache), [0, 2]);
        step(&mut cache, &[1]); // its second use; 2 has one
        assert_eq!(there(&cache), [0, 1]);
        let mut cache = Residency::new(Eviction::Lru, 2);
        for expert in [0, 0, 0, 1, 2] {
            step(&mut cache, &[expert]);
        }
        assert_eq!(there(&cache), [1, 2], "the same steps with the other eviction");
    }

    #[test]
    fn more_experts_than_places_take_rounds() {
        let mut cache = Residency::new(Eviction::Lru, 1);
        assert_eq!(step(&mut cache, &[4, 7, 9]), (0, 3));
        assert_eq!(there(&cache), [9]);
        assert_eq!(step(&mut cache, &[4, 9]), (1, 2)); // what is there goes first
        assert_eq!(there(&cache), [4]);
    }

    /// The trace of the digest (section 2.7) of k = 2, by hand: hits of the 24 choices with this cache, in which whoever is needed
    /// is brought in, whatever its rank.
    #[test]
    fn hits_of_a_known_trace() {
        let trace =
            [[0, 1], [0, 2], [0, 1], [3, 1], [3, 4], [3, 4], [0, 4], [0, 1], [0, 1], [2, 1], [0, 1], [0, 3]];
        for (eviction, hits) in [(Eviction::Lru, [13, 15, 17]), (Eviction::Lfu, [13, 15, 17])] {
            for (places, want) in (2..).zip(hits) {
                let mut cache = Residency::new(eviction, places);
                let got: usize = trace.iter().map(|experts| step(&mut cache, experts).0).sum();
                assert_eq!(got, want, "{} with {places}", eviction.name());
            }
        }
    }
}
