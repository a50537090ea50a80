//! Bringing experts to the GPU before a router asks for them. Guesses change times, never results: what a router has chosen
//! decides.

use std::cmp::Reverse;
use std::collections::HashMap;

use girih_ops::Gpu;

use super::run::{Words, bring};
use super::{ExpertCache, Key, Layer, Placed, Round};

/// From what the next mixture's experts are guessed, while few tokens are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefetch {
    /// Not at all.
    #[default]
    Off,
    /// From the choices of the next router on what this one was given: two dispatches more for each mixture.
    Gate,
    /// From which experts have followed which, so far.
    Statistics,
}

impl Prefetch {
    /// `off`, `gate`, `statistics`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Gate => "gate",
            Self::Statistics => "statistics",
        }
    }
}

/// Tokens of a pass that guesses are made for.
pub const FEW_TOKENS: usize = 4;

/// Which experts of a mixture followed which of the one before: counts of pairs of choices of one token.
#[derive(Clone, Debug, Default)]
pub struct Followers {
    counts: HashMap<(Key, u32), u32>,
}

impl Followers {
    /// Notes what a token chose in a mixture, and in the next one.
    pub fn note(&mut self, mixture: usize, chosen: &[u32], next: &[u32]) {
        for &expert in chosen {
            for &follower in next {
                let count = self.counts.entry((Key { mixture, expert }, follower)).or_default();
                *count = count.saturating_add(1);
            }
        }
    }

    /// The `count` experts, of `experts`, that have followed these most often, the likeliest first; those that never did are left out.
    pub fn guess(&self, mixture: usize, chosen: &[u32], experts: u32, count: usize) -> Vec<u32> {
        let followed = |follower: u32| -> u64 {
            let of =
                |&expert: &u32| self.counts.get(&(Key { mixture, expert }, follower)).copied().unwrap_or(0);
            chosen.iter().map(|expert| u64::from(of(expert))).sum()
        };
        let mut all: Vec<(u64, u32)> =
            (0..experts).map(|e| (followed(e), e)).filter(|&(count, _)| count > 0).collect();
        all.sort_by_key(|&(count, expert)| (Reverse(count), expert));
        all.truncate(count);
        all.into_iter().map(|(_, expert)| expert).collect()
    }
}

impl ExpertCache {
    /// Brings experts that a mixture may choose next, the likeliest first, as far as there are places for them. One that cannot be
    /// read is passed over: whoever needs it is told.
    pub(super) async fn prefetch(&self, gpu: &Gpu, mixture: usize, guessed: &[u32]) {
        let Some((placed, layer)) = self.layer(mixture) else { return };
        let is_guessed = |key: Key| key.mixture == mixture && guessed.contains(&key.expert);
        for &expert in guessed {
            let key = Key { mixture, expert };
            if spare(placed, layer, key, is_guessed).is_none() {
                continue;
            }
            let Ok(words) = layer.read(expert).await else { continue };
            // Somebody else may have brought it, or taken the place.
            let Some(place) = spare(placed, layer, key, is_guessed) else { continue };
            let mut state = placed.state();
            let round = Round { here: Vec::new(), bring: vec![(key, place)] };
            let mut read: HashMap<Key, Words> = HashMap::from([(key, words)]);
            if bring(gpu, placed, layer, &mut state, &round, &mut read).is_ok() {
                state.prefetched.insert(key);
                state.counts.prefetched += 1;
            }
        }
    }
}

/// A place for an expert that is not there, as the layer counts them: an empty one, or of an expert that is not guessed too.
fn spare(placed: &Placed, layer: &Layer, key: Key, is_guessed: impl Fn(Key) -> bool) -> Option<u32> {
    let share = layer.share(key.expert)?;
    let state = placed.state();
    let residency = state.residencies.get(share.partition)?;
    match residency.place(key) {
        Some(_) => None,
        None => Some(share.first + residency.spare(is_guessed)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_followers_are_guessed() {
        let mut followers = Followers::default();
        followers.note(0, &[1, 2], &[5, 6]);
        followers.note(0, &[1, 3], &[6, 7]);
        followers.note(1, &[1], &[0]);
        assert_eq!(followers.guess(0, &[1], 8, 2), [6, 5]); // 6 twice; 5 and 7 once
        assert_eq!(followers.guess(0, &[1, 3], 8, 8), [6, 7, 5]); // 3, 2, 1
        assert_eq!(followers.guess(0, &[4], 8, 8), [0u32; 0]);
        assert_eq!(followers.guess(1, &[1], 8, 8), [0]);
        assert_eq!(followers.guess(0, &[2], 6, 8), [5], "there are six");
    }
}
