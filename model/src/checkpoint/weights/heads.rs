//! Rows of the heads of a module: the parts of a head that belong to different products, and their transposes.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::Weights;
use super::rows::{HeadRows, Origin, Segment};
use crate::LoadError;
use crate::checkpoint::quantized::{ChannelMix, InputTransform};
use crate::checkpoint::tensors::{mis_shaped, to_f32};

impl Weights {
    /// The rows of all heads, `n` together, of a module of `k` columns.
    pub(super) async fn head_segments(
        &self,
        heads: &HeadRows<'_>,
        n: u64,
        k: Option<u32>,
    ) -> Result<Vec<Segment<'_>>, LoadError> {
        let origin = self.heads_of(heads, k).await?;
        let [count, of, first] = [heads.heads, heads.of, heads.rows.start].map(u64::from);
        let rows = heads.rows.len() as u64;
        if rows * count != n || u64::from(heads.rows.end) > of {
            let name = format!("{} (rows {:?} of heads of {of})", origin.name(), heads.rows);
            return Err(mis_shaped(name, vec![rows * count], vec![n]));
        }
        let segment = |h: u64| Segment {
            origin: origin.clone(),
            first: h * of + first,
            rows,
            dst: h * rows,
            stride: 1,
        };
        Ok((0..count).map(segment).collect())
    }

    /// The rows of each head as columns: of heads `[K, N]` matrices `[N, K]`, one behind the other. What is quantised is
    /// decoded to f32.
    pub(super) async fn transposed_heads(
        &self,
        heads: &HeadRows<'_>,
        n: u32,
    ) -> Result<Segment<'_>, LoadError> {
        let origin = self.heads_of(heads, Some(n)).await?;
        if let Some(module) = origin.quant() {
            let plain = InputTransform::default();
            if module.input != plain && !matches!(module.input.mix, ChannelMix::Permute(_)) {
                let got = module.input.describe();
                let what =
                    "transforms of x, of which those of the part that queries take in cannot be undone,";
                return Err(LoadError::Fused { modules: origin.name().to_owned(), what, got });
            }
            self.note(format!(
                "{}: the part that queries take in is transposed; decoded to f32",
                origin.name()
            ));
        }
        let [n, k, of, first] = [n, heads.rows.len() as u32, heads.of, heads.rows.start].map(u64::from);
        let rows = n * u64::from(heads.heads);
        let transposed = HeadTransposed { origin, n, k, of, first, last: Mutex::default() };
        let origin = Origin::HeadTransposed(Arc::new(transposed));
        Ok(Segment { origin, first: 0, rows, dst: 0, stride: 1 })
    }

    async fn heads_of(&self, heads: &HeadRows<'_>, k: Option<u32>) -> Result<Origin<'_>, LoadError> {
        let origin = self.origin(heads.name, k).await?;
        let rows = u64::from(heads.heads) * u64::from(heads.of);
        origin.check_shape(&[Some(rows), k.map(u64::from)].into_iter().flatten().collect::<Vec<_>>())?;
        Ok(origin)
    }
}

/// Rows `first .. first + k` of each head of a module, of n columns, read as n rows of k.
pub(super) struct HeadTransposed<'a> {
    pub origin: Origin<'a>,
    n: u64,
    k: u64,
    of: u64,
    first: u64,
    /// The head that was read last.
    last: Mutex<Option<(u64, Arc<Vec<f32>>)>>,
}

impl HeadTransposed<'_> {
    /// Some rows of all heads' rows.
    pub async fn rows(&self, weights: &Weights, rows: Range<u64>) -> Result<Vec<f32>, LoadError> {
        let mut out = Vec::with_capacity(((rows.end - rows.start) * self.k) as usize);
        let mut row = rows.start;
        while row < rows.end {
            let head = row / self.n;
            let first = head * self.n;
            let end = rows.end.min(first + self.n);
            let values = self.head(weights, head).await?;
            out.extend_from_slice(
                &values[((row - first) * self.k) as usize..((end - first) * self.k) as usize],
            );
            row = end;
        }
        Ok(out)
    }

    async fn head(&self, weights: &Weights, head: u64) -> Result<Arc<Vec<f32>>, LoadError> {
        let last = || self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, values)) = last().as_ref().filter(|(read, _)| *read == head) {
            return Ok(values.clone());
        }
        let start = head * self.of + self.first;
        let rows = start..start + self.k;
        let stored: Vec<f32> = match &self.origin {
            Origin::Quant(module, _) => {
                let rows = module.rows(weights.source(), rows.start as u32..rows.end as u32).await?;
                rows.iter().flat_map(|row| module.values(row)).collect()
            }
            other => match other.dense() {
                Some(info) => {
                    let bytes = weights.dense_rows(info, rows.clone(), self.n as u32).await?;
                    to_f32(info, rows.start * self.n, &bytes)?
                }
                None => Vec::new(),
            },
        };
        let (n, k) = (self.n as usize, self.k as usize);
        let mut values = vec![0.0; n * k];
        for (column, row) in stored.chunks_exact(n.max(1)).enumerate() {
            for (i, v) in row.iter().enumerate() {
                values[i * k + column] = *v;
            }
        }
        let values = Arc::new(values);
        *last() = Some((head, values.clone()));
        Ok(values)
    }
}
