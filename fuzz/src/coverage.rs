//! Which code has been reached, and how often.

use crate::runtime;

/// What has been seen of every counter: one bit for each class of counts.
#[derive(Clone, Debug)]
pub struct Coverage {
    seen: Vec<u8>,
    edges: usize,
}

impl Coverage {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self { seen: vec![0; runtime::counters()], edges: 0 }
    }

    /// Forgets what the counters say.
    pub fn reset() {
        runtime::take_counters(|_, _| ());
    }

    /// Adds what ran since the last reset; whether any of it was new.
    pub fn add(&mut self) -> bool {
        let mut first = false;
        runtime::take_counters(|i, count| {
            let Some(seen) = self.seen.get_mut(i) else { return };
            let class = class(count);
            self.edges += usize::from(*seen == 0);
            first |= *seen & class == 0;
            *seen |= class;
        });
        first
    }

    /// Counters that were reached.
    pub fn edges(&self) -> usize {
        self.edges
    }
}

impl Default for Coverage {
    fn default() -> Self {
        Self::new()
    }
}

/// The bit of a count: 1, 2, 3, 4 to 7, 8 to 15, to 31, to 127, more.
fn class(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        _ => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_single_bits_that_grow() {
        let classes: Vec<u8> = (1..=255).map(class).collect();
        assert!(classes.iter().all(|c| c.is_power_of_two()) && classes.is_sorted());
        assert_eq!(classes.last(), Some(&128));
    }
}
