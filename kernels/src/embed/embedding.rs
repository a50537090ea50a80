//! Embedding: rows of a weight table by token id.

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::buffer::Buffer;
use crate::error::KernelError;
use crate::recorder::Recorder;
use crate::rows;
use crate::spec::{Choice, Kernel, KernelSpec, read, read_write};
use crate::testing::{TestCase, Tolerance, seeded};
use crate::twin::TwinCall;

/// Same layout as `Params` in `embedding.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Tokens T.
    pub num_tokens: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Elements from one table row to the next, a multiple of 8.
    pub k_stride: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Rows of the whole table.
    pub n: u32,
    /// Factor of the result.
    pub scale: f32,
    /// Workgroups along x.
    pub grid_x: u32,
}

/// Element type of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// 32-bit float.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

/// Buffers.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    /// Token ids `[T]`, u32.
    pub token_ids: &'a Buffer,
    /// Rows `row0 .. row0 + rows` of the table.
    pub table: &'a Buffer,
    /// Output `[T, C]`, f32.
    pub y: &'a Buffer,
}

/// Shape of a call.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens T.
    pub num_tokens: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Elements from one table row to the next, a multiple of 8.
    pub k_stride: u32,
    /// First row of this part of the table.
    pub row0: u32,
    /// Rows of this part.
    pub rows: u32,
    /// Rows of the whole table.
    pub n: u32,
}

const FILE: &str = "embed/embedding.wgsl";

const SPEC: KernelSpec = KernelSpec {
    name: "embedding",
    bindings: &[read("token_ids"), read("table"), read_write("y")],
    params_bytes: size_of::<Params>(),
    twin,
};

/// Registry entry.
pub const KERNEL: Kernel = Kernel { spec: &SPEC, choices, cases, benches: Vec::new };

/// Appends `y[t] = scale · table[token_ids[t]]` for the tokens whose rows lie in this part of the table. The part
/// with row 0 also writes zeros for ids that no row has.
///
/// # Errors
/// No channels, a stride that is not a multiple of 8; as [`Recorder::dispatch`].
pub fn record(
    rec: &mut Recorder,
    args: Args<'_>,
    shape: Shape,
    table: Table,
    scale: f32,
) -> Result<(), KernelError> {
    rows::positive(SPEC.name, "num_channels", shape.num_channels)?;
    if !shape.k_stride.is_multiple_of(8) {
        return Err(KernelError::BadParam {
            kernel: SPEC.name,
            field: "k_stride",
            got: shape.k_stride.into(),
            must_be: "a multiple of 8",
        });
    }
    let (vec4, _) = rows::pick(rec.caps(), SPEC.name, shape.num_channels.is_multiple_of(4), false);
    let wg = rows::row_wg(rec.caps(), shape.num_channels.div_ceil(4));
    let grid = rows::row_grid(rec.caps(), shape.num_tokens);
    let params = params(shape, scale, grid[0]);
    rec.dispatch(&SPEC, choice(wg, vec4, table), &params, &[args.token_ids, args.table, args.y], grid)
}

fn params(s: Shape, scale: f32, grid_x: u32) -> Params {
    let Shape { num_tokens, num_channels, k_stride, row0, rows, n } = s;
    Params { num_tokens, num_channels, k_stride, row0, rows, n, scale, grid_x }
}

fn choice(wg: u32, vec4: bool, table: Table) -> Choice {
    let selection = Selection::new().set("WG", wg);
    let selection = match table {
        Table::F32 => selection,
        Table::F16 => selection.part("table_f32", "embed/table_f16.wgsl"),
        Table::Bf16 => selection.part("table_f32", BF16),
    };
    let selection = if vec4 { selection.part("put", "embed/put4.wgsl") } else { selection };
    Choice { file: FILE, variant: rows::variant(vec4, false), selection, invocations: wg, workgroup_bytes: 0 }
}

const BF16: &str = "embed/table_bf16.wgsl";
const TABLES: [Table; 3] = [Table::F32, Table::F16, Table::Bf16];

fn choices() -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64, 128, 256] {
        for vec4 in [false, true] {
            all.extend(TABLES.map(|table| choice(wg, vec4, table)));
        }
    }
    all
}

/// The definition.
fn twin(call: &mut TwinCall<'_>) {
    let p: Params = call.params();
    let ids: Vec<u32> = call.get(0);
    let table: Vec<f32> = match call.selection.get_part("table_f32") {
        None => call.get(1),
        Some(BF16) => call.get::<half::bf16>(1).iter().map(|v| v.to_f32()).collect(),
        Some(_) => call.get::<half::f16>(1).iter().map(|v| v.to_f32()).collect(),
    };
    let mut y: Vec<f32> = call.get(2);
    let c = p.num_channels as usize;
    for (y, &id) in y.chunks_exact_mut(c).zip(&ids).take(p.num_tokens as usize) {
        if id >= p.n {
            if p.row0 == 0 {
                y.fill(0.0);
            }
        } else if (p.row0..p.row0 + p.rows).contains(&id) {
            let row = &table[((id - p.row0) * p.k_stride) as usize..][..c];
            for (y, &v) in y.iter_mut().zip(row) {
                *y = (f64::from(v) * f64::from(p.scale)) as f32;
            }
        }
    }
    call.put(2, &y);
}

fn cases() -> Vec<TestCase> {
    let case = |name: &str, num_channels: u32, row0: u32, table: Table, ids: &[u32]| {
        let k_stride = num_channels.next_multiple_of(8);
        let shape = Shape { num_tokens: ids.len() as u32, num_channels, k_stride, row0, rows: 6, n: 11 };
        let values = seeded((6 * k_stride) as usize, 3);
        let bytes: Vec<u8> = match table {
            Table::F32 => bytemuck::cast_slice(&values).to_vec(),
            Table::F16 => values.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            Table::Bf16 => values.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
        };
        let mut case = TestCase::new(name, Tolerance { abs: 0.0, rel: 1e-6 })
            .input(ids)
            .input(&bytes)
            .output(ids.len() * num_channels as usize);
        for (wg, vec4) in [(16, false), (64, false), (64, true)] {
            if vec4 && !num_channels.is_multiple_of(4) {
                continue;
            }
            let grid = rows::wrapped_grid(shape.num_tokens, 3);
            case = case.launch(choice(wg, vec4, table), &params(shape, 1.5, grid[0]), grid);
        }
        case
    };
    let ids = [5, 0, 3, 11, 6, 10, u32::MAX];
    vec![
        case("f32", 12, 0, Table::F32, &ids),
        case("f16", 12, 0, Table::F16, &ids),
        case("bf16", 12, 0, Table::Bf16, &ids),
        case("second_part", 300, 5, Table::F32, &ids),
        case("f16_odd", 131, 5, Table::F16, &ids),
        case("bf16_one_channel", 1, 0, Table::Bf16, &ids),
    ]
}
