//! A map that holds what was asked for last.

use std::collections::HashMap;
use std::hash::Hash;

/// At most a number of entries. When it is full, the quarter that was not asked for the longest goes.
#[derive(Debug)]
pub(crate) struct Recent<K, V> {
    entries: HashMap<K, (V, u64)>,
    clock: u64,
    most: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Without entries, and with room for `most`.
    pub fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), clock: 0, most }
    }

    /// The value of a key, made if it is not here.
    pub fn get_or_insert_with(&mut self, key: K, make: impl FnOnce() -> V) -> &V {
        if self.entries.len() >= self.most && !self.entries.contains_key(&key) {
            self.shrink();
        }
        self.clock += 1;
        let (value, used) = self.entries.entry(key).or_insert_with(|| (make(), 0));
        *used = self.clock;
        value
    }

    fn shrink(&mut self) {
        let mut times: Vec<u64> = self.entries.values().map(|(_, used)| *used).collect();
        let at = times.len() / 4;
        if at < times.len() {
            let (_, &mut last, _) = times.select_nth_unstable(at);
            self.entries.retain(|_, (_, used)| *used > last);
        }
    }

    /// Keeps the entries whose keys are wanted.
    pub fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        self.entries.retain(|key, _| wanted(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_asked_for_the_longest_goes() {
        let mut recent = Recent::new(8);
        let mut made = 0;
        let mut ask = |recent: &mut Recent<u32, u32>, key| {
            let value = *recent.get_or_insert_with(key, || {
                made += 1;
                key
            });
            assert_eq!(value, key);
            made
        };
        for key in 0..8 {
            ask(&mut recent, key);
        }
        assert_eq!(ask(&mut recent, 0), 8, "all of them are here");
        assert_eq!(ask(&mut recent, 100), 9);
        assert!(recent.entries.len() <= 8);
        assert_eq!(ask(&mut recent, 0), 9, "asked for just now");
        assert_eq!(ask(&mut recent, 7), 9);
        assert_eq!(ask(&mut recent, 1), 10, "the oldest is gone");
        for key in 0..10_000 {
            ask(&mut recent, key);
            assert!(recent.entries.len() <= 8);
        }
        recent.retain(|key| key % 2 == 0);
        assert!(recent.entries.keys().all(|key| key % 2 == 0));
    }

    #[test]
    fn the_smallest_of_them_works() {
        let mut recent = Recent::new(1);
        for key in [1, 1, 2, 2, 3] {
            assert_eq!(*recent.get_or_insert_with(key, || key), key);
            assert_eq!(recent.entries.len(), 1);
        }
    }
}
