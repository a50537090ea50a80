//! An expert for each token by chance.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{MAX_EXPERTS, token_grid};
use crate::buffer::Buffer;
use crate::case::{Element, Regime, TestCase, Tolerance};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `random.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Experts E.
    pub num_experts: u32,
    /// Of all draws.
    pub seed: u32,
    /// Of these draws.
    pub layer: u32,
    /// Workgroups along x; more continue along y.
    pub grid_x: u32,
}

const FILE: &str = "moe/random.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "moe_random",
    bindings: &[read("positions"), read_write("routes")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// The expert of a position: `floor(E · u)`, u in 0..1 from 24 bits of `pcg(position + pcg(layer + pcg(seed)))`.
pub fn expert(experts: u32, seed: u32, layer: u32, position: u32) -> u32 {
    let bits = pcg(position.wrapping_add(pcg(layer.wrapping_add(pcg(seed))))) >> 8;
    ((u64::from(bits) * u64::from(experts)) >> 24) as u32
}

/// The permuted congruential generator RXS-M-XS of 32 bits (O'Neill 2014), as a hash (Jarzynski and Olano 2020).
fn pcg(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// Appends routes `[T, 2]` of positions `[T]`, u32: [`expert`] and the bits of 1.
///
/// # Errors
/// No experts or too many, buffers that are too short, and as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    positions: &Buffer,
    routes: &Buffer,
    [num_tokens, num_experts]: [u32; 2],
    [seed, layer]: [u32; 2],
) -> Result<(), KernelError> {
    if num_experts == 0 || num_experts > MAX_EXPERTS {
        let (field, got, must_be) = ("experts", num_experts.into(), "1 to 1024");
        return Err(KernelError::BadParam { kernel: SPEC.name, field, got, must_be });
    }
    let t = u64::from(num_tokens);
    rows::check_sizes(SPEC.name, [("positions", Some(positions), 4 * t), ("routes", Some(routes), 8 * t)])?;
    let choice = choice(rows::flat_wg(rec.caps()));
    let grid = token_grid(rec.caps(), num_tokens, choice.invocations);
    let params = Params { num_tokens, num_experts, seed, layer, grid_x: grid[0] };
    rec.dispatch(&SPEC, choice, &params, &[positions, routes], grid)
}

fn choice(wg: u32) -> Choice {
    rows::streaming(FILE, wg, false, Selection::new())
}

fn choices() -> Vec<Choice> {
    [128, 256].map(choice).into()
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let positions: Vec<u32> = call.get(0);
    let route = |&position: &u32| [expert(p.num_experts, p.seed, p.layer, position), 1f32.to_bits()];
    let routes: Vec<[u32; 2]> = positions.iter().take(p.num_tokens as usize).map(route).collect();
    call.put(1, &routes);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime), [t, e]: [u32; 2]| {
        let mut case = TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
            .input(&(0..t).map(|i| i.wrapping_mul(0x0101_0101)).collect::<Vec<u32>>())
            .in_out(&vec![[0xdead_beefu32; 2]; t as usize], Element::Bits);
        for wg in [128, 256] {
            let grid = rows::wrapped_grid(t.div_ceil(wg), 3);
            let params = Params { num_tokens: t, num_experts: e, seed: 7, layer: 3, grid_x: grid[0] };
            case = case.launch(choice(wg), &params, grid);
        }
        case
    };
    vec![
        case(("one", OneTile), [1, 1]),
        case(("odd", PartialTile), [300, 7]),
        case(("most_experts", ManyTiles), [1500, MAX_EXPERTS]),
        case(("thor", Model), [512, 16]),
    ]
}

#[cfg(test)]
mod tests {
    use super::expert;

    /// No draw is beyond the last expert, and all are about as frequent: chi-square of 15 degrees of freedom below its 99.9 %.
    #[test]
    fn draws_are_uniform_and_depend_on_seed_layer_and_position() {
        let draws = |seed, layer| -> Vec<u32> { (0..16_000).map(|p| expert(16, seed, layer, p)).collect() };
        for (seed, layer) in [(0, 0), (1, 0), (0, 1), (u32::MAX, 30)] {
            let mut counts = [0u32; 16];
            for e in draws(seed, layer) {
                counts[e as usize] += 1;
            }
            let chi: f64 = counts.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
            assert!(chi < 37.7, "{seed} {layer}: {chi} {counts:?}");
        }
        assert_ne!(draws(0, 0), draws(0, 1));
        assert_ne!(draws(0, 0), draws(1, 0));
        assert!((0..1000).all(|p| expert(1, 5, 6, p) == 0));
    }
}
