//! What a run did: JSON, a table, a page.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use girih_model::Comparison;
use serde_json::{Value, json};

use super::calibrate::Calibration;
use super::{Job, Written};

/// The report of a run.
pub fn report(name: &str, job: &Job<'_>, written: &Written, evaluation: &Value) -> Value {
    let number = |m: &Value, key: &str| m[key].as_f64().unwrap_or(0.0);
    let weights: f64 = written.modules.iter().map(|m| number(m, "rows") * number(m, "columns")).sum();
    let bits: f64 = written
        .modules
        .iter()
        .map(|m| number(m, "rows") * number(m, "columns") * number(m, "bits_per_weight"))
        .sum();
    json!({
        "model": name,
        "scheme": job.scheme.to_string(),
        "seed": job.seed,
        "calibration": job.calibration.map(|c| json!({ "text": c.name, "tokens": c.tokens(), "windows": c.windows.len() })),
        "bytes_before": written.bytes_before,
        "bytes_after": written.bytes_after,
        "quantized_weights": weights as u64,
        "bits_per_weight": bits / weights.max(1.0),
        "evaluation": evaluation,
        "notes": notes(&written.modules),
        "experts_without_tokens": experts_without_tokens(&written.modules),
        "modules": written.modules,
    })
}

/// What was done in another way than the scheme says, or without something: each text once, with its modules.
fn notes(modules: &[Value]) -> Vec<Value> {
    let mut notes: Vec<(String, Vec<&Value>)> = Vec::new();
    for m in modules {
        let rejected = m["rejected_rows"].as_u64().filter(|n| *n > 0);
        let rejected = rejected.map(|n| format!("{n} rows of calibration that are not finite are left out"));
        for text in m["note"].as_str().map(str::to_owned).into_iter().chain(rejected) {
            match notes.iter_mut().find(|(known, _)| *known == text) {
                Some((_, names)) => names.push(&m["name"]),
                None => notes.push((text, vec![&m["name"]])),
            }
        }
    }
    notes.into_iter().map(|(text, modules)| json!({ "note": text, "modules": modules })).collect()
}

/// Of each layer with experts that no token of calibration went to: those, and how many there are.
fn experts_without_tokens(modules: &[Value]) -> Vec<Value> {
    let mut layers: BTreeMap<u64, (BTreeSet<u64>, u64)> = BTreeMap::new();
    for m in modules {
        let (Some(layer), Some(expert)) = (m["layer"].as_u64(), m["expert"].as_u64()) else { continue };
        let (without, count) = layers.entry(layer).or_default();
        *count = (*count).max(expert + 1);
        if m["tokens"] == 0 {
            without.insert(expert);
        }
    }
    let lacking = layers.into_iter().filter(|(_, (without, _))| !without.is_empty());
    lacking.map(|(layer, (experts, of))| json!({ "layer": layer, "experts": experts, "of": of })).collect()
}

/// The notes of a report, a line each.
fn note_lines(report: &Value) -> Vec<String> {
    let without = report["experts_without_tokens"].as_array().into_iter().flatten().map(|layer| {
        let experts: Vec<String> =
            layer["experts"].as_array().into_iter().flatten().map(Value::to_string).collect();
        format!(
            "layer {}: no token of calibration went to {} of {} experts, whose weights are rounded to nearest: {}",
            layer["layer"],
            experts.len(),
            layer["of"],
            experts.join(", ")
        )
    });
    let line = |note: &Value| {
        let names: Vec<&str> =
            note["modules"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
        let first = names.first().copied().unwrap_or_default();
        format!("{}: {first}{more}", note["note"].as_str().unwrap_or_default())
    };
    report["notes"].as_array().into_iter().flatten().map(line).chain(without).collect()
}

/// The part of the report about predictions.
pub fn evaluation(text: &Calibration, c: &Comparison) -> Value {
    json!({
        "text": format!("part of {} that was held out", text.name),
        "tokens": c.model.token_nll.len(),
        "perplexity": c.model.perplexity,
        "reference_perplexity": c.reference.perplexity,
        "perplexity_ratio": c.model.perplexity / c.reference.perplexity,
        "kl_per_token": c.kl,
        "same_top_token": c.same_top,
    })
}

fn megabytes(value: &Value) -> String {
    format!("{:.2} MB", value.as_f64().unwrap_or(0.0) / 1e6)
}

/// Rows of the summary: what, before, after.
fn rows(report: &Value) -> Vec<[String; 3]> {
    let fixed = |v: &Value, digits: usize| v.as_f64().map_or_else(String::new, |v| format!("{v:.digits$}"));
    let mut rows = vec![
        ["weights".into(), megabytes(&report["bytes_before"]), megabytes(&report["bytes_after"])],
        [
            "bits per weight of the matrices of layers".into(),
            String::new(),
            fixed(&report["bits_per_weight"], 3),
        ],
    ];
    let e = &report["evaluation"];
    if e.is_object() {
        rows.push([
            format!("perplexity ({} tokens held out)", e["tokens"]),
            fixed(&e["reference_perplexity"], 4),
            fixed(&e["perplexity"], 4),
        ]);
        rows.push(["ratio of perplexities".into(), String::new(), fixed(&e["perplexity_ratio"], 4)]);
        rows.push([
            "KL(before || after), nats per token".into(),
            String::new(),
            fixed(&e["kl_per_token"], 6),
        ]);
        rows.push(["same most likely token".into(), String::new(), fixed(&e["same_top_token"], 4)]);
    }
    for (key, what) in
        [("weight_sqnr_db", "weights"), ("input_sqnr_db", "inputs"), ("output_sqnr_db", "outputs")]
    {
        // Inputs that are not rounded have no noise.
        let known = modules(report).iter().filter_map(|m| m[key].as_f64());
        let mut values: Vec<f64> = known.filter(|db| *db < EXACT_DB).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(least), Some(median)) = (values.first(), values.get(values.len() / 2)) {
            let text = format!("{least:.1} / {median:.1} dB");
            rows.push([format!("SQNR of {what}, least / median"), String::new(), text]);
        }
    }
    rows
}

/// What the numerics give for no noise at all.
const EXACT_DB: f64 = 200.0;

fn modules(report: &Value) -> &[Value] {
    report["modules"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// The summary as text.
pub fn table(report: &Value) -> String {
    let rows = rows(report);
    let width = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (a, b, c) = (width(0), width(1).max(6), width(2).max(5));
    let mut out = format!("{:<a$}  {:>b$}  {:>c$}\n", "", "before", "after");
    for [what, before, after] in &rows {
        let _ = writeln!(out, "{what:<a$}  {before:>b$}  {after:>c$}");
    }
    for line in note_lines(report) {
        let _ = writeln!(out, "note: {line}");
    }
    out
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The report as a page without scripts: the summary, and bars of the ratios of signal to noise of each matrix.
pub fn page(report: &Value) -> String {
    const ROW: usize = 18;
    const LEFT: usize = 330;
    const WIDTH: usize = 420;
    const FULL: f64 = 60.0;
    const BARS: [(&str, &str, &str); 3] = [
        ("weight_sqnr_db", "weights", "#1f6feb"),
        ("input_sqnr_db", "inputs", "#2da44e"),
        ("output_sqnr_db", "outputs", "#d1242f"),
    ];
    let modules = modules(report);
    let mut bars = String::new();
    for (i, m) in modules.iter().enumerate() {
        let y = ROW * (i + 1);
        let name = escape(m["name"].as_str().unwrap_or_default());
        let _ = write!(bars, r#"<text x="{}" y="{}" text-anchor="end">{name}</text>"#, LEFT - 8, y + 11);
        for (j, (key, what, colour)) in BARS.iter().enumerate() {
            let Some(db) = m[key].as_f64() else { continue };
            let width = (db / FULL).clamp(0.0, 1.0) * WIDTH as f64;
            let _ = write!(
                bars,
                r#"<rect x="{LEFT}" y="{}" width="{width:.1}" height="4" fill="{colour}"><title>{name}, {what}: {db:.2} dB</title></rect>"#,
                y + 2 + 5 * j
            );
        }
    }
    let height = ROW * (modules.len() + 2);
    for db in (0..=FULL as usize).step_by(10) {
        let x = LEFT + db * WIDTH / FULL as usize;
        let _ = write!(
            bars,
            r##"<line x1="{x}" y1="{ROW}" x2="{x}" y2="{height}" stroke="#ccc"/><text x="{x}" y="12" text-anchor="middle">{db} dB</text>"##
        );
    }
    let mut summary = String::new();
    for [what, before, after] in rows(report) {
        let _ = write!(summary, "<tr><td>{}<td>{}<td>{}", escape(&what), escape(&before), escape(&after));
    }
    let mut details = String::new();
    for m in modules {
        let db = |key: &str| m[key].as_f64().map_or_else(String::new, |v| format!("{v:.2}"));
        let text = |key: &str| escape(m[key].as_str().unwrap_or_default());
        let _ = write!(
            details,
            "<tr><td>{}<td>{} × {}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}",
            text("name"),
            m["rows"],
            m["columns"],
            text("format"),
            text("activation"),
            text("transform"),
            db("weight_sqnr_db"),
            db("input_sqnr_db"),
            db("output_sqnr_db"),
            db("amax_over_rms_before"),
            db("amax_over_rms_after"),
        );
    }
    let mut notes = String::new();
    for line in note_lines(report) {
        let _ = write!(notes, "<p>Note: {}.</p>", escape(&line));
    }
    let legend: Vec<String> = BARS
        .iter()
        .map(|(_, what, colour)| format!(r#"<span style="color:{colour}">&#9632;</span> {what}"#))
        .collect();
    let calibration = match &report["calibration"] {
        Value::Null => "no calibration".to_owned(),
        c => format!("calibrated with {} tokens of {}", c["tokens"], c["text"].as_str().unwrap_or_default()),
    };
    format!(
        r#"<!doctype html><meta charset="utf-8"><title>girih quantize</title>
<style>body{{font:14px sans-serif;margin:2em}}td,th{{padding:2px 10px;text-align:right}}td:first-child{{text-align:left}}svg text{{font-size:11px}}</style>
<h1>{}</h1><p>Scheme {}, seed {}, {}. Head, embeddings, norms and biases are as before.</p>
<table><tr><th><th>before<th>after{summary}</table>{notes}
<h2>Signal to quantisation noise</h2><p>{}. Longer is better; bars end at {FULL} dB.</p>
<svg viewBox="0 0 {} {height}" width="{}" role="img" aria-label="signal to noise of each matrix">{bars}</svg>
<h2>Matrices</h2>
<table><tr><th>module<th>shape<th>format<th>activation<th>transform<th>weights dB<th>inputs dB<th>outputs dB<th>max/rms before<th>after{details}</table>
"#,
        escape(report["model"].as_str().unwrap_or_default()),
        escape(report["scheme"].as_str().unwrap_or_default()),
        report["seed"],
        escape(&calibration),
        legend.join(", "),
        LEFT + WIDTH + 30,
        LEFT + WIDTH + 30,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summary_and_page() {
        let module = json!({ "name": "a<b", "rows": 2, "columns": 64, "format": "int4-g32-f16-z8", "activation": "float",
            "transform": "none", "bits_per_weight": 4.5, "weight_sqnr_db": 20.0, "input_sqnr_db": null,
            "output_sqnr_db": 18.5 });
        let noted = |name: &str| json!({ "name": name, "rejected_rows": 3, "note": "not < rotated" });
        let notes =
            notes(&[noted("a<b"), json!({ "name": "b", "rejected_rows": 0, "note": null }), noted("c")]);
        assert_eq!(notes[0], json!({ "note": "not < rotated", "modules": ["a<b", "c"] }));
        assert!(notes.len() == 2 && notes[1]["note"].as_str().is_some_and(|n| n.starts_with("3 rows")));
        let report = json!({ "model": "m", "notes": notes, "scheme": "w4a16", "seed": 0, "calibration": null, "bytes_before": 2e6,
            "bytes_after": 1e6, "bits_per_weight": 4.5, "evaluation": { "tokens": 9, "perplexity": 2.5,
            "reference_perplexity": 2.0, "perplexity_ratio": 1.25, "kl_per_token": 0.01, "same_top_token": 0.9 },
            "modules": [module] });
        let text = table(&report);
        for part in [
            "note: not < rotated: a<b and 1 more",
            "2.00 MB",
            "1.00 MB",
            "4.500",
            "1.2500",
            "20.0 / 20.0 dB",
            "0.010000",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("SQNR of inputs"));
        let page = page(&report);
        assert!(page.contains("Note: not &lt; rotated: a&lt;b and 1 more."));
        assert!(page.contains("a&lt;b") && !page.contains("a<b") && page.contains("<svg"));
        assert_eq!(page.matches("<title>a&lt;b").count(), 2, "a bar for each ratio that is known");
    }
}
