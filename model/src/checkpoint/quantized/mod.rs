//! Linear modules that a checkpoint stores quantised.
//!
//! A [`Quantization`] says for each module how its tensors are to be read ([`Stored`]: the description that
//! `config.json` or a GGUF file gives). [`Stored::open`] reads what is small (scales, zeros, group indices) and gives
//! a [`QuantModule`]: shape, [`Format`] and a way to the rows. From there on all layouts are alike: a row is a
//! [`Row`], which kernels' layout is packed from, or which is decoded exactly to f32.
//!
//! Scales: NaN and infinity are errors in every layout. The scale of a group or channel may be 0: its weights are 0
//! then, and checkpoints do say so of groups of zeros. The scale of a whole tensor must not be 0, that of a row under
//! which groups have scales of their own only where its codes are zeros.

pub mod blocks;
pub mod config;
mod girih;
mod packed;
mod pattern;
mod rows;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use girih_ops::kernels::quant::{Format, QuantActivation, Row, Scale, Zero, unpack_row};

use crate::LoadError;
use crate::checkpoint::source::{ByteSource, Shared};
use crate::checkpoint::table::{StoredType, TensorInfo};
use crate::checkpoint::tensors::TensorScope;
use crate::error::MisShaped;

pub use packed::Gptq;
pub use rows::{Element, Packed, ScaleCode, Spread};

/// The quantised modules of a checkpoint.
#[derive(Clone, Debug, Default)]
pub struct Quantization {
    /// By full name of the module: `model.layers.0.self_attn.q_proj`.
    pub modules: BTreeMap<String, Stored>,
    /// What loading changes or leaves out, for the report.
    pub notes: Vec<String>,
}

/// How the tensors of a module are to be read.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "one for a module, while a model is loaded")]
pub enum Stored {
    /// girih's own layout: the words that kernels read.
    Girih {
        /// Format.
        format: Format,
        /// Activations.
        activation: QuantActivation,
        /// Block of the Hadamard transform of x, 0 for the whole row.
        hadamard: Option<u32>,
    },
    /// `qweight` packed along K, `qzeros`, `scales`, `g_idx`.
    Gptq(Gptq),
    /// `qweight` packed along N in AWQ's order of nibbles, `qzeros`, `scales`.
    Awq {
        /// Channels of a group; `None`: the row.
        group: Option<u32>,
    },
    /// Rows of codes, one behind the other, with scales in tensors of their own: compressed-tensors, MXFP4, NVFP4, FP8.
    Packed(Packed),
    /// Described completely already (GGUF).
    Module(QuantModule),
}

impl Stored {
    /// Whether the tensors of the module tell how many columns it has: girih's own layout pads rows, so that only
    /// transforms of x do.
    pub fn tells_columns(&self, w: &TensorScope) -> bool {
        !matches!(self, Self::Girih { .. }) || girih::columns(w).is_some()
    }

    /// Reads what is small. `w` is the scope of the module, `k` its columns where they are known. Where nothing tells
    /// ([`Stored::tells_columns`]) the module has the most columns that fit its rows.
    ///
    /// # Errors
    /// Tensors that are missing or of another shape or type, scales that are no numbers, group indices out of range.
    pub async fn open(&self, w: &TensorScope, k: Option<u32>) -> Result<QuantModule, LoadError> {
        let module = match self {
            Self::Girih { format, activation, hadamard } => {
                girih::open(w, k, *format, *activation, *hadamard).await?
            }
            Self::Gptq(gptq) => packed::gptq(w, k, gptq).await?,
            Self::Awq { group } => packed::awq(w, k, *group).await?,
            Self::Packed(packed) => rows::open(w, k, packed).await?,
            Self::Module(module) => {
                w.ignore("weight");
                w.ignore("scale");
                module.clone()
            }
        };
        for (name, size) in [("rows", module.n), ("columns", module.k)] {
            if size == 0 {
                return Err(found(w, "", format!("0 {name}"), "at least one"));
            }
        }
        Ok(module)
    }
}

/// A quantised matrix `[N, K]` in a checkpoint.
#[derive(Clone, Debug)]
pub struct QuantModule {
    /// Rows N.
    pub n: u32,
    /// Columns K.
    pub k: u32,
    /// How rows are read. One that [`Format::check`] refuses (groups that are no multiple of 8) can be decoded, not
    /// packed.
    pub format: Format,
    /// How x enters the product.
    pub activation: QuantActivation,
    /// What happens to x before.
    pub input: InputTransform,
    /// Where the rows are.
    pub codes: Codes,
}

/// What happens to x before the product, on the host: `x' = mix(scale · x)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InputTransform {
    /// `[K]`
    pub scale: Option<Vec<f32>>,
    /// Mixing of channels.
    pub mix: ChannelMix,
}

impl InputTransform {
    /// Short description: `scale + hadamard`.
    pub fn describe(&self) -> String {
        if self.scale.is_some() { format!("scale + {}", self.mix.name()) } else { self.mix.name() }
    }
}

/// Mixing of channels, see `girih_ops::Mix`.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ChannelMix {
    /// None.
    #[default]
    None,
    /// Of runs of `block` channels, 0 for the whole row.
    Hadamard {
        /// Channels of a run.
        block: u32,
    },
    /// `P1ᵀ X P2`, square matrices with their sizes.
    Kronecker {
        /// Slow index.
        p1: (u32, Vec<f32>),
        /// Fast index.
        p2: (u32, Vec<f32>),
    },
    /// `x'[j] = x[perm[j]]`
    Permute(Arc<[u32]>),
}

impl ChannelMix {
    /// Short name.
    pub fn name(&self) -> String {
        match self {
            Self::None => "none".into(),
            Self::Hadamard { block: 0 } => "hadamard".into(),
            Self::Hadamard { block } => format!("hadamard-{block}"),
            Self::Kronecker { p1, p2 } => format!("kronecker-{}x{}", p1.0, p2.0),
            Self::Permute(_) => "permute".into(),
        }
    }
}

/// Where the rows of a module are.
#[derive(Clone, Debug)]
pub enum Codes {
    /// In the words that kernels read.
    Words {
        /// `[N, code words]`
        codes: TensorInfo,
        /// `[N, scale words]`
        scales: TensorInfo,
    },
    /// Packed across rows: read as a whole when the first row is asked for, and kept with the module.
    Columns {
        /// The tensor, 32-bit words.
        info: TensorInfo,
        /// Its words once they are read.
        words: Arc<OnceLock<Vec<u32>>>,
        /// What they mean.
        layout: Arc<dyn Columns>,
    },
    /// In a file, one behind the other.
    Bytes {
        /// File.
        file: String,
        /// First byte of the first stored row.
        start: u64,
        /// Bytes of a row.
        row_bytes: u64,
        /// The stored row of each row where they differ: row i of the matrix is stored row `order[i]`.
        order: Option<Arc<[u32]>>,
        /// What the bytes mean.
        layout: Arc<dyn RowLayout>,
    },
}

/// The meaning of a row's bytes.
pub trait RowLayout: std::fmt::Debug + Shared {
    /// The row that is stored as row `row` in these bytes, of `k` channels.
    ///
    /// # Errors
    /// Bytes that stand for no number, with the name of the tensor.
    fn row(&self, row: u32, k: u32, bytes: &[u8]) -> Result<Row, LoadError>;
}

/// The meaning of words that hold parts of several rows.
pub trait Columns: std::fmt::Debug + Shared {
    /// Rows of the matrix.
    fn rows(&self, words: &[u32], rows: Range<u32>) -> Vec<Row>;
}

impl QuantModule {
    /// Whether kernels can read it as it is.
    pub fn is_packable(&self) -> bool {
        self.format.check().is_ok()
    }

    /// Some rows.
    ///
    /// # Errors
    /// Those of the source; codes that stand for no number.
    pub async fn rows(&self, source: &dyn ByteSource, rows: Range<u32>) -> Result<Vec<Row>, LoadError> {
        match &self.codes {
            Codes::Words { .. } => {
                let (codes, scales) = self.words(source, rows.clone()).await?.unwrap_or_default();
                let (c, s) =
                    (self.format.code_words(self.k) as usize, self.format.scale_words(self.k) as usize);
                let words = codes.chunks_exact(c.max(1)).zip(scales.chunks_exact(s.max(1)));
                Ok(words.map(|(c, s)| unpack_row(self.format, self.k, c, s)).collect())
            }
            Codes::Columns { info, words, layout } => {
                if words.get().is_none() {
                    let bytes = source.read(&info.file, info.range.clone()).await?;
                    let read = bytes.as_chunks().0.iter().map(|&c| u32::from_le_bytes(c)).collect();
                    // Another reader may have been first, with the same words.
                    let _ = words.set(read);
                }
                Ok(words.get().map_or_else(Vec::new, |words| layout.rows(words, rows)))
            }
            Codes::Bytes { file, start, row_bytes, order, layout } => {
                let stored: Vec<u32> = match order {
                    None => rows.collect(),
                    Some(order) => order[rows.start as usize..rows.end as usize].to_vec(),
                };
                let (Some(&first), Some(&last)) = (stored.iter().min(), stored.iter().max()) else {
                    return Ok(Vec::new());
                };
                let at = |row: u32| start + u64::from(row) * row_bytes;
                let bytes = source.read(file, at(first)..at(last + 1)).await?;
                let size = *row_bytes as usize;
                let bytes_of = |row: u32| &bytes[(row - first) as usize * size..][..size];
                stored.into_iter().map(|row| layout.row(row, self.k, bytes_of(row))).collect()
            }
        }
    }

    /// Some rows as words of codes and of scales, if that is how they are stored.
    ///
    /// # Errors
    /// Those of the source; scales that are no numbers.
    pub async fn words(
        &self,
        source: &dyn ByteSource,
        rows: Range<u32>,
    ) -> Result<Option<(Vec<u32>, Vec<u32>)>, LoadError> {
        let Codes::Words { codes, scales } = &self.codes else { return Ok(None) };
        let read = async |info: &TensorInfo, words: u32| {
            let at = |row: u32| info.range.start + 4 * u64::from(row) * u64::from(words);
            let bytes = source.read(&info.file, at(rows.start)..at(rows.end)).await?;
            Ok::<_, LoadError>(bytes.as_chunks().0.iter().map(|&c| u32::from_le_bytes(c)).collect::<Vec<_>>())
        };
        let codes_read = read(codes, self.format.code_words(self.k)).await?;
        let scales_read = read(scales, self.format.scale_words(self.k)).await?;
        girih::check(self, [&codes.name, &scales.name], rows.start, &codes_read, &scales_read)?;
        Ok(Some((codes_read, scales_read)))
    }

    /// The values of a row in the order of x's channels: a permutation is undone, other transforms are not.
    pub fn values(&self, row: &Row) -> Vec<f32> {
        let values = row.values(self.format).into_iter().map(|v| v as f32);
        let ChannelMix::Permute(perm) = &self.input.mix else { return values.collect() };
        let mut out = vec![0.0; self.k as usize];
        for (&i, v) in perm.iter().zip(values) {
            out[i as usize] = v;
        }
        out
    }
}

/// A format that holds the values of both exactly; `None` if there is none.
pub fn unify(a: Format, b: Format) -> Option<Format> {
    if (a.code, a.group, a.second) != (b.code, b.group, b.second) {
        return None;
    }
    let scale = match (a.scale, b.scale) {
        (a, b) if a == b => a,
        (Scale::F16 | Scale::F32, Scale::F16 | Scale::F32) => Scale::F32,
        _ => return None,
    };
    let zero = match (a.zero, b.zero) {
        (a, b) if a == b => a,
        (Zero::Point | Zero::Fixed(_), Zero::Point | Zero::Fixed(_)) => Zero::Point,
        _ => return None,
    };
    Format { scale, zero, ..a }.check().ok()
}

/// The row of `from` in the format `to` that [`unify`] gave.
pub fn convert(mut row: Row, from: Format, to: Format) -> Row {
    if let (Zero::Fixed(z), Zero::Point) = (from.zero, to.zero) {
        row.zeros = vec![f32::from(z); row.scales.len()];
    }
    row
}

/// `group`, or [`Format::ROW`] where the row has one group.
fn group_of(group: u32, k: u32) -> u32 {
    if group >= k { Format::ROW } else { group }
}

/// The type that holds scales exactly: f16 if it does.
fn scale_type(scales: &[f32]) -> Scale {
    let exact = |&v: &f32| half::f16::from_f32(v).to_f32().to_bits() == v.to_bits();
    if scales.iter().all(exact) { Scale::F16 } else { Scale::F32 }
}

#[expect(clippy::needless_pass_by_value, reason = "callers pass numbers and texts they are done with")]
fn found(w: &TensorScope, tensor: &str, got: impl ToString, want: impl Into<String>) -> LoadError {
    LoadError::Quantized { tensor: w.full(tensor), got: got.to_string(), want: want.into() }
}

const WORDS: [StoredType; 2] = [StoredType::I32, StoredType::U32];
const FLOATS: [StoredType; 3] = [StoredType::F16, StoredType::BF16, StoredType::F32];

/// A tensor of the module that must be there, of one of these types.
fn tensor(w: &TensorScope, name: &str, types: &[StoredType]) -> Result<TensorInfo, LoadError> {
    let info = w.find(name)?;
    if types.contains(&info.dtype) {
        return Ok(info.clone());
    }
    let want = types.iter().map(|t| t.name()).collect::<Vec<_>>().join(" or ");
    Err(LoadError::Quantized {
        tensor: info.name.clone(),
        got: format!("of type {}", info.dtype.name()),
        want,
    })
}

/// All bytes of a tensor.
async fn bytes(w: &TensorScope, info: &TensorInfo) -> Result<Vec<u8>, LoadError> {
    w.source().read(&info.file, info.range.clone()).await
}

/// A tensor of 32-bit words.
async fn words(w: &TensorScope, info: &TensorInfo) -> Result<Vec<u32>, LoadError> {
    Ok(bytes(w, info).await?.as_chunks().0.iter().map(|&c| u32::from_le_bytes(c)).collect())
}

/// Element `i` of a stream of integers of `bits` bits, lowest bits first.
fn element(words: &[u32], i: usize, bits: u32) -> u32 {
    let at = i * bits as usize;
    let (word, shift) = (at / 32, at % 32);
    let low = words[word] >> shift;
    let high = if shift + bits as usize > 32 { words[word + 1] << (32 - shift) } else { 0 };
    (low | high) & ((1 << bits) - 1)
}

/// What group indices mean for groups of `group` channels.
enum Order {
    /// Channels lie in the order of their groups.
    Plain,
    /// They do after this permutation.
    Permuted(Arc<[u32]>),
    /// Groups have other sizes than `group`: the group of each channel.
    Irregular(Arc<[u32]>),
}

/// Reads `g_idx`, the group of each channel. `ordered`: it must be there, unless all channels are of one group.
async fn order(w: &TensorScope, name: &str, k: u32, group: u32, ordered: bool) -> Result<Order, LoadError> {
    let ordered = ordered && group < k;
    let missing =
        |got| found(w, name, got, "there: channels are in an order of their own (desc_act, actorder)");
    if !w.has_tensor(name) {
        return if ordered { Err(missing("absent")) } else { Ok(Order::Plain) };
    }
    let info = tensor(w, name, &[StoredType::I32, StoredType::I64])?;
    expect_shape(&info, &[k])?;
    let bytes = bytes(w, &info).await?;
    let index: Vec<i64> = match info.dtype {
        StoredType::I32 => bytes.as_chunks().0.iter().map(|&c| i64::from(i32::from_le_bytes(c))).collect(),
        _ => bytes.as_chunks().0.iter().map(|&c| i64::from_le_bytes(c)).collect(),
    };
    // compressed-tensors writes -1 where there is no order.
    if index.iter().all(|&g| g == -1) {
        return if ordered { Err(missing("-1 throughout")) } else { Ok(Order::Plain) };
    }
    let groups = k.div_ceil(group);
    if let Some(i) = index.iter().position(|g| !(0..i64::from(groups)).contains(g)) {
        let want = format!("a group from 0 to {}", groups - 1);
        return Err(LoadError::Element {
            tensor: info.name,
            index: i as u64,
            got: index[i].to_string(),
            want,
        });
    }
    let index: Vec<u32> = index.into_iter().map(|g| g as u32).collect();
    let in_order = |j: usize, g: u32| j as u32 / group == g;
    if index.iter().enumerate().all(|(j, &g)| in_order(j, g)) {
        return Ok(Order::Plain);
    }
    let mut perm: Vec<u32> = (0..k).collect();
    perm.sort_by_key(|&i| index[i as usize]);
    if perm.iter().enumerate().all(|(j, &i)| in_order(j, index[i as usize])) {
        return Ok(Order::Permuted(perm.into()));
    }
    Ok(Order::Irregular(index.into()))
}

fn mis_shaped(info: &TensorInfo, want: Vec<u64>) -> LoadError {
    let wrong = MisShaped { tensor: info.name.clone(), got: info.shape.clone(), want };
    LoadError::Tensors { missing: Vec::new(), mis_shaped: vec![wrong], unused: Vec::new() }
}

fn expect_shape(info: &TensorInfo, want: &[u32]) -> Result<(), LoadError> {
    let want: Vec<u64> = want.iter().map(|&d| u64::from(d)).collect();
    if info.shape == want { Ok(()) } else { Err(mis_shaped(info, want)) }
}

/// Two dimensions that fit u32.
fn matrix_shape(info: &TensorInfo) -> Result<[u32; 2], LoadError> {
    let dim = |d: u64| u32::try_from(d).ok().filter(|d| *d < 1 << 30);
    match info.shape.as_slice() {
        &[a, b] => dim(a).zip(dim(b)).map(|(a, b)| [a, b]),
        _ => None,
    }
    .ok_or_else(|| LoadError::Quantized {
        tensor: info.name.clone(),
        got: format!("of shape {:?}", info.shape),
        want: "a matrix with sides below 2^30".into(),
    })
}
