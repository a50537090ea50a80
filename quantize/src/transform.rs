//! Transforms of inputs and their inverses on weights: `x' = mix(scale · x)`, `W'` so that `x' W'ᵀ = x Wᵀ`.

use crate::parallel;

/// What mixes the channels of an input.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum HostMix {
    /// Nothing.
    #[default]
    None,
    /// `x Hᵀ / √n` in runs of `block` channels.
    Hadamard {
        /// Channels of a run; 0 for the whole row.
        block: u32,
    },
    /// Each row as X `[n1, n2]`: `P1ᵀ X P2`.
    Kronecker {
        /// Rows of X.
        n1: u32,
        /// Columns of X.
        n2: u32,
        /// `[n1, n1]`.
        p1: Vec<f32>,
        /// `[n2, n2]`.
        p2: Vec<f32>,
    },
}

/// Channel scale and mix, with what their inverses need.
#[derive(Clone, Debug)]
pub struct Transformer {
    pub k: usize,
    pub scale: Option<Vec<f32>>,
    pub mix: HostMix,
}

impl Transformer {
    pub fn identity(k: usize) -> Self {
        Self { k, scale: None, mix: HostMix::None }
    }

    /// `x'` of a row.
    pub fn input(&self, row: &mut [f64]) {
        if let Some(scale) = &self.scale {
            row.iter_mut().zip(scale).for_each(|(v, s)| *v *= f64::from(*s));
        }
    }

    /// `w'` of a row.
    pub fn weight(&self, row: &mut [f64]) {
        if let Some(scale) = &self.scale {
            row.iter_mut().zip(scale).for_each(|(v, s)| *v /= f64::from(*s));
        }
    }

    fn rows(&self, rows: &[f32], f: impl Fn(&mut [f64]) + Sync) -> Vec<f32> {
        let mut out = rows.to_vec();
        if self.scale.is_some() || self.mix != HostMix::None {
            parallel::for_rows(&mut out, self.k, |_, part| {
                let mut wide = vec![0f64; self.k];
                for row in part.chunks_exact_mut(self.k) {
                    wide.iter_mut().zip(&*row).for_each(|(w, v)| *w = f64::from(*v));
                    f(&mut wide);
                    row.iter_mut().zip(&wide).for_each(|(v, w)| *v = *w as f32);
                }
            });
        }
        out
    }

    /// `x'` of rows, folded in f64.
    pub fn inputs(&self, rows: &[f32]) -> Vec<f32> {
        self.rows(rows, |row| self.input(row))
    }

    /// `w'` of rows, folded in f64.
    pub fn weights(&self, rows: &[f32]) -> Vec<f32> {
        self.rows(rows, |row| self.weight(row))
    }
}
