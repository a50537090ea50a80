//! Variants of kernels, measured in the page.

use std::cell::RefCell;
use std::sync::Arc;

use girih_kernels::tune::{self, Row};
use girih_kernels::winners::Winners;
use girih_kernels::{Caps, Gpu};
use girih_model::{Model, SessionOptions};
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::JsValue;

use crate::error::of;
use crate::value::to_js;

/// Gives a device winners for what is loaded on it from now on.
pub fn put_in_force(gpu: &RefCell<Gpu>, winners: Winners) {
    let mut gpu = gpu.borrow_mut();
    *gpu = gpu.with_caps(Caps { tuned: winners, ..gpu.caps().clone() });
}

/// Measures what a model uses, and puts the winners in force.
pub async fn run(
    gpu: &RefCell<Gpu>,
    model: &Arc<Model>,
    kept: SessionOptions,
    seconds: f64,
    on_row: &Function,
) -> Result<JsValue, JsValue> {
    let shapes = girih_model::tunable(model, kept).map_err(|e| of(&e))?;
    let tuned = gpu.borrow().caps().tuned.clone();
    // The model's own handle has what failed its self-test on its block list.
    let measured = model.gpu().with_caps(Caps { tuned, ..model.gpu().caps().clone() });
    let mut thrown = None;
    let told = |row: &Row| match on_row.call1(&JsValue::UNDEFINED, &to_js(&json_row(row))) {
        Ok(go_on) => !go_on.is_falsy() || go_on.is_undefined(),
        Err(error) => {
            thrown = Some(error);
            false
        }
    };
    let report = tune::run(&measured, &shapes, seconds, told).await.map_err(|e| of(&e))?;
    let mut winners = gpu.borrow().caps().tuned.clone();
    report.apply(&mut winners);
    put_in_force(gpu, winners);
    if let Some(thrown) = thrown {
        return Err(thrown);
    }
    let rows: Vec<Value> = report.rows.iter().map(json_row).collect();
    let winners = gpu.borrow().caps().tuned.len();
    Ok(to_js(&json!({ "seconds": report.seconds, "rows": rows, "left": report.left, "winners": winners })))
}

fn json_row(row: &Row) -> Value {
    let wrong: Vec<Value> =
        row.wrong.iter().map(|(name, what)| json!({ "variant": name, "what": what })).collect();
    json!({
        "kernel": row.kernel, "data": row.data, "shape": row.shape, "rule": row.rule, "ruleMs": 1e3 * row.rule_seconds,
        "winner": row.winner, "winnerMs": 1e3 * row.winner_seconds, "before": row.before, "timed": row.timed,
        "wrong": wrong,
    })
}
