//! What multi-head latent attention in its absorbed form reads and keeps, in one dispatch: queries put together from their
//! absorbed and rotated parts, norm and rotation of the one key that all heads read, and its append to the cache.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::caps::Caps;
use crate::case::{Element, Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Launch};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rope::{Angles, Rotation, Style, appending, half_or_nan, parts, test_table};
use crate::rows;
use crate::spec::{Cost, Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `latent_append.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Sequences S.
    pub num_seqs: u32,
    /// Query heads Hq.
    pub num_q_heads: u32,
    /// Channels L of a latent.
    pub latent_dim: u32,
    /// Rotated channels R.
    pub head_dim: u32,
    /// Pairs that are rotated, R/2.
    pub num_pairs: u32,
    /// Rows of a block of the table.
    pub max_positions: u32,
    /// Sequences with more keys than this take the second block of the table.
    pub switch_len: u32,
    /// Added to the mean square of a latent.
    pub eps: f32,
    /// 1 where token t is the only one of sequence t.
    pub one_token_each: u32,
    /// Workgroups along y; set by [`record`].
    pub grid_y: u32,
    /// Elements from one slot of the cache to the next.
    pub k_slot: u32,
    /// Elements from one token of the cache to the next.
    pub k_token: u32,
}

/// What is done, and in which types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mode {
    /// Rotation.
    pub rope: (Style, Angles),
    /// Cache of f16, two to a word, or of f32.
    pub f16: bool,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Latents and keys that are to be rotated `[T, L + R]`, f32.
    pub latents: &'a Buffer,
    /// `Seq` of each sequence `[S, 4]`, u32.
    pub seqs: &'a Buffer,
    /// See [`Angles`].
    pub table: &'a Buffer,
    /// Queries that have taken the key projection in `[T, Hq, L]`, f32.
    pub absorbed: &'a Buffer,
    /// Parts of the queries that are to be rotated `[T, Hq, R]`, f32.
    pub q_rope: &'a Buffer,
    /// Weight of the norm of latents `[L]`.
    pub norm: &'a Buffer,
    /// Keys of the cache.
    pub k: &'a Buffer,
    /// Queries `[T, Hq, L + R]`, f32.
    pub q: &'a Buffer,
}

const SPEC: KernelSpec = KernelSpec {
    name: "latent_append",
    bindings: &[
        read("latents"),
        read("seqs"),
        read("table").in_part(),
        read("absorbed"),
        read("q_rope"),
        read("norm"),
        read_write("k").in_part(),
        read_write("q"),
    ],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: Some(cost) };

/// All that is read and written once; a row of the table for each token. The norm's weight is left out.
fn cost(launch: &Launch, _: &[u64], _: u32) -> Cost {
    let p: Params = bytemuck::pod_read_unaligned(&launch.params);
    let [tokens, heads, latent, rope, pairs] =
        [p.num_tokens, p.num_q_heads, p.latent_dim, p.head_dim, p.num_pairs].map(u64::from);
    let element = if launch.choice.data == (Data::KeysValues { f16: true }) { 2 } else { 4 };
    let row = latent + rope;
    Cost { bytes: tokens * (8 * heads * row + (4 + element) * row + 8 * pairs), flops: 0 }
}

/// Appends the queries' parts, the norm, the rotation and the write to the cache.
///
/// # Errors
/// No latent, other pairs than half of the rotated channels, odd channels or strides of an f16 cache, no positions; as
/// [`Recorder::dispatch`].
pub fn record(rec: &mut Recorder, args: Args<'_>, params: Params, mode: Mode) -> Result<(), KernelError> {
    let bad = |field, got: u32, must_be| {
        Err(KernelError::BadParam { kernel: SPEC.name, field, got: got.into(), must_be })
    };
    rows::positive(SPEC.name, "latent_dim", params.latent_dim)?;
    rows::positive(SPEC.name, "num_q_heads", params.num_q_heads)?;
    rows::positive(SPEC.name, "max_positions", params.max_positions)?;
    if params.num_pairs == 0 || params.num_pairs.checked_mul(2) != Some(params.head_dim) {
        return bad("head_dim", params.head_dim, "positive, twice the pairs of the table");
    }
    if mode.f16 && !strides(&params).iter().all(|s| s.is_multiple_of(2)) {
        return bad("latent_dim or a stride", params.latent_dim, "even in an f16 cache");
    }
    let Some(width) = params.latent_dim.checked_add(params.head_dim) else {
        return bad("latent_dim", params.latent_dim, "below 2^32 less head_dim");
    };
    let rows_of_heads = rows::elements(SPEC.name, params.num_tokens, params.num_q_heads)?;
    rows::elements(SPEC.name, rows_of_heads, width)?;
    let Some(groups) = params.num_q_heads.checked_add(1) else {
        return bad("num_q_heads", params.num_q_heads, "below 2^32 - 1");
    };
    let [t, h, l, r, w] =
        [params.num_tokens, params.num_q_heads, params.latent_dim, params.head_dim, width].map(u64::from);
    rows::check_sizes(
        SPEC.name,
        [
            ("latents", Some(args.latents), 4 * t * w),
            ("absorbed", Some(args.absorbed), 4 * t * h * l),
            ("q_rope", Some(args.q_rope), 4 * t * h * r),
            ("norm", Some(args.norm), 4 * l),
            ("q", Some(args.q), 4 * t * h * w),
        ],
    )?;
    let choice = select(rec.caps(), &params, mode);
    let [grid_y, grid_z, _] = rows::row_grid(rec.caps(), params.num_tokens);
    let params = Params { grid_y, ..params };
    let buffers =
        [args.latents, args.seqs, args.table, args.absorbed, args.q_rope, args.norm, args.k, args.q];
    rec.dispatch(&SPEC, choice, &params, &buffers, [groups, grid_y, grid_z])
}

fn strides(p: &Params) -> [u32; 4] {
    [p.latent_dim, p.head_dim, p.k_slot, p.k_token]
}

fn fits_vec4(p: &Params) -> bool {
    strides(p).iter().chain([&p.num_pairs]).all(|s| s.is_multiple_of(4))
}

fn select(caps: &Caps, p: &Params, mode: Mode) -> Choice {
    let data = Data::KeysValues { f16: mode.f16 };
    let (vec4, subgroup) = rows::pick_for(caps, SPEC.name, data, fits_vec4(p), true);
    choice(if caps.cpu_variants() { 16 } else { 64 }, vec4, subgroup, mode)
}

fn choice(wg: u32, vec4: bool, subgroup: bool, mode: Mode) -> Choice {
    let (style, angles) = mode.rope;
    let selection = Selection::new().set("WG", wg).set("STYLE", style.code());
    let mut selection = parts(selection, angles, vec4);
    if vec4 {
        selection = selection.part("latent_io", "kv_cache/latent_io4.wgsl");
    }
    let stores = ["kv_cache/key_f32x4.wgsl", "kv_cache/key_f16.wgsl", "kv_cache/key_f16x4.wgsl"];
    appending("rope/latent_append.wgsl", wg, (vec4, subgroup), selection, mode.f16, ("key_f32", stores))
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for style in Style::ALL {
        for angles in [Angles::Table, Angles::Computed] {
            for f16 in [false, true] {
                let mode = Mode { rope: (style, angles), f16 };
                for wg in [16, 64] {
                    all.extend(rows::widths().map(|(vec4, subgroup)| choice(wg, vec4, subgroup, mode)));
                }
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let rotation = Rotation::new(call, 2, p.num_pairs, p.max_positions);
    let f16 = call.selection.get_part("key_f32").is_some_and(|part| part.contains("f16"));
    let (latents, seqs): (Vec<f32>, Vec<u32>) = (call.get(0), call.get(1));
    let (absorbed, q_rope): (Vec<f32>, Vec<f32>) = (call.get(3), call.get(4));
    let norm: Vec<f32> = call.get(5);
    let mut k: Vec<f32> =
        if f16 { call.get::<half::f16>(6).iter().map(|v| v.to_f32()).collect() } else { call.get(6) };
    let mut q: Vec<f32> = call.get(7);
    let [heads, latent, rope] = [p.num_q_heads, p.latent_dim, p.head_dim].map(|n| n as usize);
    let width = latent + rope;
    let wide = |x: &[f32]| x.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    for seq in seqs.chunks_exact(4).take(p.num_seqs as usize) {
        let [q_base, q_len, kv_len, slot] = [seq[0], seq[1], seq[2], seq[3]];
        let block = u32::from(kv_len > p.switch_len);
        for i in 0..q_len {
            let (t, position) = ((q_base + i) as usize, kv_len - q_len + i);
            for head in t * heads..(t + 1) * heads {
                let row = &mut q[head * width..][..width];
                row[..latent].copy_from_slice(&absorbed[head * latent..][..latent]);
                let rotated = rotation.apply(&wide(&q_rope[head * rope..][..rope]), position, block);
                row[latent..].iter_mut().zip(rotated).for_each(|(q, v)| *q = v as f32);
            }
            let (x, key) = latents[t * width..][..width].split_at(latent);
            let mean_sq = wide(x).iter().map(|v| v * v).sum::<f64>() / latent as f64;
            let scale = 1.0 / (mean_sq + f64::from(p.eps)).sqrt();
            let x = wide(x).into_iter().zip(&norm).map(|(x, &w)| x * scale * f64::from(w));
            let row = x.chain(rotation.apply(&wide(key), position, block));
            let at = (slot * p.k_slot + position * p.k_token) as usize;
            k[at..].iter_mut().zip(row).for_each(|(k, v)| *k = v as f32);
        }
    }
    if f16 {
        call.put(6, &k.iter().map(|&v| half_or_nan(v)).collect::<Vec<_>>());
    } else {
        call.put(6, &k);
    }
    call.put(7, &q);
}

fn cases() -> Vec<TestCase> {
    use Angles::{Computed, Table};
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    use Style::{Half, Interleaved, InterleavedToHalf};
    let ragged: &[[u32; 3]] = &[[3, 5, 2], [1, 9, 0], [4, 12, 1]];
    let one: &[[u32; 3]] = &[[1, 7, 1]];
    let mode = |style, angles, f16| Mode { rope: (style, angles), f16 };
    let mut cases = vec![
        case(("odd", PartialTile), 3, [13, 6], ragged, &[mode(Half, Table, false)]),
        case(("even_f16", PartialTile), 3, [14, 6], ragged, &[mode(Interleaved, Table, true)]),
        case(("computed", ManyTiles), 4, [24, 8], ragged, &[mode(Interleaved, Computed, false)]),
        case(
            ("styles", ManyTiles),
            2,
            [24, 16],
            ragged,
            &[Interleaved, Half, InterleavedToHalf].map(|style| mode(style, Table, false)),
        ),
    ];
    for f16 in [false, true] {
        let mode = &[mode(Interleaved, Table, f16)];
        let names = if f16 {
            ["one_token_f16", "partial_f16", "many_f16", "deepseek_f16"]
        } else {
            ["one_token", "partial", "many", "deepseek"]
        };
        cases.push(case((names[0], OneTile), 1, [32, 16], one, mode));
        cases.push(case((names[1], PartialTile), 3, [100, 24], ragged, mode));
        cases.push(case((names[2], ManyTiles), 4, [288, 72], &[[1, 7, 1], [1, 12, 0]], mode));
        cases.push(case((names[3], Model), 16, [512, 64], &[[1, 12, 2]], mode));
    }
    cases.push(beyond_f16(ragged));
    cases
}

/// What f16 cannot hold is NaN in the cache.
fn beyond_f16(seqs: &[[u32; 3]]) -> TestCase {
    let mode = Mode { rope: (Style::Interleaved, Angles::Table), f16: true };
    let mut case = case(("beyond_f16", Regime::PartialTile), 2, [12, 8], seqs, &[mode]);
    let x: Vec<f32> = bytemuck::pod_collect_to_vec(&case.buffers[0].data);
    let x: Vec<f32> = x.iter().map(|v| 5e4 * v).collect(); // the rotated part reaches 1e6
    case.buffers[0].data = bytemuck::cast_slice(&x).to_vec();
    case
}

/// Sequences are (q_len, kv_len, slot).
fn case(
    (name, regime): (&str, Regime),
    num_q_heads: u32,
    [latent_dim, rope_dim]: [u32; 2],
    seqs: &[[u32; 3]],
    modes: &[Mode],
) -> TestCase {
    const CAPACITY: u32 = 12;
    let Mode { rope: (_, angles), f16 } = modes[0];
    let num_tokens: u32 = seqs.iter().map(|s| s[0]).sum();
    let mut q_base = 0;
    let mut packed = Vec::new();
    for &[q_len, kv_len, slot] in seqs {
        packed.extend([q_base, q_len, kv_len, slot]);
        q_base += q_len;
    }
    let width = latent_dim + rope_dim;
    let params = Params {
        num_tokens,
        num_seqs: seqs.len() as u32,
        num_q_heads,
        latent_dim,
        head_dim: rope_dim,
        num_pairs: rope_dim / 2,
        max_positions: CAPACITY,
        switch_len: 8,
        eps: 1e-6,
        one_token_each: (num_tokens == seqs.len() as u32).into(),
        grid_y: num_tokens.min(3),
        k_slot: CAPACITY * width,
        k_token: width,
    };
    let rel = if f16 { 1.1e-3 } else { 8e-6 };
    let len = |channels: u32| (num_tokens * channels) as usize;
    let before = seeded((3 * CAPACITY * width) as usize, 9);
    let case = TestCase::new(name, regime, Tolerance { abs: if f16 { 2e-4 } else { 2e-5 }, rel })
        .input(&seeded(len(width), 1))
        .input(&packed)
        .input(&test_table(angles, rope_dim / 2, CAPACITY))
        .input(&seeded(len(num_q_heads * latent_dim), 2))
        .input(&seeded(len(num_q_heads * rope_dim), 3))
        .input(&seeded(latent_dim as usize, 4));
    let case = if f16 {
        let halves: Vec<half::f16> = before.iter().map(|&v| half::f16::from_f32(v)).collect();
        case.in_out(&halves, Element::F16)
    } else {
        case.in_out(&before, Element::F32)
    };
    let case = case.output(len(num_q_heads * width));
    let grid = [num_q_heads + 1, params.grid_y, num_tokens.div_ceil(params.grid_y)];
    modes.iter().enumerate().fold(case, |case, (i, &mode)| {
        // One mode of a case also runs scalar.
        let fits = fits_vec4(&params);
        let runs = rows::widths().filter(|&(vec4, _)| vec4 == fits || !vec4 && i == 0);
        runs.fold(case, |case, (vec4, subgroup)| {
            case.launch(choice(if i == 0 { 64 } else { 16 }, vec4, subgroup, mode), &params, grid)
        })
    })
}
