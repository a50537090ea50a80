//! Layouts that are packed across rows: GPTQ and AWQ (`gemm`). `W[n, k] = (q[k, n] - zero[g, n]) scale[g, n]` where g
//! is the group of channel k. One tensor at a time is held in memory.
//!
//! Codes of 2 and 3 bits become codes of 4 bits of the same value. Where all zeros are the middle of the range, they
//! are not stored.

use std::ops::Range;
use std::sync::Arc;

use girih_ops::kernels::quant::{Code, Format, QuantActivation, Row, Zero};

use super::{
    ChannelMix, Codes, Columns, FLOATS, InputTransform, Order, QuantModule, WORDS, element, expect_shape,
    found, group_of, matrix_shape, order, scale_type, tensor, words,
};
use crate::LoadError;
use crate::checkpoint::table::TensorInfo;
use crate::checkpoint::tensors::TensorScope;

/// Parameters of GPTQ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gptq {
    /// 2, 3, 4 or 8.
    pub bits: u32,
    /// Channels of a group; `None`: the row.
    pub group: Option<u32>,
    /// Zeros are stored as they are (`gptq_v2`), not less one.
    pub v2: bool,
    /// Channels belong to groups in an order of their own, so that `g_idx` must be there.
    pub ordered: bool,
}

/// How `qweight` is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Packing {
    /// `[K bits / 32, N]`, a stream of bits along K.
    AlongK,
    /// `[K, N / 8]`, 4 bits in AWQ's order.
    Awq,
}

/// The nibble that holds column `i` of 8.
const AWQ_ORDER: [u32; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

#[derive(Debug)]
struct Table {
    n: usize,
    k: usize,
    bits: u32,
    packing: Packing,
    /// `[groups, N]`
    scales: Vec<f32>,
    /// `[groups, N]`; empty where the format has a fixed zero.
    zeros: Vec<i16>,
    permutation: Option<Arc<[u32]>>,
    /// Group of each channel where groups are irregular.
    groups: Option<Arc<[u32]>>,
}

impl Columns for Table {
    fn rows(&self, words: &[u32], rows: Range<u32>) -> Vec<Row> {
        let (first, count) = (rows.start as usize, rows.len());
        let mut codes = vec![vec![0u8; self.k]; count];
        let flip = if self.bits == 8 { 0x80 } else { 0 };
        match self.packing {
            Packing::AlongK => {
                let height = words.len() / self.n;
                let mut columns = vec![0; height * count];
                for (r, line) in words.chunks_exact(self.n).enumerate() {
                    for (j, &word) in line[first..first + count].iter().enumerate() {
                        columns[j * height + r] = word;
                    }
                }
                for (codes, column) in codes.iter_mut().zip(columns.chunks_exact(height)) {
                    for (i, code) in codes.iter_mut().enumerate() {
                        *code = element(column, i, self.bits) as u8 ^ flip;
                    }
                }
            }
            Packing::Awq => {
                for (i, line) in words.chunks_exact(self.n / 8).enumerate() {
                    for (j, codes) in codes.iter_mut().enumerate() {
                        let column = first + j;
                        codes[i] = (line[column / 8] >> (4 * AWQ_ORDER[column % 8]) & 15) as u8;
                    }
                }
            }
        }
        let groups = self.scales.len() / self.n;
        let row = |(j, codes): (usize, Vec<u8>)| {
            let column = first + j;
            let scale = |g: usize| self.scales[g * self.n + column];
            let zero = |g: usize| self.zeros.get(g * self.n + column).map(|&z| f32::from(z));
            let codes = match &self.permutation {
                None => codes,
                Some(perm) => perm.iter().map(|&i| codes[i as usize]).collect(),
            };
            let (scales, zeros) = match &self.groups {
                None => ((0..groups).map(scale).collect(), (0..groups).filter_map(zero).collect()),
                Some(of) => (
                    of.iter().map(|&g| scale(g as usize)).collect(),
                    of.iter().filter_map(|&g| zero(g as usize)).collect(),
                ),
            };
            Row { codes, scales, zeros, ..Row::default() }
        };
        codes.into_iter().enumerate().map(row).collect()
    }
}

/// Scales and what follows from them and from the zeros.
async fn module(
    w: &TensorScope,
    qweight: TensorInfo,
    mut table: Table,
    order: Order,
    group: u32,
    zeros: Vec<i16>,
) -> Result<QuantModule, LoadError> {
    let (n, k) = (table.n as u32, table.k as u32);
    let info = tensor(w, "scales", &FLOATS)?;
    table.scales = w.f32("scales", &[k / group, n]).await?;
    let scale = if info.dtype == FLOATS[0] { super::Scale::F16 } else { scale_type(&table.scales) };
    let (code, middle) =
        if table.bits == 8 { (Code::Int8, 0) } else { (Code::Int4, 1i16 << (table.bits - 1)) };
    let zero = if zeros.iter().all(|&z| z == middle) {
        Zero::Fixed(middle as u8)
    } else {
        table.zeros = zeros;
        Zero::Point
    };
    let mut format = Format { code, group: group_of(group, k), scale, zero, second: None };
    let mut mix = ChannelMix::None;
    match order {
        Order::Plain => {}
        Order::Permuted(perm) => {
            mix = ChannelMix::Permute(perm.clone());
            table.permutation = Some(perm);
        }
        Order::Irregular(groups) => {
            format.group = 1;
            table.groups = Some(groups);
        }
    }
    Ok(QuantModule {
        n,
        k,
        format,
        activation: QuantActivation::Float,
        input: InputTransform { scale: None, mix },
        codes: Codes::Columns { info: qweight, words: Arc::default(), layout: Arc::new(table) },
    })
}

/// Channels of a group, which divide the row.
fn whole_groups(w: &TensorScope, group: Option<u32>, k: u32) -> Result<u32, LoadError> {
    let group = group.unwrap_or(k).max(1);
    if k.is_multiple_of(group) {
        return Ok(group);
    }
    Err(found(w, "qweight", format!("for {k} channels"), format!("for a multiple of the group size {group}")))
}

pub(super) async fn gptq(w: &TensorScope, k: Option<u32>, o: &Gptq) -> Result<QuantModule, LoadError> {
    let bits = o.bits;
    let packed = |count: u32| (u64::from(count) * u64::from(bits)).div_ceil(32) as u32;
    let qweight = tensor(w, "qweight", &WORDS)?;
    let [height, n] = matrix_shape(&qweight)?;
    let k = k.unwrap_or((u64::from(height) * 32 / u64::from(bits)) as u32);
    expect_shape(&qweight, &[packed(k), n])?;
    let group = whole_groups(w, o.group, k)?;
    let qzeros = tensor(w, "qzeros", &WORDS)?;
    expect_shape(&qzeros, &[k / group, packed(n)])?;
    let order = order(w, "g_idx", k, group, o.ordered).await?;
    let stored = words(w, &qzeros).await?;
    let mask = (1i16 << bits) - 1;
    let decode = |line: &[u32], i: usize| {
        let z = element(line, i, bits) as i16;
        let z = if o.v2 { z } else { (z + 1) & mask };
        if bits == 8 { z - 128 } else { z }
    };
    let lines = stored.chunks_exact(packed(n).max(1) as usize);
    let zeros = lines.flat_map(|line| (0..n as usize).map(move |i| decode(line, i))).collect();
    let table = Table {
        n: n as usize,
        k: k as usize,
        bits,
        packing: Packing::AlongK,
        scales: Vec::new(),
        zeros: Vec::new(),
        permutation: None,
        groups: None,
    };
    module(w, qweight, table, order, group, zeros).await
}

pub(super) async fn awq(
    w: &TensorScope,
    k: Option<u32>,
    group: Option<u32>,
) -> Result<QuantModule, LoadError> {
    let qweight = tensor(w, "qweight", &WORDS)?;
    let [height, width] = matrix_shape(&qweight)?;
    let k = k.unwrap_or(height);
    expect_shape(&qweight, &[k, width])?;
    let Some(n) = width.checked_mul(8) else {
        return Err(found(w, "qweight", format!("{width} words wide"), "less than 2^29"));
    };
    let group = whole_groups(w, group, k)?;
    let qzeros = tensor(w, "qzeros", &WORDS)?;
    expect_shape(&qzeros, &[k / group, width])?;
    let stored = words(w, &qzeros).await?;
    let zeros =
        stored.iter().flat_map(|&word| AWQ_ORDER.map(|nibble| (word >> (4 * nibble) & 15) as i16)).collect();
    let table = Table {
        n: n as usize,
        k: k as usize,
        bits: 4,
        packing: Packing::Awq,
        scales: Vec::new(),
        zeros: Vec::new(),
        permutation: None,
        groups: None,
    };
    module(w, qweight, table, Order::Plain, group, zeros).await
}
