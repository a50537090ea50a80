//! The ceilings of a device, measured through the same API as everything else.

pub mod barrier;
pub mod ceilings;
pub mod copy;
pub mod fma;
pub mod groups;
pub mod int8_dot;
pub mod read;
pub mod rounds;
pub mod set;
pub mod write;

use girih_shaders::Selection;

use crate::case::{Regime, TestCase, Tolerance};
use crate::choice::{Choice, Data, Requires};

pub use ceilings::{Bandwidth, Ceiling, Ceilings, measure};

fn exact(name: &str, regime: Regime) -> TestCase {
    TestCase::new(name, regime, Tolerance { abs: 0.0, rel: 0.0 })
}

fn portable(file: &'static str, wg: u32, selection: Selection) -> Choice {
    Choice {
        file,
        variant: "portable",
        selection: selection.set("WG", wg),
        invocations: wg,
        workgroup_bytes: 0,
        requires: Requires::NOTHING,
        data: Data::Plain,
    }
}
