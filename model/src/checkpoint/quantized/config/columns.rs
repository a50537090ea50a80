//! GPTQ and AWQ: modules that are packed across rows.

use super::super::pattern::{FUEL, MAX_LEN, Pattern};
use super::super::{Gptq, Quantization, Stored};
use super::fields::Fields;
use super::modules;
use crate::LoadError;
use crate::checkpoint::table::TensorTable;

/// The modules. One of their tensors tells; one that is missing is named when they are opened.
fn packed(table: &TensorTable) -> impl Iterator<Item = &str> {
    ["qweight", "qzeros"].into_iter().flat_map(|tensor| modules(table, tensor))
}

/// Parameters of rules that say how a quantiser came to its codes.
const IDLE: [&str; 12] = [
    "sym",
    "mse",
    "damp_percent",
    "damp_auto_increment",
    "true_sequential",
    "act_group_aware",
    "mock_quantization",
    "fallback",
    "failsafe",
    "static_groups",
    "lm_head",
    "meta",
];

/// A rule of `dynamic`: the modules that it is for, and their parameters; `None`: they are not quantised.
struct Rule {
    text: String,
    pattern: Pattern,
    gptq: Option<Gptq>,
}

pub(super) fn gptq(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    let base = parameters(f, None)?;
    if f.flag("is_marlin_format")? == Some(true) {
        return Err(f.bad("is_marlin_format", "false (repacked for one kernel: convert it back)"));
    }
    let Some(dynamic) = f.object("dynamic")? else {
        found.modules.extend(packed(table).map(|m| (m.to_owned(), Stored::Gptq(base))));
        return Ok(());
    };
    let mut rules = Vec::new();
    for name in dynamic.map.keys() {
        rules.push(rule(&dynamic, name, base)?);
    }
    let mut fuel = FUEL;
    for module in packed(table) {
        // As in GPTQModel the first rule that matches counts, from the beginning of the module's name.
        let mut gptq = Some(base);
        for rule in &rules {
            if module.len() > MAX_LEN {
                let want = format!("rules for names of modules of at most {MAX_LEN} bytes");
                return Err(f.bad("dynamic", want));
            }
            match rule.pattern.matches(module, &mut fuel) {
                Some(true) => {
                    gptq = rule.gptq;
                    if gptq.is_none() {
                        let want = format!("a rule that leaves {module} out: it is stored quantised");
                        return Err(dynamic.bad(&rule.text, want));
                    }
                    break;
                }
                Some(false) => {}
                None => return Err(f.bad("dynamic", "patterns that take fewer steps to match")),
            }
        }
        found.modules.extend(gptq.map(|gptq| (module.to_owned(), Stored::Gptq(gptq))));
    }
    Ok(())
}

/// The parameters of a description or, with those that it begins from, of a rule.
fn parameters(f: &Fields<'_>, base: Option<Gptq>) -> Result<Gptq, LoadError> {
    let bits = match (f.int("bits")?, base) {
        (Some(bits @ (2 | 3 | 4 | 8)), _) => bits as u32,
        (None, Some(base)) => base.bits,
        _ => return Err(f.bad("bits", "2, 3, 4 or 8")),
    };
    let name = if f.get("checkpoint_format").is_some() { "checkpoint_format" } else { "format" };
    let v2 = match (f.text(name)?, base) {
        (None, Some(base)) => base.v2,
        (None | Some("gptq"), _) => false,
        (Some("gptq_v2"), _) => true,
        _ => return Err(f.bad(name, "gptq or gptq_v2")),
    };
    let group = match (f.get("group_size"), base) {
        (None, Some(base)) => base.group,
        _ => f.group("group_size")?,
    };
    // With static groups channels keep their places although they were quantised in another order.
    let ordered = match (f.flag("desc_act")?, base) {
        (None, Some(base)) => base.ordered,
        (order, _) => order == Some(true) && f.flag("static_groups")? != Some(true),
    };
    Ok(Gptq { bits, group, v2, ordered })
}

fn rule(dynamic: &Fields<'_>, name: &str, base: Gptq) -> Result<Rule, LoadError> {
    let (text, leaves_out) = match (name.strip_prefix("-:"), name.strip_prefix("+:")) {
        (Some(text), _) => (text, true),
        (None, Some(text)) => (text, false),
        (None, None) => (name, false),
    };
    let pattern = Pattern::parse(text)
        .ok_or_else(|| dynamic.bad(name, format!("under a simple pattern of at most {MAX_LEN} bytes")))?;
    let gptq = match dynamic.object(name)? {
        _ if leaves_out => None,
        None => Some(base),
        Some(f) => {
            const READ: [&str; 5] = ["bits", "group_size", "desc_act", "checkpoint_format", "format"];
            let other = |key: &&String| {
                let known = READ.iter().chain(&IDLE).any(|k| k == key);
                !known && !f.map[key.as_str()].is_null()
            };
            if let Some(key) = f.map.keys().find(other) {
                let want = format!("absent (rules may have {})", READ.join(", "));
                return Err(f.bad(key, want));
            }
            Some(parameters(&f, Some(base))?)
        }
    };
    Ok(Rule { text: name.to_owned(), pattern, gptq })
}

pub(super) fn awq(f: &Fields<'_>, table: &TensorTable, found: &mut Quantization) -> Result<(), LoadError> {
    if f.int("bits")?.or(f.int("w_bit")?) != Some(4) {
        return Err(f.bad("bits", "4"));
    }
    for name in ["version", "checkpoint_format", "format"] {
        if !f.text(name)?.is_none_or(|v| v.eq_ignore_ascii_case("gemm")) {
            return Err(f.bad(name, "gemm"));
        }
    }
    if f.flag("zero_point")? == Some(false) {
        return Err(f.bad("zero_point", "true"));
    }
    let name = if f.get("group_size").is_some() { "group_size" } else { "q_group_size" };
    let stored = Stored::Awq { group: f.group(name)? };
    found.modules.extend(packed(table).map(|m| (m.to_owned(), stored.clone())));
    Ok(())
}
