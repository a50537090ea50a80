//! Normalisations over the last axis, one workgroup per row.

pub mod add_rms_norm;
pub mod layer_norm;
pub mod rms_norm;
pub mod rms_norm_add;

use bytemuck::{Pod, Zeroable};
use girih_shaders::Selection;

use crate::caps::Caps;
use crate::case::{Regime, TestCase};
use crate::choice::Choice;
use crate::error::KernelError;
use crate::rows;

/// Same layout as `Params` in the shaders of this folder.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Params {
    /// Rows T.
    pub num_rows: u32,
    /// Channels C.
    pub num_channels: u32,
    /// Added to the mean square or the variance.
    pub eps: f32,
    /// Workgroups along x; further rows continue along y.
    pub grid_x: u32,
}

impl Params {
    fn new(
        kernel: &'static str,
        caps: &Caps,
        num_rows: u32,
        num_channels: u32,
        eps: f32,
    ) -> Result<Self, KernelError> {
        rows::positive(kernel, "num_channels", num_channels)?;
        Ok(Self { num_rows, num_channels, eps, grid_x: rows::row_grid(caps, num_rows)[0] })
    }

    fn grid(&self) -> [u32; 3] {
        rows::wrapped_grid(self.num_rows, self.grid_x)
    }
}

fn select(caps: &Caps, kernel: &str, file: &'static str, p: &Params, selection: Selection) -> Choice {
    let (vec4, subgroup) = rows::pick(caps, kernel, p.num_channels.is_multiple_of(4), true);
    let steps = p.num_channels / if vec4 { 4 } else { 1 };
    rows::reducing(file, rows::row_wg(caps, steps), vec4, subgroup, selection)
}

fn choices(file: &'static str, selections: &[Selection]) -> Vec<Choice> {
    let mut all = Vec::new();
    for wg in [16, 64, 128, 256] {
        for (vec4, subgroup) in rows::widths() {
            for selection in selections {
                all.push(rows::reducing(file, wg, vec4, subgroup, selection.clone()));
            }
        }
    }
    all
}

/// Shapes of the cases: name, T, C. The first one, the self-test, has work for all lanes of all subgroups.
const SHAPES: [((&str, Regime), u32, u32); 7] = [
    (("gpt_oss_20b", Regime::Model), 1, 2880),
    (("one_pass", Regime::OneTile), 3, 256),
    (("partial_pass", Regime::PartialTile), 3, 259), // an odd number of channels, one invocation takes a second turn
    (("rows_wrap_to_y", Regime::ManyTiles), 17, 36),
    (("one_quad", Regime::OneTile), 5, 4),
    (("one_channel", Regime::OneTile), 2, 1),
    (("partial_pass_of_quads", Regime::PartialTile), 3, 260),
];

/// Adds a launch of every width and of the workgroup sizes 16 and 64 (and 256, where it makes a difference).
fn launches(
    mut case: TestCase,
    file: &'static str,
    num_rows: u32,
    num_channels: u32,
    s: &Selection,
) -> TestCase {
    for wg in [16, 64, 256] {
        for (vec4, subgroup) in rows::widths() {
            if (vec4 && !num_channels.is_multiple_of(4)) || (wg == 256 && num_channels < 1000) {
                continue;
            }
            let params = Params { num_rows, num_channels, eps: 1e-5, grid_x: num_rows.min(7) };
            let choice = rows::reducing(file, wg, vec4, subgroup, s.clone());
            case = case.launch(choice, &params, params.grid());
        }
    }
    case
}

/// `1 / sqrt(mean(x²) + eps)` in f64.
fn rms_scale(x: &[f32], eps: f32) -> f64 {
    let mean_sq = x.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() / x.len() as f64;
    1.0 / (mean_sq + f64::from(eps)).sqrt()
}
