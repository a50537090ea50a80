//! Kernels beside the ceilings of the device.

use girih_kernels::registry::KERNELS;
use girih_kernels::{Gpu, KernelError, bench, probe};
use js_sys::Function;
use serde_json::{Value, json};
use wasm_bindgen::JsValue;

use crate::error::{Code, failure, of};
use crate::value::to_js;

/// Seconds for each shape.
const SECONDS: f64 = 0.3;

/// Runs the cases whose kernel and shape, as in `gemv 1x4096x4096 f32`, hold `wanted`.
pub async fn run(gpu: &Gpu, wanted: &str, on_row: &Function) -> Result<JsValue, JsValue> {
    let ceilings = probe::measure(gpu).await.map_err(|e| of(&e))?;
    let mut rows = Vec::new();
    'kernels: for kernel in KERNELS {
        for case in (kernel.benches)() {
            if !format!("{} {}", kernel.spec.name, case.name).contains(wanted) {
                continue;
            }
            let measured = match bench::run(gpu, kernel.spec, &case, SECONDS).await {
                Ok(measured) => measured,
                // A shape for larger devices is no failure of the others.
                Err(
                    KernelError::OverLimit { .. }
                    | KernelError::Gpu(girih_kernels::GpuError::BufferTooLarge { .. }),
                ) => continue,
                Err(e) => return Err(of(&e)),
            };
            for m in measured {
                if let Some(what) = m.wrong {
                    let what = format!("{} {}: {what}", kernel.spec.name, case.name);
                    return Err(failure(Code::Internal, &what));
                }
                let seconds = m.quantile(0.5);
                let (bytes, flops) = (case.bytes as f64, case.flops as f64);
                // What bounds it: the ceiling that it is nearest to.
                let memory = ceilings.memory(case.bytes, case.written, m.set_bytes);
                let arithmetic = ceilings.arithmetic(case.arithmetic);
                let memory_bound = bytes / memory.rate > flops / arithmetic.rate;
                let (rate, unit, ceiling) = if memory_bound {
                    (bytes / seconds, "GB/s", memory)
                } else {
                    (flops / seconds, "GFLOP/s", arithmetic)
                };
                let row = json!({
                    "kernel": kernel.spec.name, "name": case.name, "variant": format!("{} {}", m.choice.variant, m.choice.selection),
                    "medianMs": seconds * 1e3, "p10Ms": m.quantile(0.1) * 1e3, "p90Ms": m.quantile(0.9) * 1e3,
                    "bytes": bytes, "flops": flops, "intensity": flops / bytes, "rate": rate / 1e9, "rateUnit": unit,
                    "ceiling": ceiling.name, "ceilingPercent": 100.0 * rate / ceiling.rate,
                });
                let go_on = on_row.call1(&JsValue::UNDEFINED, &to_js(&row))?;
                rows.push(row);
                if go_on.is_falsy() && !go_on.is_undefined() {
                    break 'kernels;
                }
            }
        }
    }
    gpu.check().map_err(|e| of(&e))?;
    Ok(to_js(&report(gpu, &ceilings, &rows)))
}

fn report(gpu: &Gpu, ceilings: &probe::Ceilings, rows: &[Value]) -> Value {
    let memory: Vec<Value> = ceilings
        .memory
        .iter()
        .map(|b| {
            json!({ "setBytes": b.set_bytes, "readGBs": b.read / 1e9, "writeGBs": b.write / 1e9, "copyGBs": b.copy / 1e9 })
        })
        .collect();
    json!({
        "adapter": gpu.caps().adapter.name, "tier": gpu.caps().tier.to_string(),
        "ceilings": { "memory": memory, "f32Gflops": ceilings.f32_flops / 1e9,
            "f16Gflops": ceilings.f16_flops.map(|rate| rate / 1e9), "int8Gops": ceilings.int8_ops / 1e9,
            "dispatchMicros": ceilings.dispatch * 1e6, "barrierMicros": ceilings.barrier * 1e6 },
        "rows": rows,
    })
}
