//! Which experts the tokens of a synthetic mixture go to.

use std::str::FromStr;

/// How the tokens of a synthetic mixture are spread over the experts.
///
/// A token goes to the same experts in every layer, and which these are its id alone decides: its embedding has ones in
/// their channels and zeros in those of the others, the router is the identity on these channels, norms are ones, and what
/// is added to the residual stream is zero there. So the choice is exact, whatever the precision of the weights, and is
/// made by the same kernels as in any other model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpertChoice {
    /// Experts `(k t + j) mod E` of token t: each is chosen as often as the others.
    #[default]
    Balanced,
    /// Drawn for each id without putting back, the expert with index i with a probability that is proportional to
    /// `1 / (i + 1)` (Zipf).
    Skewed,
    /// The first k experts, whatever the token.
    OneHot,
}

impl ExpertChoice {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Balanced, Self::Skewed, Self::OneHot];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Balanced => "balanced",
            Self::Skewed => "skewed",
            Self::OneHot => "one-hot",
        }
    }

    /// The experts of a token, `k` of `experts`, in no order.
    pub fn of_token(self, token: u32, [experts, k]: [u32; 2]) -> Vec<u32> {
        let k = k.min(experts);
        match self {
            Self::Balanced => {
                let first = u64::from(k) * u64::from(token);
                (0..k).map(|j| ((first + u64::from(j)) % u64::from(experts.max(1))) as u32).collect()
            }
            Self::Skewed => skewed(token, experts, k),
            Self::OneHot => (0..k).collect(),
        }
    }
}

impl FromStr for ExpertChoice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = || Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|choice| choice.name() == name);
        found.ok_or_else(|| format!("{name:?} is none of {}", known()))
    }
}

fn skewed(token: u32, experts: u32, k: u32) -> Vec<u32> {
    // SplitMix64.
    let mut state = u64::from(token);
    let mut unit = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    };
    let mut left: Vec<u32> = (0..experts).collect();
    let mut chosen = Vec::new();
    for _ in 0..k {
        let share = |&expert: &u32| 1.0 / (f64::from(expert) + 1.0);
        let mut at = unit() * left.iter().map(share).sum::<f64>();
        let found = left.iter().position(|expert| {
            at -= share(expert);
            at <= 0.0
        });
        let last = left.len() - 1;
        chosen.push(left.remove(found.unwrap_or(last)));
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_spread_as_they_are_called() {
        const SIZE: [u32; 2] = [32, 4];
        let counts = |choice: ExpertChoice| {
            let mut counts = [0u32; 32];
            for token in 0..4096 {
                let experts = choice.of_token(token, SIZE);
                let distinct: std::collections::BTreeSet<u32> = experts.iter().copied().collect();
                assert_eq!((experts.len(), distinct.len()), (4, 4), "{choice:?}, token {token}");
                for &expert in &experts {
                    counts[expert as usize] += 1;
                }
            }
            counts
        };
        assert_eq!(counts(ExpertChoice::Balanced), [512; 32]);
        let one_hot = counts(ExpertChoice::OneHot);
        assert!(one_hot[..4] == [4096; 4] && one_hot[4..] == [0; 28]);
        let skewed = counts(ExpertChoice::Skewed);
        // The first of four draws alone finds the first expert with probability 1 / H(32), about 1 / 4.06.
        assert!(skewed[0] > 2000 && skewed[0] < 3600, "{skewed:?}");
        assert!((1.5..2.1).contains(&(f64::from(skewed[7]) / f64::from(skewed[15]))), "{skewed:?}");
        assert!(skewed[31] > 0 && skewed[31] < 250, "{skewed:?}");
    }

    #[test]
    fn names_are_read() {
        for choice in ExpertChoice::ALL {
            assert_eq!(choice.name().parse(), Ok(choice));
        }
        let error = "zipf".parse::<ExpertChoice>().expect_err("no such name");
        assert!(error.contains("zipf") && error.contains("one-hot"), "{error}");
    }
}
