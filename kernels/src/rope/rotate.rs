//! Rotary position embedding of a tensor by itself.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use super::{Angles, Rotation, Style};
use crate::buffer::Buffer;
use crate::case::{Regime, TestCase, Tolerance, seeded};
use crate::choice::{Choice, Data, Requires};
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Kernel, KernelSpec, read, read_write};
use crate::twin::TwinCall;

/// Same layout as `Params` in `rotate.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Heads H.
    pub num_heads: u32,
    /// Channels D of a head.
    pub head_dim: u32,
    /// Pairs R/2 that are rotated.
    pub num_pairs: u32,
    /// Rows of a block of the table.
    pub max_positions: u32,
    /// Block of the table.
    pub block: u32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Input `[T, H, D]`, f32.
    pub x: &'a Buffer,
    /// Positions `[T]`, u32.
    pub positions: &'a Buffer,
    /// See [`Angles`].
    pub table: &'a Buffer,
    /// Output `[T, H, D]`, f32.
    pub y: &'a Buffer,
}

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Heads H.
    pub num_heads: u32,
    /// Channels D of a head.
    pub head_dim: u32,
    /// Pairs R/2 that are rotated.
    pub num_pairs: u32,
    /// Rows of a block of the table.
    pub max_positions: u32,
    /// Block of the table.
    pub block: u32,
}

const FILE: &str = "rope/rotate.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "rope",
    bindings: &[read("x"), read("positions"), read("table").in_part(), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel =
    Kernel { spec: &SPEC, choices, cases, benches: Vec::new, cases_of: None, tuning: None, cost: None };

/// Appends the rotation of each head of each token. Positions at or above `max_positions` take the last row.
///
/// # Errors
/// More pairs than channels, an empty table; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    shape: Shape,
    style: Style,
    angles: Angles,
) -> Result<(), KernelError> {
    for (field, value) in [
        ("num_heads", shape.num_heads),
        ("num_pairs", shape.num_pairs),
        ("max_positions", shape.max_positions),
    ] {
        rows::positive(SPEC.name, field, value)?;
    }
    if shape.num_pairs > shape.head_dim / 2 {
        return Err(KernelError::BadParam {
            kernel: SPEC.name,
            field: "num_pairs",
            got: shape.num_pairs.into(),
            must_be: "at most head_dim / 2",
        });
    }
    let fits = shape.head_dim.is_multiple_of(4) && shape.num_pairs.is_multiple_of(4);
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, fits, false);
    let wg = if rec.caps().cpu_variants() { 64 } else { 256.min(rec.caps().invocations) };
    let grid = rows::row_grid(rec.caps(), shape.num_tokens);
    let params = params(shape, grid[0]);
    let buffers = [args.x, args.positions, args.table, args.y];
    rec.dispatch(&SPEC, choice(wg, vec4, style, angles), &params, &buffers, grid)
}

fn params(shape: Shape, grid_x: u32) -> Params {
    let Shape { num_tokens, num_heads, head_dim, num_pairs, max_positions, block } = shape;
    Params { num_tokens, num_heads, head_dim, num_pairs, max_positions, block, grid_x }
}

fn choice(wg: u32, vec4: bool, style: Style, angles: Angles) -> Choice {
    let selection = Selection::new().set("WG", wg).set("STYLE", style.code());
    let selection = super::parts(selection, angles, vec4);
    let selection = if vec4 { selection.part("io", "rope/io4.wgsl") } else { selection };
    Choice {
        file: FILE,
        variant: rows::variant(vec4, false),
        selection,
        invocations: wg,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [64, 128, 256] {
        for vec4 in [false, true] {
            for angles in [Angles::Table, Angles::Computed] {
                all.extend(Style::ALL.map(|style| choice(wg, vec4, style, angles)));
            }
        }
    }
    all
}

/// The definition, in f64.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let rotation = Rotation::new(call, 2, p.num_pairs, p.max_positions);
    let (x, positions): (Vec<f32>, Vec<u32>) = (call.get(0), call.get(1));
    let mut y: Vec<f32> = call.get(3);
    let d = p.head_dim as usize;
    for (i, (x, y)) in x.chunks_exact(d).zip(y.chunks_exact_mut(d)).enumerate() {
        let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
        let rotated = rotation.apply(&x, positions[i / p.num_heads as usize], p.block);
        for (y, v) in y.iter_mut().zip(rotated) {
            *y = v as f32;
        }
    }
    call.put(3, &y);
}

fn cases() -> Vec<TestCase> {
    use Regime::{ManyTiles, Model, OneTile, PartialTile};
    let case = |(name, regime): (&str, Regime),
                num_heads: u32,
                head_dim: u32,
                num_pairs: u32,
                angles: Angles,
                styles: &[Style]| {
        let max_positions = 64;
        let mut positions = vec![0, 1, 63, 17, 2];
        if angles == Angles::Computed {
            positions.extend([1000, 131_071, 1 << 20, (1 << 24) - 1]);
        }
        let num_tokens = positions.len() as u32;
        let len = (num_tokens * num_heads * head_dim) as usize;
        // Inputs of up to 20 times cos and sin with errors of 3e-7.
        let mut case = TestCase::new(name, regime, Tolerance { abs: 1e-5, rel: 2e-6 })
            .input(&seeded(len, 1))
            .input(&positions)
            .input(&super::test_table(angles, num_pairs, max_positions))
            .output(len);
        let fits = head_dim.is_multiple_of(4) && num_pairs.is_multiple_of(4);
        for &style in styles {
            for vec4 in [false, true] {
                if vec4 && !fits {
                    continue;
                }
                let shape = Shape { num_tokens, num_heads, head_dim, num_pairs, max_positions, block: 1 };
                let grid = rows::wrapped_grid(num_tokens, 4);
                case = case.launch(choice(64, vec4, style, angles), &params(shape, grid[0]), grid);
            }
        }
        case
    };
    vec![
        case(("each_style", OneTile), 2, 16, 8, Angles::Table, &Style::ALL),
        case(("each_style_computed", ManyTiles), 2, 16, 8, Angles::Computed, &Style::ALL),
        case(("partial", PartialTile), 3, 80, 16, Angles::Table, &Style::ALL),
        case(("odd_channels", PartialTile), 3, 13, 5, Angles::Table, &Style::ALL),
        case(("one_pair_computed", OneTile), 1, 2, 1, Angles::Computed, &[Style::Half]),
        case(("llama_128", Model), 8, 128, 64, Angles::Computed, &[Style::Half]),
    ]
}
