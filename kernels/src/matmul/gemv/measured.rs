//! The product of few rows, measured.

use super::super::tuning::{self, Recorded};
use super::{CANDIDATES, NormKind, SPEC, choice, class, rule};
use crate::caps::Caps;
use crate::case::seeded;
use crate::choice::{Choice, Launch};
use crate::spec::{Ways, Workload};

pub(super) fn norm_of(choice: &Choice) -> NormKind {
    let s = &choice.selection;
    match (s.get_u32("RMS_SUMS"), s.get_bool("LAYER_NORM")) {
        (_, true) => NormKind::Layer { bias: s.get_bool("LAYER_NORM_BIAS") },
        (Some(1..), _) => NormKind::Rms,
        _ => NormKind::None,
    }
}

/// The configurations for what was recorded.
pub(super) fn ways(caps: &Caps, launch: &Launch) -> Option<Ways> {
    let recorded = Recorded::of(launch)?.with_norm_vectors();
    let Recorded { shape, format, epilogue, .. } = recorded;
    let norm = norm_of(&launch.choice);
    let (_, rule) = rule(caps, shape, format, norm, epilogue);
    let configs = tuning::rule_first(rule, CANDIDATES.on(caps, SPEC.name, format));
    let choice = |config| choice(config, shape, format, norm, epilogue);
    Some(Ways { shape: class(shape, norm), ways: recorded.ways_of_few_rows(caps, &SPEC, configs, choice) })
}

/// Data of its shape.
pub(super) fn workload(caps: &Caps, launch: &Launch) -> Option<Workload> {
    let recorded = Recorded::of(launch)?.with_norm_vectors();
    let (choice, _) = rule(caps, recorded.shape, recorded.format, norm_of(&launch.choice), recorded.epilogue);
    let [norm_weight, norm_bias] = [3, 4].map(|seed| seeded(recorded.shape.k as usize, seed));
    let vectors = recorded.vectors(&norm_weight, &norm_bias);
    Some(recorded.workload(recorded.x(), recorded.weights(), &vectors, choice))
}

#[cfg(test)]
mod tests {
    use super::super::super::few_rows::Config;
    use super::super::super::product::{EpilogueKind, Shape};
    use super::super::{MAX_M, select};
    use super::*;
    use crate::Tier;
    use crate::quant::{Format, WeightFormat};

    const SHAPE: Shape = Shape { m: 1, n: 4096, k: 4096 };

    #[test]
    fn what_the_rule_says_is_measured_too() {
        let of = |(tier, lanes): (Tier, u32)| Caps {
            tier,
            is_cpu: tier == Tier::Cpu,
            subgroup_size: (lanes > 0).then_some((lanes, lanes)),
            ..Caps::baseline()
        };
        let devices =
            [(Tier::Portable, 0), (Tier::Subgroup, 32), (Tier::Cpu, 8), (Tier::Cpu, 4), (Tier::Cpu, 0)];
        for (caps, m) in devices.into_iter().flat_map(|d| (1..=MAX_M).map(move |m| (of(d), m))) {
            for (n, k) in [2, 768, 4096, 128_256].into_iter().flat_map(|n| [1, 640, 2048].map(|k| (n, k))) {
                for format in [WeightFormat::F32, WeightFormat::F16, Format::Q4_0.into()] {
                    let plain = EpilogueKind::default();
                    let (_, config) = rule(&caps, Shape { m, n, k }, format, NormKind::Rms, plain);
                    assert!(
                        CANDIDATES.on(&caps, SPEC.name, format).contains(&config),
                        "{config}: {m}x{n}x{k}"
                    );
                }
            }
        }
    }

    /// A winner is taken where it is legal, and only for its shape.
    #[test]
    fn a_winner_goes_before_the_rule() {
        let cpu = Caps { subgroup_size: Some((8, 8)), tier: Tier::Cpu, is_cpu: true, ..Caps::baseline() };
        let mut caps = cpu.clone();
        let pick =
            |caps: &Caps| select(caps, SHAPE, WeightFormat::F16, NormKind::Rms, EpilogueKind::default());
        let rule = pick(&caps).1;
        let key = "gemv/f16/1x4096x4096/rms";
        for (name, is_taken) in
            [("subgroup 8x4", true), ("lanes 4x2", false), ("subgroup 8", false), ("", false)]
        {
            caps.tuned.set(key, Some(name));
            let (choice, config) = pick(&caps);
            let wanted = if is_taken { Config::subgroup(8, 4) } else { rule };
            assert_eq!((config, choice.variant), (wanted, wanted.variant()), "{name}");
        }
        caps.tuned.set(key, Some("subgroup 8x4"));
        let other = Shape { m: 1, n: 4096, k: 4104 };
        let of_other = select(&caps, other, WeightFormat::F16, NormKind::Rms, EpilogueKind::default()).1;
        assert_eq!(of_other, rule);
        caps.blocked.insert("gemv/subgroup/f16".into());
        assert_eq!(pick(&caps).1, rule, "blocked");
    }
}
